// The ops as a forward pass calls them: work handed out to the thread pool, results independent of the thread count.
//
// A Context is made per step: the op table, the session (this step's turn on the pool) and scratch memory of at least
// scratch_bytes(). Each call returns when its op is complete. Contexts are used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/thread_pool.h"
#include "kernels/op_table.h"
#include "kernels/step_profile.h"

namespace inferneo::kernels {

struct Context {
  const OpTable& ops;
  ThreadPool::Session& session;
  std::span<std::byte> scratch;    // 64-byte aligned
  StepProfile* profile = nullptr;  // of who measures; null: nobody
};

// Of the step that the context was made for.
inline void enter_phase(const Context& context, Phase phase) {
  if (context.profile != nullptr) context.profile->enter(phase);
}
inline void count_cost(const Context& context, const auto& args) {
  if (context.profile != nullptr) context.profile->count(cost_of(args));
}

struct ScratchNeeds {
  int64_t max_rows = 0;  // tokens of a step
  int64_t max_cols = 0;  // widest input of a matrix product
  int32_t num_heads = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t max_context = 0;
  int32_t num_threads = 1;
};
size_t scratch_bytes(const ScratchNeeds& needs);

void embed(Context& context, const EmbedArgs& args);
void rms_norm(Context& context, const NormArgs& args);
void layer_norm(Context& context, const NormArgs& args);
void add(Context& context, const AddArgs& args);
void scale(Context& context, const ScaleArgs& args);
void activation(Context& context, const ActivationArgs& args);
void rope_table(Context& context, const RopeTableArgs& args);
void rope(Context& context, const RopeArgs& args);
void logits_summary(Context& context, const LogitsSummaryArgs& args);

void matmul(Context& context, const MatmulArgs& args);

void kv_write(Context& context, const KvWriteArgs& args);
void attention(Context& context, const AttentionArgs& args);

void moe_route(Context& context, const MoeRouteArgs& args);
void moe_combine(Context& context, const MoeCombineArgs& args);

// Groups (token, choice) pairs by expert, tokens ascending within one: slot s of expert e lies in
// [expert_begin[e], expert_begin[e + 1]) and belongs to token token_of_slot[s]; slots is the inverse, for moe_combine.
// An expert's product then is a matmul with row_index = token_of_slot + expert_begin[e].
void moe_group(const int32_t* ids, int64_t num_rows, int32_t top_k, int32_t num_experts,
               int32_t* expert_begin,   // [num_experts + 1]
               int32_t* token_of_slot,  // [num_rows * top_k]
               int32_t* slots);         // [num_rows, top_k]

}  // namespace inferneo::kernels
