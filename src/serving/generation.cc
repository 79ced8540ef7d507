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

// Tokens that wait for a text thread's turn where nobody waits for their text: waking one for each takes its core from
// a small model's steps. Few enough that the last turn is soon over.
constexpr size_t kGatheredTokens = 64;

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
  gathers_ = request_.whole && sampling.stop.empty();
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
    // The first one ends the wait for a place.
    const bool may_wait = gathers_ && event.kind == Event::Kind::token && std::exchange(first_told_, true);
    events_.push_back(std::move(event));
    if (drain_scheduled_ || (may_wait && events_.size() < kGatheredTokens)) return;
    drain_scheduled_ = true;
  }
  context_.pool.post([self = shared_from_this()] { self->drain(); });
}

}  // namespace inferneo
