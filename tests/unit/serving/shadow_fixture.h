// What the tests of shadows share: a service that is played by hand, and the book in front of it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "serving/shadow_book.h"
#include "serving/traffic.h"

namespace inferneo {

class FakeModels final : public TrafficModels {
 public:
  std::optional<std::string> resolve(std::string_view name) const override {
    std::string text(name.empty() ? std::string_view("story") : name);
    if (text == "tale") text = "story";
    if (text == "story") text = "story:1";
    if (text == "draft") text = "draft:1";
    if (text == "story:1" || text == "story:2" || text == "draft:1") return text;
    return std::nullopt;
  }
  std::optional<std::string> alias_target(std::string_view) const override { return std::nullopt; }
  std::vector<std::string> names() const override { return {}; }
  ChainLink link(std::string_view) const override { return {}; }
  CandidateView candidate(std::string_view) const override { return {}; }
  bool loaded(std::string_view name) const override { return in_memory.contains(std::string(name)); }
  std::set<std::string> in_memory = {"story", "story:2", "draft"};
};

// Holds what it is asked until the test answers it.
class HeldService final : public InferenceService {
 public:
  struct Asked {
    GenerateRequest request;
    std::shared_ptr<OutputSink> sink;
    bool cancelled = false;
  };
  class Handle final : public GenerationHandle {
   public:
    explicit Handle(std::shared_ptr<Asked> asked) : asked_(std::move(asked)) {}
    void cancel() override { asked_->cancelled = true; }

   private:
    std::shared_ptr<Asked> asked_;
  };
  std::shared_ptr<GenerationHandle> generate(GenerateRequest request, std::shared_ptr<OutputSink> sink) override {
    auto one = std::make_shared<Asked>(Asked{std::move(request), std::move(sink)});
    asked.push_back(one);
    return std::make_shared<Handle>(one);
  }
  std::vector<ServedModel> models() const override { return {}; }
  Result<std::shared_ptr<const Tokenizer>> tokenizer(const std::string&) override {
    return make_error(ErrorCode::not_found, "none");
  }
  bool post_text_work(std::function<void()> work) override {
    work();
    return true;
  }
  void with_tokenizer(const std::string&, TokenizerCallback) override {}
  Status ready() const override { return ok_status(); }
  std::vector<MetricSample> metrics() const override { return {}; }

  std::vector<std::shared_ptr<Asked>> asked;
};

class NoteSink final : public OutputSink {
 public:
  void on_delta(OutputDelta delta) override { text += delta.text; }
  void on_done(GenerateOutcome outcome) override { done = std::move(outcome); }
  std::string text;
  std::optional<GenerateOutcome> done;
};

class ShadowTest : public testing::Test {
 protected:
  ~ShadowTest() override {
    book_.stop();
    for (const auto& asked : service_.asked) {
      if (asked->sink != nullptr) fail(*asked, ErrorCode::cancelled);
    }
    for (const ShadowBook::View& view : book_.list()) check_law(view);
  }
  static void check_law(const ShadowBook::View& view) {
    const ShadowCounts& counts = view.results->counts;
    EXPECT_EQ(counts.sent,
              counts.completed + counts.failed + counts.all_dropped() + static_cast<int64_t>(view.in_hand));
  }
  void add(ShadowConfig config) {
    const Status added = book_.add(std::move(config));
    ASSERT_TRUE(added.ok()) << added.error().message;
  }
  ErrorCode refused(ShadowConfig config, const std::string& param) {
    const Status added = book_.add(std::move(config));
    EXPECT_FALSE(added.ok());
    if (added.ok()) return ErrorCode::internal;
    EXPECT_EQ(added.error().param, param) << added.error().message;
    return added.error().code;
  }
  static GenerateRequest request(const std::string& model = "story", const std::string& id = "r") {
    GenerateRequest request;
    request.request_id = id;
    request.model = model;
    request.prompt = std::string("Once");
    request.sampling.max_tokens = 10;
    request.sampling.n = 2;
    request.sampling.logprobs = 3;
    return request;
  }
  // The original as RoutedService sends it. Null: it is not copied.
  std::shared_ptr<HeldService::Asked> original(GenerateRequest asked) {
    sink_ = std::make_shared<NoteSink>();
    std::shared_ptr<OutputSink> own = sink_;
    auto tapped = book_.tap(asked, own);
    if (tapped == own) return nullptr;
    return std::make_shared<HeldService::Asked>(HeldService::Asked{std::move(asked), std::move(tapped)});
  }
  static void accept(HeldService::Asked& asked) {
    const auto hook = std::exchange(asked.request.on_submitted, nullptr);
    ASSERT_TRUE(hook);
    hook(asked.request, 7);
  }
  static void answer(HeldService::Asked& asked, const std::vector<std::string>& tokens, Duration computing = {},
                     FinishReason finish = FinishReason::stop) {
    const auto sink = std::exchange(asked.sink, nullptr);
    PromptInfo info;
    info.model = asked.request.model;
    info.tokens = {1, 2, 3, 4, 5, 6, 7};
    sink->on_prompt(std::move(info));
    for (const std::string& text : tokens) {
      OutputDelta delta;
      delta.text = text;
      delta.tokens = {static_cast<Token>(std::hash<std::string>{}(text) % 1000)};
      sink->on_delta(std::move(delta));
    }
    OutputDelta last;
    last.finish = finish;
    sink->on_delta(std::move(last));
    GenerateOutcome outcome;
    outcome.usage = {.prompt_tokens = 7, .completion_tokens = static_cast<int32_t>(tokens.size())};
    outcome.stats.computing = computing;
    outcome.stats.computing_first = computing / 4;
    sink->on_done(std::move(outcome));
  }
  static void fail(HeldService::Asked& asked, ErrorCode code) {
    const auto sink = std::exchange(asked.sink, nullptr);
    sink->on_done({make_error(code, "no"), {}, {}});
  }
  ShadowCounts counts(const std::string& name = "s") const {
    const auto view = book_.find(name);
    EXPECT_TRUE(view);
    check_law(*view);
    return view->results->counts;
  }
  int64_t dropped(ShadowDrop reason) const { return counts().dropped[static_cast<size_t>(reason)]; }

  ManualClock clock_;
  FakeModels models_;
  HeldService service_;
  std::vector<std::string> loads_;
  ShadowBook book_{Shadow::Host{service_, models_, clock_, [this](const std::string& m) { loads_.push_back(m); }}};
  std::shared_ptr<NoteSink> sink_;
};

}  // namespace inferneo
