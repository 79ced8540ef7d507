#include "tensor/cuda/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace inferneo::cuda {
namespace {

size_t whole_pages(size_t bytes) { return (bytes + kDevicePage - 1) / kDevicePage * kDevicePage; }

// Pages under one range of addresses, from its front.
class DeviceRange final : public PageRange {
 public:
  static Result<std::unique_ptr<PageRange>> reserve(std::shared_ptr<Device> device, MemoryLedger& ledger,
                                                    const std::string& model, MemoryPurpose purpose, size_t max_bytes) {
    std::unique_ptr<DeviceRange> range(new DeviceRange());
    ASSIGN_OR_RETURN(range->booking_, ledger.reserve(model, purpose, 0));
    RETURN_IF_ERROR(device->make_current());
    const size_t capacity = std::max(whole_pages(max_bytes), kDevicePage);
    RETURN_IF_ERROR(device->check(device->driver().address_reserve(&range->base_, capacity, kDevicePage, 0, 0),
                                  "reserving addresses for a cache"));
    range->device_ = std::move(device);
    range->capacity_ = capacity;
    range->properties_.location.id = range->device_->facts().ordinal;
    return std::unique_ptr<PageRange>(std::move(range));
  }

  ~DeviceRange() override {
    if (device_ == nullptr) return;
    unmap_from(0);
    if (!device_->make_current().ok()) return;  // a lost context has given everything back
    (void)device_->driver().address_free(base_, capacity_);
  }

  std::byte* data() const override { return reinterpret_cast<std::byte*>(base_); }
  size_t capacity() const override { return capacity_; }
  size_t committed() const override { return booking_.bytes(); }

  Status commit(size_t bytes) override {
    const size_t before = committed();
    const size_t wanted = whole_pages(bytes);
    if (wanted <= before) return ok_status();
    INFERNEO_CHECK(wanted <= capacity_, "a range is committed within its reservation");
    RETURN_IF_ERROR(booking_.resize(wanted));
    if (Status mapped = map_pages(before, wanted); !mapped.ok()) {
      unmap_from(before);
      (void)booking_.resize(before);
      return mapped;
    }
    return ok_status();
  }

  void shrink(size_t bytes) override {
    const size_t wanted = whole_pages(bytes);
    if (wanted >= committed()) return;
    unmap_from(wanted);
    (void)booking_.resize(wanted);
  }

 private:
  DeviceRange() = default;

  Status map_pages(size_t from, size_t to) {
    RETURN_IF_ERROR(device_->make_current());
    const DriverApi& driver = device_->driver();
    for (size_t at = from; at < to; at += kDevicePage) {
      CuMemory memory = 0;
      RETURN_IF_ERROR(
          device_->check(driver.memory_create(&memory, kDevicePage, &properties_, 0), "getting pages for a cache"));
      Status mapped = device_->check(driver.memory_map(base_ + at, kDevicePage, 0, memory, 0), "mapping a page");
      if (!mapped.ok()) {
        (void)driver.memory_release(memory);
        return mapped;
      }
      pages_.push_back(memory);
    }
    CuMemAccess access;
    access.location = properties_.location;
    return device_->check(driver.memory_access(base_ + from, to - from, &access, 1), "opening pages of a cache");
  }

  void unmap_from(size_t bytes) {
    const size_t keep = bytes / kDevicePage;
    if (pages_.size() <= keep) return;
    const DriverApi& driver = device_->driver();
    const bool usable = device_->make_current().ok();
    while (pages_.size() > keep) {
      const size_t at = (pages_.size() - 1) * kDevicePage;
      if (usable) {
        (void)driver.memory_unmap(base_ + at, kDevicePage);
        (void)driver.memory_release(pages_.back());
      }
      pages_.pop_back();
    }
  }

  std::shared_ptr<Device> device_;
  CuPointer base_ = 0;
  size_t capacity_ = 0;
  CuMemProperties properties_;
  std::vector<CuMemory> pages_;
  MemoryLedger::Booking booking_;
};

// All of it at once, where pages cannot be mapped.
class WholeRange final : public PageRange {
 public:
  explicit WholeRange(DeviceBuffer buffer) : buffer_(std::move(buffer)) {}
  std::byte* data() const override { return buffer_.data(); }
  size_t capacity() const override { return buffer_.size(); }
  size_t committed() const override { return buffer_.size(); }
  Status commit(size_t bytes) override {
    INFERNEO_CHECK(whole_pages(bytes) <= buffer_.size(), "a range is committed within its reservation");
    return ok_status();
  }
  void shrink(size_t bytes) override { (void)bytes; }

 private:
  DeviceBuffer buffer_;
};

}  // namespace

Result<DeviceBuffer> DeviceBuffer::allocate(std::shared_ptr<Device> device, MemoryLedger& ledger,
                                            const std::string& model, MemoryPurpose purpose, size_t bytes) {
  DeviceBuffer buffer;
  const size_t booked = whole_pages(std::max<size_t>(bytes, 1));
  ASSIGN_OR_RETURN(buffer.booking_, ledger.reserve(model, purpose, booked));
  RETURN_IF_ERROR(device->make_current());
  RETURN_IF_ERROR(device->check(device->driver().memory_alloc(&buffer.pointer_, std::max<size_t>(bytes, 1)),
                                fmt::format("{} needed {} bytes for {}", model, bytes, memory_purpose_name(purpose))));
  buffer.device_ = std::move(device);
  buffer.size_ = bytes;
  return buffer;
}

DeviceBuffer::DeviceBuffer(DeviceBuffer&& other) noexcept
    : device_(std::move(other.device_)),
      pointer_(std::exchange(other.pointer_, 0)),
      size_(std::exchange(other.size_, 0)),
      booking_(std::move(other.booking_)) {}

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(pointer_, other.pointer_);
  std::swap(size_, other.size_);
  std::swap(booking_, other.booking_);
  return *this;
}

DeviceBuffer::~DeviceBuffer() {
  if (pointer_ == 0 || !device_->make_current().ok()) return;
  (void)device_->driver().memory_free(pointer_);
}

Result<PinnedBuffer> PinnedBuffer::allocate(std::shared_ptr<Device> device, MemoryLedger& host,
                                            const std::string& model, MemoryPurpose purpose, size_t bytes) {
  PinnedBuffer buffer;
  ASSIGN_OR_RETURN(buffer.booking_, host.reserve(model, purpose, bytes));
  RETURN_IF_ERROR(device->make_current());
  void* data = nullptr;
  RETURN_IF_ERROR(device->check(device->driver().host_alloc(&data, std::max<size_t>(bytes, 1), 0),
                                fmt::format("{} needed {} bytes of pinned memory", model, bytes)));
  buffer.device_ = std::move(device);
  buffer.data_ = static_cast<std::byte*>(data);
  buffer.size_ = bytes;
  return buffer;
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : device_(std::move(other.device_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      booking_(std::move(other.booking_)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(booking_, other.booking_);
  return *this;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ == nullptr || !device_->make_current().ok()) return;
  (void)device_->driver().host_free(data_);
}

Result<std::unique_ptr<PageRange>> DevicePages::reserve(MemoryLedger& ledger, const std::string& model,
                                                        MemoryPurpose purpose, size_t max_bytes) {
  if (device_->facts().has_virtual_memory) {
    return DeviceRange::reserve(device_, ledger, model, purpose, max_bytes);
  }
  const size_t bytes = std::max(whole_pages(max_bytes), kDevicePage);
  ASSIGN_OR_RETURN(DeviceBuffer buffer, DeviceBuffer::allocate(device_, ledger, model, purpose, bytes));
  return std::unique_ptr<PageRange>(std::make_unique<WholeRange>(std::move(buffer)));
}

}  // namespace inferneo::cuda
