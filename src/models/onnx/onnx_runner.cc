#include "models/onnx/onnx_runner.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "models/sampling/step_rows.h"

namespace inferneo::onnx {
namespace {

Error bad_step(std::string_view problem) {
  return make_error(ErrorCode::invalid_argument, fmt::format("a malformed step: {}", problem));
}

}  // namespace

KvCacheSpec slot_spec(const OnnxGraph& graph, int32_t slot_tokens) {
  KvGroupSpec group;
  group.block_size = slot_tokens;
  if (graph.cache == CacheKind::none) {
    group.layers = {0};
    group.planes = {{static_cast<size_t>(slot_tokens) * sizeof(Token), 64}};
  } else {
    for (size_t l = 0; l < graph.layers.size(); ++l) group.layers.push_back(static_cast<int32_t>(l));
    const size_t bytes = static_cast<size_t>(slot_tokens) * graph.plane_bytes_per_token();
    group.planes.assign(2 * graph.layers.size(), KvPlaneSpec{bytes, 64});
  }
  KvCacheSpec spec;
  spec.groups.push_back(std::move(group));
  spec.slots = true;
  return spec;
}

OnnxRunner::OnnxRunner(OnnxModel model, MemoryLedger& ledger, ThreadPool& pool, std::string name)
    : model_(std::move(model)),
      ledger_(ledger),
      pool_(pool),
      turns_(pool),
      idle_turns_(pool),
      name_(std::move(name)),
      kv_spec_(slot_spec(model_.graph, model_.slot_tokens)),
      forward_(OnnxForward::create(*model_.session, model_.graph, model_.slot_tokens)) {
  forward_->set_abilities(model_.abilities);
  for (int i = 0; i < pool.size(); ++i) samplers_.push_back(std::make_unique<Sampler>());
}

Status OnnxRunner::bind(const KvBinding& kv, int32_t max_num_seqs, int32_t max_num_batched_tokens) {
  const size_t num_planes = kv_spec_.groups[0].planes.size();
  if (kv.bases.size() != 1 || kv.bases[0].size() != num_planes || kv.capacity_blocks.size() != 1) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("{} needs one group of slots with {} planes", name_, num_planes));
  }
  for (const std::byte* base : kv.bases[0]) {
    if (reinterpret_cast<uintptr_t>(base) % 64 != 0) {
      return make_error(ErrorCode::invalid_argument, "planes of slots must be aligned to 64 bytes");
    }
  }
  if (max_num_seqs < 1 || max_num_batched_tokens < 1) {
    return make_error(ErrorCode::invalid_argument, "max_num_seqs and max_num_batched_tokens must be positive");
  }
  num_slots_ = kv.capacity_blocks[0];
  limits_ = {std::min(max_num_seqs, num_slots_), max_num_batched_tokens, model_.max_model_len};
  ASSIGN_OR_RETURN(library_, ledger_.reserve(name_, MemoryPurpose::workspace, 0));
  return forward_->bind(kv.bases[0], num_slots_, limits_, ledger_, name_);
}

Status OnnxRunner::check_sequence(const SequenceStep& step) const {
  const auto num_tokens = static_cast<int64_t>(step.tokens.size());
  if (num_tokens == 0) return bad_step("a sequence without tokens");
  if (step.position < 0 || step.position + num_tokens > model_.slot_tokens) {
    return bad_step(fmt::format("positions {} to {} exceed a slot of {} tokens", step.position,
                                step.position + num_tokens, model_.slot_tokens));
  }
  if (step.want == Want::verify && (step.num_draft < 0 || step.num_draft >= num_tokens)) {
    return bad_step("drafts exceed the tokens of the step");
  }
  if ((step.want == Want::sample || step.want == Want::verify) && step.sampling.params == nullptr) {
    return bad_step("no sampling parameters");
  }
  if (step.prompt_targets.size() > step.tokens.size()) return bad_step("more prompt targets than tokens");
  const auto outside = [&](Token token) { return token < 0 || token >= model_.spec.vocab_size; };
  if (std::any_of(step.prompt_targets.begin(), step.prompt_targets.end(), outside)) {
    return bad_step("a prompt target outside the vocabulary");
  }
  // The place of a token that comes with the batch holds anything.
  const size_t given = step.tokens.size() - (step.last_token ? 1 : 0);
  if (std::any_of(step.tokens.begin(), step.tokens.begin() + static_cast<std::ptrdiff_t>(given), outside) ||
      (step.last_token && (step.last_token->ticket != 0 || outside(step.last_token->value)))) {
    return bad_step("a token outside the vocabulary");
  }
  if (step.block_tables.size() != 1 || step.block_tables[0].empty()) return bad_step("a sequence needs one slot");
  const int32_t slot = step.block_tables[0][0];
  if (slot < 0 || slot >= num_slots_) return bad_step("a slot that is out of range");
  return ok_status();
}

Status OnnxRunner::check(const StepBatch& batch) const {
  if (num_slots_ == 0) return bad_step("the runner is not bound to a cache");
  if (open_) return bad_step("the last ticket has not been collected");
  if (batch.sequences.empty() || batch.sequences.size() > static_cast<size_t>(limits_.max_num_seqs)) {
    return bad_step(fmt::format("{} sequences; 1 to {} fit", batch.sequences.size(), limits_.max_num_seqs));
  }
  size_t num_tokens = 0;
  std::vector<int32_t> slots;
  for (const SequenceStep& step : batch.sequences) {
    RETURN_IF_ERROR(check_sequence(step));
    num_tokens += step.tokens.size();
    slots.push_back(step.block_tables[0][0]);
  }
  if (num_tokens > static_cast<size_t>(limits_.max_num_tokens)) {
    return bad_step(fmt::format("{} tokens; {} fit", num_tokens, limits_.max_num_tokens));
  }
  std::sort(slots.begin(), slots.end());
  if (std::adjacent_find(slots.begin(), slots.end()) != slots.end()) return bad_step("two sequences in one slot");
  return ok_status();
}

Result<Ticket> OnnxRunner::submit(const StepBatch& batch) {
  RETURN_IF_ERROR(check(batch));
  batch_ = batch;
  open_ = true;
  return ++last_ticket_;
}

// The most that the library has taken for a step beyond what it holds anyway. It has been taken by then: a refusal of
// the ledger, which others see as well, is no reason to end what is under way.
void OnnxRunner::keep_books() {
  const size_t peak = model_.session->account().peak();
  if (peak <= model_.session_bytes + library_.bytes()) return;
  const Status booked = library_.resize(peak - model_.session_bytes);
  if (booked.ok() || warned_) return;
  warned_ = true;
  log_warning("{}: ONNX Runtime takes more for a step than the books have room for: {}", name_, booked.error().message);
}

// On one thread of the pool: rows and result are this piece's alone.
void OnnxRunner::take_piece(const LogitsPiece& piece, Sampler& sampler, SequenceResult& result) {
  const auto vocab = static_cast<size_t>(model_.spec.vocab_size);
  const SequenceStep& step = batch_.sequences[piece.row];
  const auto finish = [&]() -> Status {
    RETURN_IF_ERROR(take_rows(step, piece.first_token, piece.logits, vocab, sampler, result));
    const int32_t chosen = rows_chosen_from(step);
    const auto num_tokens = static_cast<int32_t>(step.tokens.size());
    const int32_t first_chosen = num_tokens - chosen;
    const auto end = piece.first_token + static_cast<int32_t>(piece.logits.size() / vocab);
    if (chosen == 0 || end <= first_chosen) return ok_status();
    const auto skipped = static_cast<size_t>(std::max(0, first_chosen - piece.first_token));
    const std::span<float> rows = piece.logits.subspan(skipped * vocab);
    if (rows.size() == static_cast<size_t>(chosen) * vocab) return choose_tokens(step, rows, vocab, sampler, result);
    std::vector<float>& gathered = chosen_[piece.row];
    gathered.insert(gathered.end(), rows.begin(), rows.end());
    return end < num_tokens ? ok_status() : choose_tokens(step, gathered, vocab, sampler, result);
  };
  if (result.error) return;
  if (Status status = finish(); !status.ok()) result.error = std::move(status).error();
}

Status OnnxRunner::take(std::span<const LogitsPiece> pieces, ThreadPool::Session& session, StepResult& result) {
  const auto body = [&](int64_t index, int thread) {
    const LogitsPiece& piece = pieces[static_cast<size_t>(index)];
    take_piece(piece, *samplers_[static_cast<size_t>(thread)], result.sequences[piece.row]);
  };
  if (pieces.size() == 1) {
    body(0, 0);
  } else {
    session.for_chunks(static_cast<int64_t>(pieces.size()), body);
  }
  return ok_status();
}

Result<StepResult> OnnxRunner::compute() {
  const size_t num_sequences = batch_.sequences.size();
  StepResult result;
  result.sequences.resize(num_sequences);
  chosen_.assign(num_sequences, {});
  last_tokens_.assign(num_sequences, {});
  std::vector<OnnxRow> rows;
  for (size_t i = 0; i < num_sequences; ++i) {
    const SequenceStep& step = batch_.sequences[i];
    prepare_rows(step, static_cast<size_t>(model_.spec.vocab_size), result.sequences[i]);
    OnnxRow row;
    row.tokens = step.tokens;
    if (step.last_token) {
      last_tokens_[i].assign(step.tokens.begin(), step.tokens.end());
      last_tokens_[i].back() = step.last_token->value;
      row.tokens = last_tokens_[i];
    }
    row.position = step.position;
    row.slot = step.block_tables[0][0];
    row.first_wanted = first_row_wanted(step);
    rows.push_back(row);
  }
  ThreadPool::Session session(batch_.idle ? idle_turns_ : turns_, batch_.idle);
  const SteadyClock clock;
  const TimePoint began = clock.now();
  RETURN_IF_ERROR(
      forward_->run(rows, [&](std::span<const LogitsPiece> pieces) { return take(pieces, session, result); }));
  result.computing = clock.now() - began;
  return result;
}

Result<StepResult> OnnxRunner::collect(Ticket ticket) {
  if (!open_ || ticket != last_ticket_) return bad_step("no such ticket is open");
  open_ = false;
  ASSIGN_OR_RETURN(StepResult result, compute());
  keep_books();
  if (model_.data.truncated()) {
    return make_error(ErrorCode::io_error, "a file that holds the weights was cut short while in use");
  }
  return result;
}

}  // namespace inferneo::onnx
