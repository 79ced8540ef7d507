// Which block computes which piece of a step's attention. Pure; made on the host for every step, read by the kernels as
// data, so that a captured graph serves any lengths.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/cuda/args.h"

namespace inferneo::cuda {

// The tokens of one sequence in this step.
struct AttentionRows {
  int32_t position = 0;
  int32_t row = 0;
  int32_t num_tokens = 0;
};

// Shared memory of a block of the tensor-core kernels.
int32_t attention_shared_bytes(int32_t head_dim, Elem elem, bool decode);

struct AttentionShape {
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t window = 0;
  Elem elem = Elem::bf16;
  int32_t multiprocessors = 1;
  bool invariant = false;            // a row's bits do not depend on what else is in the step: nothing is split
  int32_t shared_bytes = 227 << 10;  // that a block of this GPU may have

  int32_t group() const { return num_heads / num_kv_heads; }
  // Whether the tensor-core kernels take it.
  bool has_tiles() const {
    return (elem == Elem::bf16 || is_byte(elem)) && head_dim <= kMaxHeadDim && group() <= kPrefillRows &&
           attention_shared_bytes(head_dim, elem, false) <= shared_bytes;
  }
  // Where the kernel for decoding has no room, the one for prompts takes its rows.
  bool has_decode_tiles() const { return !invariant && attention_shared_bytes(head_dim, elem, true) <= shared_bytes; }
};

struct AttentionPlan {
  std::vector<AttentionItem> decode;
  std::vector<AttentionJob> jobs;  // of split decode items; first_item counts in `decode`
  std::vector<AttentionItem> prefill;

  void clear() {
    decode.clear();
    jobs.clear();
    prefill.clear();
  }
};

// Long contexts of few sequences are split until every multiprocessor has work, at multiples of kAttentionTile, never
// below kLeastSplitTokens. Nothing at all when the shape has no tiles.
inline constexpr int32_t kLeastSplitTokens = 256;
void plan_attention(const AttentionShape& shape, std::span<const AttentionRows> sequences, AttentionPlan& plan);

// The most items that a step of max_seqs sequences and max_tokens tokens can have.
struct AttentionLimits {
  int32_t decode_items = 0;
  int32_t jobs = 0;
  int32_t prefill_items = 0;
};
AttentionLimits attention_limits(const AttentionShape& shape, int32_t max_seqs, int32_t max_tokens);

}  // namespace inferneo::cuda
