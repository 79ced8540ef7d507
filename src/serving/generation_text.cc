// How the engine's tokens become text and an end: of a Generation, what its text threads do (serving/generation.h).
#include <algorithm>
#include <utility>

#include "serving/generation.h"

namespace inferneo {

void Generation::drain() {
  std::vector<Event> events;
  for (;;) {
    events.clear();
    {
      std::lock_guard lock(mutex_);
      events.swap(events_);
      if (events.empty()) {
        drain_scheduled_ = false;
        return;
      }
    }
    for (Event& event : events) {
      if (recording_ != nullptr) record(event);
      handle(event);
    }
    for (Sample& sample : samples_) {
      if (!sample.dirty) continue;
      OutputDelta delta = std::exchange(sample.delta, OutputDelta{});
      sample.delta.sample = delta.sample;
      sample.dirty = false;
      if (sink_ != nullptr) sink_->on_delta(std::move(delta));
    }
    if (events.back().kind == Event::Kind::done) {  // always the last event there is
      const RequestOutcome& ended = events.back().outcome;
      GenerateOutcome outcome;
      outcome.error = text_error_ ? text_error_ : ended.error;
      if (!outcome.error && ended.reason == FinishReason::cancelled) {
        outcome.error = make_error(ErrorCode::cancelled, "the request was cancelled");
      }
      outcome.usage.prompt_tokens = static_cast<int32_t>(prompt_.size());
      outcome.usage.cached_tokens = ended.stats.cached_tokens;
      outcome.usage.draft_tokens = ended.stats.draft_tokens;
      outcome.usage.accepted_tokens = ended.stats.accepted_tokens;
      for (const Sample& sample : samples_) outcome.usage.completion_tokens += sample.num_tokens;
      outcome.stats = ended.stats;
      outcome.usage.from_cache = replayed_ != nullptr;
      if (outcome.usage.from_cache) outcome.usage.cached_completion_tokens = outcome.usage.completion_tokens;
      const bool began = outcome.usage.from_cache || ended.stats.scheduled != TimePoint{};
      settle(began ? int64_t{outcome.usage.prompt_tokens} + ended.stats.output_tokens : 0);
      finish(std::move(outcome), text_error_ ? FinishReason::failed : ended.reason);
    }
  }
}

// The prompt is known: its place in the queue, where it waits, grows by it, and the tenant pays for it and for what may
// come.
Status Generation::charge(const LoadedModel& model, bool waits) {
  const auto prompt = static_cast<int64_t>(prompt_.size());
  if (waits && waiting_ != nullptr) RETURN_IF_ERROR(waiting_->grow(prompt));
  if (request_.ticket == nullptr) return ok_status();
  const SamplingParams& sampling = request_.sampling;
  const int64_t room = std::max<int64_t>(model.max_model_len - prompt, 0);
  const int64_t output =
      std::min({room, int64_t{sampling.max_tokens.value_or(kMaxReservedOutput)}, kMaxReservedOutput});
  ASSIGN_OR_RETURN(charged_, request_.ticket->charge(prompt + output * std::max(sampling.n, 1)));
  return ok_status();
}

void Generation::settle(int64_t used) {
  leave_queue();
  if (request_.ticket == nullptr) return;
  request_.ticket->settle(std::exchange(charged_, 0), used);
  // Before the client hears of the end: its next request finds the place free.
  request_.ticket.reset();
}

void Generation::handle(Event& event) {
  leave_queue();
  switch (event.kind) {
    case Event::Kind::prompt_logprobs:
      send_prompt_info(std::move(event.prompt_logprobs));
      return;
    case Event::Kind::prompt_rows:
      if (sink_ != nullptr) sink_->on_prompt_rows(std::move(event.prompt_rows));
      return;
    case Event::Kind::token:
      handle_token(event);
      return;
    case Event::Kind::sample_finished: {
      Sample& sample = samples_[static_cast<size_t>(event.sample)];
      if (sample.finished) return;  // a stop string ended it before
      if (event.reason == FinishReason::failed || event.reason == FinishReason::cancelled) {
        sample.finished = true;  // the request's error says so, and nothing else: there is one end
        return;
      }
      auto rest = sample.decoder->finish();
      if (!rest.ok()) {
        sample.finished = true;
        decode_failed(rest.error());
        return;
      }
      append_text(event.sample, sample, std::move(rest).value());
      if (sample.finished) return;  // the flushed text completed a stop string
      if (sample.stops) sample.delta.text += sample.stops->flush();
      const std::vector<Token>& asked = request_.sampling.stop_token_ids;
      const bool by_token = event.stop_token && std::find(asked.begin(), asked.end(), *event.stop_token) != asked.end();
      finish_sample(sample, event.reason, by_token ? std::to_string(*event.stop_token) : std::string());
      return;
    }
    case Event::Kind::done:
      return;  // drain() reports it after the last deltas
  }
}

void Generation::handle_token(Event& event) {
  Sample& sample = samples_[static_cast<size_t>(event.sample)];
  if (sample.finished || text_error_) return;  // an overrun past a stop string, or past what cannot be told
  ++sample.num_tokens;
  sample.dirty = true;
  if (event.is_stop_token) return;  // counted, never shown
  sample.delta.tokens.push_back(event.token);
  if (event.logprobs) sample.delta.logprobs.push_back(describe(*event.logprobs));
  auto text = sample.decoder->push(event.token);
  if (!text.ok()) {
    decode_failed(text.error());
    return;
  }
  append_text(event.sample, sample, std::move(text).value());
}

void Generation::append_text(int32_t index, Sample& sample, std::string text) {
  const bool may_stop = sample.stops && sample.num_tokens >= request_.sampling.min_tokens;
  if (!may_stop) {
    if (sample.stops) text.insert(0, sample.stops->flush());
    sample.delta.text += text;
    sample.dirty |= !text.empty();
    return;
  }
  StopFilter::Output output = sample.stops->push(text);
  sample.delta.text += output.text;
  sample.dirty |= !output.text.empty();
  if (!output.stop) return;
  finish_sample(sample, FinishReason::stop, *output.stop);
  if (replayed_ == nullptr) lease_->core->finish_sample(id_, index);
}

void Generation::finish_sample(Sample& sample, FinishReason reason, std::string stop_reason) {
  sample.finished = true;
  sample.dirty = true;
  sample.delta.finish = reason;
  sample.reason = reason;
  sample.delta.stop_reason = std::move(stop_reason);
}

void Generation::decode_failed(const Error& error) {
  if (!text_error_) text_error_ = error;
  if (replayed_ == nullptr) lease_->core->cancel(id_);
}

TokenLogprobText Generation::describe_one(Token token, float logprob) const {
  TokenLogprobText described;
  described.token = token;
  described.logprob = logprob;
  described.bytes = lease_->tokenizer->token_bytes(token);
  if (auto text = lease_->tokenizer->decode(std::span(&token, 1), false); text.ok()) {
    described.text = std::move(text).value();
  }
  return described;
}

TokenLogprobText Generation::describe(const TokenLogprobs& logprobs) const {
  TokenLogprobText described = describe_one(logprobs.token, logprobs.logprob);
  for (const auto& [token, logprob] : logprobs.top) described.top.push_back(describe_one(token, logprob));
  return described;
}

void Generation::fail(Error error) {
  request_.on_submitted = nullptr;
  GenerateOutcome outcome;
  const FinishReason reason = error.code == ErrorCode::cancelled ? FinishReason::cancelled : FinishReason::failed;
  outcome.error = std::move(error);
  outcome.usage.prompt_tokens = static_cast<int32_t>(prompt_.size());
  settle(0);  // it never reached an engine
  finish(std::move(outcome), reason);
}

void Generation::finish(GenerateOutcome outcome, FinishReason reason) {
  if (metrics_ != nullptr) {
    ModelMetrics::Shape shape{request_.sampling.n, request_.sampling.max_tokens};
    for (const Sample& sample : samples_) shape.longest_sample = std::max(shape.longest_sample, sample.num_tokens);
    metrics_->record_outcome(outcome, reason, shape, context_.clock.now());
  } else if (outcome.error) {
    context_.refused(outcome.error->code);
  }
  if (request_.trace != nullptr) send_spans(outcome, reason);
  const std::shared_ptr<OutputSink> sink = std::exchange(sink_, nullptr);
  if (sink != nullptr) sink->on_done(std::move(outcome));
  lease_.reset();
}

void Generation::send_spans(const GenerateOutcome& outcome, FinishReason reason) {
  times_.arrived = arrived_;
  times_.ended = context_.clock.now();
  GenerationFacts facts{.request = request_, .outcome = outcome, .times = times_};
  const std::shared_ptr<const Catalog> catalog = context_.manager.catalog();
  if (catalog->resolve(request_.model).ok()) facts.asked_model = request_.model;
  if (lease_ != nullptr) {
    facts.model = catalog->shown(lease_->id);
    facts.model_id = lease_->id;
  }
  for (const Sample& sample : samples_) {
    facts.finish_reasons.emplace_back(inferneo::finish_reason_name(sample.reason.value_or(reason)));
  }
  request_.trace->send(generation_spans(*request_.trace, facts));
}

}  // namespace inferneo
