// The GPU that a test runs on: the emulated one, or a real one where INFERNEO_CUDA_TEST_DEVICE names it ("cuda:0"),
// which is how the same tests check the kernels on a machine that has one (scripts/gpu_check.sh).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/embedded.h"
#include "kernels/cuda/ops.h"
#include "support/cuda/fake_driver.h"
#include "tensor/cuda/memory.h"

namespace inferneo::cuda::testing {

inline std::string wanted_device() {
  const char* name = std::getenv("INFERNEO_CUDA_TEST_DEVICE");
  return name == nullptr ? "" : name;
}
inline bool is_emulated() { return wanted_device().empty(); }

inline constexpr ModuleImage kFakeImage{"emulated", ""};

// Null with a reason when the real device that was asked for is not there.
struct OpenedDevice {
  std::shared_ptr<Device> device;
  std::string problem;
};
inline OpenedDevice open_test_device() {
  if (is_emulated()) {
    auto device = Device::open(fake_driver(), 0, {&kFakeImage, 1});
    return device.ok() ? OpenedDevice{*device, {}} : OpenedDevice{nullptr, device.error().message};
  }
  if (embedded_modules().empty()) return {nullptr, "this build has no CUDA kernels"};
  const auto driver = load_driver();
  if (!driver.ok()) return {nullptr, driver.error().message};
  auto device = Device::open(**driver, std::atoi(wanted_device().c_str() + 5), embedded_modules());
  return device.ok() ? OpenedDevice{*device, {}} : OpenedDevice{nullptr, device.error().message};
}
inline OpenedDevice& shared_device() {
  static OpenedDevice opened = open_test_device();
  return opened;
}

// A device, a stream, ops. A device that was asked for and cannot be opened is a failure: skipped tests prove nothing.
class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(shared_device().device, nullptr) << shared_device().problem;
    device_ = shared_device().device;
    auto stream = Stream::create(device_);
    ASSERT_TRUE(stream.ok()) << stream.error().message;
    stream_ = std::move(stream).value();
  }
  Ops ops(bool invariant = false) { return Ops(*device_, {.stream = stream_.get(), .invariant = invariant}); }
  void finish() {
    const Status done = stream_.synchronize();
    ASSERT_TRUE(done.ok()) << done.error().message;
  }

  // Memory of the device with values in it; poisoned with NaN where there are none.
  template <typename T>
  class Array {
   public:
    Array() = default;
    Array(DeviceTest& test, const std::vector<T>& values) : Array(test, values.size()) { upload(values); }
    Array(DeviceTest& test, size_t count) : test_(&test), count_(count) {
      auto buffer = DeviceBuffer::allocate(test.device_, test.ledger_, "test", MemoryPurpose::workspace,
                                           std::max<size_t>(count * sizeof(T), 1));
      // Once the device is lost there is none for anybody: the test has failed, and the others go on to say so.
      EXPECT_TRUE(buffer.ok()) << buffer.error().message;
      if (!buffer.ok()) return;
      buffer_ = std::move(buffer).value();
      (void)test.device_->driver().set_bytes(buffer_.address(), 0xff, count * sizeof(T), test.stream_.get());
    }
    void upload(const std::vector<T>& values) {
      if (values.empty() || get() == nullptr) return;
      (void)test_->device_->driver().copy_to_device(buffer_.address(), values.data(), values.size() * sizeof(T),
                                                    test_->stream_.get());
      (void)test_->stream_.synchronize();
    }
    std::vector<T> download() const {
      std::vector<T> values(count_);
      if (values.empty() || get() == nullptr) return values;
      const CuResult copied = test_->device_->driver().copy_to_host(values.data(), buffer_.address(),
                                                                    values.size() * sizeof(T), test_->stream_.get());
      EXPECT_EQ(copied, 0);
      const Status done = test_->stream_.synchronize();
      EXPECT_TRUE(done.ok()) << done.error().message;
      return values;
    }
    T* get() const { return reinterpret_cast<T*>(buffer_.data()); }

   private:
    DeviceTest* test_ = nullptr;
    size_t count_ = 0;
    DeviceBuffer buffer_;
  };

  std::shared_ptr<Device> device_;
  Stream stream_;
  MemoryLedger ledger_{size_t{1} << 40};
};

}  // namespace inferneo::cuda::testing
