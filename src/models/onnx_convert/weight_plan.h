// Which initializers a graph has, where each lies in the data file and how its bytes follow from the checkpoint.
//
// The emitter asks for weights by role; each question adds the tensors to the graph and a job to the plan, or names
// what an earlier one has added (tied embeddings). Writing comes later (weight_writer.h), job by job, with every size
// known. Plain data, one thread.
#pragma once

#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "formats/onnx/data_file.h"
#include "formats/onnx/onnx_proto.h"
#include "models/decoder_spec.h"

namespace inferneo {

// How a quantised matrix is kept: integers of so many bits, and so many inputs to a scale.
struct BlockForm {
  int bits = 0;  // 4 or 8; 0: it is not quantised
  int block = 0;
};

// Matrices are W [N = outputs, K = inputs], as in a DecoderSpec; several that share an input are stacked along N.
struct WeightJob {
  enum class Form : uint8_t {
    rows,           // [N, K] values
    columns,        // [K, N] values
    blocks,         // MatMulNBits: [N, blocks, block bytes], scales [N, blocks], zero points [N, bytes of 4 bits each]
    block_columns,  // DequantizeLinear on axis 0: [K, N], scales and zero points [blocks, N]
    vector,         // [N] values
    rope,           // values: cos, scales: sin; [positions, rotary_dim / 2]
  };
  Form form = Form::rows;
  OnnxType type = OnnxType::f32;  // f32 or f16: of values, or of scales where there are blocks
  int bits = 0;                   // of a block's integers: 4 or 8
  int block = 0;                  // inputs that share a scale
  std::vector<size_t> pieces;     // indices into DecoderSpec::tensors
  int64_t rows = 0;               // N; of rope: positions
  int64_t cols = 0;               // K; of rope: rotary_dim / 2
  float offset = 0.0F;            // added to a vector
  size_t rope = 0;                // index into DecoderSpec::ropes
  OnnxTensor::Range values;
  OnnxTensor::Range scales;
  OnnxTensor::Range zero_points;  // empty: none

  int64_t blocks() const { return (cols + block - 1) / block; }
};

// A weight by its place in a spec.
struct WeightKey {
  int32_t layer = -1;
  TensorRole role = TensorRole::token_embedding;
  int32_t expert = -1;
  auto tie() const { return std::tie(layer, role, expert); }
  bool operator<(const WeightKey& other) const { return tie() < other.tie(); }
};

// Names of initializers.
struct BlockedNames {
  std::string values;
  std::string scales;
  std::string zero_points;  // empty: 2^(bits - 1) for all
};
struct RopeNames {
  std::string cosines;
  std::string sines;
};

class WeightPlan {
 public:
  // The spec outlives the plan; max_positions: of rope tables.
  WeightPlan(const DecoderSpec& spec, OnnxGraph& graph, int32_t max_positions);

  bool has(const WeightKey& key) const { return bindings_.contains(key); }
  std::string vector(const std::string& name, const WeightKey& key, OnnxType type, float offset = 0.0F);
  // The same for vectors that stand one behind the other.
  std::string stacked_vector(const std::string& name, const std::vector<WeightKey>& keys, OnnxType type);
  std::string rows(const std::string& name, const WeightKey& key, OnnxType type);
  std::string columns(const std::string& name, const std::vector<WeightKey>& keys, OnnxType type);
  BlockedNames blocks(const std::string& name, const std::vector<WeightKey>& keys, OnnxType scale_type, BlockForm form);
  BlockedNames block_columns(const std::string& name, const std::vector<WeightKey>& keys, OnnxType scale_type,
                             BlockForm form);
  // Blocks of 8 bits with a row of values [N, K] for each output, to be looked up; K is a multiple of `block`.
  BlockedNames block_rows(const std::string& name, const WeightKey& key, OnnxType scale_type, int block);
  // The bytes of a tensor under another shape: a second tensor over the same range of the file.
  std::string alias(const std::string& name, const std::string& of, std::vector<int64_t> dims);
  RopeNames rope(int32_t index, OnnxType type);

  int64_t outputs(const std::vector<WeightKey>& keys) const;
  int64_t inputs(const WeightKey& key) const;
  const std::vector<WeightJob>& jobs() const { return jobs_; }
  uint64_t data_bytes() const { return file_.size(); }

 private:
  WeightJob job(WeightJob::Form form, const std::vector<WeightKey>& keys, OnnxType type) const;
  OnnxTensor::Range tensor(const std::string& name, OnnxType type, std::vector<int64_t> dims);

  const DecoderSpec& spec_;
  OnnxGraph& graph_;
  const int32_t max_positions_;
  std::map<WeightKey, size_t> bindings_;  // -> index into spec_.tensors
  std::map<int32_t, RopeNames> ropes_;
  std::vector<WeightJob> jobs_;
  DataFilePlan file_;
};

}  // namespace inferneo
