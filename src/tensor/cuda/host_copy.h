// A copy in host memory of what lies in a buffer of a GPU, byte for byte, to be copied back into another buffer later:
// how weights are kept while their model sleeps.
//
// The copy is in pieces. Each is pinned as far as the driver gives pinned memory, and pinned while the piece before it
// is copied; from the first refusal on pieces are ordinary memory, which the driver copies at a lower rate. All of it
// is booked in the host's ledger under (model, asleep).
//
// Ownership: owns its memory and holds the Device. Threads: one owner. Errors: out_of_memory where the host's ledger
// has no room, unavailable when the device is lost; nothing stays booked after one.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "tensor/cuda/device.h"
#include "tensor/cuda/memory.h"
#include "tensor/ledger.h"

namespace inferneo::cuda {

class HostCopy {
 public:
  // Large enough for a copy at the full rate, small enough for pinning and copying to overlap.
  static constexpr size_t kPieceBytes = size_t{128} << 20;

  // Waits for what was launched on the stream and for the copies. `from` is left as it is.
  static Result<HostCopy> take(const std::shared_ptr<Device>& device, MemoryLedger& host, const std::string& model,
                               const Stream& stream, const DeviceBuffer& from, size_t piece_bytes = kPieceBytes);

  // Copies all of it to the front of `to`, piece after piece from the front, on the stream. Waits for nothing where the
  // memory is pinned: this and `to` outlive the stream's work.
  Status restore(const Stream& stream, const DeviceBuffer& to) const;

  size_t bytes() const { return bytes_; }
  size_t pinned_bytes() const { return pinned_bytes_; }
  // What take() books at most for a buffer of so many bytes.
  static size_t booked_bytes(size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

 private:
  class Piece {
   public:
    explicit Piece(PinnedBuffer memory) : memory_(std::move(memory)) {}
    explicit Piece(Buffer memory) : memory_(std::move(memory)) {}
    std::byte* data() const;
    size_t size() const;

   private:
    std::variant<PinnedBuffer, Buffer> memory_;
  };
  Result<Piece> allocate(MemoryLedger& host, const std::string& model, size_t bytes);

  std::shared_ptr<Device> device_;
  std::vector<Piece> pieces_;
  size_t bytes_ = 0;
  size_t pinned_bytes_ = 0;
  bool pins_ = true;  // until the driver refuses
};

}  // namespace inferneo::cuda
