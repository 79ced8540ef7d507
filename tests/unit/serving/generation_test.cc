// The text side over the real engine core and a scripted runner: deltas, stop strings, cancellation, ends, metrics.
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "byte_tokenizer.h"
#include "client_sink.h"
#include "engine/scripted_runner.h"
#include "serving/engine_service.h"
#include "serving/metrics_catalogue.h"

namespace inferneo {
namespace {

// "story" writes a fixed text and ends; "endless" never ends; "broken" cannot be loaded.
class ScriptedLoader final : public ModelLoader {
 public:
  ScriptedLoader(MemoryLedger& ledger, const Clock& clock) : ledger_(ledger), clock_(clock) {}
  Result<size_t> estimate(const ModelRecord&) override { return 0; }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport&) override {
    if (record.source == "broken") return make_error(ErrorCode::malformed, "bad weights");
    Script script;
    if (record.source == "dies once" && !std::exchange(died_, true)) script.fail_collect_at = 2;
    script.vocab_size = 257;
    script.eos_token_ids = {ByteTokenizer::kEos};
    const std::string text = record.source == "endless" ? std::string() : record.source;
    script.next_token = [text](const ScriptedToken& at) -> Token {
      if (text.empty()) return 'a' + at.output_index % 26;
      const auto index = static_cast<size_t>(at.output_index);
      return index < text.size() ? static_cast<unsigned char>(text[index]) : ByteTokenizer::kEos;
    };
    if (text.empty()) script.step_cost = std::chrono::microseconds(200);
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
    return model;
  }

 private:
  bool died_ = false;
  MemoryLedger& ledger_;
  const Clock& clock_;
};

class GenerationTest : public ::testing::Test {
 protected:
  GenerationTest() : ledger_(size_t{256} << 20) {
    manager_ = std::make_unique<ManagerCore>(std::make_unique<ScriptedLoader>(ledger_, clock_), ledger_, clock_);
    EXPECT_TRUE(manager_->register_model({.name = "story", .path = "Once upon a time there was an end. More."}).ok());
    EXPECT_TRUE(manager_->register_model({.name = "endless", .path = "endless"}).ok());
    EXPECT_TRUE(manager_->register_model({.name = "broken", .path = "broken"}).ok());
    EngineServiceConfig config;
    config.text_threads = 2;
    service_ = std::make_unique<EngineService>(config, *manager_, ledger_, clock_);
    service_->open();
  }
  ~GenerationTest() override {
    manager_->stop();
    service_.reset();
    manager_.reset();
    EXPECT_EQ(ledger_.used(), 0U);
  }

  static GenerateRequest ask(const std::string& model, SamplingParams sampling = {}) {
    GenerateRequest request;
    request.model = model;
    request.prompt = std::string("prompt");
    request.sampling = std::move(sampling);
    return request;
  }
  std::shared_ptr<ClientSink> run(GenerateRequest request) {
    auto sink = std::make_shared<ClientSink>();
    service_->generate(std::move(request), sink);
    sink->wait();
    return sink;
  }

  SteadyClock clock_;
  MemoryLedger ledger_;
  std::unique_ptr<ManagerCore> manager_;
  std::unique_ptr<EngineService> service_;
};

TEST_F(GenerationTest, TellsTheWholeTextAndCountsIt) {
  const auto sink = run(ask("story"));
  EXPECT_FALSE(sink->outcome.error.has_value());
  EXPECT_EQ(sink->text[0], "Once upon a time there was an end. More.");
  EXPECT_EQ(sink->finish[0], FinishReason::stop);
  EXPECT_TRUE(sink->prompt_seen);
  EXPECT_EQ(sink->prompt.model, "story");
  EXPECT_EQ(sink->outcome.usage.prompt_tokens, 6);
  EXPECT_EQ(sink->outcome.usage.completion_tokens, 41) << "the end-of-sequence token is counted and not shown";
  EXPECT_EQ(sink->outcomes, 1);
}

TEST_F(GenerationTest, StopStringsEndTheTextAndTheEngineWork) {
  SamplingParams sampling;
  sampling.stop = {"there was", "never"};
  const auto sink = run(ask("story", sampling));
  EXPECT_EQ(sink->text[0], "Once upon a time ");
  EXPECT_EQ(sink->finish[0], FinishReason::stop);
  EXPECT_EQ(sink->stop_reason[0], "there was");
  EXPECT_EQ(sink->outcome.usage.completion_tokens, 26);

  sampling.stop = {"jkl"};
  sampling.min_tokens = 20;  // the first "jkl" comes too early
  const auto later = run(ask("endless", sampling));
  EXPECT_EQ(later->text[0].size(), 26U + 9U);
}

TEST_F(GenerationTest, WhatNobodyReadsBeforeTheEndComesInFewPieces) {
  GenerateRequest request = ask("endless");
  request.sampling.max_tokens = 400;
  const auto streamed = run(request);
  request.whole = true;
  const auto whole = run(request);
  EXPECT_EQ(whole->text, streamed->text);
  EXPECT_GT(streamed->deltas, whole->deltas);
  EXPECT_LE(whole->deltas, 40);     // eight, and what came while a piece was made
  request.sampling.stop = {"jkl"};  // an end that the text decides is found at once
  EXPECT_EQ(run(request)->text[0].size(), 9U);
  request.sampling = {};
  auto sink = std::make_shared<ClientSink>();
  const auto handle = service_->generate(request, sink);
  sink->wait_for_text();
  handle->cancel();
  sink->wait();
  EXPECT_EQ(sink->outcome.error.value().code, ErrorCode::cancelled);
}

TEST_F(GenerationTest, StopTokensAreNamed) {
  SamplingParams sampling;
  sampling.stop_token_ids = {'p'};
  const auto sink = run(ask("story", sampling));
  EXPECT_EQ(sink->text[0], "Once u");
  EXPECT_EQ(sink->stop_reason[0], "112");
}

TEST_F(GenerationTest, SamplesEndOnTheirOwn) {
  SamplingParams sampling;
  sampling.n = 3;
  sampling.max_tokens = 10;
  const auto sink = run(ask("story", sampling));
  ASSERT_EQ(sink->text.size(), 3U);
  for (int sample = 0; sample < 3; ++sample) {
    EXPECT_EQ(sink->text[sample], "Once upon ");
    EXPECT_EQ(sink->finish[sample], FinishReason::length);
  }
  EXPECT_EQ(sink->outcome.usage.completion_tokens, 30);
}

TEST_F(GenerationTest, APromptMayBeReadAlone) {
  SamplingParams sampling;
  sampling.echo = true;
  sampling.max_tokens = 0;
  sampling.prompt_logprobs = 1;
  sampling.n = 2;
  const auto sink = run(ask("story", sampling));
  EXPECT_FALSE(sink->outcome.error.has_value());
  EXPECT_EQ(sink->prompt.echo_text, "prompt");
  EXPECT_EQ(sink->prompt.logprobs.size(), 5U);
  for (int sample = 0; sample < 2; ++sample) {
    EXPECT_EQ(sink->text[sample], "");
    EXPECT_EQ(sink->finish[sample], FinishReason::length);
  }
  EXPECT_EQ(sink->outcome.usage.prompt_tokens, 6);
  EXPECT_EQ(sink->outcome.usage.completion_tokens, 0);
  const ServerStats stats = service_->stats();
  EXPECT_EQ(stats.models[0].generation_tokens, 0U) << "not one that nobody sees";
  EXPECT_GT(stats.models[0].prompt_tokens_per_second, 0.0);
  EXPECT_EQ(stats.models[0].time_to_first_token.count, 0U);
}

TEST_F(GenerationTest, CancelEndsWithOneTerminalEventWheneverItComes) {
  for (int i = 0; i < 50; ++i) {
    auto sink = std::make_shared<ClientSink>();
    SamplingParams sampling;
    sampling.max_tokens = 4000;
    const auto handle = service_->generate(ask("endless", sampling), sink);
    if (i % 2 == 1) sink->wait_for_text();
    handle->cancel();
    handle->cancel();
    sink->wait();
    EXPECT_EQ(sink->outcomes, 1);
    ASSERT_TRUE(sink->outcome.error.has_value());
    EXPECT_EQ(sink->outcome.error->code, ErrorCode::cancelled);
  }
}

TEST_F(GenerationTest, ErrorsComeThroughOnDone) {
  EXPECT_EQ(run(ask("nobody"))->outcome.error->code, ErrorCode::not_found);
  EXPECT_EQ(run(ask("broken"))->outcome.error->code, ErrorCode::unavailable);
  GenerateRequest chat = ask("story");
  chat.prompt = ChatInput{};
  EXPECT_EQ(run(chat)->outcome.error->param, "messages");
  SamplingParams grammar;
  grammar.grammar.kind = GrammarSpec::Kind::json_object;
  EXPECT_EQ(run(ask("story", grammar))->outcome.error->param, "grammar");
  GenerateRequest tokens = ask("story");
  tokens.prompt = std::vector<Token>{1, 9999};
  EXPECT_EQ(run(tokens)->outcome.error->code, ErrorCode::invalid_argument);
  GenerateRequest late = ask("endless");
  late.timeout = std::chrono::milliseconds(20);
  EXPECT_EQ(run(late)->outcome.error->code, ErrorCode::deadline_exceeded);
}

TEST_F(GenerationTest, TheOperatorsTimeoutEndsRequests) {
  EngineServiceConfig config;
  config.request_timeout = std::chrono::milliseconds(30);
  EngineService strict(config, *manager_, ledger_, clock_);
  strict.open();
  for (const bool asks_for_longer : {false, true}) {
    GenerateRequest request = ask("endless");
    if (asks_for_longer) request.timeout = std::chrono::hours(1);
    auto sink = std::make_shared<ClientSink>();
    strict.generate(std::move(request), sink);
    sink->wait();
    ASSERT_TRUE(sink->outcome.error.has_value());
    EXPECT_EQ(sink->outcome.error->code, ErrorCode::deadline_exceeded);
  }
}

TEST_F(GenerationTest, ARequestHoldsItsPlacesAndPaysForWhatItUsed) {
  Admission admission({{.name = "default"}, {.name = "team", .tokens_per_minute = 6000, .max_concurrent_requests = 1}},
                      {.requests = 1}, clock_);
  EngineServiceConfig config;
  config.text_threads = 2;
  EngineService service(config, *manager_, ledger_, clock_, &admission);
  service.open();
  const auto send = [&](const std::string& model, SamplingParams sampling) {
    GenerateRequest request = ask(model, std::move(sampling));
    auto ticket = admission.admit(1);
    EXPECT_TRUE(ticket.ok()) << "the place was not free when the last request had ended";
    if (ticket.ok()) request.ticket = *std::move(ticket);
    auto sink = std::make_shared<ClientSink>();
    return std::pair(service.generate(std::move(request), sink), sink);
  };
  send("story", {}).second->wait();  // 6 prompt tokens, 41 more
  const auto near = [&](int64_t remaining) {
    const int64_t left = admission.rates(1).tokens->remaining;
    return left >= remaining && left <= remaining + 200;  // what has come in since
  };
  EXPECT_TRUE(near(6000 - 47)) << admission.rates(1).tokens->remaining;

  SamplingParams many;
  many.max_tokens = 4000;
  const auto [handle, sink] = send("endless", many);
  sink->wait_for_text();
  EXPECT_LT(admission.rates(1).tokens->remaining, 6000 - kMaxReservedOutput + 200) << "the estimate";
  EXPECT_FALSE(admission.admit(1).ok()) << "one at a time";
  GenerateRequest other = ask("story");
  auto other_sink = std::make_shared<ClientSink>();
  service.generate(std::move(other), other_sink);
  other_sink->wait();
  EXPECT_FALSE(other_sink->outcome.error.has_value()) << "what has begun waits no more: the server's queue was free";
  handle->cancel();
  sink->wait();
  EXPECT_GT(admission.rates(1).tokens->remaining, 6000 - kMaxReservedOutput) << "settled";

  send("nobody", {}).second->wait();
  send("story", {}).second->wait();
}

TEST_F(GenerationTest, AModelIsListedAndAnswersUnderEachOfItsNames) {
  ASSERT_TRUE(manager_->register_model({.name = "long-name", .path = "Hello.", .aliases = {"short"}}).ok());
  const std::vector<ServedModel> models = service_->models();
  ASSERT_EQ(models.size(), 5U);
  EXPECT_EQ(models[3].id, "long-name");
  EXPECT_EQ(models[4].id, "short");
  EXPECT_EQ(models[4].root, models[3].root);
  EXPECT_EQ(run(ask("short"))->prompt.model, "long-name");
}

TEST_F(GenerationTest, TokenizersComeWhenTheirModelIsThere) {
  std::promise<Result<std::shared_ptr<const Tokenizer>>> found;
  std::promise<Result<std::shared_ptr<const Tokenizer>>> missing;
  service_->with_tokenizer("endless", [&](auto tokenizer) { found.set_value(std::move(tokenizer)); });
  service_->with_tokenizer("nobody", [&](auto tokenizer) { missing.set_value(std::move(tokenizer)); });
  const auto tokenizer = found.get_future().get();
  ASSERT_TRUE(tokenizer.ok());
  EXPECT_NE(*tokenizer, nullptr);
  EXPECT_EQ(missing.get_future().get().error().code, ErrorCode::not_found);
}

TEST_F(GenerationTest, WhatDependsOnTheModelIsDecidedWhenItIsThere) {
  GenerateRequest request = ask("story");
  int32_t vocab_size = 0;
  request.on_model = [&](const Tokenizer& tokenizer, GenerateRequest& prepared) {
    vocab_size = tokenizer.vocab_size();
    prepared.sampling.max_tokens = 2;
  };
  EXPECT_EQ(run(std::move(request))->outcome.usage.completion_tokens, 2);
  EXPECT_GT(vocab_size, 0);
}

TEST_F(GenerationTest, AnEngineThatFailedIsReplacedForTheNextRequest) {
  ASSERT_TRUE(manager_->register_model({.name = "mortal", .path = "dies once"}).ok());
  EXPECT_EQ(run(ask("mortal"))->outcome.error->code, ErrorCode::internal);
  const auto sink = run(ask("mortal"));
  EXPECT_FALSE(sink->outcome.error) << sink->outcome.error->message;
  for (const ModelStatus& status : manager_->statuses()) {
    if (status.record.id.name != "mortal") continue;
    EXPECT_EQ(status.loads, 2U);
    EXPECT_EQ(status.unloads[static_cast<size_t>(UnloadReason::failed)], 1U);
  }
}

TEST_F(GenerationTest, EndingTheManagerEndsWhatRuns) {
  auto sink = std::make_shared<ClientSink>();
  SamplingParams sampling;
  sampling.max_tokens = 4000;
  service_->generate(ask("endless", sampling), sink);
  sink->wait_for_text();
  manager_->stop();
  sink->wait();
  ASSERT_TRUE(sink->outcome.error.has_value());
  EXPECT_EQ(sink->outcome.error->code, ErrorCode::unavailable);
}

TEST_F(GenerationTest, DrainLetsRequestsEndAndRefusesNewOnes) {
  auto sink = std::make_shared<ClientSink>();
  SamplingParams sampling;
  sampling.max_tokens = 200;
  service_->generate(ask("endless", sampling), sink);
  sink->wait_for_text();
  EXPECT_TRUE(service_->ready().ok());
  EXPECT_TRUE(service_->drain(clock_.now() + std::chrono::seconds(10)));
  EXPECT_FALSE(service_->ready().ok());
  sink->wait();
  EXPECT_FALSE(sink->outcome.error.has_value());
  EXPECT_EQ(sink->outcome.usage.completion_tokens, 200);
  EXPECT_EQ(run(ask("endless"))->outcome.error->code, ErrorCode::unavailable);
}

TEST_F(GenerationTest, MetricsFollowTheRequests) {
  run(ask("story"));
  run(ask("nobody"));
  std::map<std::string, double> values;
  for (const MetricSample& sample : service_->metrics()) {
    std::string key = sample.name;
    for (const auto& [label, value] : sample.labels) {
      if (label != "engine" && label != "version") key += " " + value;
    }
    if (const auto* number = std::get_if<double>(&sample.value)) values[key] = *number;
    if (const auto* histogram = std::get_if<Histogram>(&sample.value)) {
      values[key] = static_cast<double>(histogram->count());
    }
  }
  EXPECT_EQ(values["vllm:request_success story stop"], 1.0);
  EXPECT_EQ(values["vllm:time_to_first_token_seconds story"], 1.0);
  EXPECT_EQ(values["vllm:inter_token_latency_seconds story"], 40.0);
  EXPECT_EQ(values["vllm:prompt_tokens story"], 6.0);
  EXPECT_EQ(values["vllm:generation_tokens story"], 41.0);
  EXPECT_EQ(values["vllm:num_requests_running story"], 0.0);
  EXPECT_EQ(values["inferneo:model_state broken unloaded"], 1.0);
  EXPECT_GT(values["inferneo:memory_used_bytes story kv"], 0.0);
  EXPECT_EQ(values.count("vllm:request_success nobody error"), 0U) << "unknown names make no series";
  EXPECT_EQ(values["inferneo:requests_refused not_found"], 1.0);
  EXPECT_EQ(values["inferneo:ready"], 1.0);
}

// Every sample has the labels that the catalogue says, no series is there twice, and those of a model go with it.
TEST_F(GenerationTest, MetricsKeepToTheCatalogue) {
  run(ask("story"));
  run(ask("broken"));
  std::map<std::string_view, const MetricInfo*> rows;
  for (const MetricInfo& info : metrics_catalogue()) rows[info.name] = &info;
  const auto series = [&] {
    std::set<std::string> seen;
    for (const MetricSample& sample : service_->metrics()) {
      std::string names;
      std::string key = sample.name;
      for (const auto& [label, value] : sample.labels) {
        names += (names.empty() ? "" : ",") + label;
        key += "|" + value;
      }
      EXPECT_TRUE(rows.contains(sample.name)) << sample.name;
      if (rows.contains(sample.name)) {
        EXPECT_EQ(names, rows[sample.name]->labels) << sample.name;
      }
      EXPECT_TRUE(seen.insert(key).second) << key;
    }
    return seen;
  };
  const std::set<std::string> before = series();
  EXPECT_TRUE(before.contains("vllm:time_to_first_token_seconds|story|0|1"));
  const uint64_t total = service_->stats().total_requests;
  EXPECT_EQ(total, 1U);
  EXPECT_EQ(service_->stats().refused, 1U);
  ASSERT_TRUE(manager_->remove_model("story:1", clock_.now() + std::chrono::seconds(5)).ok());
  const auto deadline = clock_.now() + std::chrono::seconds(10);
  const auto of_story = [&] {
    const std::set<std::string> now = series();
    return std::ranges::count_if(now, [](const std::string& key) { return key.find("|story|") != key.npos; });
  };
  while (of_story() > 0 && clock_.now() < deadline) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(of_story(), 0);
  EXPECT_EQ(service_->stats().total_requests, total) << "the server's totals never fall";
}

TEST_F(GenerationTest, StatsFollowTheRequestsAndTheLife) {
  run(ask("story"));
  run(ask("story"));
  run(ask("broken"));
  const ServerStats stats = service_->stats();
  ASSERT_EQ(stats.models.size(), 3U);
  const ServerStats::Model& story = stats.models[0];
  EXPECT_EQ(story.id, "story:1");
  EXPECT_EQ(story.state, "ready");
  EXPECT_EQ(story.requests, 2U);
  EXPECT_EQ(story.errors, 0U);
  EXPECT_EQ(story.loads, 1U);
  EXPECT_EQ(story.generation_tokens, 82U);
  EXPECT_EQ(story.time_to_first_token.count, 2U);
  EXPECT_GT(story.time_to_first_token.p99, 0.0);
  EXPECT_GE(story.end_to_end.p50, story.time_to_first_token.p50 * 0.98);
  EXPECT_GT(story.tokens_per_second, story.requests_per_second);
  EXPECT_DOUBLE_EQ(stats.tokens_per_second, story.tokens_per_second);
  EXPECT_EQ(stats.models[2].load_failures, 1U);
  EXPECT_EQ(stats.models[2].state, "failed");
  EXPECT_EQ(stats.refused, 1U);
  EXPECT_EQ(stats.running, 0);
  EXPECT_GT(stats.memory_used, 0U);
  EXPECT_LE(stats.memory_used, stats.memory_budget);

  for (const ModelStatus& status : manager_->statuses()) {
    if (status.id == "broken:1") {
      EXPECT_EQ(status.life.wait_seconds.count(), 1U) << "who waited in vain waited too";
    }
    if (status.id != "story:1") continue;
    EXPECT_EQ(status.life.load_seconds.count(), 1U);
    EXPECT_EQ(status.life.wait_seconds.count(), 1U) << "the second one did not wait";
    EXPECT_EQ(status.life.unloaded_bytes, 0U);
  }
}

}  // namespace
}  // namespace inferneo
