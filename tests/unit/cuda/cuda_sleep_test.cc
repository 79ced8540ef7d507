// Sleep and wake on the engine over the CUDA runner: the same tokens afterwards, books of GPU and host to the byte
// after every cycle, and refusals at every call of the driver.
#include "unit/cuda/device_engine_fixture.h"

namespace inferneo {
namespace {

class CudaSleep : public CudaEngine {
 protected:
  void fall_asleep() {
    auto sleeping = core_->sleep();
    ASSERT_TRUE(sleeping.ok()) << sleeping.error().message;
    core_.reset();
    sleeping_ = std::make_unique<SleepingEngine>(std::move(sleeping).value());
  }
  void wake() {
    auto core = EngineCore::wake(*sleeping_, ledger_, clock_);
    ASSERT_TRUE(core.ok()) << core.error().message;
    core_ = std::move(core).value();
    sleeping_.reset();
  }
  std::vector<Token> answer() {
    const auto sink = submit(RequestId{next_id_++}, 6);
    const RequestOutcome outcome = sink->wait();
    EXPECT_FALSE(outcome.error) << outcome.error->message;
    return sink->tokens;
  }
  // Of the GPU nothing is left, of the host what the weights take.
  void expect_sleeps(size_t host_before) const {
    EXPECT_EQ(ledger_.used(), 0U);
    const size_t weights = sleeping_->model->weight_bytes();
    EXPECT_EQ(host_.used_by("m", MemoryPurpose::asleep), weights);
    EXPECT_EQ(host_.used(), host_before + weights);
    if (!cuda::testing::is_emulated()) return;
    const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
    EXPECT_EQ(books.allocated, 0U);
    EXPECT_EQ(books.pages, 0U);
    EXPECT_EQ(books.streams, 0);
    EXPECT_EQ(books.events, 0);
    EXPECT_EQ(books.graphs, 0);
    EXPECT_EQ(books.pinned, weights);
  }
  // As start(), with nothing computed: for what happens around the steps.
  void start_without_kernels() {
    cuda::reset_fake_driver({.runs_kernels = false});
    start();
  }

  uint64_t next_id_ = 1;
  std::unique_ptr<SleepingEngine> sleeping_;
};

TEST_F(CudaSleep, WakesToTheSameTokensWithExactBooks) {
  const size_t host_before = host_.used();
  for (const char* quantization : {"none", "int4", "fp8"}) {
    quantization_ = quantization;
    start();
    const std::vector<Token> before = answer();
    const size_t host_awake = host_.used();
    for (int cycle = 0; cycle < 3; ++cycle) {
      SCOPED_TRACE(cycle);
      fall_asleep();
      expect_sleeps(host_before);
      wake();
      EXPECT_EQ(host_.used_by("m", MemoryPurpose::asleep), 0U);
      EXPECT_EQ(host_.used(), host_awake);
      EXPECT_EQ(answer(), before);
    }
    core_.reset();
    EXPECT_EQ(host_.used(), host_before);
  }
}

// Many cycles without a step between them: nothing adds up.
TEST_F(CudaSleep, NothingAddsUp) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  const size_t host_before = host_.used();
  start_without_kernels();
  const size_t gpu_awake = ledger_.used();
  const size_t host_awake = host_.used();
  const size_t allocated = cuda::fake_driver_books().allocated;
  for (int cycle = 0; cycle < 50; ++cycle) {
    SCOPED_TRACE(cycle);
    fall_asleep();
    expect_sleeps(host_before);
    wake();
    EXPECT_EQ(ledger_.used(), gpu_awake);
    EXPECT_EQ(host_.used(), host_awake);
    EXPECT_EQ(cuda::fake_driver_books().allocated, allocated);
  }
}

// Whatever call of the driver is refused: an engine that does not fall asleep gives everything back when it goes; one
// that does not wake sleeps on, and wakes the next time.
TEST_F(CudaSleep, RefusedAtEveryCallOfTheDriver) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  const size_t host_before = host_.used();
  start_without_kernels();
  fall_asleep();
  const uint64_t before_wake = cuda::fake_driver_calls();
  wake();
  const uint64_t before_sleep = cuda::fake_driver_calls();
  fall_asleep();
  const uint64_t of_wake = before_sleep - before_wake;
  const uint64_t of_sleep = cuda::fake_driver_calls() - before_sleep;
  ASSERT_GT(of_wake, 10U);
  ASSERT_GE(of_sleep, 3U);
  for (uint64_t call = 0; call < of_wake; ++call) {
    SCOPED_TRACE(call);
    cuda::fail_fake_driver_call(cuda::kCuOutOfMemory, call);
    auto core = EngineCore::wake(*sleeping_, ledger_, clock_);
    if (core.ok()) core->reset();  // what it can do without
    expect_sleeps(host_before);
  }
  wake();
  for (uint64_t call = 0; call < of_sleep; ++call) {
    SCOPED_TRACE(call);
    cuda::fail_fake_driver_call(cuda::kCuOutOfMemory, call);
    auto refused = core_->sleep();
    core_.reset();
    EXPECT_EQ(ledger_.used(), 0U);
    EXPECT_EQ(cuda::fake_driver_books().allocated, 0U);
    refused = make_error(ErrorCode::internal, "");  // where pinned memory alone was refused it sleeps
    EXPECT_EQ(host_.used(), host_before);
    EXPECT_EQ(cuda::fake_driver_books().pinned, 0U);
    start();
  }
}

// A context that is lost in the middle: the ledgers are exact at once, and the driver's own books when it is released.
TEST_F(CudaSleep, LostAtEveryCallOfTheDriver) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  const size_t host_before = host_.used();
  for (const bool while_waking : {true, false}) {
    bool reached = true;
    for (uint64_t call = 0; reached; ++call) {
      SCOPED_TRACE(::testing::Message() << (while_waking ? "wake " : "sleep ") << call);
      start_without_kernels();
      if (while_waking) fall_asleep();
      const uint64_t before = cuda::fake_driver_calls();
      cuda::fail_fake_driver_call(700, call);
      if (while_waking) {
        const auto core = EngineCore::wake(*sleeping_, ledger_, clock_);
        reached = cuda::fake_driver_calls() - before > call;
        EXPECT_EQ(core.ok(), !reached);
        if (!core.ok()) {
          EXPECT_NE(core.error().message.find("is lost"), std::string::npos) << core.error().message;
        }
      } else {
        const auto sleeping = core_->sleep();
        reached = cuda::fake_driver_calls() - before > call;
        EXPECT_EQ(sleeping.ok(), !reached);
      }
      core_.reset();
      sleeping_.reset();
      EXPECT_EQ(ledger_.used(), 0U);
      EXPECT_EQ(host_.used(), host_before);
      device_.reset();
      EXPECT_EQ(cuda::fake_driver_books().allocated, 0U);
      EXPECT_EQ(cuda::fake_driver_books().pinned, 0U);
      cuda::reset_fake_driver();
      device_ = cuda::Device::open(cuda::fake_driver(), 0, {&cuda::testing::kFakeImage, 1}).value();
    }
  }
}

// Where the driver pins no memory ordinary memory takes its place; where the host has no room at all there is no sleep.
TEST_F(CudaSleep, WithoutPinnedMemoryAndWithoutAny) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  const size_t host_before = host_.used();
  start();
  const std::vector<Token> before = answer();
  cuda::fail_fake_driver("host_alloc", cuda::kCuOutOfMemory);
  fall_asleep();
  EXPECT_EQ(sleeping_->model->pinned_bytes(), 0U);
  EXPECT_EQ(ledger_.used(), 0U);
  EXPECT_GE(host_.used_by("m", MemoryPurpose::asleep), sleeping_->model->weight_bytes());
  wake();
  EXPECT_EQ(answer(), before);
  const auto taken = host_.reserve("others", MemoryPurpose::cache, host_.budget() - host_.used() - 4096);
  const auto refused = core_->sleep();
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(host_.used_by("m", MemoryPurpose::asleep), 0U);
  core_.reset();
  EXPECT_EQ(host_.used(), host_before + taken->bytes());
}

// The copy is made of pieces, whatever the bytes.
TEST_F(CudaSleep, CopiesComeBackWhole) {
  auto stream = cuda::Stream::create(device_).value();
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{4097}, size_t{70000}}) {
    auto from = cuda::DeviceBuffer::allocate(device_, ledger_, "m", MemoryPurpose::weights, bytes).value();
    auto to = cuda::DeviceBuffer::allocate(device_, ledger_, "m", MemoryPurpose::weights, bytes).value();
    std::vector<unsigned char> values(bytes);
    for (size_t i = 0; i < bytes; ++i) values[i] = static_cast<unsigned char>(i * 131 + i / 256);
    ASSERT_EQ(device_->driver().copy_to_device(from.address(), values.data(), bytes, stream.get()), 0);
    const auto copy = cuda::HostCopy::take(device_, host_, "m", stream, from, 4096);
    ASSERT_TRUE(copy.ok()) << copy.error().message;
    EXPECT_EQ(copy->bytes(), bytes);
    EXPECT_EQ(copy->pinned_bytes(), bytes);
    from = cuda::DeviceBuffer();
    ASSERT_TRUE(copy->restore(stream, to).ok());
    std::vector<unsigned char> back(bytes);
    ASSERT_EQ(device_->driver().copy_to_host(back.data(), to.address(), bytes, stream.get()), 0);
    ASSERT_TRUE(stream.synchronize().ok());
    EXPECT_EQ(back, values);
  }
}

}  // namespace
}  // namespace inferneo
