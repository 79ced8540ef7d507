#include "tensor/cuda/collectives.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <set>

#include "tensor/cuda/memory.h"

namespace inferneo::cuda {
namespace {

constexpr size_t kHostPieceBytes = size_t{4} << 20;  // of each pinned buffer: what is longer goes in pieces

// Remembers the first error.
class FirstError {
 public:
  Status check(Status status) {
    if (!status.ok() && !first_) first_ = status.error();
    return status;
  }
  Status status() const { return first_ ? Status(*first_) : ok_status(); }

 private:
  std::optional<Error> first_;
};

class HostCollectives final : public Collectives {
 public:
  static Result<std::unique_ptr<Collectives>> make(std::vector<CollectiveRank> ranks, MemoryLedger& host,
                                                   const std::string& model) {
    auto made = std::make_unique<HostCollectives>();
    for (const CollectiveRank& rank : ranks) {
      ASSIGN_OR_RETURN(PinnedBuffer buffer,
                       PinnedBuffer::allocate(rank.device, host, model, MemoryPurpose::staging, kHostPieceBytes));
      made->parts_.push_back(std::move(buffer));
    }
    ASSIGN_OR_RETURN(made->sum_,
                     PinnedBuffer::allocate(ranks[0].device, host, model, MemoryPurpose::staging, kHostPieceBytes));
    made->ranks_ = std::move(ranks);
    return std::unique_ptr<Collectives>(std::move(made));
  }
  // Copies in flight read what goes now.
  ~HostCollectives() override { (void)wait_for_all(); }

  Status all_reduce(std::span<float* const> buffers, size_t count) override {
    constexpr size_t kPiece = kHostPieceBytes / sizeof(float);
    for (size_t at = 0; at < count; at += kPiece) {
      RETURN_IF_ERROR(failure_.check(reduce_piece(buffers, at, std::min(kPiece, count - at))));
    }
    return failure_.status();
  }

  Status broadcast(std::span<std::byte* const> buffers, size_t bytes) override {
    for (size_t at = 0; at < bytes; at += kHostPieceBytes) {
      RETURN_IF_ERROR(failure_.check(broadcast_piece(buffers, at, std::min(kHostPieceBytes, bytes - at))));
    }
    return failure_.status();
  }

  bool is_capturable() const override { return false; }
  Status health() override { return failure_.status(); }
  void abort() override {}  // nothing waits for another rank
  std::string_view name() const override { return "host memory"; }

 private:
  Status wait_for(const CollectiveRank& rank) {
    RETURN_IF_ERROR(rank.device->make_current());
    return rank.device->check(rank.device->driver().stream_synchronize(rank.stream), "computing");
  }
  Status wait_for_all() {
    for (const CollectiveRank& rank : ranks_) RETURN_IF_ERROR(wait_for(rank));
    return ok_status();
  }
  Status copy_out(size_t rank, const void* from, std::byte* to, size_t bytes) {
    const Device& device = *ranks_[rank].device;
    RETURN_IF_ERROR(device.make_current());
    return device.check(device.driver().copy_to_host(to, reinterpret_cast<CuPointer>(from), bytes, ranks_[rank].stream),
                        "copying a part of a sum");
  }
  Status copy_in(size_t rank, void* to, size_t bytes) {
    const Device& device = *ranks_[rank].device;
    RETURN_IF_ERROR(device.make_current());
    return device.check(
        device.driver().copy_to_device(reinterpret_cast<CuPointer>(to), sum_.data(), bytes, ranks_[rank].stream),
        "copying a sum");
  }

  // Once all parts are here, all copies of the sum before this one have been made: they stand before them in the
  // streams.
  Status reduce_piece(std::span<float* const> buffers, size_t at, size_t count) {
    const size_t bytes = count * sizeof(float);
    for (size_t r = 0; r < ranks_.size(); ++r) {
      RETURN_IF_ERROR(copy_out(r, buffers[r] + at, parts_[r].data(), bytes));
    }
    RETURN_IF_ERROR(wait_for_all());
    auto* sum = reinterpret_cast<float*>(sum_.data());
    std::memcpy(sum, parts_[0].data(), bytes);
    for (size_t r = 1; r < ranks_.size(); ++r) {
      const auto* part = reinterpret_cast<const float*>(parts_[r].data());
      for (size_t i = 0; i < count; ++i) sum[i] += part[i];
    }
    for (size_t r = 0; r < ranks_.size(); ++r) RETURN_IF_ERROR(copy_in(r, buffers[r] + at, bytes));
    return ok_status();
  }

  Status broadcast_piece(std::span<std::byte* const> buffers, size_t at, size_t bytes) {
    RETURN_IF_ERROR(wait_for_all());  // copies that read sum_
    RETURN_IF_ERROR(copy_out(0, buffers[0] + at, sum_.data(), bytes));
    RETURN_IF_ERROR(wait_for(ranks_[0]));
    for (size_t r = 1; r < ranks_.size(); ++r) RETURN_IF_ERROR(copy_in(r, buffers[r] + at, bytes));
    return ok_status();
  }

  std::vector<CollectiveRank> ranks_;
  std::vector<PinnedBuffer> parts_;  // [ranks]
  PinnedBuffer sum_;
  FirstError failure_;
};

class NcclCollectives final : public Collectives {
 public:
  static Result<std::unique_ptr<Collectives>> make(const NcclApi& nccl, std::vector<CollectiveRank> ranks) {
    std::vector<int> ordinals;
    for (const CollectiveRank& rank : ranks) ordinals.push_back(rank.device->facts().ordinal);
    if (std::set<int>(ordinals.begin(), ordinals.end()).size() != ordinals.size()) {
      return make_error(ErrorCode::invalid_argument, "NCCL needs a GPU for each rank, and some share one");
    }
    auto made = std::make_unique<NcclCollectives>(nccl);
    made->comms_.resize(ranks.size());
    RETURN_IF_ERROR(ranks[0].device->make_current());
    const NcclResult result = nccl.init_all(made->comms_.data(), static_cast<int>(ranks.size()), ordinals.data());
    if (result != kNcclSuccess) {
      made->comms_.clear();
      return made->error_of(result, "connecting the GPUs");
    }
    made->ranks_ = std::move(ranks);
    return std::unique_ptr<Collectives>(std::move(made));
  }
  explicit NcclCollectives(const NcclApi& nccl) : nccl_(nccl) {}
  ~NcclCollectives() override { end(failure_.status().ok() ? nccl_.destroy : nccl_.abort); }

  Status all_reduce(std::span<float* const> buffers, size_t count) override {
    return together("adding up what the GPUs have", [&](size_t r) {
      return nccl_.all_reduce(buffers[r], buffers[r], count, kNcclFloat32, kNcclSum, comms_[r], ranks_[r].stream);
    });
  }
  Status broadcast(std::span<std::byte* const> buffers, size_t bytes) override {
    return together("telling all GPUs", [&](size_t r) {
      return nccl_.broadcast(buffers[r], buffers[r], bytes, kNcclUint8, 0, comms_[r], ranks_[r].stream);
    });
  }

  bool is_capturable() const override { return true; }
  Status health() override {
    RETURN_IF_ERROR(failure_.status());
    for (NcclComm comm : comms_) {
      NcclResult error = kNcclSuccess;
      const NcclResult asked = nccl_.async_error(comm, &error);
      if (asked != kNcclSuccess) error = asked;
      if (error == kNcclSuccess || error == kNcclInProgress) continue;
      return failure_.check(error_of(error, "computing together"));
    }
    return ok_status();
  }
  void abort() override {
    (void)failure_.check(make_error(ErrorCode::unavailable, "the GPUs' connection was given up"));
    end(nccl_.abort);
  }
  std::string_view name() const override { return "NCCL"; }

 private:
  Error error_of(NcclResult result, std::string_view doing) const {
    return make_error(ErrorCode::unavailable,
                      fmt::format("NCCL failed while {}: {}", doing, nccl_.error_string(result)));
  }
  // One thread calls for all ranks, so the calls stand in a group; an open one is always closed.
  template <typename Call>
  Status together(std::string_view doing, Call call) {
    RETURN_IF_ERROR(failure_.status());
    NcclResult result = nccl_.group_start();
    if (result == kNcclSuccess) {
      for (size_t r = 0; r < comms_.size() && result == kNcclSuccess; ++r) result = call(r);
      const NcclResult ended = nccl_.group_end();
      if (result == kNcclSuccess) result = ended;
    }
    return result == kNcclSuccess ? ok_status() : failure_.check(error_of(result, doing));
  }
  void end(NcclResult (*how)(NcclComm comm)) {
    for (NcclComm comm : comms_) (void)how(comm);
    comms_.clear();
  }

  const NcclApi& nccl_;
  std::vector<CollectiveRank> ranks_;
  std::vector<NcclComm> comms_;  // [ranks]; empty once they have been ended
  FirstError failure_;
};

}  // namespace

Result<std::unique_ptr<Collectives>> make_host_collectives(std::vector<CollectiveRank> ranks, MemoryLedger& host,
                                                           const std::string& model) {
  return HostCollectives::make(std::move(ranks), host, model);
}

Result<std::unique_ptr<Collectives>> make_nccl_collectives(const NcclApi& nccl, std::vector<CollectiveRank> ranks) {
  return NcclCollectives::make(nccl, std::move(ranks));
}

}  // namespace inferneo::cuda
