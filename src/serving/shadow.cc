#include "serving/shadow.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "experiments/assignment.h"
#include "serving/traffic.h"

namespace inferneo {
namespace {

constexpr std::array<std::string_view, kNumShadowDrops> kDropNames = {"queue_full", "budget", "not_in_memory",
                                                                      "original_ended", "removed"};
constexpr size_t kMaxQueuedBytes = size_t{64} << 20;             // prompts of copies that wait
constexpr int64_t kGuessedCompletion = 256;                      // tokens, of a request without max_tokens
constexpr Duration kLoadPause = std::chrono::milliseconds(100);  // between two looks at a model that is to be loaded

size_t prompt_bytes(const GenerateRequest& request) {
  if (const auto* text = std::get_if<std::string>(&request.prompt)) return text->size();
  if (const auto* tokens = std::get_if<std::vector<Token>>(&request.prompt)) return tokens->size() * sizeof(Token);
  const ChatInput& chat = std::get<ChatInput>(request.prompt);
  return chat.messages.size() + chat.tools.size() + chat.template_kwargs.size();
}

// What the shadow model is asked: the first sample alone, without what only the client would have seen.
GenerateRequest copy_of(const GenerateRequest& request, const std::string& model) {
  GenerateRequest copy;
  copy.request_id = request.request_id;
  copy.model = model;
  copy.prompt = request.prompt;
  if (auto* const chat = std::get_if<ChatInput>(&copy.prompt)) {  // what an arm of a test had rendered otherwise
    chat->chat_template.clear();
    chat->system_prompt.clear();
  }
  copy.add_special_tokens = request.add_special_tokens;
  copy.skip_special_tokens = request.skip_special_tokens;
  copy.sampling = request.sampling;
  copy.sampling.n = 1;
  copy.sampling.logprobs.reset();
  copy.sampling.prompt_logprobs.reset();
  copy.sampling.echo = false;
  copy.explicit_sampling = request.explicit_sampling;
  copy.priority = request.priority;
  copy.cache_salt = request.cache_salt;
  copy.is_copy = true;
  copy.whole = true;
  copy.trace = request.trace;  // as a span of its own, linked to the original
  return copy;
}

// Errors that say nothing about the shadow model.
bool is_lack_of_room(const Error& error) {
  return error.code == ErrorCode::unavailable || error.code == ErrorCode::queue_full ||
         error.code == ErrorCode::out_of_memory || error.code == ErrorCode::cancelled ||
         error.code == ErrorCode::not_found;
}

}  // namespace

std::string_view shadow_drop_name(ShadowDrop reason) { return kDropNames[static_cast<size_t>(reason)]; }

struct Shadow::Copy {
  enum class State : uint8_t { waiting, running, answered, over };
  GenerateRequest request;
  std::shared_ptr<ShadowOriginal> original;
  int64_t taken = 0;  // tokens, from the budget
  State state = State::waiting;
  std::optional<ShadowDrop> given_up;  // while it runs: what it will have been dropped for
  bool yields = false;                 // while it runs: it goes back to the queue
  std::shared_ptr<GenerationHandle> handle;
  std::optional<ShadowAnswer> answer;
};

// Gathers what the shadow model says. Events come one at a time.
class Shadow::CopySink final : public OutputSink {
 public:
  CopySink(std::shared_ptr<Shadow> shadow, std::shared_ptr<Copy> copy)
      : shadow_(std::move(shadow)), copy_(std::move(copy)), answer_(shadow_->config_.keep_texts) {}
  void on_prompt(PromptInfo info) override { answer_.add(info); }
  void on_delta(OutputDelta delta) override { answer_.add(delta); }
  void on_done(GenerateOutcome outcome) override {
    answer_.end(outcome);
    {
      const std::lock_guard lock(shadow_->mutex_);
      copy_->answer.emplace(std::move(answer_));
    }
    shadow_->copy_ended(copy_, outcome);
  }

 private:
  const std::shared_ptr<Shadow> shadow_;
  const std::shared_ptr<Copy> copy_;
  ShadowAnswer answer_;
};

Shadow::Shadow(const Host& host, ShadowConfig config, std::shared_ptr<ShadowResults> results)
    : host_(host),
      config_(std::move(config)),
      key_(salt_key(config_.salt.empty() ? config_.name : config_.salt)),
      results_(std::move(results)),
      budget_(config_.max_tokens_per_minute) {}

bool Shadow::wants(std::string_view model, std::string_view key) const {
  if (!config_.enabled) return false;
  if (config_.share < 1.0) {
    const auto limit = static_cast<uint64_t>(std::ldexp(config_.share, 64));
    if (siphash_2_4(key_, key) >= limit) return false;
  }
  if (config_.model.empty()) return true;
  if (model.empty()) return false;
  if (model.substr(0, model.rfind(':')) == config_.model) return true;  // any version of the name
  const std::optional<std::string> meant = host_.models.resolve(config_.model);
  return meant && *meant == model;
}

void Shadow::count_drop(ShadowDrop reason) {
  const std::lock_guard lock(results_->mutex);
  ++results_->counts.dropped[static_cast<size_t>(reason)];
}

std::shared_ptr<Shadow::Copy> Shadow::offer(const GenerateRequest& request, int32_t prompt_tokens,
                                            std::shared_ptr<ShadowOriginal> original) {
  {
    const std::lock_guard lock(results_->mutex);
    ++results_->counts.sent;
  }
  auto copy = std::make_shared<Copy>();
  copy->original = std::move(original);
  copy->taken = prompt_tokens + request.sampling.max_tokens.value_or(kGuessedCompletion);
  const size_t bytes = prompt_bytes(request);
  const bool in_memory = host_.models.loaded(config_.shadow_model);
  // Before the prompt is copied: most of what a copy costs its original is that.
  std::optional<ShadowDrop> refused = refusal(bytes, copy->taken, in_memory);
  if (!refused) {
    copy->request = copy_of(request, config_.shadow_model);
    const std::lock_guard lock(mutex_);
    if (ended_) {
      refused = ShadowDrop::removed;
    } else {
      queue_.push_back(copy);
      queued_bytes_ += bytes;
      if (!in_memory) paused_until_ = host_.clock.now() + kLoadPause;
    }
  }
  if (refused) {
    count_drop(*refused);
    return nullptr;
  }
  if (!in_memory && host_.load) host_.load(config_.shadow_model);
  pump();
  return copy;
}

// None: the tokens are taken from the budget.
std::optional<ShadowDrop> Shadow::refusal(size_t bytes, int64_t tokens, bool in_memory) {
  if (!in_memory && !config_.load) return ShadowDrop::not_in_memory;
  const std::lock_guard lock(mutex_);
  const int64_t places = config_.max_queue + std::max<int64_t>(0, config_.max_concurrent - running_);
  if (static_cast<int64_t>(queue_.size()) >= places) return ShadowDrop::queue_full;
  if (queued_bytes_ + bytes > kMaxQueuedBytes) return ShadowDrop::queue_full;
  if (!budget_.take(tokens, host_.clock.now())) return ShadowDrop::budget;
  return std::nullopt;
}

void Shadow::pump() {
  for (;;) {
    std::shared_ptr<Copy> next;
    {
      const std::lock_guard lock(mutex_);
      if (ended_ || queue_.empty() || running_ >= config_.max_concurrent) return;
      if (yields_ || host_.clock.now() < paused_until_) return;
      next = std::move(queue_.front());
      queue_.pop_front();
      queued_bytes_ -= prompt_bytes(next->request);
      next->state = Copy::State::running;
      under_way_.push_back(next);
      ++running_;
    }
    start(next);
  }
}

void Shadow::start(const std::shared_ptr<Copy>& copy) {
  GenerateRequest request = copy->request;  // kept, should it have to make room
  auto handle = host_.inner.generate(std::move(request), std::make_shared<CopySink>(shared_from_this(), copy));
  bool unwanted = false;
  {
    const std::lock_guard lock(mutex_);
    if (copy->state != Copy::State::running) return;  // it has ended already
    copy->handle = handle;
    unwanted = copy->given_up || copy->yields;
  }
  if (unwanted) handle->cancel();
}

void Shadow::copy_ended(const std::shared_ptr<Copy>& copy, const GenerateOutcome& outcome) {
  std::optional<ShadowDrop> dropped;
  bool failed = false;
  {
    const std::lock_guard lock(mutex_);
    --running_;
    copy->handle.reset();
    const int64_t used = outcome.usage.prompt_tokens + outcome.usage.completion_tokens;
    const bool yields = copy->yields && outcome.error && is_lack_of_room(*outcome.error) && !copy->given_up && !ended_;
    copy->yields = false;
    if (!yields) budget_.settle(std::exchange(copy->taken, 0), used);
    if (copy->given_up || outcome.error) std::erase(under_way_, copy);
    if (yields) {
      copy->state = Copy::State::waiting;
      copy->answer.reset();
      queue_.push_front(copy);
      queued_bytes_ += prompt_bytes(copy->request);
    } else if (copy->given_up) {
      dropped = copy->given_up;
    } else if (outcome.error) {
      failed = !is_lack_of_room(*outcome.error);
      if (!failed) dropped = ShadowDrop::not_in_memory;
    } else {
      copy->state = Copy::State::answered;
    }
    if (dropped || failed) copy->state = Copy::State::over;
  }
  if (dropped) count_drop(*dropped);
  if (failed) {
    const std::lock_guard lock(results_->mutex);
    ++results_->counts.failed;
  }
  finish_if_both_ended(copy);
  pump();
}

void Shadow::original_ended(const std::shared_ptr<Copy>& copy) {
  if (copy->original->answer.error()) return drop(copy, ShadowDrop::original_ended);
  finish_if_both_ended(copy);
}

void Shadow::finish_if_both_ended(const std::shared_ptr<Copy>& copy) {
  {
    const std::lock_guard lock(mutex_);
    if (copy->state != Copy::State::answered || !copy->original->ended) return;
    copy->state = Copy::State::over;
    std::erase(under_way_, copy);
  }
  ShadowPair pair = compare(copy->original->answer, *copy->answer);
  pair.request_id = copy->request.request_id;
  pair.time = seconds_since_epoch();
  const std::lock_guard lock(results_->mutex);
  ShadowCounts& counts = results_->counts;
  ++counts.completed;
  counts.prompt_tokens += pair.copy.prompt_tokens;
  counts.completion_tokens += pair.copy.completion_tokens;
  results_->differences.add(pair);
  results_->pairs.push_back(std::move(pair));
  if (results_->pairs.size() > ShadowResults::kKept) results_->pairs.pop_front();
}

void Shadow::drop(const std::shared_ptr<Copy>& copy, ShadowDrop reason) {
  std::shared_ptr<GenerationHandle> handle;
  {
    const std::lock_guard lock(mutex_);
    if (copy->state == Copy::State::over) return;
    if (copy->state == Copy::State::running) {
      if (!copy->given_up) copy->given_up = reason;  // counted when it has ended
      handle = copy->handle;
    } else {
      if (std::erase(queue_, copy) > 0) queued_bytes_ -= prompt_bytes(copy->request);
      std::erase(under_way_, copy);
      budget_.settle(std::exchange(copy->taken, 0), 0);
      copy->state = Copy::State::over;
    }
    if (copy->state == Copy::State::running && handle == nullptr) return;  // start() sees to it
  }
  if (handle != nullptr) return handle->cancel();
  count_drop(reason);
}

void Shadow::yield_room() {
  std::vector<std::shared_ptr<GenerationHandle>> handles;
  {
    const std::lock_guard lock(mutex_);
    yields_ = true;
    for (const std::shared_ptr<Copy>& copy : under_way_) {
      if (copy->state != Copy::State::running) continue;
      copy->yields = true;
      if (copy->handle != nullptr) handles.push_back(copy->handle);
    }
  }
  for (const auto& handle : handles) handle->cancel();
}

void Shadow::resume() {
  {
    const std::lock_guard lock(mutex_);
    yields_ = false;
  }
  pump();
}

void Shadow::end() {
  std::vector<std::shared_ptr<Copy>> copies;
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    copies.assign(queue_.begin(), queue_.end());
    copies.insert(copies.end(), under_way_.begin(), under_way_.end());
  }
  for (const auto& copy : copies) drop(copy, ShadowDrop::removed);
}

size_t Shadow::in_hand() const {
  const std::lock_guard lock(mutex_);
  return queue_.size() + under_way_.size();
}

}  // namespace inferneo
