// Answers that are not computed again: equal to the computed ones in everything a client sees, given only to the same
// question, and in nobody's measurements.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "byte_tokenizer.h"
#include "engine/scripted_runner.h"
#include "serving/engine_service.h"

namespace inferneo {
namespace {

// Everything that a client is told, in the order in which it is told, without what may differ from run to run.
class TellingSink final : public OutputSink {
 public:
  void on_prompt(PromptInfo info) override {
    const std::lock_guard lock(mutex_);
    told += "prompt " + std::to_string(info.tokens.size()) + " " + info.echo_text + " " + info.model +
            describe(info.logprobs);
  }
  void on_delta(OutputDelta delta) override {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(ends, 0);
    Sample& sample = samples[static_cast<size_t>(delta.sample)];
    EXPECT_FALSE(sample.finish.has_value()) << "a delta after the sample's end";
    sample.text += delta.text;
    sample.tokens.insert(sample.tokens.end(), delta.tokens.begin(), delta.tokens.end());
    sample.logprobs += describe(delta.logprobs);
    if (delta.finish) {
      sample.finish = delta.finish;
      sample.stop_reason = delta.stop_reason;
    }
    ++deltas;
    changed_.notify_all();
  }
  void on_done(GenerateOutcome result) override {
    const std::lock_guard lock(mutex_);
    outcome = std::move(result);
    ++ends;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [this] { return ends > 0; }));
  }
  void expect_same_as(const TellingSink& other) const {
    EXPECT_EQ(told, other.told);
    for (size_t i = 0; i < samples.size(); ++i) {
      EXPECT_EQ(samples[i].text, other.samples[i].text);
      EXPECT_EQ(samples[i].tokens, other.samples[i].tokens);
      EXPECT_EQ(samples[i].logprobs, other.samples[i].logprobs);
      EXPECT_EQ(samples[i].finish, other.samples[i].finish);
      EXPECT_EQ(samples[i].stop_reason, other.samples[i].stop_reason);
    }
    EXPECT_EQ(ends, other.ends);
    EXPECT_EQ(outcome.error.has_value(), other.outcome.error.has_value());
    EXPECT_EQ(outcome.usage.prompt_tokens, other.outcome.usage.prompt_tokens);
    EXPECT_EQ(outcome.usage.completion_tokens, other.outcome.usage.completion_tokens);
  }

  struct Sample {
    std::string text;
    std::vector<Token> tokens;
    std::string logprobs;
    std::optional<FinishReason> finish;
    std::string stop_reason;
  };
  std::string told;
  std::array<Sample, 4> samples;
  int deltas = 0;
  GenerateOutcome outcome;
  int ends = 0;

 private:
  static std::string describe(const std::vector<TokenLogprobText>& logprobs) {
    std::string text;
    for (const TokenLogprobText& one : logprobs) {
      text += " " + one.text + "/" + std::to_string(one.token) + "/" + std::to_string(one.logprob) + describe(one.top);
    }
    return text;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
};

constexpr size_t kAnswerBytes = size_t{1} << 20;

// Writes the alphabet over and over, slowly where it is asked to.
class AlphabetLoader final : public ModelLoader {
 public:
  AlphabetLoader(MemoryLedger& ledger, const Clock& clock) : ledger_(ledger), clock_(clock) {}
  Result<size_t> estimate(const ModelRecord&) override { return 0; }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport&) override {
    Script script;
    script.vocab_size = 257;
    script.eos_token_ids = {ByteTokenizer::kEos};
    script.next_token = [](const ScriptedToken& at) -> Token {
      return at.output_index < 2000 ? 'a' + at.output_index % 26 : ByteTokenizer::kEos;
    };
    if (record.source == "slow") script.step_cost = std::chrono::microseconds(500);
    EngineCoreConfig config;
    config.model = record.id.text();
    config.max_kv_bytes = size_t{8} << 20;
    auto core = EngineCore::create(config, std::make_unique<ScriptedRunner>(std::move(script)), ledger_, clock_);
    if (!core.ok()) return std::move(core).error();
    auto model = std::make_shared<LoadedModel>();
    model->id = record.id.text();
    model->core = std::move(*core);
    model->spec = model->core->model_spec();
    model->max_model_len = model->core->max_model_len();
    model->tokenizer = std::make_shared<ByteTokenizer>();
    model->defaults.temperature = 0.0F;
    model->answers = std::make_unique<AnswerCache>(
        AnswerCache::Options{.max_bytes = kAnswerBytes,
                             .longest = std::chrono::hours(1),
                             .may_take = [memory = std::make_shared<CacheMemory>(ledger_, model->id)](size_t bytes) {
                               return memory->take(bytes);
                             }});
    return model;
  }

 private:
  MemoryLedger& ledger_;
  const Clock& clock_;
};

class AnswerCacheTest : public ::testing::Test {
 protected:
  AnswerCacheTest() : ledger_(size_t{256} << 20) {
    manager_ = std::make_unique<ManagerCore>(std::make_unique<AlphabetLoader>(ledger_, clock_), ledger_, clock_);
    EXPECT_TRUE(manager_->register_model({.name = "abc", .path = "quick"}).ok());
    EXPECT_TRUE(manager_->register_model({.name = "slow", .path = "slow"}).ok());
    EngineServiceConfig config;
    config.text_threads = 2;
    service_ = std::make_unique<EngineService>(config, *manager_, ledger_, clock_, &admission_);
    service_->open();
  }
  ~AnswerCacheTest() override {
    manager_->stop();
    service_.reset();
    manager_.reset();
    EXPECT_EQ(ledger_.used(), 0U) << "a cache goes with its model";
  }

  static GenerateRequest question(SamplingParams sampling = {}, const std::string& model = "abc") {
    GenerateRequest request;
    request.model = model;
    request.prompt = std::string("what comes first?");
    request.sampling = std::move(sampling);
    if (!request.sampling.max_tokens) request.sampling.max_tokens = 100;
    return request;
  }
  std::shared_ptr<TellingSink> run(GenerateRequest request) {
    auto sink = std::make_shared<TellingSink>();
    service_->generate(std::move(request), sink);
    sink->wait();
    return sink;
  }
  bool is_from_cache(GenerateRequest request) { return run(std::move(request))->outcome.usage.from_cache; }
  CacheCounts counts(const std::string& id = "abc:1") { return manager_->status(id)->stats.answer_cache; }

  SteadyClock clock_;
  MemoryLedger ledger_;
  Admission admission_{{{.name = "default"}, {.name = "team", .tokens_per_minute = 60'000}}, {}, clock_};
  std::unique_ptr<ManagerCore> manager_;
  std::unique_ptr<EngineService> service_;
};

TEST_F(AnswerCacheTest, WhatIsRememberedIsWhatWasComputed) {
  std::vector<GenerateRequest> questions;
  const auto ask = [&](auto change) {
    GenerateRequest request = question();
    change(request);
    questions.push_back(std::move(request));
  };
  ask([](GenerateRequest&) {});
  ask([](GenerateRequest& r) { r.sampling.max_tokens = 1999; });
  ask([](GenerateRequest& r) { r.sampling.max_tokens = 2500; });  // to the end of sequence
  ask([](GenerateRequest& r) { r.sampling.max_tokens = 0; });
  ask([](GenerateRequest& r) { r.sampling.n = 3; });
  ask([](GenerateRequest& r) { r.sampling.stop = {"xyz", "never"}; });
  ask([](GenerateRequest& r) { r.sampling.stop_token_ids = {'q'}; });
  ask([](GenerateRequest& r) { r.sampling.logprobs = 3; });
  ask([](GenerateRequest& r) { r.sampling.prompt_logprobs = 2; });
  ask([](GenerateRequest& r) { r.sampling.echo = true; });
  ask([](GenerateRequest& r) { r.sampling.repetition_penalty = 1.1F; });
  ask([](GenerateRequest& r) { r.prompt = std::vector<Token>{'w', 'h', 'y'}; });
  for (size_t i = 0; i < questions.size(); ++i) {
    const auto computed = run(questions[i]);
    ASSERT_FALSE(computed->outcome.error.has_value()) << i << computed->outcome.error->message;
    EXPECT_FALSE(computed->outcome.usage.from_cache) << i;
    const auto remembered = run(questions[i]);
    EXPECT_TRUE(remembered->outcome.usage.from_cache) << i;
    EXPECT_EQ(remembered->outcome.usage.cached_tokens, remembered->outcome.usage.prompt_tokens);
    EXPECT_EQ(remembered->outcome.stats.submitted, TimePoint{}) << "no engine has seen it";
    remembered->expect_same_as(*computed);
  }
  EXPECT_EQ(counts().hits, questions.size());
  EXPECT_EQ(counts().misses, questions.size());
  EXPECT_GT(counts().bytes, 0U);
  EXPECT_GT(run(questions[1])->deltas, 10) << "a long answer comes in pieces";
}

TEST_F(AnswerCacheTest, OnlyTheSameQuestionIsAnswered) {
  ASSERT_FALSE(is_from_cache(question()));
  ASSERT_TRUE(is_from_cache(question()));
  const std::vector<std::function<void(GenerateRequest&)>> changes = {
      [](GenerateRequest& r) { r.prompt = std::string("what comes first"); },
      [](GenerateRequest& r) { r.cache_salt = "tenant"; },
      [](GenerateRequest& r) { r.model = "slow"; },
      [](GenerateRequest& r) { r.skip_special_tokens = false; },
      [](GenerateRequest& r) { r.sampling.max_tokens = 99; },
      [](GenerateRequest& r) { r.sampling.top_k = 5; },
      [](GenerateRequest& r) { r.sampling.top_p = 0.5F; },
      [](GenerateRequest& r) { r.sampling.min_p = 0.1F; },
      [](GenerateRequest& r) { r.sampling.typical_p = 0.9F; },
      [](GenerateRequest& r) { r.sampling.repetition_penalty = 1.2F; },
      [](GenerateRequest& r) { r.sampling.presence_penalty = 0.5F; },
      [](GenerateRequest& r) { r.sampling.frequency_penalty = 0.5F; },
      [](GenerateRequest& r) {
        r.sampling.logit_bias = {{'a', -1.0F}};
      },
      [](GenerateRequest& r) {
        r.sampling.logit_bias = {{'a', -2.0F}};
      },
      [](GenerateRequest& r) { r.sampling.stop = {"z"}; },
      [](GenerateRequest& r) {
        r.sampling.stop = {"z", "y"};
      },
      [](GenerateRequest& r) { r.sampling.stop_token_ids = {'z'}; },
      [](GenerateRequest& r) { r.sampling.ignore_eos = true; },
      [](GenerateRequest& r) { r.sampling.min_tokens = 3; },
      [](GenerateRequest& r) { r.sampling.n = 2; },
      [](GenerateRequest& r) { r.sampling.logprobs = 0; },
      [](GenerateRequest& r) { r.sampling.logprobs = 1; },
      [](GenerateRequest& r) { r.sampling.prompt_logprobs = 0; },
      [](GenerateRequest& r) { r.sampling.echo = true; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    GenerateRequest other = question();
    changes[i](other);
    EXPECT_FALSE(is_from_cache(std::move(other))) << i;
  }
  // What decides no greedy token, and who asks.
  GenerateRequest same = question();
  same.sampling.seed = 77;
  same.sampling.num_speculative_tokens = 0;
  same.user = "somebody";
  same.priority = 3;
  same.sampling.temperature = 0.0F;
  same.explicit_sampling.temperature = true;
  EXPECT_TRUE(is_from_cache(std::move(same)));
}

TEST_F(AnswerCacheTest, KeysTellGrammarsApart) {
  const std::vector<Token> prompt = {1, 2};
  SamplingParams one, other;
  const auto key = [&](const SamplingParams& sampling) { return answer_key({prompt, sampling, "", true}); };
  EXPECT_EQ(key(one), key(other));
  other.grammar.kind = GrammarSpec::Kind::json_object;
  EXPECT_NE(key(one), key(other));
  one.grammar = {.kind = GrammarSpec::Kind::choice, .text = {}, .choices = {"ab", "c"}};
  other.grammar = {.kind = GrammarSpec::Kind::choice, .text = {}, .choices = {"a", "bc"}};
  EXPECT_NE(key(one), key(other));
  other.grammar = {.kind = GrammarSpec::Kind::regex, .text = "a", .choices = {}};
  one.grammar = {.kind = GrammarSpec::Kind::lark, .text = "a", .choices = {}};
  EXPECT_NE(key(one), key(other));
}

TEST_F(AnswerCacheTest, WhatIsNotCertainOrNotWantedIsComputed) {
  const auto never = [&](auto change) {
    for (int i = 0; i < 2; ++i) {
      GenerateRequest request = question();
      change(request);
      EXPECT_FALSE(is_from_cache(std::move(request)));
    }
  };
  never([](GenerateRequest& r) {
    r.sampling.temperature = 0.5F;
    r.sampling.seed = 1;
    r.explicit_sampling.temperature = true;
  });
  never([](GenerateRequest& r) { r.sampling.answer_cache = false; });
  never([](GenerateRequest& r) { r.is_copy = true; });
  never([](GenerateRequest& r) { r.on_submitted = [](const GenerateRequest&, int32_t) {}; });
  EXPECT_EQ(counts(), CacheCounts{}) << "nor was any of it looked up or kept";
}

TEST_F(AnswerCacheTest, WhatWasNotWholeIsNotKept) {
  for (int i = 0; i < 2; ++i) {
    auto sink = std::make_shared<TellingSink>();
    GenerateRequest request = question({}, "slow");
    request.sampling.max_tokens = 1900;
    const auto handle = service_->generate(std::move(request), sink);
    handle->cancel();
    sink->wait();
    EXPECT_EQ(sink->outcome.error->code, ErrorCode::cancelled);
  }
  GenerateRequest late = question({}, "slow");
  late.sampling.max_tokens = 1900;
  late.timeout = std::chrono::milliseconds(20);
  EXPECT_EQ(run(late)->outcome.error->code, ErrorCode::deadline_exceeded);
  EXPECT_EQ(counts("slow:1").bytes, 0U);
  EXPECT_EQ(counts("slow:1").hits, 0U);
}

TEST_F(AnswerCacheTest, WhoLeavesARememberedAnswerGetsOneEnd) {
  GenerateRequest request = question();
  request.sampling.max_tokens = 1900;
  run(request);
  for (int i = 0; i < 50; ++i) {
    auto sink = std::make_shared<TellingSink>();
    const auto handle = service_->generate(request, sink);
    handle->cancel();
    sink->wait();
    EXPECT_EQ(sink->ends, 1);
    if (!sink->outcome.error) {
      EXPECT_TRUE(sink->outcome.usage.from_cache);
      EXPECT_EQ(sink->samples[0].tokens.size(), 1900U) << "it had ended before";
    } else {
      EXPECT_EQ(sink->outcome.error->code, ErrorCode::cancelled);
    }
  }
}

TEST_F(AnswerCacheTest, CountsAsARequestAndNotAsSpeed) {
  const auto paid = [&](GenerateRequest request) {
    auto ticket = admission_.admit(1);
    EXPECT_TRUE(ticket.ok());
    request.ticket = *std::move(ticket);
    run(std::move(request));
    double tokens = 0;
    std::vector<MetricSample> samples;
    admission_.collect(samples);
    for (const MetricSample& sample : samples) {
      if (sample.name == "inferneo:tenant_tokens") tokens += std::get<double>(sample.value);
    }
    return tokens;
  };
  const double first = paid(question());
  EXPECT_EQ(first, 17 + 100);
  EXPECT_EQ(paid(question()), 2 * first) << "the tenant pays for what it gets";
  // An engine tells its numbers after the step that ends a request.
  while (manager_->status("abc:1")->stats.generation_tokens < 100) std::this_thread::yield();
  const ServerStats stats = service_->stats();
  const auto& model = *std::ranges::find(stats.models, std::string("abc:1"), &ServerStats::Model::id);
  EXPECT_EQ(model.requests, 2U);
  EXPECT_EQ(model.generation_tokens, 100U) << "computed ones";
  EXPECT_EQ(model.time_to_first_token.count, 1U);
  EXPECT_EQ(model.end_to_end.count, 1U);
  EXPECT_EQ(model.inter_token.count, 99U);
  const auto& level = *std::ranges::find(model.caches, std::string_view("answers"),
                                         [](const ServerStats::Cache& cache) { return std::string_view(cache.level); });
  EXPECT_EQ(level.counts.hits, 1U);
  EXPECT_EQ(level.counts.misses, 1U);
  double metric = 0;
  for (const MetricSample& sample : service_->metrics()) {
    for (const auto& [name, value] : sample.labels) {
      if (sample.name == "inferneo:cache_hits" && name == "level" && value == "answers") {
        metric += std::get<double>(sample.value);
      }
    }
  }
  EXPECT_EQ(metric, 1.0);
}

TEST_F(AnswerCacheTest, GoesWithItsModel) {
  ASSERT_FALSE(is_from_cache(question()));
  ASSERT_TRUE(is_from_cache(question()));
  EXPECT_GT(ledger_.used_by("abc:1", MemoryPurpose::cache), 0U);
  ASSERT_TRUE(manager_->unload("abc:1", clock_.now() + std::chrono::seconds(5)).ok());
  while (manager_->status("abc:1")->state != ModelState::unloaded) std::this_thread::yield();
  EXPECT_EQ(ledger_.used_by("abc:1", MemoryPurpose::cache), 0U);
  EXPECT_FALSE(is_from_cache(question())) << "loaded anew, it has computed nothing yet";
  EXPECT_EQ(counts().hits, 1U) << "counts stay";
  EXPECT_EQ(counts().misses, 2U);
}

TEST(AnswerCacheBounds, BytesAndAge) {
  AnswerCache cache({.max_bytes = 8000, .longest = std::chrono::seconds(10)});
  const auto key = [](uint8_t n) { return AnswerKey{n}; };
  const auto answer = [](size_t events) {
    auto made = std::make_shared<CachedAnswer>();
    made->events.resize(events);
    return made;
  };
  const TimePoint start{};
  const auto at = [&](int after) { return start + std::chrono::seconds(after); };
  for (uint8_t n = 0; n < 100; ++n) {
    cache.insert(key(n), answer(10), at(0));
    ASSERT_LE(cache.counts().bytes, 8000U);
    (void)cache.find(key(0), at(0));  // used again and again: it stays
  }
  EXPECT_GT(cache.counts().evictions, 50U);
  EXPECT_NE(cache.find(key(0), at(0)), nullptr);
  EXPECT_EQ(cache.find(key(1), at(0)), nullptr);
  cache.insert(key(200), answer(1000), at(0));
  EXPECT_EQ(cache.find(key(200), at(0)), nullptr) << "it would have driven the others out";
  EXPECT_NE(cache.find(key(0), at(10)), nullptr);
  EXPECT_EQ(cache.find(key(0), at(11)), nullptr) << "too old";
  AnswerCache small(
      {.max_bytes = 8'000'000, .longest = {}, .may_take = [](size_t bytes) { return bytes <= kAnswerBytes; }});
  small.insert(key(1), answer(10), at(0));
  small.insert(key(2), answer(100'000), at(0));  // more than it got
  EXPECT_NE(small.find(key(1), at(0)), nullptr) << "nobody leaves for what does not fit anyhow";
  AnswerCache refused({.max_bytes = 8000, .longest = {}, .may_take = [](size_t) { return false; }});
  refused.insert(key(1), answer(1), at(0));
  EXPECT_EQ(refused.counts().bytes, 0U);
}

}  // namespace
}  // namespace inferneo
