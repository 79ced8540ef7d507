// One GPU: its facts, its context, the kernels that are loaded into it, streams, events, graphs, launches.
//
// Ownership: a Device owns the primary context's reference and the loaded modules; whoever holds memory, streams or
// graphs of it holds the Device too (shared_ptr).
// Threads: every function may be called from any thread and makes the context current there first; a stream and what is
// launched on it belong to one thread at a time.
// Errors: every call of the driver is checked. An error that the context does not survive (an illegal address, a failed
// launch) makes the device `failed` for the life of the process: each later call answers `unavailable` with the first
// reason, models on it fail with that reason, and the server goes on.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/cuda/driver.h"
#include "tensor/ledger.h"

namespace inferneo::cuda {

struct DeviceFacts {
  int ordinal = 0;
  std::string name;  // "NVIDIA H200"
  int major = 0;     // compute capability
  int minor = 0;
  int multiprocessors = 0;
  int shared_bytes = 0;  // that a block may have
  int l2_bytes = 0;
  size_t memory_bytes = 0;
  int driver_version = 0;  // 13000: CUDA 13.0
  // Pages can be mapped and unmapped. Without, KV caches are allocated whole (memory.h).
  bool has_virtual_memory = false;
};
// The GPUs of this machine. Errors: those of load_driver().
Result<std::vector<DeviceFacts>> list_devices(const DriverApi& driver);

// Machine code and PTX of some kernels, as nvcc leaves them (a fatbin).
struct ModuleImage {
  std::string_view name;
  const void* data = nullptr;
};

struct LaunchShape {
  std::array<unsigned, 3> grid = {1, 1, 1};
  unsigned block = 1;
  unsigned shared_bytes = 0;
  // The kernel may start while the one before it in the stream still runs: it waits for that by itself, before it reads
  // what others have written (wait_for_earlier() of kernels/cuda/device.cuh, which all of them call).
  bool overlaps = false;
};

class Device : public std::enable_shared_from_this<Device> {
 public:
  // not_found: no such GPU, with how many there are; unsupported: older than compute capability 8.0; out_of_memory;
  // unavailable.
  static Result<std::shared_ptr<Device>> open(const DriverApi& driver, int ordinal,
                                              std::span<const ModuleImage> images);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceFacts& facts() const { return facts_; }
  const DriverApi& driver() const { return driver_; }
  Status make_current() const;

  struct Memory {
    size_t free = 0;
    size_t total = 0;
  };
  Result<Memory> memory() const;  // what the driver says, all processes counted

  // ok_status() for kCuSuccess. `doing` is a verb phrase: "copying weights".
  Status check(CuResult result, std::string_view doing) const;
  Status health() const;  // unavailable with the reason, once the context is lost

  // args: the kernel's one parameter. Not found: a bug (the kernels are built with the program).
  template <typename Args>
  Status launch(const char* kernel, const LaunchShape& shape, CuStream stream, const Args& args) {
    static_assert(std::is_trivially_copyable_v<Args>);
    return launch_raw(kernel, shape, stream, const_cast<Args*>(&args));
  }

 private:
  Device(const DriverApi& driver, DeviceFacts facts) : driver_(driver), facts_(std::move(facts)) {}
  Status load(std::span<const ModuleImage> images);
  bool can_map_pages() const;
  Status launch_raw(const char* kernel, const LaunchShape& shape, CuStream stream, void* args);
  Result<CuFunction> function(const char* kernel, unsigned shared_bytes);

  struct Kernel {
    CuFunction function = nullptr;
    unsigned shared_bytes = 0;  // allowed so far
  };
  const DriverApi& driver_;
  DeviceFacts facts_;
  CuDevice handle_ = 0;
  CuContext context_ = nullptr;
  std::vector<CuModule> modules_;
  std::mutex mutex_;
  std::map<std::string, Kernel, std::less<>> kernels_;
  mutable std::mutex failure_mutex_;
  mutable std::optional<std::string> failure_;
  mutable std::atomic<bool> failed_{false};
};

class Stream {
 public:
  static Result<Stream> create(std::shared_ptr<Device> device);
  Stream() = default;
  Stream(Stream&& other) noexcept : device_(std::move(other.device_)), stream_(std::exchange(other.stream_, nullptr)) {}
  Stream& operator=(Stream&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~Stream();  // waits for nothing
  CuStream get() const { return stream_; }
  Status synchronize() const;

 private:
  std::shared_ptr<Device> device_;
  CuStream stream_ = nullptr;
};

class Event {
 public:
  static Result<Event> create(std::shared_ptr<Device> device);
  Event() = default;
  Event(Event&& other) noexcept : device_(std::move(other.device_)), event_(std::exchange(other.event_, nullptr)) {}
  Event& operator=(Event&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(event_, other.event_);
    return *this;
  }
  ~Event();
  Status record(CuStream stream) const;
  Status synchronize() const;
  Result<bool> has_happened() const;
  // From `earlier` to this one, both having happened.
  Result<float> milliseconds_since(const Event& earlier) const;

 private:
  std::shared_ptr<Device> device_;
  CuEvent event_ = nullptr;
};

// What was launched between begin() and end(), to be launched again as one.
class Graph {
 public:
  static Status begin(Device& device, CuStream stream);
  // After begin(), always: an error of what was launched in between is the caller's, and is reported after this.
  static Result<Graph> end(std::shared_ptr<Device> device, CuStream stream);
  Graph() = default;
  Graph(Graph&& other) noexcept : device_(std::move(other.device_)), exec_(std::exchange(other.exec_, nullptr)) {}
  Graph& operator=(Graph&& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(exec_, other.exec_);
    return *this;
  }
  ~Graph();
  Status launch(CuStream stream) const;

 private:
  std::shared_ptr<Device> device_;
  CuGraphExec exec_ = nullptr;
};

}  // namespace inferneo::cuda
