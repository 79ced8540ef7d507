#include "models/cuda/weight_layout.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/quant_repack.h"
#include "kernels/quantize.h"
#include "models/transformers/bound_tensors.h"
#include "models/transformers/weights.h"

namespace inferneo::cuda {
namespace {

constexpr int64_t kAlignment = 256;  // of a stack

// Biases are stacked as their matrices are.
TensorRole first_role(TensorRole role) {
  switch (role) {
    case TensorRole::k_bias:
    case TensorRole::v_bias:
      return TensorRole::q_bias;
    case TensorRole::up_bias:
      return TensorRole::gate_bias;
    default:
      return stack_of(role);
  }
}

// Behind the beginning of its expert, or of the stack: q, k, v; gate, up. `spec`: of the rank.
int64_t row_within(const DecoderSpec& spec, const TensorBinding& binding) {
  if (binding.layer < 0) return 0;
  const LayerSpec& layer = spec.layers[static_cast<size_t>(binding.layer)];
  const int64_t q = int64_t{layer.attention.num_heads} * layer.attention.head_dim;
  const int64_t kv = int64_t{layer.attention.num_kv_heads} * layer.attention.head_dim;
  switch (binding.role) {
    case TensorRole::k:
    case TensorRole::k_bias:
      return q;
    case TensorRole::v:
    case TensorRole::v_bias:
      return q + kv;
    case TensorRole::up:
    case TensorRole::up_bias:
      return layer.ffn.gated ? layer.ffn.intermediate : 0;
    default:
      return 0;
  }
}

void write_value(std::byte* row, DType dtype, int64_t i, float value) {
  if (dtype == DType::bf16) {
    reinterpret_cast<uint16_t*>(row)[i] = f32_to_bf16(value);
  } else if (dtype == DType::f16) {
    reinterpret_cast<uint16_t*>(row)[i] = f32_to_f16(value);
  } else {
    reinterpret_cast<float*>(row)[i] = value;
  }
}

// The source as it is stored, into rows of the device's stride.
void write_rows(const WeightPiece& piece, std::byte* out) {
  const WeightStack& stack = *piece.stack;
  const TensorBinding& from = *piece.part->binding;
  const SafetensorsTensor& tensor = *piece.part->tensor;
  const TensorSlice& slice = piece.part->slice;
  const int64_t row_bytes = stack.unit_bytes();
  const int64_t cols = std::max<int64_t>(1, stack.cols);
  const int64_t source_cols = std::max<int64_t>(1, from.cols);
  const int64_t first_row = from.row_begin + slice.row_begin;
  const int64_t size = static_cast<int64_t>(dtype_size(tensor.dtype));
  const bool plain = !from.transposed && tensor.dtype == stack.format.dtype;
  if (plain && cols == source_cols && cols * size == row_bytes) {
    std::memcpy(out, tensor.bytes.data() + (first_row + piece.begin) * row_bytes, piece.bytes());
    return;
  }
  std::memset(out, 0, piece.bytes());
  for (int64_t r = piece.begin; r < piece.end; ++r) {
    std::byte* row = out + (r - piece.begin) * row_bytes;
    const int64_t source = first_row + r;
    if (plain) {
      std::memcpy(row, tensor.bytes.data() + (source * source_cols + slice.col_begin) * size,
                  static_cast<size_t>(cols * size));
      continue;
    }
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t from_col = slice.col_begin + c;
      const int64_t at = from.transposed ? from_col * from.source_rows + source : source * source_cols + from_col;
      write_value(row, stack.format.dtype, c, read_element(tensor, at));
    }
  }
}

// The part that has a row of its stack; null for a row that only fills a panel.
const WeightStack::Part* part_of(const WeightStack& stack, int64_t row) {
  const auto behind = std::upper_bound(stack.parts.begin(), stack.parts.end(), row,
                                       [](int64_t wanted, const auto& part) { return wanted < part.dest_row; });
  if (behind == stack.parts.begin()) return nullptr;
  const WeightStack::Part& part = *std::prev(behind);
  return row - part.dest_row < part.slice.rows ? &part : nullptr;
}

// All columns of a row of the slice, whichever of them it keeps.
void read_row(const WeightStack::Part& part, int64_t row, std::vector<float>& values) {
  const kernels::WeightView from = source_view(*part.binding, *part.tensor);
  const int64_t first = (part.binding->row_begin + part.slice.row_begin + row) * from.row_stride;
  const auto read_all = [&](auto read) {
    for (size_t c = 0; c < values.size(); ++c) values[c] = read(first + static_cast<int64_t>(c) * from.col_stride);
  };
  if (from.dtype == DType::bf16) {
    read_all([data = static_cast<const uint16_t*>(from.data)](int64_t i) { return bf16_to_f32(data[i]); });
  } else if (from.dtype == DType::f16) {
    read_all([data = static_cast<const uint16_t*>(from.data)](int64_t i) { return f16_to_f32(data[i]); });
  } else {
    read_all([data = static_cast<const float*>(from.data)](int64_t i) { return data[i]; });
  }
}

// Quantised as the host does it, a panel of whole rows at a time; then what the rank keeps of them is put in the order
// of the device. A channel's unit comes from its whole row, so the codes of all ranks are those of one.
Status write_panels(const WeightPiece& piece, Quantization quantization, std::byte* out) {
  const WeightStack& stack = *piece.stack;
  const int64_t source_cols = stack.parts[0].binding->cols;
  const kernels::PackedView shape{nullptr, stack.format.dtype, kQuantPanel, source_cols, stack.format.scheme};
  std::vector<std::byte> packed(shape.panel_bytes());
  kernels::PackedView view = shape;
  view.data = packed.data();
  std::vector<float> values(static_cast<size_t>(source_cols));
  for (int64_t panel = piece.begin; panel < piece.end; ++panel) {
    std::fill(packed.begin(), packed.end(), std::byte{0});
    for (int64_t r = 0; r < kQuantPanel; ++r) {
      const WeightStack::Part* part = part_of(stack, panel * kQuantPanel + r);
      if (part == nullptr) continue;
      read_row(*part, panel * kQuantPanel + r - part->dest_row, values);
      if (!kernels::quantize_row(values.data(), view, r, packed.data())) {
        return not_finite_error(part->tensor->name, quantization);
      }
    }
    repack_panel(view, 0, {stack.parts[0].slice.col_begin, stack.cols},
                 out + (panel - piece.begin) * stack.unit_bytes());
  }
  return ok_status();
}

}  // namespace

QuantPanels WeightStack::panels() const { return {cols, elem_of(format)}; }

int64_t WeightStack::unit_bytes() const {
  if (cols == 0) return sizeof(float);
  return quantised() ? panels().panel_bytes() : padded_cols(cols) * elem_bytes(elem_of(format));
}

WeightPlacement::WeightPlacement(const DecoderSpec& spec, std::span<const SafetensorsTensor* const> bound, DType dtype,
                                 Quantization quantization, Rank rank)
    : shard_(make_shard(spec, rank)) {
  for (const TensorSlice& slice : shard_.slices) {
    const SafetensorsTensor* tensor = bound.empty() ? nullptr : bound[slice.tensor];
    add(spec.tensors[slice.tensor], slice, tensor, tensor != nullptr ? tensor->dtype : dtype);
  }
  for (auto& [key, stack] : stacks_) {
    settle(key, stack, quantization);
    stack.offset = bytes_;
    bytes_ += (stack.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
}

void WeightPlacement::add(const TensorBinding& binding, const TensorSlice& slice, const SafetensorsTensor* tensor,
                          DType dtype) {
  WeightStack& stack = stacks_[{binding.layer, first_role(binding.role)}];
  // Routers decide: their inputs are not rounded to bf16. Parts of unlike types meet in f32.
  if (binding.role == TensorRole::router || binding.cols == 0) dtype = DType::f32;
  if (stack.parts.empty()) stack.dtype = dtype;
  if (stack.dtype != dtype) stack.dtype = DType::f32;
  stack.cols = slice.cols;
  stack.parts.push_back({&binding, tensor, slice, row_within(shard_.spec, binding)});
  if (binding.expert >= 0) stack.expert_rows = std::max(stack.expert_rows, stack.parts.back().dest_row + slice.rows);
}

// What a stack is kept in, and with that where its parts begin.
void WeightPlacement::settle(const std::pair<int32_t, TensorRole>& key, WeightStack& stack, Quantization quantization) {
  int64_t rows_on_host = 0;
  for (const WeightStack::Part& part : stack.parts) {
    rows_on_host += kernels::round_up(part.binding->rows, kernels::kPanelRows);
  }
  stack.format = stack.dtype;
  if (stack.cols > 0) {
    stack.format = kept_format(quantization, key.second, stack.dtype, rows_on_host, stack.parts[0].binding->cols);
  }
  stack.expert_rows = kernels::round_up(stack.expert_rows, stack.unit_rows());
  for (WeightStack::Part& part : stack.parts) {
    part.dest_row += std::max(part.binding->expert, 0) * stack.expert_rows;
    stack.rows = std::max(stack.rows, part.dest_row + part.slice.rows);
  }
  std::sort(stack.parts.begin(), stack.parts.end(),
            [](const auto& a, const auto& b) { return a.dest_row < b.dest_row; });
}

const WeightStack* WeightPlacement::layer_stack() const {
  const auto found = stacks_.find({0, TensorRole::attention_output});
  return found == stacks_.end() ? nullptr : &found->second;
}
DType WeightPlacement::layer_dtype() const {
  const WeightStack* stack = layer_stack();
  return stack == nullptr ? DType::f32 : stack->dtype;
}
WeightFormat WeightPlacement::layer_format() const {
  const WeightStack* stack = layer_stack();
  return stack == nullptr ? WeightFormat() : stack->format;
}

void WeightPlacement::place(DeviceWeights& weights) const {
  weights.layers.resize(shard_.spec.layers.size());
  weights.bytes = bytes();
  weights.dtype = layer_dtype();
  weights.format = layer_format();
  std::byte* base = weights.memory.data();
  for (const auto& [key, stack] : stacks_) {
    DeviceWeightSet& set = key.first < 0 ? weights.ends : weights.layers[static_cast<size_t>(key.first)];
    const auto role = static_cast<size_t>(key.second);
    if (stack.cols == 0) {
      set.vectors[role] = reinterpret_cast<const float*>(base + stack.offset);
    } else {
      DeviceMatrix& matrix = set.matrices[role];
      matrix = {base + stack.offset, elem_of(stack.format), stack.rows, stack.cols};
      matrix.expert_stride = stack.expert_rows / stack.unit_rows() * matrix.stride();
    }
    for (const WeightStack::Part& part : stack.parts) {
      weights.parameters += static_cast<size_t>(part.slice.rows * std::max<int64_t>(1, part.slice.cols));
    }
  }
}

std::vector<WeightPiece> WeightPlacement::cut(size_t most_bytes) const {
  std::vector<WeightPiece> pieces;
  const auto cut_units = [&](const WeightStack& stack, const WeightStack::Part* part, int64_t units) {
    const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(most_bytes) / stack.unit_bytes());
    for (int64_t at = 0; at < units; at += step) pieces.push_back({&stack, part, at, std::min(units, at + step)});
  };
  for (const auto& [key, stack] : stacks_) {
    if (stack.quantised()) {
      cut_units(stack, nullptr, QuantPanels::count(stack.rows));
      continue;
    }
    for (const WeightStack::Part& part : stack.parts) cut_units(stack, &part, part.slice.rows);
  }
  return pieces;
}

Status write_piece(const WeightPiece& piece, Quantization quantization, std::byte* out) {
  if (piece.part == nullptr) return write_panels(piece, quantization, out);
  write_rows(piece, out);
  return ok_status();
}

}  // namespace inferneo::cuda
