// A GPU's memory, booked in a ledger: plain buffers, pages that come and go under a fixed address, and memory of the
// host that the GPU reads at full speed.
//
// Ownership: each holds its Device. Threads: one owner each. Errors: out_of_memory where the ledger or the GPU has no
// room (a refusal changes nothing), unavailable when the device is lost.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "tensor/cuda/device.h"
#include "tensor/ledger.h"
#include "tensor/memory.h"

namespace inferneo::cuda {

// The driver hands out memory in steps of 2 MiB.
inline constexpr size_t kDevicePage = size_t{2} << 20;

// Memory of the GPU, booked at its size rounded up to whole pages. Not zeroed.
class DeviceBuffer {
 public:
  static Result<DeviceBuffer> allocate(std::shared_ptr<Device> device, MemoryLedger& ledger, const std::string& model,
                                       MemoryPurpose purpose, size_t bytes);
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  ~DeviceBuffer();
  std::byte* data() const { return reinterpret_cast<std::byte*>(pointer_); }
  CuPointer address() const { return pointer_; }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<Device> device_;
  CuPointer pointer_ = 0;
  size_t size_ = 0;
  MemoryLedger::Booking booking_;
};

// Memory of the host that cannot be paged out, booked in the host's ledger.
class PinnedBuffer {
 public:
  static Result<PinnedBuffer> allocate(std::shared_ptr<Device> device, MemoryLedger& host, const std::string& model,
                                       MemoryPurpose purpose, size_t bytes);
  PinnedBuffer() = default;
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  ~PinnedBuffer();
  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::shared_ptr<Device> device_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  MemoryLedger::Booking booking_;
};

// Ranges for KV caches: addresses are reserved once, 2 MiB pages of physical memory are mapped into the front of them
// as pools grow and given back as they shrink, so that pages move between models. What is given back is named by no
// step in flight (docs/engine-contract.md, B6).
class DevicePages final : public PageSource {
 public:
  explicit DevicePages(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  Result<std::unique_ptr<PageRange>> reserve(MemoryLedger& ledger, const std::string& model, MemoryPurpose purpose,
                                             size_t max_bytes) override;

 private:
  std::shared_ptr<Device> device_;
};

}  // namespace inferneo::cuda
