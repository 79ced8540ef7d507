// The engine over the CUDA runner on the emulated GPU: requests to their ends, books against the driver's, and what
// becomes of a model whose GPU is lost.
#include <future>

#include "engine/engine_core.h"
#include "models/cuda/cuda_loader.h"
#include "support/cuda/fake_driver.h"
#include "support/cuda/test_device.h"
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
    if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it looks into the fake driver's books";
    cuda::reset_fake_driver();
    auto opened = cuda::Device::open(cuda::fake_driver(), 0, {&cuda::testing::kFakeImage, 1});
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    device_ = *opened;
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
    cuda::reset_fake_driver();
  }

  cuda::CudaLoadOptions options() {
    cuda::CudaLoadOptions options;
    options.model.directory = directory_.get();
    options.model.model_name = "m";
    options.model.ledger = &host_;
    options.device = device_;
    options.ledger = &ledger_;
    options.max_num_seqs = 4;
    return options;
  }
  void start() {
    auto runner = cuda::load_cuda_model(options());
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    EngineCoreConfig config;
    config.model = "m";
    config.max_num_seqs = 4;
    config.max_num_batched_tokens = 64;
    config.max_model_len = 128;
    config.max_kv_bytes = size_t{16} << 20;
    auto core = EngineCore::create(config, std::move(runner).value(), ledger_, clock_);
    ASSERT_TRUE(core.ok()) << core.error().message;
    core_ = std::move(core).value();
  }
  std::shared_ptr<Collect> submit(RequestId id, int max_tokens) {
    auto sink = std::make_shared<Collect>();
    Request request;
    request.id = id;
    request.prompt = expected_.prompt;
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.sink = sink;
    EXPECT_TRUE(core_->submit(std::move(request)).ok());
    return sink;
  }

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
  // Equal to each other, and to transformers while no near tie comes.
  EXPECT_EQ(first->tokens, second->tokens);
  ASSERT_EQ(first->tokens.size(), 8U);
  EXPECT_EQ(first->tokens[0], expected_.greedy_tokens[0]);

  const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
  EXPECT_GT(books.pages, 0U);
  EXPECT_EQ(ledger_.used_by("m", MemoryPurpose::kv), books.pages << 21);
  const size_t buffers = ledger_.used() - ledger_.used_by("m", MemoryPurpose::kv);
  EXPECT_GE(buffers, books.allocated);
  EXPECT_LE(buffers, books.allocated + (size_t{16} << 21));  // each rounded up to a page
  EXPECT_LE(ledger_.used(), estimate->bytes);
  EXPECT_GT(books.graph_launches, 0U);
}

TEST_F(CudaEngine, ALostGpuFailsTheModelWithItsReason) {
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
  cuda::CudaLoadOptions small = options();
  MemoryLedger none(size_t{1} << 20);
  small.ledger = &none;
  EXPECT_EQ(cuda::load_cuda_model(small).error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(none.used(), 0U);
  EXPECT_EQ(cuda::fake_driver_books().allocated, 0U);
  small = options();
  small.model.quantization = "int8";
  EXPECT_EQ(cuda::load_cuda_model(small).error().code, ErrorCode::unsupported);
  // The driver refuses half way.
  cuda::fail_fake_driver("copy_to_device", 1, 0);
  EXPECT_FALSE(cuda::load_cuda_model(options()).ok());
  EXPECT_EQ(ledger_.used(), 0U);
  EXPECT_EQ(cuda::fake_driver_books().pinned, 0U);
}

// A capture that fails turns graphs off, and the tokens stay.
TEST_F(CudaEngine, WithoutGraphsWhereTheyCannotBeMade) {
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
