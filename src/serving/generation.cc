#include "serving/generation.h"

#include <algorithm>
#include <utility>

#include "serving/graph_call.h"

namespace inferneo {
namespace {

std::optional<Duration> longest_of(std::optional<Duration> asked, std::optional<Duration> allowed) {
  if (asked && allowed) return std::min(*asked, *allowed);
  return asked ? asked : allowed;
}

}  // namespace

Generation::Generation(GenerationContext& context, RequestId id, GenerateRequest request,
                       std::shared_ptr<OutputSink> sink)
    : context_(context), id_(id), request_(std::move(request)), arrived_(context.clock.now()), sink_(std::move(sink)) {}

void Generation::start() {
  if (context_.admission != nullptr && !request_.is_copy) {  // a copy takes nobody's place
    Result<std::unique_ptr<AdmissionPlace>> place = context_.admission->join(request_);
    if (!place.ok()) return on_lease(std::move(place).error());
    waiting_ = *std::move(place);
  }
  auto self = shared_from_this();
  const bool accepted = context_.pool.try_post([self] {
    GenerateRequest& request = self->request_;
    if (request.trace != nullptr) {
      self->times_.asked = self->context_.clock.now();
      self->asker_ = std::this_thread::get_id();
    }
    // Rules may have sent it elsewhere.
    const ModelLease held = std::move(request.held);
    if (held != nullptr && held->id == request.model) return self->on_lease(held);
    auto on_lease = [self](Result<ModelLease> lease) {
      // A model that is ready calls back here and now, one that is loading from the manager's thread.
      self->on_lease(std::move(lease));
    };
    self->context_.manager.acquire(
        request.model, std::move(on_lease),
        {.priority = request.priority, .keep_alive = request.keep_alive, .idle = request.is_copy});
  });
  if (!accepted) {
    on_lease(make_error(ErrorCode::queue_full, "too many requests wait to be read; try again later"));
  }
}

void Generation::on_lease(Result<ModelLease> lease) {
  if (request_.trace != nullptr && times_.asked != TimePoint{}) {
    times_.leased = context_.clock.now();
    times_.waited = std::this_thread::get_id() != asker_;
  }
  // Onwards on a text thread, whoever called: sinks are promised that.
  auto held = std::make_shared<Result<ModelLease>>(std::move(lease));
  context_.pool.post_beginning([self = shared_from_this(), held] { self->prepare(std::move(*held)); });
}

void Generation::prepare(Result<ModelLease> lease) {
  if (!lease.ok()) {
    fail(std::move(lease).error());
    return;
  }
  if (is_cancelled()) {  // nobody waits for what a template or a grammar would cost
    fail(make_error(ErrorCode::cancelled, "the request was cancelled"));
    return;
  }
  lease_ = *lease;
  if (!request_.is_copy) metrics_ = context_.metrics(lease_->id);
  if (lease_->graph != nullptr) {
    fail(wrong_kind(*lease_, context_.manager.catalog()->shown(lease_->id)));
    return;
  }
  if (request_.on_model) request_.on_model(*lease_->tokenizer, request_);
  // The local lease: once submitted, another thread may finish the request and give up lease_.
  if (Status status = submit(**lease); !status.ok()) fail(std::move(status).error());
}

Result<std::vector<Token>> Generation::prompt_tokens() const {
  const Tokenizer& tokenizer = *lease_->tokenizer;
  if (const auto* tokens = std::get_if<std::vector<Token>>(&request_.prompt)) return *tokens;
  if (const auto* text = std::get_if<std::string>(&request_.prompt)) {
    return tokenizer.encode_salted(*text, request_.add_special_tokens, request_.cache_salt);
  }
  const ChatInput& chat = std::get<ChatInput>(request_.prompt);
  if (!tokenizer.has_chat_template() && chat.chat_template.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "this model has no chat template; use /v1/completions, or start with --chat-template FILE",
                      "messages");
  }
  return tokenizer.apply_chat_template(chat);
}

void Generation::apply_defaults() {
  const GenerationDefaults& defaults = lease_->defaults;
  const ExplicitSampling& set = request_.explicit_sampling;
  SamplingParams& sampling = request_.sampling;
  if (!set.temperature && defaults.temperature) sampling.temperature = *defaults.temperature;
  if (!set.top_p && defaults.top_p) sampling.top_p = *defaults.top_p;
  if (!set.top_k && defaults.top_k) sampling.top_k = *defaults.top_k;
  if (!set.min_p && defaults.min_p) sampling.min_p = *defaults.min_p;
  if (!set.repetition_penalty && defaults.repetition_penalty) {
    sampling.repetition_penalty = *defaults.repetition_penalty;
  }
}

Status Generation::read_prompt() {
  apply_defaults();
  if (auto* chat = std::get_if<ChatInput>(&request_.prompt)) chat->cache_salt = request_.cache_salt;
  ASSIGN_OR_RETURN(prompt_, prompt_tokens());
  return ok_status();
}

Result<Request> Generation::make_request(const LoadedModel& model) {
  const SamplingParams& sampling = request_.sampling;
  Request request;
  request.id = id_;
  request.prompt = prompt_;
  request.sampling = sampling;
  if (!sampling.seed) request_.sampling.seed = context_.next_seed();  // a copy shall draw the same
  request.seed = *sampling.seed;
  request.priority = request_.priority;
  if (request_.ticket != nullptr) request.tenant = request_.ticket->tenant();
  const auto allowed = request_.is_copy ? std::nullopt : context_.longest;
  if (const auto longest = longest_of(request_.timeout, allowed)) request.deadline = arrived_ + *longest;
  request.idle = request_.is_copy;
  request.cache_salt = request_.cache_salt;
  request.needs_host_tokens = !sampling.stop.empty();
  if (!request_.prediction.empty()) {
    ASSIGN_OR_RETURN(request.prediction,
                     model.tokenizer->encode_salted(request_.prediction, false, request_.cache_salt));
    const auto longest = static_cast<size_t>(model.max_model_len);  // no output can follow it further
    if (request.prediction.size() > longest) request.prediction.resize(longest);
  }
  if (sampling.grammar.kind != GrammarSpec::Kind::none) {
    auto grammar = model.tokenizer->compile_grammar(sampling.grammar, model.spec.vocab_size, model.spec.eos_token_ids);
    if (!grammar.ok()) {
      Error error = std::move(grammar).error();
      error.param = "grammar";
      return error;
    }
    request.grammar = std::move(grammar).value();
  }
  request.sink = shared_from_this();
  return request;
}

void Generation::open_samples(const LoadedModel& model) {
  const SamplingParams& sampling = request_.sampling;
  samples_.resize(static_cast<size_t>(std::max(sampling.n, 1)));
  for (size_t i = 0; i < samples_.size(); ++i) {
    samples_[i].decoder = model.tokenizer->new_stream(request_.skip_special_tokens);
    samples_[i].delta.sample = static_cast<int32_t>(i);
    if (!sampling.stop.empty()) samples_[i].stops.emplace(sampling.stop);
  }
}

Status Generation::submit(LoadedModel& model) {
  RETURN_IF_ERROR(read_prompt());
  if (auto answer = known_answer(model)) {
    RETURN_IF_ERROR(charge(model, false));
    open_samples(model);
    return replay(std::move(answer));
  }
  ASSIGN_OR_RETURN(Request request, make_request(model));
  RETURN_IF_ERROR(charge(model, true));
  open_samples(model);
  if (!request_.sampling.prompt_logprobs) send_prompt_info({});
  {
    std::lock_guard lock(mutex_);
    if (cancelled_) return make_error(ErrorCode::cancelled, "the request was cancelled");
    submitted_to_ = lease_;
  }
  // Taken out, since it may hold what holds this; and from here on nothing changes the request.
  const auto on_submitted = std::exchange(request_.on_submitted, nullptr);
  RETURN_IF_ERROR(model.core->submit(std::move(request)));
  bool cancelled = false;
  {
    std::lock_guard lock(mutex_);
    submitted_ = true;
    cancelled = cancelled_;
  }
  // From here on the events may have ended the request on another thread; the weak reference is what is safe to use.
  if (cancelled) cancel();
  if (on_submitted) on_submitted(request_, static_cast<int32_t>(prompt_.size()));
  return ok_status();
}

bool Generation::is_cancelled() {
  std::lock_guard lock(mutex_);
  return cancelled_;
}

void Generation::cancel() {
  ModelLease model;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    if (!submitted_) return;
    model = submitted_to_.lock();
  }
  if (model != nullptr) model->core->cancel(id_);
}

void Generation::send_prompt_info(std::vector<TokenLogprobs> logprobs) {
  PromptInfo info;
  info.tokens = prompt_;
  info.tokenizer = lease_->tokenizer;
  if (const auto* chat = std::get_if<ChatInput>(&request_.prompt)) info.chat_template = chat->chat_template;
  info.model = context_.manager.catalog()->shown(lease_->id);
  if (request_.sampling.echo) {
    if (const auto* text = std::get_if<std::string>(&request_.prompt)) {
      info.echo_text = *text;
    } else if (auto text_of_tokens = lease_->tokenizer->decode(prompt_, false); text_of_tokens.ok()) {
      info.echo_text = std::move(text_of_tokens).value();
    }
  }
  for (const TokenLogprobs& entry : logprobs) info.logprobs.push_back(describe(entry));
  sink_->on_prompt(std::move(info));
}

// ---- engine thread: queue only ----

void Generation::on_prompt_logprobs(std::vector<TokenLogprobs> logprobs) {
  Event event;
  event.kind = Event::Kind::prompt_logprobs;
  event.prompt_logprobs = std::move(logprobs);
  enqueue(std::move(event));
}

void Generation::on_prompt_rows(std::vector<float> rows) {
  Event event;
  event.kind = Event::Kind::prompt_rows;
  event.prompt_rows = std::move(rows);
  enqueue(std::move(event));
}

void Generation::count_prompt(TimePoint now) {
  if (metrics_ == nullptr || std::exchange(prompt_counted_, true)) return;
  metrics_->record_prompt(now, static_cast<int32_t>(prompt_.size()));
}

void Generation::on_token(int32_t sample, Token token, const TokenLogprobs* logprobs, bool is_stop_token) {
  Sample& state = samples_[static_cast<size_t>(sample)];
  const TimePoint now = context_.clock.now();
  count_prompt(now);
  if (metrics_ != nullptr) {
    metrics_->record_token(now, state.last_token ? std::optional<Duration>(now - *state.last_token) : std::nullopt);
  }
  state.last_token = now;
  Event event;
  event.kind = Event::Kind::token;
  event.sample = sample;
  event.token = token;
  event.is_stop_token = is_stop_token;
  if (logprobs != nullptr) event.logprobs = *logprobs;
  enqueue(std::move(event));
}

void Generation::on_sample_finished(int32_t sample, FinishReason reason, std::optional<Token> stop_token) {
  // Of a prompt that was only read there is no token.
  if (reason == FinishReason::length || reason == FinishReason::stop) count_prompt(context_.clock.now());
  Event event;
  event.kind = Event::Kind::sample_finished;
  event.sample = sample;
  event.reason = reason;
  event.stop_token = stop_token;
  enqueue(std::move(event));
}

void Generation::on_done(const RequestOutcome& outcome) {
  Event event;
  event.kind = Event::Kind::done;
  event.outcome = outcome;
  enqueue(std::move(event));
}

void Generation::enqueue(Event event) {
  {
    std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    if (drain_scheduled_) return;
    drain_scheduled_ = true;
  }
  context_.pool.post([self = shared_from_this()] { self->drain(); });
}

// ---- text threads ----

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
