#include "serving/routed_service.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "serving/request_spans.h"
#include "serving/request_view.h"
#include "serving/routed_call.h"

namespace inferneo {
namespace {

std::string_view prompt_of(const GenerateRequest& request) {
  if (!request.traits.prompt.empty()) return request.traits.prompt;
  const auto* const text = std::get_if<std::string>(&request.prompt);
  return text == nullptr ? std::string_view() : std::string_view(*text);
}

std::optional<int64_t> given_tokens(const GenerateRequest& request) {
  const auto* const tokens = std::get_if<std::vector<Token>>(&request.prompt);
  if (tokens == nullptr) return std::nullopt;
  return static_cast<int64_t>(tokens->size());
}

// The facts of a request, and the views that they hold.
struct FactsOfRequest {
  FactsOfRequest(const RoutedService::Context& context, const GenerateRequest& request)
      : view(context, request.traits, prompt_of(request), given_tokens(request), request.cache_salt) {
    conversation.assign(request.traits.conversation.begin(), request.traits.conversation.end());
    facts.prompt = prompt_of(request);
    if (conversation.empty()) conversation.push_back(facts.prompt);
    facts.conversation = conversation;
    facts.model = request.model;
    facts.user = request.user;
    facts.turns = request.traits.turns;
    if (request.sampling.max_tokens > 0) facts.max_tokens = request.sampling.max_tokens;
    facts.has_tools = request.traits.has_tools;
    facts.stream = request.traits.stream;
    facts.view = &view;
    keys = keys_of(request.traits, request.user);
  }
  FactsOfRequest(const FactsOfRequest&) = delete;
  FactsOfRequest& operator=(const FactsOfRequest&) = delete;

  RequestView view;
  std::vector<std::string_view> conversation;
  RequestFacts facts;
  RequestKeys keys;
};

void apply(const SamplingOverrides& overrides, GenerateRequest& request) {
  SamplingParams& sampling = request.sampling;
  ExplicitSampling& is_set = request.explicit_sampling;
  const auto take = [](const auto& from, auto& to, bool& set) {
    if (!from) return;
    to = *from;
    set = true;
  };
  bool unused = false;
  take(overrides.temperature, sampling.temperature, is_set.temperature);
  take(overrides.top_k, sampling.top_k, is_set.top_k);
  take(overrides.top_p, sampling.top_p, is_set.top_p);
  take(overrides.min_p, sampling.min_p, is_set.min_p);
  take(overrides.repetition_penalty, sampling.repetition_penalty, is_set.repetition_penalty);
  take(overrides.presence_penalty, sampling.presence_penalty, unused);
  take(overrides.frequency_penalty, sampling.frequency_penalty, unused);
  if (sampling.max_tokens != 0) take(overrides.max_tokens, sampling.max_tokens, unused);  // 0: no answer is wanted
}

// The arm's own template and system prompt; what is no chat is rendered by nobody.
void apply_prompts(const ABTestArm& arm, GenerateRequest& request) {
  auto* const chat = std::get_if<ChatInput>(&request.prompt);
  if (chat == nullptr) return;
  chat->chat_template = arm.prompt_template;
  chat->system_prompt = arm.system_prompt;
}

OutcomeFinish finish_of(const GenerateOutcome& outcome, const std::optional<FinishReason>& last) {
  if (outcome.error) {
    return outcome.error->code == ErrorCode::cancelled ? OutcomeFinish::cancelled : OutcomeFinish::failed;
  }
  return last == FinishReason::length ? OutcomeFinish::length : OutcomeFinish::stop;
}

}  // namespace

// One request behind its route: passes events on, tries the next model of a chain while nothing has been said yet, and
// tells the test what came of it. Shared by the inner service (as sink) and by the caller (as handle).
class RoutedGeneration final : public GenerationHandle,
                               public OutputSink,
                               public std::enable_shared_from_this<RoutedGeneration> {
 public:
  RoutedGeneration(const RoutedService::Context& context, GenerateRequest request, std::shared_ptr<OutputSink> sink)
      : context_(context),
        request_(std::move(request)),
        sink_(std::move(sink)),
        request_id_(request_.request_id),
        began_(context.clock.now()) {}

  // On a text thread.
  void start() {
    const TimePoint begin = request_.trace == nullptr ? TimePoint{} : context_.clock.now();
    (void)context_.traffic.advance();  // a ramp's step matters to whom it meets first
    {
      const FactsOfRequest of(context_, request_);
      route_ = context_.traffic.route(of.facts, of.keys);
    }
    send_span(begin);
    sink_->on_route(route_.text());
    if (route_.refusal) {
      request_.ticket.reset();
      return sink_->on_done({refusal_of(*route_.refusal), {}, {}});
    }
    if (const ABTestArm* const arm = route_.arm(); arm != nullptr) {
      request_.sampling.answer_cache = false;  // a test is of what the models compute
      apply(arm->sampling, request_);
      if (route_.has_arms_model()) {  // not those of another that answers in its place
        apply_prompts(*arm, request_);
        engine_may_go_ = !arm->settings.empty();
      }
    }
    request_.model = route_.model;
    submit();
  }

  void cancel() override {
    std::shared_ptr<GenerationHandle> handle;
    {
      const std::lock_guard lock(mutex_);
      cancelled_ = true;
      handle = handle_;
    }
    if (handle != nullptr) handle->cancel();
  }

  void on_prompt(PromptInfo info) override {
    answered_ = true;
    sink_->on_prompt(std::move(info));
  }
  void on_prompt_rows(std::vector<float> rows) override { sink_->on_prompt_rows(std::move(rows)); }
  void on_delta(OutputDelta delta) override {
    answered_ = true;
    if (!first_token_ && !delta.tokens.empty()) first_token_ = context_.clock.now();
    if (delta.finish) finish_ = delta.finish;
    sink_->on_delta(std::move(delta));
  }
  void on_done(GenerateOutcome outcome) override {
    if (outcome.error && !answered_ && !route_.rest.empty() && may_fall_back(*outcome.error) && !is_cancelled()) {
      return try_next();
    }
    if (outcome.error && outcome.error->code == ErrorCode::not_found && engine_may_go_ && !is_cancelled()) {
      return ask_without_settings();
    }
    tell(outcome);
    request_.ticket.reset();  // the end frees its place
    sink_->on_done(std::move(outcome));
  }

 private:
  bool is_cancelled() {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

  void send_span(TimePoint begin) {
    if (request_.trace == nullptr) return;
    const bool knows_model = !route_.model.empty() && context_.models.resolve(route_.model).has_value();
    request_.trace->send(route_span(*request_.trace, route_, knows_model, begin, context_.clock.now()));
  }

  void submit() {
    const bool last = route_.rest.empty() && !engine_may_go_;
    GenerateRequest request = last ? std::move(request_) : request_;  // kept for the next in the chain
    auto sink = context_.shadows.tap(request, shared_from_this());
    auto handle = context_.inner.generate(std::move(request), std::move(sink));
    bool cancelled = false;
    {
      const std::lock_guard lock(mutex_);
      handle_ = handle;
      cancelled = cancelled_;
    }
    if (cancelled) handle->cancel();
  }

  void try_next() {
    route_.model = std::move(route_.rest.front());
    route_.rest.erase(route_.rest.begin());
    route_.fallback = FallbackReason::failed;
    ask_another();
  }

  // The test ended, and its engines with it, between the choice of the arm and the look at the models.
  void ask_without_settings() {
    route_.model = arm_model(*route_.arm());
    ask_another();
  }

  void ask_another() {
    engine_may_go_ = false;
    route_.assignment.counted = false;  // another model's outcome is no evidence of the arm
    request_.model = route_.model;
    apply_prompts({}, request_);  // nor are its prompts made for that one
    send_span(context_.clock.now());
    sink_->on_route(route_.text());
    submit();
  }

  void tell(const GenerateOutcome& outcome) {
    const TimePoint now = context_.clock.now();
    Outcome told{.finish = finish_of(outcome, finish_),
                 .prompt_tokens = outcome.usage.prompt_tokens,
                 .completion_tokens = outcome.usage.completion_tokens};
    if (told.finish == OutcomeFinish::failed) told.error = outcome.error->code;
    if (first_token_) {
      told.time_to_first_token = to_seconds(*first_token_ - began_);
      const auto id = context_.models.resolve(route_.model);
      if (id && !outcome.usage.from_cache) {  // else it says nothing about the model
        context_.models.note_latency(*id, *told.time_to_first_token);
      }
      if (outcome.usage.completion_tokens > 1) {
        told.inter_token = to_seconds(now - *first_token_) / (outcome.usage.completion_tokens - 1);
      }
    }
    if (!outcome.error) told.end_to_end = to_seconds(now - began_);
    context_.traffic.record(route_, told);
    if (!outcome.error) context_.feedback.note(request_id_, route_);
  }

  const RoutedService::Context context_;
  GenerateRequest request_;
  const std::shared_ptr<OutputSink> sink_;
  const std::string request_id_;
  const TimePoint began_;
  TrafficRoute route_;
  bool engine_may_go_ = false;  // the arm has an engine of its own, which goes with the test
  bool answered_ = false;       // from here on events belong to one model
  std::optional<TimePoint> first_token_;
  std::optional<FinishReason> finish_;
  std::mutex mutex_;
  bool cancelled_ = false;
  std::shared_ptr<GenerationHandle> handle_;
};

RoutedService::RoutedService(const Context& context) : context_(context) {}

std::shared_ptr<GenerationHandle> RoutedService::generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) {
  if (!context_.traffic.has_any()) {
    const bool is_open = context_.traffic.snapshot()->routed.contains(request.model);
    if (is_open && !context_.models.resolve(request.model)) request.model.clear();  // `auto`, and nobody decides
    context_.feedback.note(request.request_id, {});
    sink->on_route(request.model.empty() ? std::string() : "model=" + request.model);
    sink = context_.shadows.tap(request, std::move(sink));
    return context_.inner.generate(std::move(request), std::move(sink));
  }
  auto generation = std::make_shared<RoutedGeneration>(context_, std::move(request), sink);
  if (!context_.inner.post_text_work([generation] { generation->start(); })) {
    sink->on_done({make_error(ErrorCode::queue_full, "too many requests wait to be read; try again later"), {}, {}});
  }
  return generation;
}

template <typename Request, typename Callback>
std::shared_ptr<GenerationHandle> RoutedService::call(Request request, Callback done, bool seen) {
  using Answer = std::conditional_t<std::is_same_v<Request, EmbedRequest>, EmbedAnswer, InferAnswer>;
  using Call = RoutedCall<Request, Answer>;
  typename Call::Send send = nullptr;
  if constexpr (std::is_same_v<Request, EmbedRequest>) {
    send = &InferenceService::embed;
  } else {
    send = &InferenceService::infer;
  }
  if (!seen) {
    const bool is_open = context_.traffic.snapshot()->routed.contains(request.model);
    if (is_open && !context_.models.resolve(request.model)) request.model.clear();  // `auto`, and nobody decides
    const auto on_route = std::exchange(request.on_route, nullptr);
    if (on_route) on_route(request.model.empty() ? std::string() : "model=" + request.model);
    return (context_.inner.*send)(std::move(request), std::move(done));
  }
  auto routed = std::make_shared<Call>(context_, send, std::move(request), done);
  if (!context_.inner.post_text_work([routed] { routed->start(); })) {
    done(make_error(ErrorCode::queue_full, "too many requests wait to be read; try again later"));
  }
  return routed;
}

std::shared_ptr<GenerationHandle> RoutedService::embed(EmbedRequest request, EmbedCallback done) {
  // Who holds a model means that one.
  const bool seen = request.held == nullptr && context_.traffic.snapshot()->rules->sees_embeddings();
  return call(std::move(request), std::move(done), seen);
}

std::shared_ptr<GenerationHandle> RoutedService::infer(InferRequest request, InferCallback done) {
  const bool seen = context_.traffic.snapshot()->rules->sees_tensors();
  return call(std::move(request), std::move(done), seen);
}

Result<FeedbackReceipt> RoutedService::record_feedback(const std::string& request_id, double score) {
  if (!(score >= 0.0 && score <= 1.0)) {
    return make_error(ErrorCode::invalid_argument, "score: expected a number from 0 to 1", "score");
  }
  ASSIGN_OR_RETURN(const TrafficRoute route, context_.feedback.take(request_id));
  RETURN_IF_ERROR(context_.traffic.record_feedback(route, score));
  if (route.test == nullptr) return FeedbackReceipt();
  return FeedbackReceipt{route.test->name(), route.arm()->name};
}

Result<std::shared_ptr<AdmissionTicket>> RoutedService::admit(TenantId tenant) {
  if (context_.admission == nullptr) return std::shared_ptr<AdmissionTicket>();
  return context_.admission->admit(tenant);
}

RateLimits RoutedService::rate_limits(TenantId tenant) const {
  return context_.admission == nullptr ? RateLimits{} : context_.admission->rates(tenant);
}

RouteExplanation RoutedService::explain(const GenerateRequest& request) const {
  const FactsOfRequest of(context_, request);
  return context_.traffic.explain(of.facts, of.keys);
}

}  // namespace inferneo
