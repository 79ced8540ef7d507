#include "kernels/op_costs.h"

#include <algorithm>

namespace inferneo::kernels {
namespace {

constexpr double kF32Bytes = 4.0;

OpCost cost(double bytes, Arithmetic arithmetic, double operations) {
  OpCost result;
  result.bytes = bytes;
  result.operations[static_cast<size_t>(arithmetic)] = operations;
  return result;
}

// An op on rows of f32 that moves `moved` values and computes `operations` of each element.
OpCost rows_cost(int64_t rows, int64_t dim, double moved, double operations) {
  const double elements = static_cast<double>(rows) * static_cast<double>(dim);
  return cost(elements * moved * kF32Bytes, Arithmetic::f32, elements * operations);
}

Arithmetic arithmetic_of(const PackedView& weight) {
  if (weight.quantized()) return Arithmetic::int8;
  return weight.dtype == DType::bf16 ? Arithmetic::bf16 : Arithmetic::f32;
}

// Of one token and head, keys or values.
double kv_head_bytes(const KvLayout& layout) {
  return static_cast<double>(layout.head_dim * layout.element_bytes()) + (layout.has_scales() ? kF32Bytes : 0.0);
}

}  // namespace

OpCost& OpCost::operator+=(const OpCost& other) {
  bytes += other.bytes;
  for (size_t i = 0; i < kNumArithmetics; ++i) operations[i] += other.operations[i];
  return *this;
}

OpCost cost_of(const EmbedArgs& args) {
  const double row_bytes = static_cast<double>(args.table.panel_bytes()) / kPanelRows;
  const double out = args.accumulate ? 2.0 : 1.0;
  OpCost result = rows_cost(args.num_rows, args.table.cols, out, out);
  result.bytes += static_cast<double>(args.num_rows) * row_bytes;
  return result;
}

// The square and its sum; then the scale and the weight. A layer norm subtracts and adds besides, which is no more than
// the difference between machines.
OpCost cost_of(const NormArgs& args) { return rows_cost(args.num_rows, args.dim, 2.0, 4.0); }
OpCost cost_of(const AddArgs& args) { return rows_cost(args.num_rows, args.dim, 3.0, 2.0); }
OpCost cost_of(const ScaleArgs& args) {
  return rows_cost(args.num_rows, args.dim, 2.0, args.softcap > 0.0F ? 3.0 : 1.0);
}
// silu(x) = x / (1 + exp(-x)): the sign, exp, the sum, the quotient.
OpCost cost_of(const ActivationArgs& args) {
  const bool gated = args.up != nullptr;
  return rows_cost(args.num_rows, args.dim, gated ? 3.0 : 2.0, gated ? 5.0 : 4.0);
}
OpCost cost_of(const RopeTableArgs& args) { return rows_cost(args.num_rows, args.half_dim, 2.0, 3.0); }
// Each pair of values takes four products and two sums.
OpCost cost_of(const RopeArgs& args) {
  OpCost result = rows_cost(args.num_rows, args.num_heads * 2 * args.half_dim, 2.0, 3.0);
  result.bytes += static_cast<double>(args.num_rows * args.half_dim) * 2.0 * kF32Bytes;
  return result;
}
OpCost cost_of(const LogitsSummaryArgs& args) { return rows_cost(args.num_rows, args.dim, 1.0, 3.0); }
OpCost cost_of(const MoeRouteArgs& args) { return rows_cost(args.num_rows, args.num_experts, 1.0, 3.0); }
OpCost cost_of(const MoeCombineArgs& args) {
  return rows_cost(args.num_rows, args.dim, args.top_k + (args.accumulate ? 2.0 : 1.0), 2.0 * args.top_k);
}

OpCost cost_of(const MatmulArgs& args) {
  OpCost result;
  if (args.num_rows <= 0 || args.outputs.empty()) return result;
  const auto rows = static_cast<double>(args.num_rows);
  result.bytes = rows * static_cast<double>(args.outputs[0].weight.cols) * kF32Bytes;
  for (const MatmulOutput& output : args.outputs) {
    const PackedView& weight = output.weight;
    const double out_bytes = rows * static_cast<double>(weight.rows) * kF32Bytes * (output.accumulate ? 2.0 : 1.0);
    result += cost(static_cast<double>(weight.num_panels()) * static_cast<double>(weight.panel_bytes()) + out_bytes,
                   arithmetic_of(weight), 2.0 * rows * static_cast<double>(weight.rows * weight.cols));
  }
  return result;
}

OpCost cost_of(const KvWriteArgs& args) {
  double tokens = 0.0;
  for (const SequenceRows& rows : args.sequences) tokens += rows.num_tokens;
  const double read = static_cast<double>(args.layout.head_dim) * kF32Bytes;
  return cost(tokens * args.layout.num_kv_heads * 2.0 * (read + kv_head_bytes(args.layout)), Arithmetic::f32, 0.0);
}

OpCost cost_of(const AttentionArgs& args) {
  double pairs = 0.0;
  double seen = 0.0;  // tokens of the cache
  double queries = 0.0;
  for (const SequenceRows& rows : args.sequences) {
    for (int32_t i = 0; i < rows.num_tokens; ++i) {
      const int32_t visible = rows.position + i + 1;
      pairs += args.window > 0 ? std::min(visible, args.window) : visible;
    }
    const int32_t first = args.window > 0 ? std::max(0, rows.position - args.window + 1) : 0;
    seen += rows.position + rows.num_tokens - first;
    queries += rows.num_tokens;
  }
  const double width = static_cast<double>(args.num_heads) * args.layout.head_dim;
  const double bytes =
      seen * args.layout.num_kv_heads * 2.0 * kv_head_bytes(args.layout) + queries * width * 2.0 * kF32Bytes;
  return cost(bytes, args.layout.dtype == DType::bf16 ? Arithmetic::bf16 : Arithmetic::f32, 4.0 * pairs * width);
}

}  // namespace inferneo::kernels
