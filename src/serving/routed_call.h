// One request for embeddings, or with tensors, behind its route: its model, its arm, the next model of a rule's chain
// while the first fails, and what the test is told. There are no streams and no prompts of arms here; RoutedService has
// those. Threads: as InferenceService promises. Shared by the inner service's callback and by the caller (as handle).
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "serving/request_view.h"

namespace inferneo {

// Request: EmbedRequest or InferRequest; Answer: EmbedAnswer or InferAnswer.
template <typename Request, typename Answer>
class RoutedCall final : public GenerationHandle, public std::enable_shared_from_this<RoutedCall<Request, Answer>> {
 public:
  static constexpr bool kIsEmbedding = std::is_same_v<Request, EmbedRequest>;
  using Callback = std::function<void(Result<Answer>)>;
  using Send = std::shared_ptr<GenerationHandle> (InferenceService::*)(Request, Callback);

  RoutedCall(const RoutedService::Context& context, Send send, Request request, Callback done)
      : context_(context),
        send_(send),
        on_route_(std::exchange(request.on_route, nullptr)),
        request_(std::move(request)),
        done_(std::move(done)),
        request_id_(request_.request_id),
        began_(context.clock.now()) {}

  // On a text thread.
  void start() {
    (void)context_.traffic.advance();
    choose();
    tell_route();
    if (route_.refusal) {
      return tell(refusal_of(*route_.refusal));
    }
    const ABTestArm* const arm = route_.arm();
    engine_may_go_ = arm != nullptr && route_.has_arms_model() && !arm->settings.empty();
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

 private:
  void choose() {
    std::vector<std::string_view> texts;
    std::optional<int64_t> tokens;
    if constexpr (kIsEmbedding) {
      int64_t given = 0;
      for (const auto& input : request_.inputs) {
        if (const auto* const text = std::get_if<std::string>(&input)) texts.emplace_back(*text);
        if (const auto* const ids = std::get_if<std::vector<Token>>(&input)) given += static_cast<int64_t>(ids->size());
      }
      if (texts.empty()) tokens = given;
    } else {
      tokens = 0;
    }
    RequestFacts facts;
    if (!texts.empty()) facts.prompt = texts.front();
    facts.conversation = texts;
    facts.model = request_.model;
    facts.user = request_.user;
    facts.embedding = kIsEmbedding;
    facts.tensors = !kIsEmbedding;
    const RequestView view(context_, request_.traits, facts.prompt, tokens);
    facts.view = &view;
    route_ = context_.traffic.route(facts, keys_of(request_.traits, request_.user));
  }

  void tell_route() {
    if (on_route_) on_route_(route_.text());
  }

  bool is_cancelled() {
    const std::lock_guard lock(mutex_);
    return cancelled_;
  }

  void submit() {
    request_.model = route_.model;
    auto on_done = [self = this->shared_from_this()](Result<Answer> answer) { self->end(std::move(answer)); };
    const bool last = route_.rest.empty() && !engine_may_go_;
    const int attempt = ++attempts_;
    // Kept where another model may have to be asked.
    auto handle = last ? (context_.inner.*send_)(std::move(request_), std::move(on_done))
                       : (context_.inner.*send_)(request_, std::move(on_done));
    bool cancelled = false;
    {
      const std::lock_guard lock(mutex_);
      if (attempt == attempts_) handle_ = handle;  // else that one has failed already, and another is asked
      cancelled = cancelled_;
    }
    if (cancelled && handle != nullptr) handle->cancel();
  }

  void end(Result<Answer> answer) {
    if (!answer.ok() && !is_cancelled()) {
      if (!route_.rest.empty() && may_fall_back(answer.error())) {
        route_.model = std::move(route_.rest.front());
        route_.rest.erase(route_.rest.begin());
        route_.fallback = FallbackReason::failed;
        return ask_another();
      }
      // The test ended, and its engines with it, between the choice of the arm and the look at the models.
      if (answer.error().code == ErrorCode::not_found && engine_may_go_) {
        route_.model = arm_model(*route_.arm());
        return ask_another();
      }
    }
    record(answer);
    tell(std::move(answer));
  }

  // Whoever asked may hold this as long as it likes, and is not held by it.
  void tell(Result<Answer> answer) {
    request_.ticket.reset();
    on_route_ = nullptr;
    const Callback done = std::exchange(done_, nullptr);
    done(std::move(answer));
  }

  void ask_another() {
    engine_may_go_ = false;
    route_.assignment.counted = false;  // another model's outcome is no evidence of the arm
    tell_route();
    submit();
  }

  void record(const Result<Answer>& answer) {
    Outcome told;
    if (!answer.ok()) {
      const bool left = answer.error().code == ErrorCode::cancelled;
      told.finish = left ? OutcomeFinish::cancelled : OutcomeFinish::failed;
      if (!left) told.error = answer.error().code;
    } else {
      told.end_to_end = to_seconds(context_.clock.now() - began_);
      if constexpr (kIsEmbedding) told.prompt_tokens = answer->prompt_tokens;
    }
    context_.traffic.record(route_, told);
    if (answer.ok() && route_.test != nullptr) context_.feedback.note(request_id_, route_);
  }

  const RoutedService::Context context_;
  const Send send_;
  std::function<void(std::string route)> on_route_;
  Request request_;
  Callback done_;
  const std::string request_id_;
  const TimePoint began_;
  TrafficRoute route_;
  bool engine_may_go_ = false;  // the arm has an engine of its own, which goes with the test
  std::atomic<int> attempts_{0};
  std::mutex mutex_;
  bool cancelled_ = false;
  std::shared_ptr<GenerationHandle> handle_;
};

}  // namespace inferneo
