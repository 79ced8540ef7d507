// A golden model behind the CUDA runner, on the emulated GPU unless a real one is asked for, and the laws that paging,
// chunks, batches and running ahead keep there.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/cuda/cuda_loader.h"
#include "support/cuda/test_device.h"
#include "unit/models/golden_fixture.h"

namespace inferneo {

class DeviceMemory final : public HarnessMemory {
 public:
  DeviceMemory(std::shared_ptr<cuda::Device> device, MemoryLedger& ledger)
      : device_(std::move(device)), ledger_(ledger) {}
  std::byte* allocate(size_t bytes) override {
    auto buffer = cuda::DeviceBuffer::allocate(device_, ledger_, "harness", MemoryPurpose::kv, bytes);
    INFERNEO_CHECK(buffer.ok(), "no memory for a test's cache");
    buffers_.push_back(std::move(buffer).value());
    return buffers_.back().data();
  }
  void fill(std::byte* at, size_t bytes) override {
    (void)device_->make_current();
    (void)device_->driver().set_bytes(reinterpret_cast<cuda::CuPointer>(at), 0xff, bytes, nullptr);
    (void)device_->driver().stream_synchronize(nullptr);
  }

 private:
  std::shared_ptr<cuda::Device> device_;
  MemoryLedger& ledger_;
  std::vector<cuda::DeviceBuffer> buffers_;
};

class CudaGoldenTest : public GoldenTest {
 protected:
  void SetUp() override {
    const auto& opened = cuda::testing::shared_device();
    ASSERT_NE(opened.device, nullptr) << opened.problem;
    device_ = opened.device;
    GoldenTest::SetUp();
  }
  std::unique_ptr<HarnessMemory> memory() override { return std::make_unique<DeviceMemory>(device_, device_ledger_); }
  cuda::CudaLoadOptions options(int32_t block_size) {
    cuda::CudaLoadOptions options;
    options.model.directory = directory_.get();
    options.model.model_name = GetParam().model;
    options.model.ledger = &ledger_;
    options.model.block_size = block_size;
    options.model.quantization = quantization_;
    options.model.kv_cache_dtype = kv_cache_dtype_;
    if (GetParam().model == "phi3_longrope_short") options.model.max_model_len = 128;
    options.device = device_;
    options.ledger = &device_ledger_;
    options.deterministic = deterministic_;
    options.enable_graphs = graphs_;
    return options;
  }
  std::unique_ptr<ModelRunner> load(int32_t block_size) override {
    auto runner = cuda::load_cuda_model(options(block_size));
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    return runner.ok() ? std::move(runner).value() : nullptr;
  }

  // deterministic: chunked and batched give the bits of alone.
  void expect_deterministic_bits() {
    deterministic_ = true;
    auto runner = load(16);
    ASSERT_NE(runner, nullptr);
    PagedHarness harness(*runner, 64, 1, memory());
    ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
    const std::vector<float> alone = prompt_logits(harness, {kMaxTokens});
    EXPECT_EQ(prompt_logits(harness, {5, 1, 7}), alone);
    PagedHarness::Sequence other{expected_.prompt, 0, {}};
    EXPECT_EQ(prompt_logits(harness, {9}, {&other}), alone);
  }

  // Put to sleep and woken, twice: the logits of before.
  void expect_wakes_to_the_bit() {
    auto runner = load(16);
    ASSERT_NE(runner, nullptr);
    const size_t weights = device_ledger_.used();
    std::vector<float> before;
    for (int cycle = 0; cycle < 3; ++cycle) {
      {
        PagedHarness harness(*runner, 64, 1, memory());
        ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
        const std::vector<float> logits = prompt_logits(harness, {kMaxTokens});
        if (cycle == 0) before = logits;
        EXPECT_EQ(logits, before) << "cycle " << cycle;
      }
      auto sleeping = runner->sleep();
      ASSERT_TRUE(sleeping.ok()) << sleeping.error().message;
      runner.reset();
      EXPECT_EQ(device_ledger_.used(), 0U);
      auto woken = (*sleeping)->wake();
      ASSERT_TRUE(woken.ok()) << woken.error().message;
      runner = std::move(woken).value();
      EXPECT_EQ(device_ledger_.used(), weights);
    }
  }

  // Two steps in flight: the second takes its token from the first, on the device.
  void expect_runs_ahead() {
    auto runner = load(16);
    ASSERT_NE(runner, nullptr);
    PagedHarness harness(*runner, 64, 1, memory());
    ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
    const std::vector<Token> plain = greedy(harness);

    SamplingParams params;
    params.temperature = 0.0F;
    std::vector<int32_t> table(16);
    for (int32_t b = 0; b < 16; ++b) table[static_cast<size_t>(b)] = b;
    const std::vector<std::span<const int32_t>> tables(runner->kv_spec().groups.size(), table);
    const Token unknown = 0;
    std::vector<Token> tokens;
    std::vector<Ticket> open;
    const auto collect = [&] {
      auto result = runner->collect(open.front());
      open.erase(open.begin());
      ASSERT_TRUE(result.ok()) << result.error().message;
      ASSERT_EQ(result->sequences[0].tokens.size(), 1U);
      tokens.push_back(result->sequences[0].tokens[0]);
    };
    auto position = static_cast<int32_t>(expected_.prompt.size());
    for (size_t step = 0; step < plain.size(); ++step) {
      SequenceStep sequence;
      sequence.sequence_id = 1;
      sequence.block_tables = tables;
      sequence.want = Want::sample;
      sequence.sampling.params = &params;
      sequence.tokens = step == 0 ? std::span<const Token>(expected_.prompt) : std::span<const Token>(&unknown, 1);
      sequence.position = step == 0 ? 0 : position++;
      if (step > 0) sequence.last_token = TokenRef{0, open.back(), 0};
      StepBatch batch;
      batch.sequences = {sequence};
      auto ticket = runner->submit(batch);
      ASSERT_TRUE(ticket.ok()) << ticket.error().message;
      open.push_back(*ticket);
      if (open.size() == 2) collect();
    }
    while (!open.empty()) collect();
    EXPECT_EQ(tokens, plain);
  }

  std::shared_ptr<cuda::Device> device_;
  MemoryLedger device_ledger_{size_t{1} << 40};
  std::string kv_cache_dtype_ = "auto";
  bool deterministic_ = false;
  bool graphs_ = true;
};

// The laws hold for kernels, not for families: the emulator, a thousand times slower than a GPU, gets one of each kind.
inline std::vector<std::string> law_models() {
  if (!cuda::testing::is_emulated()) return golden_names();
  return {"llama3_bf16", "gemma2_bf16", "llama2_f16", "gpt2", "olmo2", "mixtral", "qwen3_moe_unnormalised_bf16"};
}
// Each of them, `on` that.
inline std::vector<Case> cases_of(const std::vector<std::string>& models, const std::string& on) {
  std::vector<Case> cases;
  for (const std::string& model : models) cases.push_back({model, on});
  return cases;
}

}  // namespace inferneo
