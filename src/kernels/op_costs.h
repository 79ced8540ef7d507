// What an op costs a machine at the least: the bytes of its operands, each moved once, and its operations. The measure
// of a roofline (Williams, Waterman and Patterson, 2009); pure, read off the arguments.
//
// Bytes: weights and cache as they are stored, activations as f32; an operand that is read and written counts twice.
// What a small cache makes an op read again is not counted: it is the op's loss. Operations: a multiply-add is two, a
// function such as exp is one. Attention counts the pairs of query and token that the mask lets through.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/attention_args.h"
#include "kernels/matmul_args.h"
#include "kernels/op_args.h"

namespace inferneo::kernels {

// The units that an op's bulk can run on, and so the peak that it is held to: the f32 multiply-add, the bf16 dot
// product (bf16 weights and caches), the 8-bit integer dot product (quantised weights).
enum class Arithmetic : uint8_t { f32, bf16, int8 };
inline constexpr size_t kNumArithmetics = 3;

struct OpCost {
  double bytes = 0.0;
  std::array<double, kNumArithmetics> operations = {};  // by Arithmetic
  OpCost& operator+=(const OpCost& other);
};

OpCost cost_of(const EmbedArgs& args);
OpCost cost_of(const NormArgs& args);
OpCost cost_of(const AddArgs& args);
OpCost cost_of(const ScaleArgs& args);
OpCost cost_of(const ActivationArgs& args);
OpCost cost_of(const RopeTableArgs& args);
OpCost cost_of(const RopeArgs& args);
OpCost cost_of(const LogitsSummaryArgs& args);
OpCost cost_of(const MoeRouteArgs& args);
OpCost cost_of(const MoeCombineArgs& args);
OpCost cost_of(const MatmulArgs& args);
OpCost cost_of(const KvWriteArgs& args);
OpCost cost_of(const AttentionArgs& args);

}  // namespace inferneo::kernels
