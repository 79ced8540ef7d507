#include "engine/step_loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <exception>

namespace inferneo {
namespace {

// The next token's distribution depends on the last token in code that runs on the host.
bool needs_tokens_on_host(const Request& request) {
  const SamplingParams& p = request.sampling;
  return request.needs_host_tokens || request.grammar != nullptr || p.repetition_penalty != 1.0F ||
         p.presence_penalty != 0.0F || p.frequency_penalty != 0.0F;
}

Error thrown(const char* what) {
  return make_error(ErrorCode::internal, fmt::format("the model runner threw an exception: {}", what));
}

size_t iteration_bucket(int32_t num_tokens) {
  const auto& bounds = EngineStats::kIterationBounds;
  return static_cast<size_t>(std::ranges::lower_bound(bounds, num_tokens) - bounds.begin());
}

}  // namespace

StepLoop::StepLoop(const StepLoopConfig& config, ModelRunner& runner, KvCacheManager& kv, const Clock& clock,
                   StepLoopEvents events, DraftModel* draft_model)
    : config_(config),
      runner_(runner),
      kv_(kv),
      clock_(clock),
      events_(std::move(events)),
      draft_model_(draft_model),
      scheduler_(config.scheduler, kv),
      speculator_(config.speculation) {
  if (config.inter_token_target) {
    prefill_pace_.emplace(*config.inter_token_target, config.scheduler.max_prefill_tokens_beside_decode);
  }
}

StepLoop::~StepLoop() = default;

void StepLoop::add(Request request, TimePoint submitted) {
  const uint64_t arrival = next_arrival_++;
  RequestState& state = *(requests_[arrival] = std::make_unique<RequestState>());
  state.request = std::move(request);
  state.arrival = arrival;
  state.stats.submitted = submitted;
  const Request& r = state.request;
  const auto prompt_size = static_cast<int32_t>(r.prompt.size());
  state.stats.prompt_tokens = prompt_size;
  by_id_[r.id] = &state;
  if (r.idle) ++num_live_idle_;
  if (r.deadline) deadlines_.emplace(*r.deadline, arrival);
  // With a grammar the end of sequence always ends the output: nothing else may follow it.
  if (!r.sampling.ignore_eos || r.grammar != nullptr) state.ending_tokens = runner_.spec().eos_token_ids;
  state.ending_tokens.insert(state.ending_tokens.end(), r.sampling.stop_token_ids.begin(),
                             r.sampling.stop_token_ids.end());

  std::optional<Error> error;
  for (int32_t sample = 0; sample < r.sampling.n; ++sample) {
    auto sequence = std::make_unique<Sequence>();
    sequence->id = next_sequence_id_++;
    sequence->request = &state;
    sequence->sample = sample;
    sequence->seed = sample_seed(r.seed, sample);
    sequence->prompt_size = prompt_size;
    const int32_t room = std::max(0, config_.context_limit - prompt_size);
    sequence->max_output = std::min(room, r.sampling.max_tokens.value_or(room));
    if (r.sampling.prompt_rows != PromptRows::none) sequence->max_output = 0;
    sequence->needs_host_tokens = needs_tokens_on_host(r);
    if (r.grammar != nullptr && !error) {
      auto grammar = SequenceGrammar::open(r.grammar, runner_.spec().vocab_size, clock_);
      if (grammar.ok()) {
        sequence->grammar = std::move(grammar).value();
      } else {
        error = grammar.error();
      }
    }
    state.samples.push_back(std::move(sequence));
  }
  state.num_live = r.sampling.n;
  if (!r.idle) num_live_samples_ += r.sampling.n;
  if (error) return finish_all(state, FinishReason::failed, error);
  Sequence& first = *state.samples[0];
  first.tokens.reserve(static_cast<size_t>(prompt_size + first.max_output));
  first.tokens.assign(r.prompt.begin(), r.prompt.end());
  if (traffic_ != nullptr && traffic_->begin_fetch(first, clock_.now())) return;
  scheduler_.add(first);
}

void StepLoop::release_held_samples(RequestState& request) {
  for (const auto& sample : request.samples) {
    if (sample->state != SequenceState::held) continue;
    sample->tokens.reserve(static_cast<size_t>(sample->prompt_size + sample->max_output));
    sample->tokens.assign(request.request.prompt.begin(), request.request.prompt.end());
    scheduler_.add(*sample);
  }
}

void StepLoop::end_sample(RequestId id, int32_t sample, FinishReason reason) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end() || sample < 0 || sample >= static_cast<int32_t>(it->second->samples.size())) return;
  now_ = clock_.now();
  finish(*it->second->samples[static_cast<size_t>(sample)], reason);
  reap();
}

void StepLoop::end_request(RequestId id, FinishReason reason, std::optional<Error> error) {
  const auto it = by_id_.find(id);
  if (it == by_id_.end()) return;
  now_ = clock_.now();
  finish_all(*it->second, reason, error);
  reap();
}

void StepLoop::end_all(const Error& error) {
  now_ = clock_.now();
  std::vector<RequestState*> live;
  for (const auto& [arrival, request] : requests_) {
    if (!request->done) live.push_back(request.get());
  }
  for (RequestState* request : live) finish_all(*request, FinishReason::failed, error);
  reap();
}

// The device may still write what steps in flight name, whatever became of another one (B6).
void StepLoop::drop_in_flight() {
  for (const auto& step : in_flight_) {
    if (step->collected) continue;
    try {
      (void)runner_.collect(step->ticket);
    } catch (...) {  // as good as any other failure
    }
  }
}

void StepLoop::fail_all(const Error& error) {
  drop_in_flight();
  for (const auto& step : in_flight_) {
    for (const ScheduledSequence& row : step->rows) row.sequence->num_in_flight = 0;
  }
  for (const auto& step : in_flight_) {
    for (const ScheduledSequence& row : step->rows) release_if_unused(*row.sequence);
  }
  in_flight_.clear();
  end_all(error);
}

void StepLoop::collect_all() {
  const Status collected = collect_in_flight();
  if (!collected.ok()) fail_all(collected.error());
}

void StepLoop::end_idle(const Error& error) {
  now_ = clock_.now();
  std::vector<RequestState*> live;
  for (const auto& [arrival, request] : requests_) {
    if (request->request.idle && !request->done) live.push_back(request.get());
  }
  for (RequestState* request : live) finish_all(*request, FinishReason::failed, error);
  reap();
}

// Beside prompts a draft pays little. What a step in flight names cannot be guessed for: nobody knows yet what to go on
// from, unless that step is waited for.
Status StepLoop::plan_drafts() {
  if (!speculator_.enabled()) return ok_status();
  const Scheduler::Sequences& running = scheduler_.running();
  const auto decodes_only = [&] {
    return scheduler_.waiting().empty() &&
           std::ranges::all_of(running, [](const Sequence* s) { return s->num_wanted() - s->num_computed == 1; });
  };
  if (!in_flight_.empty() &&
      (in_flight_.back()->is_waited_for || (decodes_only() && speculator_.worth_waiting(running)))) {
    RETURN_IF_ERROR(collect_in_flight());
    begin_schedule();
  }
  speculator_.plan(running, decodes_only(), draft_model_);
  if (speculator_.wishes().empty()) return ok_status();
  const TimePoint began = clock_.now();
  draft_model_->propose(speculator_.wishes());
  now_ = clock_.now();  // the step begins only now
  drafting_ = now_ - began;
  counters_.execute_seconds += to_seconds(drafting_);
  return ok_status();
}

void StepLoop::forget_mirrors(const std::vector<Sequence*>& preempted) {
  if (draft_model_ == nullptr) return;
  for (const Sequence* sequence : preempted) draft_model_->forget(*sequence);
}

Status StepLoop::step() {
  begin_schedule();
  RETURN_IF_ERROR(plan_drafts());
  const Schedule next = prefill_pace_ ? scheduler_.schedule(!in_flight_.empty(), prefill_pace_->tokens())
                                      : scheduler_.schedule(!in_flight_.empty());
  finish_schedule(next);
  forget_mirrors(next.preempted);
  // What runs ahead cannot be guessed for.
  ASSIGN_OR_RETURN(Collected collected, execute(next, draft_model_ == nullptr));
  update(std::move(collected));
  return ok_status();
}

Status StepLoop::collect_in_flight() {
  while (!in_flight_.empty()) {
    ASSIGN_OR_RETURN(Collected collected, collect_oldest());
    update(std::move(collected));
  }
  return ok_status();
}

Result<bool> StepLoop::step_idle() {
  RETURN_IF_ERROR(collect_in_flight());
  begin_schedule();
  device_idle_since_.reset();  // not for the sake of what comes next
  const Schedule next = scheduler_.schedule_idle(pace_.tokens());
  finish_schedule(next);
  const TimePoint began = clock_.now();
  ASSIGN_OR_RETURN(Collected collected, execute(next, false));
  const bool computed = collected.step != nullptr;
  last_idle_time_ = computed ? collected.result.computing.value_or(clock_.now() - began) : Duration{0};
  if (computed) pace_.took(collected.step->num_tokens, last_idle_time_);
  update(std::move(collected));
  return computed;
}

void StepLoop::expire_deadlines() {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_) {
    RequestState& request = *requests_.at(deadlines_.begin()->second);
    finish_all(request, FinishReason::cancelled,
               make_error(ErrorCode::deadline_exceeded, "the request's deadline passed before it was finished"));
  }
}

void StepLoop::begin_schedule() {
  now_ = clock_.now();
  drafting_ = Duration{0};
  expire_deadlines();
  take_fetched();
}

void StepLoop::take_fetched() {
  if (traffic_ == nullptr) return;
  traffic_->begin_step();
  for (Sequence* sequence : traffic_->take_ready(now_, !scheduler_.running().empty())) scheduler_.add(*sequence);
}

bool StepLoop::waits_for_fetch() const {
  return traffic_ != nullptr && traffic_->num_fetching() > 0 && in_flight_.empty() && scheduler_.running().empty() &&
         scheduler_.waiting().empty();
}

void StepLoop::finish_schedule(const Schedule& next) {
  for (const ScheduledSequence& row : next.sequences) row.sequence->starving_since.reset();
  starves_ = false;
  for (Sequence* sequence : next.starved) {
    if (!sequence->starving_since) sequence->starving_since = now_;
    if (now_ - *sequence->starving_since < config_.starvation_patience) {
      starves_ = true;
      continue;
    }
    finish(*sequence, FinishReason::failed, std::nullopt,
           make_error(ErrorCode::out_of_memory,
                      fmt::format("no KV memory for {} tokens although nothing else runs: other models hold it; raise "
                                  "max_memory_gb or unload one",
                                  sequence->num_tokens())));
  }
  for (const ScheduledSequence& row : next.sequences) mark_started(*row.sequence->request);
  counters_.schedule_seconds += to_seconds(clock_.now() - now_);
}

void StepLoop::mark_started(RequestState& request) {
  if (request.started) return;
  request.started = true;
  if (!request.done) request.stats.scheduled = now_;
  events_.started(request.request);
}

std::vector<ScheduledSequence> StepLoop::fill_masks(const std::vector<ScheduledSequence>& rows) {
  std::vector<ScheduledSequence> kept;
  for (const ScheduledSequence& row : rows) {
    if (row.sequence->state == SequenceState::finished) continue;
    kept.push_back(row);
    if (!row.sample || row.sequence->grammar == nullptr) continue;
    const Result<int32_t> num_draft =
        row.sequence->grammar->fill_masks(std::span(row.sequence->drafts).first(static_cast<size_t>(row.num_draft)));
    if (num_draft.ok()) {
      kept.back().num_draft = *num_draft;  // the blocks of those left out stay with it, as those of rejected ones
    } else {
      kept.pop_back();
      finish(*row.sequence, FinishReason::failed, std::nullopt, num_draft.error());
    }
  }
  return kept;
}

Status StepLoop::submit(const std::vector<ScheduledSequence>& rows) {
  auto step = build_step(rows, kv_.config().groups);
  step->began = now_;
  step->drafting = drafting_;
  if (in_flight_.empty()) step->device_idle_since = device_idle_since_;
  if (!in_flight_.empty()) in_flight_.back()->followed = true;
  try {
    ASSIGN_OR_RETURN(step->ticket, runner_.submit(step->batch));
  } catch (const std::exception& e) {
    return thrown(e.what());
  } catch (...) {
    return thrown("not a std::exception");
  }
  for (size_t i = 0; i < rows.size(); ++i) {
    Sequence& sequence = *rows[i].sequence;
    ++sequence.num_in_flight;
    if (!rows[i].sample) continue;
    ++sequence.num_pending;
    sequence.verifies = rows[i].num_draft > 0;
    sequence.last_ticket = step->ticket;
    sequence.last_row = static_cast<int32_t>(i);
  }
  ++counters_.steps;
  ++counters_.iteration_tokens[iteration_bucket(step->num_tokens)];
  counters_.iteration_tokens_sum += static_cast<uint64_t>(step->num_tokens);
  in_flight_.push_back(std::move(step));
  return ok_status();
}

Result<StepLoop::Collected> StepLoop::collect_oldest() {
  Collected collected;
  try {
    in_flight_.front()->collected = true;
    ASSIGN_OR_RETURN(collected.result, runner_.collect(in_flight_.front()->ticket));
  } catch (const std::exception& e) {
    return thrown(e.what());
  } catch (...) {
    return thrown("not a std::exception");
  }
  if (collected.result.sequences.size() != in_flight_.front()->rows.size()) {
    return make_error(ErrorCode::internal, "the model runner returned a result of another shape than its batch");
  }
  collected.step = std::move(in_flight_.front());
  in_flight_.pop_front();
  const TimePoint when = clock_.now();
  learn_wait(collected, when);
  device_idle_since_ = in_flight_.empty() ? std::optional(when) : std::nullopt;
  return collected;
}

// Of steps that decode, which nobody waits for idly.
void StepLoop::learn_wait(const Collected& collected, TimePoint when) {
  const InFlightStep& step = *collected.step;
  if (runner_.max_in_flight() == 1 || draft_model_ != nullptr || !step.device_idle_since || step.followed) return;
  if (!step.decodes_only || step.batch.idle || !collected.result.computing) return;
  speculator_.waited(when - *step.device_idle_since - *collected.result.computing);
}

Result<StepLoop::Collected> StepLoop::execute(const Schedule& schedule, bool may_run_ahead) {
  const TimePoint begin = clock_.now();
  const std::vector<ScheduledSequence> rows = fill_masks(schedule.sequences);
  if (!rows.empty()) RETURN_IF_ERROR(submit(rows));
  // Run ahead while there is room: collecting waits for the device.
  const bool run_ahead = may_run_ahead && !rows.empty() && !in_flight_.back()->is_waited_for &&
                         static_cast<int>(in_flight_.size()) < runner_.max_in_flight();
  Result<Collected> collected = in_flight_.empty() || run_ahead ? Result<Collected>(Collected{}) : collect_oldest();
  counters_.execute_seconds += to_seconds(clock_.now() - begin);
  return collected;
}

void StepLoop::fill_stats(EngineStats& stats) const {
  stats.running = static_cast<int32_t>(scheduler_.running().size());
  stats.waiting = num_live_samples_ - stats.running;
  stats.kv_usage = kv_.usage();
  stats.kv_committed_bytes = kv_.committed_bytes();
  stats.kv_capacity_bytes = kv_.capacity_bytes();
  if (draft_model_ != nullptr) {
    stats.kv_committed_bytes += draft_model_->kv().committed_bytes();
    stats.kv_capacity_bytes += draft_model_->kv().capacity_bytes();
  }
  stats.blocks_total = stats.blocks_free = stats.blocks_cached = 0;
  for (int32_t g = 0; g < kv_.num_groups(); ++g) {
    stats.blocks_total += kv_.pool(g).total();
    stats.blocks_free += kv_.pool(g).num_free();
    stats.blocks_cached += kv_.pool(g).num_cached();
  }
  stats.block_size = kv_.config().groups[0].block_size;
  stats.num_blocks = kv_.config().groups[0].capacity;
  stats.preemptions = scheduler_.num_preemptions();
  stats.prefix_queries = scheduler_.prefix_queries();
  stats.prefix_hits = scheduler_.prefix_hits();
  stats.cached_bytes = kv_.cached_bytes();
  stats.prefix_evictions = kv_.num_evictions();
  if (traffic_ != nullptr) stats.prefix_tier = traffic_->stats();
  stats.prefix_tier.hits = scheduler_.fetched_hits();
  stats.speculation = speculator_.stats();
  stats.steps = counters_.steps;
  stats.prompt_tokens = counters_.prompt_tokens;
  stats.generation_tokens = counters_.generation_tokens;
  stats.finished_requests = counters_.finished_requests;
  stats.iteration_tokens = counters_.iteration_tokens;
  stats.iteration_tokens_sum = counters_.iteration_tokens_sum;
  stats.schedule_seconds = counters_.schedule_seconds;
  stats.execute_seconds = counters_.execute_seconds;
  stats.update_seconds = counters_.update_seconds;
}

namespace {

// What a sequence in each state may hold.
Status check_sequence(const Sequence& sequence) {
  const bool holds_blocks =
      std::ranges::any_of(sequence.block_tables, [](const std::vector<BlockId>& table) { return !table.empty(); });
  const bool may_hold = sequence.state == SequenceState::running || sequence.num_in_flight > 0;
  if (!may_hold && (holds_blocks || sequence.cache_tail != 0 || sequence.num_computed != 0)) {
    return make_error(ErrorCode::internal, fmt::format("sequence {} does not run and holds blocks", sequence.id));
  }
  const bool running = sequence.state == SequenceState::running;
  if (running && (sequence.num_settled > sequence.num_computed || sequence.num_computed > sequence.num_wanted())) {
    return make_error(ErrorCode::internal, fmt::format("sequence {} miscounts its tokens", sequence.id));
  }
  return ok_status();
}

}  // namespace

Status StepLoop::check_integrity() const {
  RETURN_IF_ERROR(kv_.check_integrity());
  if (draft_model_ != nullptr) RETURN_IF_ERROR(draft_model_->check_integrity());
  std::vector<std::vector<int32_t>> references;  // [groups][blocks]
  for (int32_t g = 0; g < kv_.num_groups(); ++g) references.emplace_back(static_cast<size_t>(kv_.pool(g).total()), 0);
  for (const auto& [arrival, request] : requests_) {
    for (const auto& sequence : request->samples) {
      RETURN_IF_ERROR(check_sequence(*sequence));
      for (size_t g = 0; g < sequence->block_tables.size(); ++g) {
        for (BlockId block : sequence->block_tables[g]) {
          if (block != kNoBlock) ++references[g][static_cast<size_t>(block)];
        }
      }
    }
  }
  for (int32_t g = 0; g < kv_.num_groups(); ++g) {
    for (BlockId block = 0; block < kv_.pool(g).total(); ++block) {
      const int32_t named = references[static_cast<size_t>(g)][static_cast<size_t>(block)];
      if (named == kv_.pool(g).ref_count(block)) continue;
      return make_error(ErrorCode::internal,
                        fmt::format("block {} of group {} has {} references, tables name it {} times", block, g,
                                    kv_.pool(g).ref_count(block), named));
    }
  }
  return ok_status();
}

}  // namespace inferneo
