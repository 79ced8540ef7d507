// The queue of a graph that does not generate: each accepted job ends once, texts of several requests share runs and
// get their own vectors, and what hangs, fails or leaves harms nobody else.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <future>
#include <mutex>
#include <random>

#include "engine/graph_core.h"
#include "engine/tensor_check.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kWidth = 3;
constexpr Token kPoison = 66;  // a text with it fails its run

// What a text becomes: a function of its tokens alone.
std::vector<float> vector_of(std::span<const Token> text) {
  std::vector<float> vector(kWidth, 0.0F);
  for (size_t t = 0; t < text.size(); ++t)
    vector[t % kWidth] += static_cast<float>(text[t]) * static_cast<float>(t + 1);
  return vector;
}

NamedTensor tensor_of(const std::string& name, const std::vector<float>& values) {
  NamedTensor tensor{name, TensorType::float32, {static_cast<int64_t>(values.size())}, {}};
  tensor.data.resize(values.size() * sizeof(float));
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

struct RunnerScript {
  // The gate: runs wait while it is shut, unless they are interrupted.
  void shut() {
    const std::lock_guard lock(mutex);
    open = false;
  }
  void release() {
    const std::lock_guard lock(mutex);
    open = true;
    changed.notify_all();
  }
  bool pass() {
    std::unique_lock lock(mutex);
    ++at_gate;
    changed.notify_all();
    changed.wait(lock, [this] { return open || interrupted; });
    return !interrupted;
  }
  void wait_for_run(int number) {
    std::unique_lock lock(mutex);
    EXPECT_TRUE(changed.wait_for(lock, std::chrono::seconds(60), [&] { return at_gate >= number; }));
  }
  std::mutex mutex;
  std::condition_variable changed;
  bool open = true;
  bool interrupted = false;
  int at_gate = 0;
  std::vector<std::vector<size_t>> batches;  // lengths of the texts of each run
  std::optional<Error> failure;
};

class ScriptedGraph final : public GraphRunner {
 public:
  ScriptedGraph(RunnerScript& script, ModelKind kind) : script_(script) {
    spec_.kind = kind;
    spec_.inputs = {{"x", TensorType::float32, {-1}}};
    spec_.outputs = {{"y", TensorType::float32, {-1}}};
    spec_.dimensions = kWidth;
    spec_.max_tokens = 16;
    spec_.vocab_size = 100;
  }
  const GraphSpec& spec() const override { return spec_; }
  Result<std::vector<NamedTensor>> run(const TensorCall& call, std::optional<Duration>) override {
    if (!script_.pass()) return make_error(ErrorCode::unavailable, "interrupted");
    if (script_.failure) return *script_.failure;
    NamedTensor output = call.inputs[0];
    output.name = "y";
    return std::vector<NamedTensor>{output};
  }
  Result<std::vector<float>> embed(std::span<const std::span<const Token>> texts) override {
    if (!script_.pass()) return make_error(ErrorCode::unavailable, "interrupted");
    if (script_.failure) return *script_.failure;
    std::vector<float> vectors;
    std::vector<size_t> lengths;
    for (const std::span<const Token> text : texts) {
      lengths.push_back(text.size());
      if (std::find(text.begin(), text.end(), kPoison) != text.end()) return make_error(ErrorCode::malformed, "poison");
      const std::vector<float> vector = vector_of(text);
      vectors.insert(vectors.end(), vector.begin(), vector.end());
    }
    const std::lock_guard lock(script_.mutex);
    script_.batches.push_back(std::move(lengths));
    return vectors;
  }
  void interrupt() override {
    const std::lock_guard lock(script_.mutex);
    script_.interrupted = true;
    script_.changed.notify_all();
  }

 private:
  RunnerScript& script_;
  GraphSpec spec_;
};

struct GraphHouse {
  explicit GraphHouse(ModelKind kind = ModelKind::embedding, GraphCoreConfig config = {})
      : core(std::move(config), std::make_unique<ScriptedGraph>(script, kind), clock) {}

  using Vectors = std::future<Result<std::vector<float>>>;
  Vectors embed(std::vector<std::vector<Token>> texts, GraphCore::JobId* id = nullptr,
                std::optional<TimePoint> deadline = {}) {
    auto promise = std::make_shared<std::promise<Result<std::vector<float>>>>();
    Vectors future = promise->get_future();
    const Result<GraphCore::JobId> job =
        core.embed(std::move(texts), deadline, [promise, this](Result<std::vector<float>> vectors) {
          ++ended;
          promise->set_value(std::move(vectors));
        });
    if (!job.ok()) {
      promise->set_value(job.error());
    } else if (id != nullptr) {
      *id = *job;
    }
    return future;
  }
  std::future<Result<std::vector<NamedTensor>>> infer(const std::vector<float>& values) {
    auto promise = std::make_shared<std::promise<Result<std::vector<NamedTensor>>>>();
    auto future = promise->get_future();
    const Result<GraphCore::JobId> job =
        core.infer({{tensor_of("x", values)}, {}}, {},
                   [promise](Result<std::vector<NamedTensor>> outputs) { promise->set_value(std::move(outputs)); });
    if (!job.ok()) promise->set_value(job.error());
    return future;
  }

  ManualClock clock;
  RunnerScript script;
  std::atomic<int> ended{0};
  GraphCore core;
};

std::vector<float> expected(const std::vector<std::vector<Token>>& texts) {
  std::vector<float> vectors;
  for (const std::vector<Token>& text : texts) {
    const std::vector<float> vector = vector_of(text);
    vectors.insert(vectors.end(), vector.begin(), vector.end());
  }
  return vectors;
}

TEST(GraphCore, EveryRequestGetsItsOwnVectorsWhateverSharesItsRuns) {
  GraphCoreConfig config;
  config.max_batch_texts = 5;
  config.max_batch_tokens = 24;
  GraphHouse house(ModelKind::embedding, config);
  std::mt19937 random(7);
  house.script.shut();
  std::vector<std::vector<std::vector<Token>>> requests;
  std::vector<GraphHouse::Vectors> answers;
  for (int i = 0; i < 40; ++i) {
    std::vector<std::vector<Token>>& texts = requests.emplace_back(1 + random() % 9);
    for (std::vector<Token>& text : texts) {
      text.resize(1 + random() % 16);
      for (Token& token : text) token = static_cast<Token>(random() % 60);
    }
    answers.push_back(house.embed(texts));
  }
  house.script.release();
  size_t tokens = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const Result<std::vector<float>> vectors = answers[i].get();
    ASSERT_TRUE(vectors.ok()) << vectors.error().message;
    EXPECT_EQ(*vectors, expected(requests[i]));
    for (const auto& text : requests[i]) tokens += text.size();
  }
  ASSERT_TRUE(house.core.wait_drained(std::chrono::seconds(60)));
  EXPECT_EQ(house.core.stats().prompt_tokens, tokens);
  EXPECT_EQ(house.core.stats().finished_requests, requests.size());
  for (const std::vector<size_t>& batch : house.script.batches) {
    EXPECT_LE(batch.size(), 5U);
    EXPECT_TRUE(batch.size() == 1 || *std::max_element(batch.begin(), batch.end()) * batch.size() <= 24);
  }
  EXPECT_EQ(house.ended, 40);
}

TEST(GraphCore, ALongRequestDelaysAShortOneByARun) {
  GraphCoreConfig config;
  config.max_batch_texts = 2;
  GraphHouse house(ModelKind::embedding, config);
  house.script.shut();
  auto first = house.embed({{9, 9, 9}});  // holds the gate
  house.script.wait_for_run(1);
  auto longer = house.embed(std::vector<std::vector<Token>>(20, std::vector<Token>{1, 2}));
  auto shorter = house.embed({{5}});
  house.script.release();
  ASSERT_TRUE(shorter.get().ok());
  ASSERT_TRUE(longer.get().ok());
  ASSERT_TRUE(first.get().ok());
  // The short one's text, of one token, is in the run behind the long one's first.
  ASSERT_GE(house.script.batches.size(), 3U);
  const std::vector<size_t>& third = house.script.batches[2];
  EXPECT_NE(std::find(third.begin(), third.end(), 1U), third.end());
}

TEST(GraphCore, AFailingTextFailsItsRequestAlone) {
  GraphHouse house;
  house.script.shut();
  auto gate = house.embed({{1}});
  house.script.wait_for_run(1);
  auto good = house.embed({{1, 2, 3}, {4}});
  auto bad = house.embed({{5}, {kPoison}});
  auto also_good = house.embed({{7, 8}});
  house.script.release();
  const auto vectors = good.get();
  ASSERT_TRUE(vectors.ok()) << vectors.error().message;
  EXPECT_EQ(*vectors, expected({{1, 2, 3}, {4}}));
  EXPECT_EQ(bad.get().error().code, ErrorCode::malformed);
  EXPECT_EQ(*also_good.get(), expected({{7, 8}}));
  EXPECT_TRUE(gate.get().ok());
}

TEST(GraphCore, WhatCannotBeIsRefused) {
  GraphHouse house;
  EXPECT_EQ(house.embed({}).get().error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(house.embed({{}}).get().error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(house.embed({{100}}).get().error().code, ErrorCode::invalid_argument);
  const Result<std::vector<float>> longer = house.embed({{1}, std::vector<Token>(17, 1)}).get();
  EXPECT_EQ(longer.error().code, ErrorCode::context_too_long);
  EXPECT_THAT(longer.error().message, HasSubstr("input[1] has 17 tokens"));
  EXPECT_EQ(house.core.stats().finished_requests, 0U);
  GraphHouse tensors(ModelKind::tensors);
  EXPECT_EQ(tensors.embed({{1}}).get().error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(tensors.infer({1, 2}).get().ok());
}

TEST(GraphCore, TheQueueIsBounded) {
  GraphCoreConfig config;
  config.max_queued_requests = 2;
  GraphHouse house(ModelKind::tensors, config);
  house.script.shut();
  auto running = house.infer({1});
  house.script.wait_for_run(1);
  auto one = house.infer({2});
  auto two = house.infer({3});
  EXPECT_EQ(house.infer({4}).get().error().code, ErrorCode::queue_full);
  house.script.release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(one.get().ok());
  EXPECT_TRUE(two.get().ok());
}

TEST(GraphCore, CancelsAndDeadlinesEndOneJobEach) {
  GraphHouse house;
  house.script.shut();
  GraphCore::JobId running_id = 0, waiting_id = 0;
  auto running = house.embed({{1}}, &running_id);
  house.script.wait_for_run(1);
  auto waiting = house.embed({{2}}, &waiting_id);
  auto late = house.embed({{3}}, nullptr, house.clock.now() + std::chrono::seconds(1));
  auto good = house.embed({{4}});
  house.core.cancel(waiting_id);
  EXPECT_EQ(waiting.get().error().code, ErrorCode::cancelled);
  house.core.cancel(running_id);
  house.core.cancel(running_id);
  house.clock.advance(std::chrono::seconds(2));
  house.script.release();
  EXPECT_EQ(running.get().error().code, ErrorCode::cancelled);
  EXPECT_EQ(late.get().error().code, ErrorCode::deadline_exceeded);
  EXPECT_EQ(*good.get(), expected({{4}}));
  EXPECT_EQ(house.ended, 4);
  EXPECT_TRUE(house.core.wait_drained(std::chrono::seconds(60)));
}

TEST(GraphCore, TheEndInterruptsARunAndTellsEverybody) {
  auto house = std::make_unique<GraphHouse>();
  house->script.shut();
  std::vector<std::vector<Token>> many(100, std::vector<Token>{1});
  auto running = house->embed(many);  // more than one run: it waits and runs at once
  house->script.wait_for_run(1);
  auto waiting = house->embed({{2}});
  house->core.stop();
  EXPECT_EQ(running.get().error().code, ErrorCode::unavailable);
  EXPECT_EQ(waiting.get().error().code, ErrorCode::unavailable);
  EXPECT_EQ(house->embed({{3}}).get().error().code, ErrorCode::unavailable);
  EXPECT_EQ(house->ended, 2);
  EXPECT_TRUE(house->core.wait_drained(Duration{0}));
}

TEST(GraphCore, ADrainLetsThemEndUntilItsDeadline) {
  GraphHouse house(ModelKind::tensors);
  house.script.shut();
  auto running = house.infer({1});
  house.script.wait_for_run(1);
  auto waiting = house.infer({2});
  house.core.drain(house.clock.now() + std::chrono::seconds(1));
  EXPECT_EQ(house.infer({3}).get().error().code, ErrorCode::unavailable);
  EXPECT_FALSE(house.core.wait_drained(Duration{0}));
  house.clock.advance(std::chrono::seconds(2));
  house.script.release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_EQ(waiting.get().error().code, ErrorCode::unavailable);
  EXPECT_TRUE(house.core.wait_drained(std::chrono::seconds(60)));
}

TEST(GraphCore, AModelThatCannotBeUsedAnyMoreHasFailed) {
  GraphHouse house;
  house.script.shut();
  auto running = house.embed(std::vector<std::vector<Token>>(100, std::vector<Token>{1}));
  house.script.wait_for_run(1);
  auto waiting = house.embed({{2}});
  house.script.failure = make_error(ErrorCode::io_error, "cut short");
  house.script.release();
  EXPECT_EQ(running.get().error().code, ErrorCode::io_error);
  EXPECT_EQ(waiting.get().error().code, ErrorCode::io_error);
  EXPECT_EQ(house.embed({{3}}).get().error().code, ErrorCode::internal);
  EXPECT_EQ(house.core.stats().state, EngineState::failed);
  EXPECT_EQ(house.core.readiness(std::chrono::seconds(1)).error().code, ErrorCode::internal);
  EXPECT_EQ(house.ended, 2);
}

TEST(GraphCore, ReadinessMeansThatRunsEnd) {
  GraphHouse house(ModelKind::tensors);
  EXPECT_TRUE(house.core.readiness(std::chrono::seconds(1)).ok());
  house.script.shut();
  auto running = house.infer({1});
  house.script.wait_for_run(1);
  EXPECT_TRUE(house.core.readiness(std::chrono::seconds(1)).ok());
  house.clock.advance(std::chrono::seconds(2));
  EXPECT_EQ(house.core.readiness(std::chrono::seconds(1)).error().code, ErrorCode::unavailable);
  house.script.release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(house.core.readiness(std::chrono::seconds(1)).ok());
}

// ---- check_call()

TEST(TensorCheck, WhatDoesNotFitNamesTheTensor) {
  GraphSpec spec;
  spec.inputs = {{"ids", TensorType::int64, {-1, 2}}, {"scale", TensorType::float32, {}}};
  spec.outputs = {{"out", TensorType::float32, {-1}}, {"more", TensorType::float32, {-1}}};
  const auto sound = [] {
    TensorCall call;
    call.inputs.push_back({"ids", TensorType::int64, {3, 2}, std::vector<std::byte>(48)});
    call.inputs.push_back({"scale", TensorType::float32, {}, std::vector<std::byte>(4)});
    return call;
  };
  const auto refusal = [&](const std::function<void(TensorCall&)>& change) {
    TensorCall call = sound();
    change(call);
    const Status checked = check_call(spec, call);
    return checked.ok() ? std::string() : checked.error().message;
  };
  EXPECT_EQ(refusal([](TensorCall&) {}), "");
  EXPECT_EQ(refusal([](TensorCall& call) { call.outputs = {"more"}; }), "");
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].name = "ides"; }), HasSubstr("'ides' is none"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs.pop_back(); }), HasSubstr("'scale' (float32 []) is missing"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs.push_back(call.inputs[1]); }), HasSubstr("twice"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].type = TensorType::uint64; }),
              HasSubstr("'ids' is uint64 [3, 2], and the model takes int64 [?, 2]"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].shape = {2, 3}; }), HasSubstr("int64 [2, 3]"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].shape = {6}; }), HasSubstr("int64 [6]"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].shape = {-3, 2}; }), HasSubstr("48 bytes"));
  // Products that overflow.
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].shape = {INT64_MAX, 2}; }), HasSubstr("48 bytes"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].shape = {int64_t{1} << 62, 2}; }), HasSubstr("48 bytes"));
  spec.inputs[0].shape = {-1, -1};
  EXPECT_THAT(refusal([](TensorCall& call) {
                call.inputs[0].shape = {0, int64_t{1} << 40};
                call.inputs[0].data.clear();
              }),
              HasSubstr("a size beyond"));
  spec.inputs[0].shape = {-1, 2};
  EXPECT_THAT(refusal([](TensorCall& call) { call.inputs[0].data.pop_back(); }), HasSubstr("47 bytes"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.outputs = {"nothing"}; }), HasSubstr("'nothing' is none"));
  EXPECT_THAT(refusal([](TensorCall& call) { call.outputs = {"out", "out"}; }), HasSubstr("twice"));
  EXPECT_EQ(refusal([](TensorCall& call) {
              call.inputs[0].shape = {0, 2};
              call.inputs[0].data.clear();
            }),
            "");
}

}  // namespace
}  // namespace inferneo
