// The forward pass of a DecoderSpec over a ragged batch, on a GPU. The arithmetic is that of
// models/transformers/forward.h: the residual stream, norms, attention's sums and logits in f32, inputs of bf16 weights
// rounded to bf16 once.
//
// Memory: allocate() books one workspace for steps of at most max_tokens; run() allocates nothing. Everything is
// launched on the stream of the Ops and nothing waits. run() launches the same kernels with the same arguments for the
// same StepShape, and reads lengths, tables and tokens from device memory: so it can be captured once and replayed.
// Threads: one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "kernels/cuda/ops.h"
#include "models/cuda/device_kv.h"
#include "models/cuda/device_weights.h"
#include "models/decoder_spec.h"
#include "models/rope.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {

// A step's data on the device.
struct DeviceBatch {
  const int32_t* tokens = nullptr;       // [rows], or references to `sampled`
  const int32_t* sampled = nullptr;      // tokens that earlier steps chose
  const int32_t* positions = nullptr;    // [rows]; -1: a row that only fills the batch
  const int32_t* sequence_of = nullptr;  // [rows]
  const int32_t* tables = nullptr;       // of all groups
  struct Group {
    const int32_t* table_begin = nullptr;  // [sequences]
    const int32_t* counts = nullptr;       // {decode items, prefill items}
    const AttentionItem* decode = nullptr;
    const AttentionJob* jobs = nullptr;
    const AttentionItem* prefill = nullptr;
    uint8_t* plane = nullptr;
    int32_t decode_blocks = 0;  // that walk through the items; 0: none are launched
    int32_t prefill_blocks = 0;
  };
  std::vector<Group> groups;
  int32_t rows = 0;
};

// Half of a layer: what it adds to the residual stream is a product whose inputs ranks share (sharding.h).
enum class LayerHalf : uint8_t { attention, feed_forward };

class DeviceForward {
 public:
  // `rank`: of those that share the model. What the others add to the residual stream is without the stream itself.
  DeviceForward(const DecoderSpec& spec, const DeviceWeights& weights, const DeviceKvPlan& kv, int32_t max_model_len,
                int32_t rank = 0);

  // What allocate() books.
  size_t workspace_bytes(int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows) const;
  Status allocate(std::shared_ptr<Device> device, MemoryLedger& ledger, const std::string& model, CuStream stream,
                  int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows);

  Status run(Ops& ops, const DeviceBatch& batch);
  // run() in pieces, for ranks that go in step: begin(); for each layer and half of it add_half(), then, once the sum
  // over all ranks stands in shared_sum() of each, finish_half().
  Status begin(Ops& ops, const DeviceBatch& batch);
  Status add_half(Ops& ops, const DeviceBatch& batch, size_t layer, LayerHalf half);
  float* shared_sum(size_t layer, LayerHalf half) const;  // [batch.rows, hidden]
  Status finish_half(Ops& ops, const DeviceBatch& batch, size_t layer, LayerHalf half);
  // Logits of rows row_index[0 .. rows) of the last run(), at most max_logit_rows: [rows, vocab].
  Status logits(Ops& ops, const int32_t* row_index, int32_t rows);
  float* logits_data() const { return logits_; }
  size_t num_layers() const { return spec_.layers.size(); }
  int32_t hidden_size() const { return spec_.hidden_size; }

 private:
  struct Rope {
    RopeFrequencies frequencies;
    float* inverse = nullptr;  // [half]
    float* cosines = nullptr;  // [max_tokens, half]
    float* sines = nullptr;
  };
  struct Widths;
  class Carver;
  Widths measure() const;
  size_t carve(std::byte* base, int32_t max_tokens, int32_t max_seqs, int32_t max_logit_rows);

  Status rope_tables(Ops& ops, const DeviceBatch& batch);
  Status attention_block(Ops& ops, const DeviceBatch& batch, size_t layer);
  Status attend(Ops& ops, const DeviceBatch& batch, size_t layer, int64_t qkv_width, Elem out_elem);
  Status ffn_block(Ops& ops, const DeviceBatch& batch, size_t layer);
  Status dense_ffn(Ops& ops, size_t layer, const std::byte* x, int32_t first, int32_t rows);
  Status expert_ffn(Ops& ops, size_t layer, int32_t first, int32_t rows);
  // The input of a product: the hidden states, normed where the layer says so.
  Status operand(Ops& ops, const std::optional<NormSpec>& norm, const float* weight, const float* bias, Elem elem,
                 int32_t rows, std::byte* out);
  const std::optional<NormSpec>& post_norm(size_t layer, LayerHalf half) const;
  // A product into the residual stream, or into branch_ where a norm stands in between.
  MatmulArgs into_residual(size_t layer, LayerHalf half, int32_t first) const;
  Status add_branch(Ops& ops, const LayerSpec& layer, const NormSpec& post_norm, const float* weight, int32_t rows);

  const DecoderSpec& spec_;
  const DeviceWeights& weights_;
  const DeviceKvPlan& kv_;
  const bool has_residual_;  // rank 0
  std::vector<Rope> ropes_;
  DeviceBuffer workspace_;

  int32_t ffn_rows_ = 0;
  float* hidden_ = nullptr;              // [max_tokens, hidden]
  std::byte* operand_ = nullptr;         // [max_tokens, padded hidden] of at most f32
  std::byte* router_operand_ = nullptr;  // the same in f32, for routers
  float* qkv_ = nullptr;                 // [max_tokens, widest q + k + v]
  std::byte* attended_ = nullptr;        // operand [max_tokens, padded q width]
  float* branch_ = nullptr;              // [max_tokens, hidden]
  float* gate_up_ = nullptr;             // [ffn rows (* experts per token), 2 intermediate]
  std::byte* act_ = nullptr;             // operand [ffn rows (* experts per token), padded intermediate]
  float* expert_out_ = nullptr;          // [ffn rows * experts per token, hidden]
  float* router_ = nullptr;              // [ffn rows, experts]
  float* expert_weights_ = nullptr;
  int32_t* expert_ids_ = nullptr;
  int32_t* expert_slots_ = nullptr;
  int32_t* slot_tokens_ = nullptr;
  int32_t* expert_begin_ = nullptr;
  float* partials_ = nullptr;  // of split attention
  int64_t partial_stride_ = 0;
  int32_t* arrived_ = nullptr;
  std::byte* logit_operand_ = nullptr;  // [max_logit_rows, padded hidden]
  float* logits_ = nullptr;             // [max_logit_rows, vocab]
};

}  // namespace inferneo::cuda
