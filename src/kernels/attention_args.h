// Arguments of paged attention over a ragged batch: causal, grouped queries, sliding window, logit soft-cap.
//
// Invariance: the context is cut at absolute positions into splits of kAttentionSplit tokens. A row's softmax and sums
// are formed split by split and merged in ascending order, whichever thread did a split and whichever rows shared a
// tile, so a row's result depends on its query, its position and the cache only. Numerics: with a bf16 cache queries
// and softmax weights are rounded to bf16 before their products; sums are f32.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/kv_layout.h"

namespace inferneo::kernels {

inline constexpr int32_t kAttentionSplit = 256;  // tokens
inline constexpr int32_t kAttentionRows = 32;    // (query, head) rows of a tile, unless one query has more heads

// The tokens of one sequence in this step: rows row .. row + num_tokens of q, k, v and out.
struct SequenceRows {
  const int32_t* block_table = nullptr;  // [blocks]; freed blocks of windowed groups are -1 and are not read
  int32_t position = 0;                  // of the first token
  int32_t row = 0;
  int32_t num_tokens = 0;
};

struct KvWriteArgs {
  const float* k = nullptr;  // [num_tokens, num_kv_heads, head_dim]
  int64_t k_stride = 0;
  const float* v = nullptr;  // [num_tokens, num_kv_heads, head_dim]
  int64_t v_stride = 0;
  KvLayout layout;
  std::byte* plane = nullptr;
  int32_t layer = 0;  // within the group
  std::span<const SequenceRows> sequences;
};

struct AttentionArgs {
  const float* q = nullptr;  // [num_tokens, num_heads, head_dim]
  int64_t q_stride = 0;
  float* out = nullptr;  // [num_tokens, num_heads, head_dim]
  int64_t out_stride = 0;
  int32_t num_heads = 0;  // a multiple of layout.num_kv_heads
  KvLayout layout;
  const std::byte* plane = nullptr;
  int32_t layer = 0;
  float scale = 1.0F;    // of q.k
  float softcap = 0.0F;  // 0: none
  int32_t window = 0;    // a token sees itself and window - 1 before it; 0: all
  std::span<const SequenceRows> sequences;
};

// One piece of work: num_queries tokens of a sequence, the query heads of one key/value head, splits [begin, end).
// partial: null: the splits are merged and normalised into out; else split s is left at
// partial + (s - first_split) * rows * (head_dim + 2) as rows of {max, sum, acc[head_dim]}, rows = num_queries * group.
struct AttentionItem {
  const SequenceRows* sequence = nullptr;
  int32_t query_begin = 0;  // token within the sequence's rows of this step
  int32_t num_queries = 0;
  int32_t kv_head = 0;
  int32_t split_begin = 0;
  int32_t split_end = 0;
  float* partial = nullptr;
};

// The splits that the rows of a tile look at.
[[gnu::always_inline]] inline int32_t first_split(const AttentionArgs& args, const AttentionItem& item) {
  const int32_t position = item.sequence->position + item.query_begin;
  return args.window > 0 && position >= args.window ? (position - args.window + 1) / kAttentionSplit : 0;
}
[[gnu::always_inline]] inline int32_t end_split(const AttentionItem& item) {
  return (item.sequence->position + item.query_begin + item.num_queries - 1) / kAttentionSplit + 1;
}
// f32 values of scratch that a thread needs for one item.
inline size_t attention_item_scratch(int32_t rows, int32_t head_dim) {
  const size_t row = 3 * (static_cast<size_t>(head_dim) + 16) + static_cast<size_t>(kAttentionSplit) + 64;
  return static_cast<size_t>(rows + 8) * row;
}

}  // namespace inferneo::kernels
