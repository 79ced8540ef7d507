#include "tensor/cuda/host_copy.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "tensor/memory.h"

namespace inferneo::cuda {

std::byte* HostCopy::Piece::data() const {
  return std::visit([](const auto& memory) { return memory.data(); }, memory_);
}

size_t HostCopy::Piece::size() const {
  return std::visit([](const auto& memory) { return memory.size(); }, memory_);
}

Result<HostCopy::Piece> HostCopy::allocate(MemoryLedger& host, const std::string& model, size_t bytes) {
  if (pins_) {
    Result<PinnedBuffer> pinned = PinnedBuffer::allocate(device_, host, model, MemoryPurpose::asleep, bytes);
    if (pinned.ok()) {
      pinned_bytes_ += bytes;
      return Piece(std::move(pinned).value());
    }
    RETURN_IF_ERROR(device_->health());
    pins_ = false;
    // Where it was the ledger that refused, it refuses ordinary memory as well, and says so.
    Result<Buffer> ordinary = Buffer::allocate(host, model, MemoryPurpose::asleep, bytes);
    if (!ordinary.ok()) return std::move(ordinary).error();
    log_warning(
        "{}: {} of its bytes lie in pinned memory, the others in ordinary memory, from which they come back more "
        "slowly: {}",
        model, pinned_bytes_, pinned.error().message);
    return Piece(std::move(ordinary).value());
  }
  ASSIGN_OR_RETURN(Buffer ordinary, Buffer::allocate(host, model, MemoryPurpose::asleep, bytes));
  return Piece(std::move(ordinary));
}

Result<HostCopy> HostCopy::take(const std::shared_ptr<Device>& device, MemoryLedger& host, const std::string& model,
                                const Stream& stream, const DeviceBuffer& from, size_t piece_bytes) {
  RETURN_IF_ERROR(device->make_current());
  HostCopy copy;
  copy.device_ = device;
  Status queued;
  for (size_t at = 0; queued.ok() && at < from.size(); at += piece_bytes) {
    const size_t bytes = std::min(piece_bytes, from.size() - at);
    Result<Piece> piece = copy.allocate(host, model, bytes);
    if (!piece.ok()) {
      queued = piece.error();
      break;
    }
    copy.pieces_.push_back(std::move(piece).value());
    copy.bytes_ += bytes;
    queued = device->check(
        device->driver().copy_to_host(copy.pieces_.back().data(), from.address() + at, bytes, stream.get()),
        "copying weights to the host");
  }
  // After an error too: copies under way write into the pieces, which are about to go.
  const Status copied = stream.synchronize();
  RETURN_IF_ERROR(queued);
  RETURN_IF_ERROR(copied);
  return copy;
}

Status HostCopy::restore(const Stream& stream, const DeviceBuffer& to) const {
  INFERNEO_CHECK(bytes_ <= to.size(), "a copy goes back into a buffer of its size");
  RETURN_IF_ERROR(device_->make_current());
  size_t at = 0;
  for (const Piece& piece : pieces_) {
    RETURN_IF_ERROR(
        device_->check(device_->driver().copy_to_device(to.address() + at, piece.data(), piece.size(), stream.get()),
                       "copying weights from the host"));
    at += piece.size();
  }
  return ok_status();
}

}  // namespace inferneo::cuda
