#include "models/cuda/sharding.h"

#include <fmt/format.h>

#include "kernels/packed_matrix.h"

namespace inferneo::cuda {
namespace {

constexpr const char* kSetting = "tensor_parallel_size";

Status check_divides(int32_t count, int32_t size, const char* what) {
  if (count % size == 0) return ok_status();
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("{} {} cannot be shared equally by tensor_parallel_size {} GPUs; take a number that divides {}",
                  count, what, size, count),
      kSetting);
}

// What one rank multiplies with the columns that it keeps of attention_output or down.
Status check_groups(int32_t inputs, int32_t size, const char* what) {
  if (inputs / size % kernels::kQuantGroup == 0) return ok_status();
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("tensor_parallel_size {} leaves {} inputs of {} to each GPU, and quantised weights are "
                                "cut between groups of {}; take fewer GPUs, or quantization none",
                                size, inputs / size, what, kernels::kQuantGroup),
                    kSetting);
}

// A bias behind the sum of all ranks.
bool is_added_once(TensorRole role) {
  return role == TensorRole::attention_output_bias || role == TensorRole::down_bias;
}
// Of logits alone.
bool is_of_logits(TensorRole role) {
  return role == TensorRole::lm_head || role == TensorRole::final_norm || role == TensorRole::final_norm_bias;
}
bool is_split_by_columns(TensorRole role) { return role == TensorRole::attention_output || role == TensorRole::down; }
bool is_split_by_rows(TensorRole role) {
  switch (role) {
    case TensorRole::q:
    case TensorRole::q_bias:
    case TensorRole::k:
    case TensorRole::k_bias:
    case TensorRole::v:
    case TensorRole::v_bias:
    case TensorRole::gate:
    case TensorRole::gate_bias:
    case TensorRole::up:
    case TensorRole::up_bias:
      return true;
    default:
      return false;
  }
}

}  // namespace

Status check_sharding(const DecoderSpec& spec, int32_t size, Quantization quantization) {
  if (size == 1) return ok_status();
  for (const LayerSpec& layer : spec.layers) {
    const AttentionSpec& a = layer.attention;
    RETURN_IF_ERROR(check_divides(a.num_heads, size, "heads"));
    RETURN_IF_ERROR(check_divides(a.num_kv_heads, size, "key-value heads"));
    RETURN_IF_ERROR(check_divides(layer.ffn.intermediate, size,
                                  layer.ffn.num_experts > 0 ? "hidden units of an expert"
                                                            : "hidden units of the feed-forward (intermediate_size)"));
    if (a.qk_norm == QkNorm::full_width) {
      return make_error(ErrorCode::unsupported,
                        fmt::format("{} norms queries and keys over all heads at once, which several GPUs cannot do "
                                    "yet; leave tensor_parallel_size at 1",
                                    spec.architecture),
                        kSetting);
    }
    if (quantization == Quantization::none) continue;
    RETURN_IF_ERROR(check_groups(a.num_heads * a.head_dim, size, "attention's output"));
    RETURN_IF_ERROR(check_groups(layer.ffn.intermediate, size, "the feed-forward's output"));
  }
  return ok_status();
}

Shard make_shard(const DecoderSpec& spec, Rank rank) {
  Shard shard{spec, {}};
  shard.spec.tensors.clear();
  for (LayerSpec& layer : shard.spec.layers) {
    layer.attention.num_heads /= rank.size;
    layer.attention.num_kv_heads /= rank.size;
    layer.ffn.intermediate /= rank.size;
  }
  for (size_t i = 0; i < spec.tensors.size(); ++i) {
    const TensorBinding& whole = spec.tensors[i];
    if (rank.index > 0 && (is_added_once(whole.role) || is_of_logits(whole.role))) continue;
    TensorSlice slice{i, 0, whole.rows, 0, whole.cols};
    if (is_split_by_rows(whole.role)) {
      slice.rows /= rank.size;
      slice.row_begin = rank.index * slice.rows;
    } else if (is_split_by_columns(whole.role)) {
      slice.cols /= rank.size;
      slice.col_begin = rank.index * slice.cols;
    }
    shard.slices.push_back(slice);
  }
  return shard;
}

}  // namespace inferneo::cuda
