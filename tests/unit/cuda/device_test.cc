// The device layer against the fake driver: books that agree with what the driver has handed out, refusals that change
// nothing, and errors that end a device for good.
#include "tensor/cuda/device.h"

#include <gtest/gtest.h>

#include "kernels/cuda/ops.h"
#include "support/cuda/fake_driver.h"
#include "support/cuda/test_device.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

class FakeDevice : public ::testing::Test {
 protected:
  void SetUp() override { reset_fake_driver(); }
  void TearDown() override {
    device_.reset();
    const FakeDriverBooks& books = fake_driver_books();
    EXPECT_EQ(books.allocated, 0U);
    EXPECT_EQ(books.pages, 0U);
    EXPECT_EQ(books.pinned, 0U);
    EXPECT_EQ(books.contexts, 0);
    EXPECT_EQ(books.modules, 0);
    EXPECT_EQ(books.graphs, 0);
    reset_fake_driver();
  }
  Result<std::shared_ptr<Device>> open(int ordinal = 0) {
    return Device::open(fake_driver(), ordinal, {&testing::kFakeImage, 1});
  }
  void open_it() {
    auto device = open();
    ASSERT_TRUE(device.ok()) << device.error().message;
    device_ = *device;
  }

  std::shared_ptr<Device> device_;
  MemoryLedger ledger_{64 * kMiB};
};

TEST_F(FakeDevice, SaysWhatIsThere) {
  const auto devices = list_devices(fake_driver());
  ASSERT_TRUE(devices.ok());
  ASSERT_EQ(devices->size(), 1U);
  EXPECT_EQ(devices->front().name, "Emulated GPU");
  EXPECT_EQ(devices->front().memory_bytes, size_t{1} << 30);
  const auto absent = open(3);
  ASSERT_FALSE(absent.ok());
  EXPECT_EQ(absent.error().code, ErrorCode::not_found);
  reset_fake_driver({.major = 7});
  const auto old = open();
  ASSERT_FALSE(old.ok());
  EXPECT_EQ(old.error().code, ErrorCode::unsupported);
}

TEST_F(FakeDevice, BuffersAreBookedAndGivenBack) {
  open_it();
  {
    auto buffer = DeviceBuffer::allocate(device_, ledger_, "m", MemoryPurpose::weights, 3 * kMiB);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(ledger_.used_by("m", MemoryPurpose::weights), 4 * kMiB);
    EXPECT_EQ(fake_driver_books().allocated, 3 * kMiB);
    // The ledger's ceiling, before the driver is asked.
    EXPECT_EQ(DeviceBuffer::allocate(device_, ledger_, "m", MemoryPurpose::weights, 61 * kMiB).error().code,
              ErrorCode::out_of_memory);
    // The driver's refusal, after the ledger has agreed.
    fail_fake_driver("memory_alloc", kCuOutOfMemory);
    EXPECT_EQ(DeviceBuffer::allocate(device_, ledger_, "m", MemoryPurpose::weights, kMiB).error().code,
              ErrorCode::out_of_memory);
    EXPECT_EQ(ledger_.used(), 4 * kMiB);
    DeviceBuffer moved = std::move(buffer).value();
    EXPECT_EQ(ledger_.used(), 4 * kMiB);
  }
  EXPECT_EQ(ledger_.used(), 0U);
  EXPECT_TRUE(device_->health().ok());
}

TEST_F(FakeDevice, PagesComeAndGoUnderTheirAddress) {
  open_it();
  DevicePages pages(device_);
  auto range = pages.reserve(ledger_, "m", MemoryPurpose::kv, 100 * kMiB);
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(fake_driver_books().pages, 0U);
  std::byte* const base = (*range)->data();
  ASSERT_TRUE((*range)->commit(3 * kMiB).ok());
  EXPECT_EQ((*range)->committed(), 4 * kMiB);
  EXPECT_EQ(fake_driver_books().pages, 2U);
  base[3 * kMiB] = std::byte{7};
  ASSERT_TRUE((*range)->commit(2 * kMiB).ok());  // there already
  EXPECT_EQ(fake_driver_books().pages, 2U);
  ASSERT_TRUE((*range)->commit(9 * kMiB).ok());
  EXPECT_EQ(base[3 * kMiB], std::byte{7});  // growth moves nothing
  (*range)->shrink(4 * kMiB);
  EXPECT_EQ(fake_driver_books().pages, 2U);
  EXPECT_EQ(ledger_.used(), 4 * kMiB);
  EXPECT_EQ((*range)->data(), base);
  range->reset();
  EXPECT_EQ(ledger_.used(), 0U);
}

TEST_F(FakeDevice, WithoutVirtualMemoryARangeIsWhole) {
  reset_fake_driver({.has_virtual_memory = false});
  open_it();
  EXPECT_FALSE(device_->facts().has_virtual_memory);
  DevicePages pages(device_);
  auto range = pages.reserve(ledger_, "m", MemoryPurpose::kv, 9 * kMiB);
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(ledger_.used(), 10 * kMiB);
  EXPECT_TRUE((*range)->commit(9 * kMiB).ok());
  (*range)->shrink(0);
  EXPECT_EQ((*range)->committed(), 10 * kMiB);
  // A driver that promises pages and has none is found out.
  range->reset();
  device_.reset();
  reset_fake_driver();
  fail_fake_driver("memory_create", kCuNotSupported);
  open_it();
  EXPECT_FALSE(device_->facts().has_virtual_memory);
}

TEST_F(FakeDevice, RefusedPagesChangeNothing) {
  open_it();
  DevicePages pages(device_);
  auto range = pages.reserve(ledger_, "m", MemoryPurpose::kv, 100 * kMiB);
  ASSERT_TRUE(range.ok());
  ASSERT_TRUE((*range)->commit(4 * kMiB).ok());
  for (const char* call : {"memory_create", "memory_map", "memory_access"}) {
    fail_fake_driver(call, kCuOutOfMemory, std::string(call) == "memory_access" ? 0 : 1);  // half way
    EXPECT_EQ((*range)->commit(12 * kMiB).error().code, ErrorCode::out_of_memory) << call;
    EXPECT_EQ((*range)->committed(), 4 * kMiB) << call;
    EXPECT_EQ(fake_driver_books().pages, 2U) << call;
    EXPECT_EQ(ledger_.used(), 4 * kMiB) << call;
  }
  EXPECT_EQ((*range)->commit(80 * kMiB).error().code, ErrorCode::out_of_memory);  // the ledger's
  ASSERT_TRUE((*range)->commit(12 * kMiB).ok());
}

TEST_F(FakeDevice, AnErrorOfOneCallIsForgottenAndALostContextIsNot) {
  open_it();
  auto stream = Stream::create(device_);
  ASSERT_TRUE(stream.ok());
  fail_fake_driver("launch", 1);  // CUDA_ERROR_INVALID_VALUE
  const CopyArgs nothing{};
  EXPECT_FALSE(device_->launch("inferneo_copy", {{1, 1, 1}, 512, 0}, stream->get(), nothing).ok());
  EXPECT_TRUE(device_->health().ok());
  EXPECT_TRUE(device_->launch("inferneo_copy", {{1, 1, 1}, 512, 0}, stream->get(), nothing).ok());

  fail_fake_driver("stream_synchronize", 700);
  const Status lost = stream->synchronize();
  ASSERT_FALSE(lost.ok());
  EXPECT_EQ(lost.error().code, ErrorCode::unavailable);
  EXPECT_NE(lost.error().message.find("CUDA_ERROR_ILLEGAL_ADDRESS"), std::string::npos) << lost.error().message;
  // For good, with the first reason.
  EXPECT_EQ(device_->make_current().error().message, lost.error().message);
  EXPECT_EQ(DeviceBuffer::allocate(device_, ledger_, "m", MemoryPurpose::kv, kMiB).error().message,
            lost.error().message);
  EXPECT_EQ(ledger_.used(), 0U);
  reset_fake_driver();
}

TEST_F(FakeDevice, LargeSharedMemoryIsAskedForOnce) {
  open_it();
  auto stream = Stream::create(device_);
  ASSERT_TRUE(stream.ok());
  MatmulArgs args{};
  EXPECT_TRUE(device_->launch("inferneo_gemm_large", {{1, 1, 1}, 256, 96 << 10}, stream->get(), args).ok());
  fail_fake_driver("function_attribute", 1);  // would be seen
  EXPECT_TRUE(device_->launch("inferneo_gemm_large", {{1, 1, 1}, 256, 96 << 10}, stream->get(), args).ok());
  EXPECT_EQ(device_->launch("no_such_kernel", {{1, 1, 1}, 32, 0}, stream->get(), args).error().code,
            ErrorCode::internal);
  reset_fake_driver();
}

// What PTX for 8.0 becomes on other GPUs has no instruction that waits: an early start there would be a race.
TEST_F(FakeDevice, KernelsOverlapOnHopperAlone) {
  for (const int major : {8, 9, 10}) {
    reset_fake_driver({.major = major});
    open_it();
    auto stream = Stream::create(device_);
    ASSERT_TRUE(stream.ok());
    Ops ops(*device_, {.stream = stream->get(), .overlaps = true});
    const uint64_t before = fake_driver_books().overlapping;
    ASSERT_TRUE(ops.fill({}).ok());
    EXPECT_EQ(fake_driver_books().overlapping - before, major == 9 ? 1U : 0U) << major;
    *stream = Stream();
    device_.reset();
  }
}

// A grid has at most 65,535 rows.
TEST_F(FakeDevice, StepsOfManyRowsAreLaunchedInPieces) {
  reset_fake_driver({.runs_kernels = false});
  open_it();
  auto stream = Stream::create(device_);
  ASSERT_TRUE(stream.ok());
  Ops ops(*device_, {.stream = stream->get()});
  std::vector<float> values(size_t{65536} * 8);
  ConvertArgs args{};
  args.x = values.data();
  args.out = values.data();
  args.dim = args.x_stride = args.out_stride = 8;
  for (const auto& [rows, launches] : {std::pair(0, 0U), std::pair(65535, 1U), std::pair(65536, 2U)}) {
    args.rows = rows;
    const uint64_t before = fake_driver_books().launches;
    EXPECT_TRUE(ops.convert(args).ok());
    EXPECT_EQ(fake_driver_books().launches - before, launches) << rows;
  }
}

TEST_F(FakeDevice, AStreamThatWasNeverMadeHasNothingToWaitFor) { EXPECT_TRUE(Stream().synchronize().ok()); }

TEST(Driver, SaysWhereThereIsNone) {
  const auto driver = load_driver();
  if (driver.ok()) GTEST_SKIP() << "this machine has one";
  EXPECT_EQ(driver.error().param, "device");
  EXPECT_FALSE(driver.error().message.empty());
}

}  // namespace
}  // namespace inferneo::cuda
