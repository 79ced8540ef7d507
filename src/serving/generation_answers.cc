// How a request is answered from the model's cache of answers, and how its answer gets there (manager/answer_cache.h).
//
// What is replayed goes through the same events as what an engine says, on the text pool, a few at a time: the client
// gets deltas, may leave in between, and other requests' work gets its turn. No engine, no latency metric and no rate
// of a queue sees such a request; its tenant pays for it like for any other.
#include <algorithm>
#include <memory>
#include <utility>

#include "serving/generation.h"

namespace inferneo {
namespace {

constexpr size_t kEventsAtATime = 32;

}  // namespace

// Copies are computed, and so are their originals: their differences are what somebody wants to know.
bool Generation::may_use_answers(const LoadedModel& model) const {
  return model.answers != nullptr && !request_.is_copy && request_.on_submitted == nullptr &&
         has_certain_answer(request_.sampling);
}

std::shared_ptr<const CachedAnswer> Generation::known_answer(const LoadedModel& model) {
  if (!may_use_answers(model)) return nullptr;
  const AnswerKey key = answer_key({prompt_, request_.sampling, request_.cache_salt, request_.skip_special_tokens});
  if (auto answer = model.answers->find(key, context_.clock.now())) return answer;
  recording_ = std::make_unique<Recording>();
  recording_->key = key;
  return nullptr;
}

Status Generation::replay(std::shared_ptr<const CachedAnswer> answer) {
  replayed_ = std::move(answer);
  if (waiting_ != nullptr) waiting_->withdraw();
  if (!request_.sampling.prompt_logprobs) send_prompt_info({});
  context_.pool.post([self = shared_from_this()] { self->replay_some(0); });
  return ok_status();
}

Generation::Event Generation::replayed_event(size_t index) const {
  const CachedAnswer::Event& kept = replayed_->events[index];
  Event event;
  event.sample = kept.sample;
  if (kept.is_end) {
    event.kind = Event::Kind::sample_finished;
    event.reason = kept.reason;
    if (kept.token >= 0) event.stop_token = kept.token;
  } else {
    event.token = kept.token;
    event.is_stop_token = kept.is_stop_token;
    if (kept.logprobs >= 0) event.logprobs = replayed_->logprobs[static_cast<size_t>(kept.logprobs)];
  }
  return event;
}

// Nobody else has events for such a request: what is put there is drained here and now, before the next comes.
void Generation::replay_some(size_t from) {
  const size_t end = std::min(from + kEventsAtATime, replayed_->events.size());
  const bool left = is_cancelled();
  const bool is_last = left || end == replayed_->events.size();
  std::vector<Event> events;
  if (from == 0 && request_.sampling.prompt_logprobs) {
    events.emplace_back().kind = Event::Kind::prompt_logprobs;
    events.back().prompt_logprobs = replayed_->prompt_logprobs;
  }
  for (size_t i = from; i < end && !left; ++i) events.push_back(replayed_event(i));
  if (is_last) {
    Event& done = events.emplace_back();
    done.kind = Event::Kind::done;
    done.outcome.reason = left ? FinishReason::cancelled : replayed_->reason;
    done.outcome.stats.prompt_tokens = static_cast<int32_t>(prompt_.size());
    done.outcome.stats.cached_tokens = done.outcome.stats.prompt_tokens;
    done.outcome.stats.output_tokens = replayed_->output_tokens;
  }
  {
    const std::lock_guard lock(mutex_);
    events_ = std::move(events);
    drain_scheduled_ = true;
  }
  drain();
  if (!is_last) context_.pool.post([self = shared_from_this(), end] { self->replay_some(end); });
}

void Generation::record(const Event& event) {
  CachedAnswer& answer = *recording_->answer;
  switch (event.kind) {
    case Event::Kind::prompt_logprobs:
      answer.prompt_logprobs = event.prompt_logprobs;
      return;
    case Event::Kind::prompt_rows:
      break;  // of no request that is recorded
    case Event::Kind::token: {
      if (answer.events.size() * sizeof(CachedAnswer::Event) > lease_->answers->max_answer_bytes()) {
        recording_.reset();  // too long to be kept
        return;
      }
      CachedAnswer::Event kept{.sample = event.sample, .token = event.token, .is_stop_token = event.is_stop_token};
      if (event.logprobs) {
        kept.logprobs = static_cast<int32_t>(answer.logprobs.size());
        answer.logprobs.push_back(*event.logprobs);
      }
      answer.events.push_back(kept);
      return;
    }
    case Event::Kind::sample_finished:
      answer.events.push_back(
          {.sample = event.sample, .token = event.stop_token.value_or(-1), .is_end = true, .reason = event.reason});
      return;
    case Event::Kind::done: {
      const RequestOutcome& outcome = event.outcome;
      const bool whole = outcome.reason == FinishReason::stop || outcome.reason == FinishReason::length;
      if (whole && !outcome.error && !text_error_) {
        answer.reason = outcome.reason;
        answer.output_tokens = outcome.stats.output_tokens;
        answer.events.shrink_to_fit();
        lease_->answers->insert(recording_->key, std::move(recording_->answer), context_.clock.now());
      }
      recording_.reset();
      return;
    }
  }
}

}  // namespace inferneo
