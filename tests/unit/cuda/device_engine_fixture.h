// An engine over the CUDA runner, on the emulated GPU unless a real one is asked for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/engine_core.h"
#include "models/cuda/cuda_loader.h"
#include "models/cuda/cuda_runner.h"
#include "support/cuda/fake_driver.h"
#include "support/cuda/test_device.h"
#include "unit/cuda/collecting_sink.h"
#include "unit/models/golden_models.h"

namespace inferneo {

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

}  // namespace inferneo
