#include "models/transformers/native_runner.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
NativeRunner::NativeRunner(NativeModel model, const kernels::OpTable& ops, MemoryLedger& ledger, ThreadPool& pool,
                           std::string name)
    : model_(std::move(model)),
      ops_(ops),
      ledger_(ledger),
      pool_(pool),
      turns_(pool),
      idle_turns_(pool),
      name_(std::move(name)),
      kv_plan_(plan_kv(model_.spec, model_.kv_dtype, model_.block_size, model_.max_model_len)),
      forward_(model_.spec, *model_.weights.weights, kv_plan_, model_.max_model_len),
      logits_(model_.spec.vocab_size, model_.spec.hidden_size, pool.size()) {
  for (const KvGroup& group : kv_plan_.groups) {
    kv_spec_.groups.push_back({group.layers, group.window, model_.block_size, {{group.layout.bytes_per_block(), 64}}});
  }
}

Status NativeRunner::bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) {
  if (kv.bases.size() != kv_plan_.groups.size() || kv.capacity_blocks.size() != kv.bases.size()) {
    return make_error(ErrorCode::invalid_argument, fmt::format("{} needs {} groups of cache blocks, got {}", name_,
                                                               kv_plan_.groups.size(), kv.bases.size()));
  }
  planes_.clear();
  for (const std::vector<std::byte*>& planes : kv.bases) {
    if (planes.size() != 1 || reinterpret_cast<uintptr_t>(planes[0]) % 64 != 0) {
      return make_error(ErrorCode::invalid_argument, "a group of cache blocks needs one plane, aligned to 64 bytes");
    }
    planes_.push_back(planes[0]);
  }
  if (max_num_seqs < 1 || max_num_batched_tokens < 1) {
    return make_error(ErrorCode::invalid_argument, "max_num_seqs and max_num_batched_tokens must be positive");
  }
  limits_ = {.block_size = model_.block_size,
             .max_model_len = model_.max_model_len,
             .vocab_size = model_.spec.vocab_size,
             .max_num_seqs = max_num_seqs,
             .max_num_tokens = max_num_batched_tokens,
             .max_rows_to_verify = kMaxLogitRows};
  for (size_t g = 0; g < planes_.size(); ++g) {
    limits_.groups.push_back({kv_plan_.groups[g].window, kv.capacity_blocks[g]});
  }
  forward_batch_.sequences.resize(planes_.size());
  return forward_.allocate(ledger_, name_, max_num_batched_tokens, std::min(kMaxLogitRows, max_num_batched_tokens),
                           pool_.size());
}

Status NativeRunner::flatten(const StepBatch& batch) {
  tokens_.clear();
  positions_.clear();
  first_rows_.clear();
  for (auto& rows : forward_batch_.sequences) rows.clear();
  for (const SequenceStep& step : batch.sequences) {
    const auto first = static_cast<int32_t>(tokens_.size());
    const auto num_tokens = static_cast<int32_t>(step.tokens.size());
    first_rows_.push_back(first);
    tokens_.insert(tokens_.end(), step.tokens.begin(), step.tokens.end());
    if (step.last_token) {
      const TokenRef& ref = *step.last_token;
      if (ref.ticket == 0) {
        tokens_.back() = ref.value;
      } else {
        const auto row = static_cast<size_t>(ref.row);
        if (ref.ticket != last_ticket_ || ref.row < 0 || row >= last_tokens_.size()) {
          return bad_step("a token of a ticket that is no longer known");
        }
        tokens_.back() = last_tokens_[row];
      }
    }
    for (int32_t i = 0; i < num_tokens; ++i) positions_.push_back(step.position + i);
    for (size_t g = 0; g < planes_.size(); ++g) {
      forward_batch_.sequences[g].push_back({step.block_tables[g].data(), step.position, first, num_tokens});
    }
  }
  for (const Token token : tokens_) {
    if (token < 0 || token >= model_.spec.vocab_size) return bad_step("a token outside the vocabulary");
  }
  forward_batch_.tokens = tokens_;
  forward_batch_.positions = positions_;
  return ok_status();
}

Result<Ticket> NativeRunner::submit(const StepBatch& batch) {
  if (open_) return bad_step("the last ticket has not been collected");
  RETURN_IF_ERROR(check_step(limits_, batch));
  RETURN_IF_ERROR(flatten(batch));
  batch_ = batch;
  open_ = true;
  return ++last_ticket_;
}

StepResult NativeRunner::compute() {
  ThreadPool::Session session(batch_.idle ? idle_turns_ : turns_, batch_.idle);
  const SteadyClock clock;
  const TimePoint began = clock.now();
  kernels::Context context{ops_, session, forward_.scratch(), model_.profile};
  if (model_.profile != nullptr) model_.profile->begin();
  forward_.run(context, forward_batch_, planes_);
  StepResult result = logits_.run(context, forward_, batch_, first_rows_);
  if (model_.profile != nullptr) model_.profile->end();
  result.computing = clock.now() - began;
  return result;
}

Result<StepResult> NativeRunner::collect(Ticket ticket) {
  if (!open_ || ticket != last_ticket_) return bad_step("no such ticket is open");
  open_ = false;
  StepResult result = compute();
  if (model_.weights.weights->truncated()) {
    return make_error(ErrorCode::io_error, "the file that holds the packed weights was cut short while in use");
  }
  last_tokens_.clear();
  for (const SequenceResult& sequence : result.sequences) {
    last_tokens_.push_back(sequence.tokens.empty() ? -1 : sequence.tokens.back());
  }
  return result;
}

}  // namespace inferneo
