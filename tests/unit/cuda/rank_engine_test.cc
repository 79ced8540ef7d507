// Two ranks behind the engine: books of both devices while they serve and after whatever fails, at every call of the
// driver and of NCCL that a load or a step makes; and quantised weights and caches against one rank's.
#include <cmath>

#include "engine/engine_core.h"
#include "rank_fixture.h"
#include "unit/cuda/collecting_sink.h"

namespace inferneo {
namespace {

// isa: "host" or "nccl".
class RankEngine : public TwoRanks {
 protected:
  void SetUp() override {
    TwoRanks::SetUp();
    if (GetParam().isa == "nccl") nccl_ = &cuda::fake_nccl();
  }
  void TearDown() override {
    core_.reset();
    TwoRanks::TearDown();
  }
  void start() {
    auto runner = load(16);
    ASSERT_NE(runner, nullptr);
    EngineCoreConfig config;
    config.model = GetParam().model;
    config.max_num_seqs = 4;
    config.max_num_batched_tokens = 64;
    config.max_model_len = 128;
    config.max_kv_bytes = size_t{16} << 20;
    auto core = EngineCore::create(config, std::move(runner), device_ledger_, clock_);
    ASSERT_TRUE(core.ok()) << core.error().message;
    core_ = std::move(core).value();
  }
  std::shared_ptr<Collect> ask(uint64_t id, int max_tokens) {
    auto answer = std::make_shared<Collect>();
    Request request;
    request.id = RequestId{id};
    request.prompt = expected_.prompt;
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.sink = answer;
    EXPECT_TRUE(core_->submit(std::move(request)).ok());
    return answer;
  }

  SteadyClock clock_;
  std::unique_ptr<EngineCore> core_;
};

TEST_P(RankEngine, ServesRequestsAndKeepsTheBooksOfBothDevices) {
  cuda::CudaLoadOptions wanted = options(16);
  wanted.max_num_seqs = 4;
  const auto estimate = cuda::estimate_cuda_memory(wanted, 64);
  ASSERT_TRUE(estimate.ok()) << estimate.error().message;
  ranks_ = 1;
  start();
  const auto alone = ask(1, 12);
  EXPECT_FALSE(alone->wait().error);
  core_.reset();
  const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
  const uint64_t graphs_alone = books.graph_launches;

  ranks_ = 2;
  start();
  const std::vector<std::shared_ptr<Collect>> answers = {ask(1, 12), ask(2, 12), ask(3, 12)};
  for (const auto& answer : answers) {
    const RequestOutcome outcome = answer->wait();
    EXPECT_FALSE(outcome.error) << outcome.error->message;
    EXPECT_EQ(answer->tokens, alone->tokens);
  }
  const std::string& model = GetParam().model;
  EXPECT_LE(device_ledger_.used(), estimate->bytes);
  EXPECT_LE(second_ledger_.used(), device_ledger_.used()) << "the first has the most";
  EXPECT_EQ(second_ledger_.used_by(model, MemoryPurpose::kv), device_ledger_.used_by(model, MemoryPurpose::kv));
  EXPECT_EQ(books.graph_launches > graphs_alone, nccl_ != nullptr);
  EXPECT_GT(books.of.at(0).pages, 0U);
  int device = 0;
  for (const MemoryLedger* ledger : {&device_ledger_, &second_ledger_}) {
    const cuda::FakeDeviceBooks& of = books.of.at(device++);
    EXPECT_EQ(ledger->used_by(model, MemoryPurpose::kv), of.pages << 21);
    const size_t buffers = ledger->used() - ledger->used_by(model, MemoryPurpose::kv);
    EXPECT_GE(buffers, of.allocated);
    EXPECT_LE(buffers, of.allocated + (size_t{16} << 21)) << "each rounded up to a page";
  }
  EXPECT_EQ(books.of.at(0).pages, books.of.at(1).pages);
}

// Whichever rank it is, the others do not wait for it, and the reason is said to whoever asks.
TEST_P(RankEngine, ALostRankFailsTheModelWithItsReason) {
  for (const int rank : {0, 1}) {
    SCOPED_TRACE(rank);
    start();
    EXPECT_FALSE(ask(1, 2)->wait().error);
    cuda::fail_fake_driver("event_query", 700, rank);
    const RequestOutcome outcome = ask(2, 8)->wait();
    ASSERT_TRUE(outcome.error);
    EXPECT_NE(outcome.error->message.find("ILLEGAL_ADDRESS"), std::string::npos) << outcome.error->message;
    EXPECT_NE(outcome.error->message.find("cuda:" + std::to_string(rank)), std::string::npos);
    EXPECT_EQ(core_->stats().state, EngineState::failed);
    core_.reset();
    EXPECT_EQ(cuda::fake_nccl_communicators(), 0);
    EXPECT_EQ(device_ledger_.used() + second_ledger_.used() + ledger_.used(), 0U);
    close_devices();  // its context gives back what a lost one could not
    open_devices();
  }
}

// A load that fails at this call of the driver, the next one, and so on until nothing fails any more.
TEST_P(RankEngine, ALoadThatFailsAnywhereGivesEverythingBack) {
  for (const std::string call :
       {"memory_alloc", "host_alloc", "stream_create", "event_create", "copy_to_device", "event_record"}) {
    int failures = 0;
    for (;; ++failures) {
      SCOPED_TRACE(call + " " + std::to_string(failures));
      cuda::fail_fake_driver(call, call == "memory_alloc" ? cuda::kCuOutOfMemory : 1, failures);
      auto runner = cuda::load_cuda_model(options(16));
      if (runner.ok()) break;
      EXPECT_EQ(device_ledger_.used() + second_ledger_.used() + ledger_.used(), 0U);
      expect_nothing_on_the_devices();
      ASSERT_LT(failures, 1000);
    }
    EXPECT_GE(failures, 2) << call << ": of both ranks";
    cuda::reset_fake_driver({.devices = 2});
  }
  if (nccl_ == nullptr) return;
  // The GPUs that NCCL cannot connect, or that it then cannot serve, add up in the host's memory.
  for (const std::string call : {"init", "reduce", "broadcast"}) {
    cuda::fail_fake_nccl(call, 2);
    auto runner = load(16);
    ASSERT_NE(runner, nullptr);
    EXPECT_EQ(runner_->ranks()->collectives(), "host memory");
    EXPECT_EQ(cuda::fake_nccl_communicators(), 0);
  }
}

// The same of a step: it is refused, so is every later one with the same reason, and nothing hangs.
class StepThatFails : public RankEngine {
 protected:
  // Whether it failed: past the last call of the step it does not.
  bool fails(const std::function<void()>& arm) {
    auto runner = load(16);
    PagedHarness harness(*runner, 16, 1, memory());
    EXPECT_TRUE(harness.bind(2, 32).ok());
    PagedHarness::Sequence sequence{{5, 7, 9}, 0, {}};
    EXPECT_TRUE(harness.step({{&sequence, 3, Want::sample}}).ok());
    arm();
    sequence.tokens.push_back(4);
    const auto failed = harness.step({{&sequence, 1, Want::sample}});
    if (failed.ok()) return false;
    sequence.tokens.push_back(4);
    const auto later = harness.step({{&sequence, 1, Want::sample}});
    EXPECT_EQ(later.ok() ? "" : later.error().message, failed.error().message);
    return true;
  }
  void expect_given_back() {
    EXPECT_EQ(device_ledger_.used() + second_ledger_.used() + ledger_.used(), 0U);
    EXPECT_EQ(cuda::fake_nccl_communicators(), 0);
    expect_nothing_on_the_devices();
  }
};

class NcclStepThatFails : public StepThatFails {};

TEST_P(StepThatFails, AtACallOfTheDriver) {
  for (const std::string call : {"launch", "copy_to_device", "copy_to_host", "event_record", "event_query"}) {
    // All calls of a kind; of launches some: the first, those around the middle, the last few.
    int failures = 0;
    const int step = call == "launch" ? 9 : 1;
    for (int after = 0;; after += step, ++failures) {
      SCOPED_TRACE(call + " " + std::to_string(after));
      const bool failed = fails([&] { cuda::fail_fake_driver(call, 1, after); });
      expect_given_back();
      if (!failed) break;
      ASSERT_LT(failures, 200);
    }
    EXPECT_GE(failures, call == "copy_to_host" ? 1 : 2) << call;
    cuda::reset_fake_driver({.devices = 2, .runs_kernels = false});
  }
}

TEST_P(NcclStepThatFails, AtACallOfNccl) {
  for (const std::string call : {"start", "reduce", "broadcast", "end", "async"}) {
    for (const int after : {0, 1, 3}) {
      if (call == "broadcast" && after > 1) continue;  // a step has two
      SCOPED_TRACE(call + " " + std::to_string(after));
      cuda::reset_fake_nccl();
      EXPECT_TRUE(fails([&] { cuda::fail_fake_nccl(call, 3, call == "async" ? 0 : after); }));
      EXPECT_EQ(cuda::fake_nccl_log().back(), "abort 1");
      expect_given_back();
    }
  }
}

TEST_P(NcclStepThatFails, UnlikeGpusAreRefused) {
  cuda::reset_fake_driver({.devices = 2, .other_multiprocessors = 8});
  close_devices();
  for (int i = 0; i < 2; ++i) {
    devices_.push_back(cuda::Device::open(cuda::fake_driver(), i, {&cuda::testing::kFakeImage, 1}).value());
  }
  device_ = devices_[0];
  const auto refused = cuda::load_cuda_model(options(16));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_EQ(refused.error().param, "tensor_parallel_size");
  expect_given_back();
}

// What NCCL takes of a device is in that one's books.
TEST_P(NcclStepThatFails, WhatNcclTakesIsBooked) {
  const auto used_with = [&](size_t bytes) {
    cuda::fake_nccl_memory() = bytes;
    auto runner = load(16);
    EXPECT_EQ(runner_->ranks()->collectives(), "NCCL");
    return std::pair(device_ledger_.used(), second_ledger_.used());
  };
  const auto [first, second] = used_with(0);
  EXPECT_EQ(used_with(size_t{6} << 20), std::pair(first + (size_t{6} << 20), second + (size_t{6} << 20)));
}

// Pages of a cache are taken on all ranks or on none, whether a ledger or a driver refuses.
TEST_P(NcclStepThatFails, AGrowthThatOneRankRefusesChangesNothing) {
  MemoryLedger small(size_t{5} << 20);
  cuda::RankPages pages(devices_[0], {{devices_[1], &small}});
  auto range = pages.reserve(device_ledger_, "m", MemoryPurpose::kv, size_t{16} << 20);
  ASSERT_TRUE(range.ok()) << range.error().message;
  ASSERT_TRUE((*range)->commit(size_t{4} << 20).ok());
  const auto expect_two_pages = [&] {
    EXPECT_EQ((*range)->committed(), size_t{4} << 20);
    EXPECT_EQ(device_ledger_.used(), size_t{4} << 20);
    EXPECT_EQ(small.used(), size_t{4} << 20);
    EXPECT_EQ(cuda::fake_driver_books().of.at(0).pages, 2U);
    EXPECT_EQ(cuda::fake_driver_books().of.at(1).pages, 2U);
  };
  expect_two_pages();
  EXPECT_EQ((*range)->commit(size_t{8} << 20).error().code, ErrorCode::out_of_memory);
  expect_two_pages();
  (*range)->shrink(size_t{2} << 20);
  EXPECT_EQ(small.used(), size_t{2} << 20);
  cuda::fail_fake_driver("memory_create", cuda::kCuOutOfMemory, 1);
  EXPECT_EQ((*range)->commit(size_t{4} << 20).error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(device_ledger_.used(), size_t{2} << 20);
  ASSERT_TRUE((*range)->commit(size_t{4} << 20).ok());
  expect_two_pages();
  ASSERT_EQ(pages.bases((*range)->data()).size(), 2U);
  EXPECT_TRUE(pages.bases((*range)->data() + 1).empty());
}

// They look into the fake driver's books.
std::vector<Case> engines(const std::vector<std::string>& collectives) {
  std::vector<Case> cases;
  if (!cuda::testing::is_emulated()) return cases;
  for (const std::string& name : collectives) cases.push_back({"llama3_bf16", name});
  return cases;
}
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(RankEngine);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(StepThatFails);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(NcclStepThatFails);
INSTANTIATE_TEST_SUITE_P(Engines, RankEngine, testing::ValuesIn(engines({"host", "nccl"})), case_name);
INSTANTIATE_TEST_SUITE_P(Engines, StepThatFails, testing::ValuesIn(engines({"host", "nccl"})), case_name);
INSTANTIATE_TEST_SUITE_P(Engines, NcclStepThatFails, testing::ValuesIn(engines({"nccl"})), case_name);

}  // namespace
}  // namespace inferneo
