// The engine over the CUDA runner: requests to their ends, many at once, and on the emulated GPU books against the
// driver's and what becomes of a model whose GPU is lost.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>

#include "engine/engine_core.h"
#include "models/cuda/cuda_loader.h"
#include "models/cuda/cuda_runner.h"
#include "support/cuda/fake_driver.h"
#include "support/cuda/test_device.h"
#include "support/temp_tree.h"
#include "unit/engine/scripted_grammar.h"
#include "unit/models/golden_models.h"

namespace inferneo {
namespace {

class Collect final : public TokenSink {
 public:
  void on_token(int32_t, Token token, const TokenLogprobs*, bool) override { tokens.push_back(token); }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override { promise_.set_value(outcome); }
  RequestOutcome wait() { return done_.get(); }
  std::vector<Token> tokens;  // after wait()

 private:
  std::promise<RequestOutcome> promise_;
  std::future<RequestOutcome> done_ = promise_.get_future();
};

class CudaEngine : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::testing::is_emulated()) {
      cuda::reset_fake_driver();
      auto opened = cuda::Device::open(cuda::fake_driver(), 0, {&cuda::testing::kFakeImage, 1});
      ASSERT_TRUE(opened.ok()) << opened.error().message;
      device_ = *opened;
    } else {
      device_ = cuda::testing::shared_device().device;
      ASSERT_NE(device_, nullptr) << cuda::testing::shared_device().problem;
    }
    auto directory = open_model(golden_root() + "/llama3_bf16");
    ASSERT_TRUE(directory.ok());
    directory_ = std::make_unique<ModelDirectory>(std::move(directory).value());
    auto expected = read_expected(host_, *directory_);
    ASSERT_TRUE(expected.ok());
    expected_ = std::move(expected).value();
  }
  void TearDown() override {
    core_.reset();
    EXPECT_EQ(ledger_.used(), 0U);
    device_.reset();
    if (cuda::testing::is_emulated()) cuda::reset_fake_driver();
  }

  cuda::CudaLoadOptions options() {
    cuda::CudaLoadOptions options;
    options.model.directory = directory_.get();
    options.model.model_name = "m";
    options.model.ledger = &host_;
    options.device = device_;
    options.ledger = &ledger_;
    options.max_num_seqs = max_num_seqs_;
    options.deterministic = deterministic_;
    options.model.quantization = quantization_;
    options.model.kv_cache_dtype = kv_cache_dtype_;
    return options;
  }
  void start() {
    auto runner = cuda::load_cuda_model(options());
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    runner_ = dynamic_cast<cuda::CudaRunner*>(runner->get());
    ASSERT_NE(runner_, nullptr);
    EngineCoreConfig config;
    config.num_speculative_tokens = num_speculative_tokens_;
    config.model = "m";
    config.max_num_seqs = max_num_seqs_;
    config.max_num_batched_tokens = 64;
    config.max_model_len = 128;
    config.max_kv_bytes = size_t{16} << 20;
    auto core = EngineCore::create(config, std::move(runner).value(), ledger_, clock_);
    ASSERT_TRUE(core.ok()) << core.error().message;
    core_ = std::move(core).value();
  }
  // The prompt without its first tokens, where some are to be left out.
  std::shared_ptr<Collect> submit(RequestId id, int max_tokens, int left_out = 0) {
    auto sink = std::make_shared<Collect>();
    Request request;
    request.id = id;
    request.prompt.assign(expected_.prompt.begin() + left_out, expected_.prompt.end());
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.sink = sink;
    EXPECT_TRUE(core_->submit(std::move(request)).ok());
    return sink;
  }

  // Stops the engine; of all its steps, those that were queued behind another one.
  uint64_t steps_ahead() {
    core_->stop();
    return runner_->step_gaps().count;
  }

  // Requests of several lengths in one engine, steps ahead of their results, a cache that grows by pages:
  // deterministic, each has the tokens that it has alone; else each ends as it should.
  void answer_many() {
    const bool emulated = cuda::testing::is_emulated();
    const int count = emulated ? 3 : 96;
    const int max_tokens = emulated ? 5 : 48;
    max_num_seqs_ = emulated ? 4 : 24;
    start();
    std::vector<std::vector<Token>> alone;
    uint64_t id = 1;
    for (int left_out = 0; left_out < 3; ++left_out) {
      const auto sink = submit(RequestId{id++}, max_tokens, left_out);
      EXPECT_FALSE(sink->wait().error);
      alone.push_back(sink->tokens);
    }
    std::vector<std::shared_ptr<Collect>> sinks;
    for (int i = 0; i < count; ++i) sinks.push_back(submit(RequestId{id++}, max_tokens, i % 3));
    for (int i = 0; i < count; ++i) {
      Collect& sink = *sinks[static_cast<size_t>(i)];
      const RequestOutcome outcome = sink.wait();
      EXPECT_FALSE(outcome.error) << "request " << i << ": " << outcome.error->message;
      EXPECT_EQ(sink.tokens.size(), static_cast<size_t>(max_tokens)) << "request " << i;
      if (deterministic_) {
        EXPECT_EQ(sink.tokens, alone[static_cast<size_t>(i % 3)]) << "request " << i;
      }
    }
    core_.reset();
  }

  bool deterministic_ = false;
  std::string quantization_ = "none";
  std::string kv_cache_dtype_ = "auto";
  int32_t num_speculative_tokens_ = 0;
  cuda::CudaRunner* runner_ = nullptr;  // the core's
  int32_t max_num_seqs_ = 4;
  SteadyClock clock_;
  MemoryLedger ledger_{size_t{900} << 20};
  MemoryLedger host_{size_t{1} << 30};
  std::shared_ptr<cuda::Device> device_;
  std::unique_ptr<ModelDirectory> directory_;
  Expected expected_;
  std::unique_ptr<EngineCore> core_;
};

TEST_F(CudaEngine, ServesRequestsAndKeepsItsBooks) {
  const auto estimate = cuda::estimate_cuda_memory(options(), 64);
  ASSERT_TRUE(estimate.ok()) << estimate.error().message;
  start();
  const auto first = submit(RequestId{1}, 8);
  const auto second = submit(RequestId{2}, 8);
  EXPECT_FALSE(first->wait().error);
  EXPECT_FALSE(second->wait().error);
  // Equal to each other, and to transformers while no near tie comes. On a GPU their prompts may take kernels that
  // round differently.
  if (cuda::testing::is_emulated()) {
    EXPECT_EQ(first->tokens, second->tokens);
  }
  ASSERT_EQ(first->tokens.size(), 8U);
  EXPECT_EQ(first->tokens[0], expected_.greedy_tokens[0]);

  EXPECT_LE(ledger_.used(), estimate->bytes);
  if (!cuda::testing::is_emulated()) return;
  const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
  EXPECT_GT(books.pages, 0U);
  EXPECT_EQ(ledger_.used_by("m", MemoryPurpose::kv), books.pages << 21);
  const size_t buffers = ledger_.used() - ledger_.used_by("m", MemoryPurpose::kv);
  EXPECT_GE(buffers, books.allocated);
  EXPECT_LE(buffers, books.allocated + (size_t{16} << 21));  // each rounded up to a page
  EXPECT_GT(books.graph_launches, 0U);
}

TEST_F(CudaEngine, ManyRequestsAtOnceAreAnsweredAsAlone) {
  for (const bool deterministic : {true, false}) {
    deterministic_ = deterministic;
    answer_many();
  }
}

TEST_F(CudaEngine, QuantisedModelsAnswerManyAtOnce) {
  deterministic_ = true;
  kv_cache_dtype_ = "int8";
  for (const char* quantization : {"int8", "int4"}) {
    quantization_ = quantization;
    answer_many();
  }
}

// Half and a quarter of the bytes, as the ledger, the estimate and the model's description say.
TEST_F(CudaEngine, QuantisedWeightsAreBookedAsTheyAre) {
  directory_ = std::make_unique<ModelDirectory>(open_model(golden_root() + "/../../../models/inferneo-story").value());
  std::map<std::string, size_t> bytes;
  for (const char* quantization : {"none", "int8", "int4"}) {
    quantization_ = quantization;
    const MemoryEstimate estimate = cuda::estimate_cuda_memory(options(), 64).value();
    const auto runner = cuda::load_cuda_model(options());
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    const ModelSpec& spec = (*runner)->spec();
    EXPECT_EQ(spec.dtype, std::string(quantization) == "none" ? "bf16" : quantization);
    EXPECT_EQ(spec.stored_dtype, "bf16");
    EXPECT_EQ(estimate.dtype, spec.dtype);
    bytes[quantization] = spec.weight_bytes;
    const size_t booked = ledger_.used_by("m", MemoryPurpose::weights);
    EXPECT_GE(booked, spec.weight_bytes);
    EXPECT_LE(booked, spec.weight_bytes + (size_t{2} << 20)) << quantization << ": a page";
    EXPECT_LT(booked, estimate.bytes);
  }
  EXPECT_LT(bytes["int8"], bytes["none"] * 9 / 16);
  EXPECT_LT(bytes["int4"], bytes["int8"] * 9 / 10) << "a third of this model is its embedding, in 8 bits";
  // An int8 cache takes half of a bf16 one, and a scale for each head.
  quantization_ = "none";
  const size_t wide = cuda::estimate_cuda_memory(options(), 64).value().kv_bytes_per_token;
  kv_cache_dtype_ = "int8";
  const size_t narrow = cuda::estimate_cuda_memory(options(), 64).value().kv_bytes_per_token;
  EXPECT_GT(narrow * 2, wide);
  EXPECT_LT(narrow * 16, wide * 10);
}

// A weight that int8 cannot hold is named, with the way out, and nothing stays booked.
TEST_F(CudaEngine, WeightsThatAreNotFiniteAreRefused) {
  const testing::TempTree tree;
  const std::string from = golden_root() + "/llama3_bf16";
  const std::string to = tree.directory("broken");
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    std::filesystem::copy_file(entry.path(), to + "/" + entry.path().filename().string());
  }
  std::string file;
  {
    std::ifstream in(to + "/model.safetensors", std::ios::binary);
    file.assign(std::istreambuf_iterator<char>(in), {});
  }
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const size_t entry = file.find(name);
  ASSERT_NE(entry, std::string::npos);
  const size_t offsets = file.find("data_offsets\":[", entry);
  const size_t at = 8 + header + std::stoul(file.substr(offsets + std::strlen("data_offsets\":["))) + 2 * 77;
  file[at] = static_cast<char>(0x80);  // bf16 0x7f80: infinity
  file[at + 1] = 0x7f;
  tree.write("broken/model.safetensors", file);
  directory_ = std::make_unique<ModelDirectory>(open_model(to).value());
  for (const char* quantization : {"int8", "int4"}) {
    quantization_ = quantization;
    const auto runner = cuda::load_cuda_model(options());
    ASSERT_FALSE(runner.ok());
    EXPECT_EQ(runner.error().code, ErrorCode::unsupported);
    EXPECT_EQ(runner.error().param, "quantization");
    EXPECT_NE(runner.error().message.find(name), std::string::npos) << runner.error().message;
    EXPECT_NE(runner.error().message.find("quantization none"), std::string::npos);
    EXPECT_EQ(ledger_.used(), 0U);
  }
}

// Looked up in a prediction, alone, under a grammar and in company; and what nothing predicts runs ahead as before.
TEST_F(CudaEngine, GuessesChangeNoToken) {
  deterministic_ = true;
  const int max_tokens = cuda::testing::is_emulated() ? 14 : 60;
  GrammarScript script;
  script.vocab_size = 0;  // until the model is there
  std::vector<std::vector<Token>> expected(3);
  const auto ask = [&](RequestId id, size_t kind) {
    auto sink = std::make_shared<Collect>();
    Request request;
    request.id = id;
    request.prompt = expected_.prompt;
    request.seed = 5;
    request.sampling.temperature = kind == 0 ? 0.0F : 1.0F;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.prediction = expected[kind];
    if (kind == 1) request.grammar = std::make_shared<ScriptedGrammar>(script);
    if (kind == 2) request.prediction.clear();
    request.sink = sink;
    EXPECT_TRUE(core_->submit(std::move(request)).ok());
    return sink;
  };
  uint64_t plain_ahead = 0;
  for (const bool guesses : {false, true}) {
    SCOPED_TRACE(guesses);
    num_speculative_tokens_ = guesses ? 4 : 0;
    start();
    script.vocab_size = runner_->spec().vocab_size;
    script.eos = runner_->spec().eos_token_ids.at(0);
    const auto unpredicted = ask(RequestId{1}, 2);
    EXPECT_FALSE(unpredicted->wait().error);
    expected[2] = guesses ? expected[2] : unpredicted->tokens;
    EXPECT_EQ(unpredicted->tokens, expected[2]);
    const uint64_t ahead = steps_ahead();
    plain_ahead = guesses ? plain_ahead : ahead;
    EXPECT_GT(ahead, static_cast<uint64_t>(max_tokens) / 2);
    EXPECT_EQ(ahead, plain_ahead);
    core_.reset();
    start();
    for (const size_t kind : {size_t{0}, size_t{1}}) {
      const auto sink = ask(RequestId{kind + 2}, kind);
      const RequestOutcome outcome = sink->wait();
      EXPECT_FALSE(outcome.error) << outcome.error->message;
      if (!guesses) expected[kind] = sink->tokens;
      EXPECT_EQ(sink->tokens, expected[kind]);
      EXPECT_EQ(outcome.stats.accepted_tokens > 0, guesses) << "kind " << kind;
    }
    std::vector<std::shared_ptr<Collect>> together;
    for (size_t kind = 0; kind < 3; ++kind) together.push_back(ask(RequestId{kind + 10}, kind));
    for (size_t kind = 0; kind < 3; ++kind) {
      EXPECT_FALSE(together[kind]->wait().error);
      EXPECT_EQ(together[kind]->tokens, expected[kind]) << "kind " << kind;
    }
    core_.reset();
  }
}

TEST_F(CudaEngine, ALostGpuFailsTheModelWithItsReason) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  start();
  EXPECT_FALSE(submit(RequestId{1}, 2)->wait().error);
  cuda::fail_fake_driver("event_synchronize", 700);
  const RequestOutcome outcome = submit(RequestId{2}, 8)->wait();
  ASSERT_TRUE(outcome.error);
  EXPECT_NE(outcome.error->message.find("ILLEGAL_ADDRESS"), std::string::npos) << outcome.error->message;
  EXPECT_EQ(core_->stats().state, EngineState::failed);
  core_.reset();
  // Nothing can be loaded on it any more, and the reason is said.
  const auto again = cuda::load_cuda_model(options());
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.error().message.find("is lost"), std::string::npos) << again.error().message;
}

TEST_F(CudaEngine, WhatDoesNotFitIsRefusedAndGivenBack) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it looks into the fake driver's books";
  cuda::CudaLoadOptions small = options();
  MemoryLedger none(size_t{1} << 20);
  small.ledger = &none;
  EXPECT_EQ(cuda::load_cuda_model(small).error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(none.used(), 0U);
  EXPECT_EQ(cuda::fake_driver_books().allocated, 0U);
  // The driver refuses half way.
  cuda::fail_fake_driver("copy_to_device", 1, 0);
  EXPECT_FALSE(cuda::load_cuda_model(options()).ok());
  EXPECT_EQ(ledger_.used(), 0U);
  EXPECT_EQ(cuda::fake_driver_books().pinned, 0U);
  // The weights are there, and the runner gets no stream.
  cuda::fail_fake_driver("stream_create", cuda::kCuOutOfMemory, 1);
  EXPECT_EQ(cuda::load_cuda_model(options()).error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(ledger_.used(), 0U);
}

// A capture that fails turns graphs off, and the tokens stay.
TEST_F(CudaEngine, WithoutGraphsWhereTheyCannotBeMade) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  cuda::fail_fake_driver("graph_instantiate", 801);
  start();
  const auto sink = submit(RequestId{1}, 8);
  EXPECT_FALSE(sink->wait().error);
  ASSERT_EQ(sink->tokens.size(), 8U);
  EXPECT_EQ(sink->tokens[0], expected_.greedy_tokens[0]);
  EXPECT_EQ(cuda::fake_driver_books().graph_launches, 0U);
}

}  // namespace
}  // namespace inferneo
