// The forward pass of a DecoderSpec over a ragged batch, on the op table.
//
// Memory: allocate() books one workspace for steps of at most max_tokens; run() allocates nothing that grows with them.
// The feed-forward works through the batch in pieces of kFfnRows tokens, so that its width does not multiply the
// longest prompt chunk. Ops are batch-invariant, so neither pieces nor batches change a result. Threads: one at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "kernels/ops.h"
#include "models/decoder_spec.h"
#include "models/rope.h"
#include "models/transformers/weights.h"
#include "tensor/memory.h"

namespace inferneo {

// Layers that share a block table: equal window, equal shape of keys and values.
struct KvGroup {
  int32_t window = 0;  // 0: all
  std::vector<int32_t> layers;
  kernels::KvLayout layout;
};
struct KvPlacement {  // of a layer
  int32_t group = 0;
  int32_t index = 0;  // within the group
};
struct KvPlan {
  std::vector<KvGroup> groups;
  std::vector<KvPlacement> placement;  // [layers]
};
// Windows no shorter than max_model_len count as none.
KvPlan plan_kv(const DecoderSpec& spec, DType dtype, int32_t block_size, int32_t max_model_len);

// A step's tokens, flattened: sequence after sequence.
struct ForwardBatch {
  std::span<const Token> tokens;                              // [num_tokens]
  std::span<const int32_t> positions;                         // [num_tokens]
  std::vector<std::vector<kernels::SequenceRows>> sequences;  // [groups][sequences]
};

class Forward {
 public:
  Forward(const DecoderSpec& spec, const ModelWeights& weights, const KvPlan& kv, int32_t max_model_len);

  Status allocate(MemoryLedger& ledger, const std::string& model, int32_t max_tokens, int32_t max_logit_rows,
                  int num_threads);
  std::span<std::byte> scratch() const { return {workspace_.data() + scratch_offset_, scratch_bytes_}; }

  // Computes all tokens and writes their keys and values. planes[group] is where the blocks of that group lie.
  void run(kernels::Context& context, const ForwardBatch& batch, std::span<std::byte* const> planes);
  // Hidden states of some tokens of the last run(), after the final norm. At most max_logit_rows.
  std::span<float> hidden(kernels::Context& context, std::span<const int32_t> rows);  // [rows, hidden]
  // Logits of some tokens of the last run(): rows[i] indexes the batch's tokens. At most max_logit_rows.
  std::span<float> logits(kernels::Context& context, std::span<const int32_t> rows);  // [rows, vocab]

 private:
  struct RopeTable {
    RopeFrequencies frequencies;
    float* cosines = nullptr;  // [max_tokens, rotary_dim / 2]
    float* sines = nullptr;
  };
  // The batch as the layers see it.
  struct Step {
    kernels::Context& context;
    const ForwardBatch& batch;
    std::span<std::byte* const> planes;
    int64_t num_tokens = 0;
  };

  void embed(const Step& step);
  void fill_rope_tables(const Step& step);
  void run_layer(const Step& step, size_t layer);
  void attention_block(const Step& step, size_t layer);
  void project_qkv(const Step& step, size_t layer, const float* x);
  void normalize_qk(const Step& step, size_t layer);
  void rotate_qk(const Step& step, const AttentionSpec& attention);
  void ffn_block(const Step& step, size_t layer);
  void dense_ffn(const Step& step, size_t layer, const float* x, int64_t first, int64_t rows);
  void expert_ffn(const Step& step, size_t layer, const float* x, int64_t first, int64_t rows);
  // What a block adds to the hidden states, or the residual stream itself where nothing stands in between.
  kernels::MatmulOutput residual_output(const LayerSpec& layer, bool has_post_norm, int64_t first_row) const;
  void add_residual(const Step& step, const LayerSpec& layer, const NormSpec& post_norm, const float* weight);
  const float* normalize(const Step& step, const std::optional<NormSpec>& norm, const float* weight, const float* bias);
  void apply_norm(kernels::Context& context, const NormSpec& norm, const float* weight, const float* bias,
                  const float* x, float* out, int64_t rows, int64_t dim);

  const DecoderSpec& spec_;
  const ModelWeights& weights_;
  const KvPlan& kv_;
  int32_t max_model_len_;
  std::vector<RopeTable> ropes_;

  Buffer workspace_;
  size_t scratch_offset_ = 0;
  size_t scratch_bytes_ = 0;
  float* hidden_ = nullptr;            // [max_tokens, hidden] the residual stream
  float* normed_ = nullptr;            // [max_tokens, hidden]
  float* q_ = nullptr;                 // [max_tokens, widest heads * head_dim]
  float* k_ = nullptr;                 // [max_tokens, widest kv_heads * head_dim]
  float* v_ = nullptr;                 // [max_tokens, widest kv_heads * head_dim]
  float* attended_ = nullptr;          // [max_tokens, widest heads * head_dim]
  float* branch_ = nullptr;            // [max_tokens, hidden] a block's output before its norm
  float* gate_ = nullptr;              // [ffn rows (* experts per token), intermediate]
  float* up_ = nullptr;                // [ffn rows (* experts per token), intermediate]
  float* expert_out_ = nullptr;        // [ffn rows * experts per token, hidden]
  float* router_ = nullptr;            // [ffn rows, experts]
  float* expert_weights_ = nullptr;    // [ffn rows, experts per token]
  int32_t* expert_ids_ = nullptr;      // [ffn rows, experts per token]
  int32_t* expert_slots_ = nullptr;    // [ffn rows, experts per token]
  int32_t* slot_tokens_ = nullptr;     // [ffn rows * experts per token]
  std::vector<int32_t> expert_begin_;  // [experts + 1]
  float* logit_rows_ = nullptr;        // [max_logit_rows, hidden]
  float* logits_ = nullptr;            // [max_logit_rows, vocab]
};

}  // namespace inferneo
