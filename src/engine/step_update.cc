// The third part of a step: sampled tokens advance their sequences, ended ones leave, sinks hear of it.
#include <fmt/format.h>

#include <algorithm>
#include <exception>

#include "engine/step_loop.h"

namespace inferneo {

// Sinks must not throw; one that does loses its request, and nobody else notices.
template <typename Event>
void StepLoop::emit(RequestState& request, Event&& event) {
  try {
    event(*request.request.sink);
  } catch (...) {
    if (!request.done) {
      finish_all(request, FinishReason::failed,
                 make_error(ErrorCode::internal, "the request's sink threw an exception"));
    }
  }
}

void StepLoop::update(Collected collected) {
  if (collected.step == nullptr) return reap();
  now_ = clock_.now();
  step_time_ = collected.result.computing.value_or(now_ - collected.step->began);
  if (collected.step->decodes_only) speculator_.took(collected.step->num_tokens, step_time_);
  if (prefill_pace_ && !collected.step->batch.idle) learn_pace(*collected.step);  // idle steps have a pace of their own
  if (traffic_ != nullptr && !collected.step->batch.idle) learn_prompt_rate(*collected.step);
  step_time_ += collected.step->drafting;  // which its sequences waited for as well
  for (size_t i = 0; i < collected.step->rows.size(); ++i) {
    update_row(collected.step->rows[i], collected.result.sequences[i]);
  }
  reap();
  counters_.update_seconds += to_seconds(clock_.now() - now_);
}

void StepLoop::learn_pace(const InFlightStep& step) {
  if (step.decodes_only) return prefill_pace_->took_decodes(step_time_);
  int32_t num_prompt_tokens = 0;
  bool has_decodes = false;
  for (const ScheduledSequence& row : step.rows) {
    const bool reads = row.num_tokens > 1;
    num_prompt_tokens += reads ? row.num_tokens : 0;
    has_decodes = has_decodes || !reads;
  }
  if (has_decodes && num_prompt_tokens > 0) prefill_pace_->took_both(num_prompt_tokens, step_time_);
}

// What a token of a prompt costs, with all that a step does beside it: what a prompt that is not fetched would wait.
void StepLoop::learn_prompt_rate(const InFlightStep& step) {
  int32_t num_tokens = 0;
  for (const ScheduledSequence& row : step.rows) num_tokens += row.num_tokens > 1 ? row.num_tokens : 0;
  if (num_tokens > 0) traffic_->took_prompt(num_tokens, step_time_);
}

void StepLoop::update_row(const ScheduledSequence& row, SequenceResult& result) {
  Sequence& sequence = *row.sequence;
  --sequence.num_in_flight;
  if (row.sample) --sequence.num_pending;
  if (row.num_draft > 0) sequence.verifies = false;
  if (sequence.state == SequenceState::finished) return release_if_unused(sequence);  // overrun or cancelled: discarded
  if (sequence.sample == 0) sequence.request->stats.computing += step_time_;
  if (result.error) return finish(sequence, FinishReason::failed, std::nullopt, std::move(result.error));
  const bool prompt_was_done = sequence.prompt_done();
  kv_.settle(sequence, row.position + row.num_tokens);
  take_prompt_logprobs(row, result);
  take_prompt_rows(row, result);
  if (sequence.state == SequenceState::finished) return;
  if (!prompt_was_done && sequence.prompt_done()) prompt_finished(sequence);
  if (row.sample && sequence.state != SequenceState::finished) take_tokens(row, result);
  // Its siblings would read the same prompt, and say nothing either.
  if (sequence.max_output == 0 && sequence.prompt_done()) {
    finish_all(*sequence.request, FinishReason::length, std::nullopt);
  }
}

// The accepted drafts, whose keys and values this step has computed, and one token more.
void StepLoop::take_tokens(const ScheduledSequence& row, const SequenceResult& result) {
  Sequence& sequence = *row.sequence;
  const size_t num_tokens = result.tokens.size();
  if (num_tokens == 0 || num_tokens > static_cast<size_t>(row.num_draft) + 1 ||
      (!result.logprobs.empty() && result.logprobs.size() != num_tokens)) {
    return finish(sequence, FinishReason::failed, std::nullopt,
                  make_error(ErrorCode::internal, fmt::format("the model runner sampled {} tokens after {} drafts",
                                                              num_tokens, row.num_draft)));
  }
  if (row.num_draft > 0) {
    const auto num_accepted = static_cast<int32_t>(num_tokens) - 1;
    speculator_.verified(sequence, row.num_draft, num_accepted);
    sequence.request->stats.draft_tokens += row.num_draft;
    sequence.request->stats.accepted_tokens += num_accepted;
  }
  for (size_t i = 0; i < num_tokens && sequence.state != SequenceState::finished; ++i) {
    if (i > 0) {
      scheduler_.accepted(sequence);
      kv_.settle(sequence, sequence.num_computed);
    }
    take_token(sequence, result.tokens[i], result.logprobs.empty() ? nullptr : &result.logprobs[i]);
  }
}

void StepLoop::take_prompt_logprobs(const ScheduledSequence& row, SequenceResult& result) {
  if (result.prompt_logprobs.empty()) return;
  RequestState& request = *row.sequence->request;
  std::vector<TokenLogprobs>& all = request.prompt_logprobs;
  all.resize(request.request.prompt.size() - 1);
  for (size_t i = 0; i < result.prompt_logprobs.size(); ++i) {
    const size_t index = static_cast<size_t>(row.position) + i;
    if (index < all.size()) all[index] = std::move(result.prompt_logprobs[i]);
  }
}

// What a preempted request computes anew comes to the place where it was.
void StepLoop::take_prompt_rows(const ScheduledSequence& row, const SequenceResult& result) {
  RequestState& request = *row.sequence->request;
  const PromptRows wanted = request.request.sampling.prompt_rows;
  if (wanted == PromptRows::none) return;
  const ModelSpec& spec = runner_.spec();
  const auto width = static_cast<size_t>(wanted == PromptRows::logits ? spec.vocab_size : spec.hidden_size);
  const std::vector<float>& rows = wanted == PromptRows::logits ? result.logits : result.hidden;
  if (rows.size() != static_cast<size_t>(row.num_tokens) * width) {
    return finish(*row.sequence, FinishReason::failed, std::nullopt,
                  make_error(ErrorCode::internal, fmt::format("the model runner gave {} numbers for {} tokens",
                                                              rows.size(), row.num_tokens)));
  }
  request.prompt_rows.resize(request.request.prompt.size() * width);
  std::ranges::copy(rows, request.prompt_rows.begin() +
                              static_cast<std::ptrdiff_t>(row.position) * static_cast<std::ptrdiff_t>(width));
}

void StepLoop::prompt_finished(Sequence& sequence) {
  RequestState& request = *sequence.request;
  if (sequence.sample != 0 || sequence.num_output() > 0) return;  // siblings, and recomputing after preemption
  if (!sequence.idle()) counters_.prompt_tokens += static_cast<uint64_t>(sequence.prompt_size);
  release_held_samples(request);
  if (request.request.sampling.prompt_rows != PromptRows::none) {
    emit(request, [&](TokenSink& sink) { sink.on_prompt_rows(std::move(request.prompt_rows)); });
  }
  if (!request.request.sampling.prompt_logprobs) return;
  emit(request, [&](TokenSink& sink) { sink.on_prompt_logprobs(std::move(request.prompt_logprobs)); });
}

void StepLoop::take_token(Sequence& sequence, Token token, const TokenLogprobs* logprobs) {
  RequestState& request = *sequence.request;
  const bool may_end = sequence.num_output() >= request.request.sampling.min_tokens;
  const bool ends = may_end && std::ranges::find(request.ending_tokens, token) != request.ending_tokens.end();
  sequence.tokens.push_back(token);
  ++request.stats.output_tokens;
  if (!sequence.idle()) ++counters_.generation_tokens;
  if (request.stats.first_token == TimePoint{}) {
    request.stats.first_token = now_;
    request.stats.computing_first = request.stats.computing;
  }
  if (sequence.grammar != nullptr && !ends) {
    if (Status accepted = sequence.grammar->accept(token); !accepted.ok()) {
      return finish(sequence, FinishReason::failed, std::nullopt, accepted.error());
    }
  }
  emit(request, [&](TokenSink& sink) { sink.on_token(sequence.sample, token, logprobs, ends); });
  if (sequence.state == SequenceState::finished) return;  // the sink threw
  if (ends) {
    finish(sequence, FinishReason::stop, token);
  } else if (sequence.grammar != nullptr && sequence.grammar->is_finished()) {
    finish(sequence, FinishReason::stop);
  } else if (sequence.num_output() >= sequence.max_output) {
    finish(sequence, FinishReason::length);
  }
}

void StepLoop::finish(Sequence& sequence, FinishReason reason, std::optional<Token> stop_token,
                      std::optional<Error> error) {
  if (sequence.state == SequenceState::finished) return;
  RequestState& request = *sequence.request;
  scheduler_.remove(sequence);
  if (sequence.state == SequenceState::fetching) traffic_->forget(sequence);
  if (draft_model_ != nullptr) draft_model_->forget(sequence);
  sequence.state = SequenceState::finished;
  if (!sequence.idle()) --num_live_samples_;
  --request.num_live;
  request.last_reason = reason;
  if (error && !request.error) request.error = std::move(error);
  release_if_unused(sequence);
  emit(request, [&](TokenSink& sink) { sink.on_sample_finished(sequence.sample, reason, stop_token); });
  if (request.num_live == 0) return finish_request(request);
  if (sequence.sample == 0) release_held_samples(request);  // nobody else will read the prompt for them
}

void StepLoop::finish_all(RequestState& request, FinishReason reason, const std::optional<Error>& error) {
  // Held samples leave first, so that the end of sample 0 does not send them to the scheduler.
  for (auto sample = request.samples.rbegin(); sample != request.samples.rend(); ++sample) {
    finish(**sample, reason, std::nullopt, error);
  }
}

void StepLoop::finish_request(RequestState& request) {
  if (request.done) return;
  request.done = true;
  mark_started(request);
  by_id_.erase(request.request.id);
  if (request.request.idle) --num_live_idle_;
  if (request.request.deadline) deadlines_.erase({*request.request.deadline, request.arrival});
  request.stats.finished = now_;
  RequestOutcome outcome;
  outcome.reason = request.last_reason;
  outcome.error = request.error;
  if (outcome.error) {
    const bool timed_out = outcome.error->code == ErrorCode::deadline_exceeded;
    outcome.reason = timed_out ? FinishReason::cancelled : FinishReason::failed;
  }
  outcome.stats = request.stats;
  if (!request.request.idle) ++counters_.finished_requests;
  done_.push_back(request.arrival);
  emit(request, [&](TokenSink& sink) { sink.on_done(outcome); });
  events_.done(request.request);
}

void StepLoop::release_if_unused(Sequence& sequence) {
  if (sequence.state == SequenceState::finished && sequence.num_in_flight == 0) kv_.release(sequence);
}

void StepLoop::reap() {
  std::erase_if(done_, [&](uint64_t arrival) {
    RequestState& request = *requests_.at(arrival);
    request.request.sink.reset();  // has heard everything
    if (std::ranges::any_of(request.samples, [](const auto& s) { return s->num_in_flight > 0; })) return false;
    requests_.erase(arrival);
    return true;
  });
}

}  // namespace inferneo
