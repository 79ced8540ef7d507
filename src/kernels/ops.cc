#include "kernels/ops.h"

#include <algorithm>

namespace inferneo::kernels {
namespace {

constexpr int64_t kElementsPerChunk = 4096;  // below this an op on rows is not worth another thread

// Rows of about `cost` elements each, in contiguous chunks.
template <typename Args>
void over_rows(Context& context, RangeOp<Args> op, const Args& args, int64_t num_rows, int64_t cost) {
  if (num_rows <= 0) return;
  count_cost(context, args);
  const int64_t wanted = std::max<int64_t>(1, num_rows * std::max<int64_t>(1, cost) / kElementsPerChunk);
  const int64_t chunks = std::min({num_rows, wanted, int64_t{4} * context.session.num_threads()});
  if (chunks == 1) {
    op(args, 0, num_rows);
    return;
  }
  context.session.for_chunks(
      chunks, [&](int64_t chunk, int) { op(args, num_rows * chunk / chunks, num_rows * (chunk + 1) / chunks); });
}

}  // namespace

void embed(Context& context, const EmbedArgs& args) {
  // A row is gathered from as many cache lines as it has pairs: dear, so it counts several times.
  over_rows(context, context.ops.embed, args, args.num_rows, 4 * args.table.cols);
}
void rms_norm(Context& context, const NormArgs& args) {
  over_rows(context, context.ops.rms_norm, args, args.num_rows, args.dim);
}
void layer_norm(Context& context, const NormArgs& args) {
  over_rows(context, context.ops.layer_norm, args, args.num_rows, args.dim);
}
void add(Context& context, const AddArgs& args) { over_rows(context, context.ops.add, args, args.num_rows, args.dim); }
void scale(Context& context, const ScaleArgs& args) {
  over_rows(context, context.ops.scale, args, args.num_rows, args.dim);
}
void activation(Context& context, const ActivationArgs& args) {
  over_rows(context, context.ops.activation, args, args.num_rows, 2 * args.dim);
}
void rope_table(Context& context, const RopeTableArgs& args) {
  over_rows(context, context.ops.rope_table, args, args.num_rows, 32 * args.half_dim);
}
void rope(Context& context, const RopeArgs& args) {
  over_rows(context, context.ops.rope, args, args.num_rows, args.num_heads * args.head_dim);
}
void logits_summary(Context& context, const LogitsSummaryArgs& args) {
  over_rows(context, context.ops.logits_summary, args, args.num_rows, args.dim);
}
void moe_route(Context& context, const MoeRouteArgs& args) {
  over_rows(context, context.ops.moe_route, args, args.num_rows, int64_t{8} * args.num_experts);
}
void moe_combine(Context& context, const MoeCombineArgs& args) {
  over_rows(context, context.ops.moe_combine, args, args.num_rows, args.top_k * args.dim);
}

void moe_group(const int32_t* ids, int64_t num_rows, int32_t top_k, int32_t num_experts, int32_t* expert_begin,
               int32_t* token_of_slot, int32_t* slots) {
  std::fill(expert_begin, expert_begin + num_experts + 1, 0);
  for (int64_t i = 0; i < num_rows * top_k; ++i) ++expert_begin[ids[i] + 1];
  for (int32_t e = 0; e < num_experts; ++e) expert_begin[e + 1] += expert_begin[e];
  // expert_begin[e] serves as the cursor of expert e and is moved back afterwards.
  for (int64_t i = 0; i < num_rows * top_k; ++i) {
    const int32_t slot = expert_begin[ids[i]]++;
    token_of_slot[slot] = static_cast<int32_t>(i / top_k);
    slots[i] = slot;
  }
  for (int32_t e = num_experts; e > 0; --e) expert_begin[e] = expert_begin[e - 1];
  expert_begin[0] = 0;
}

}  // namespace inferneo::kernels
