#include "models/cuda/rank_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <thread>

#include "base/log.h"

namespace inferneo::cuda {
namespace {

// The sum of two has one order; that of more depends on how NCCL cuts it up, and with that on the batch.
constexpr size_t kMostInvariantNcclRanks = 2;

}  // namespace

Status check_alike(const Device& first, const Device& other) {
  const DeviceFacts& a = first.facts();
  const DeviceFacts& b = other.facts();
  if (a.name == b.name && a.multiprocessors == b.multiprocessors && a.major == b.major && a.minor == b.minor) {
    return ok_status();
  }
  return make_error(ErrorCode::unsupported,
                    fmt::format("cuda:{} is {} and cuda:{} is {}: GPUs that share a model are of one kind", a.ordinal,
                                a.name, b.ordinal, b.name),
                    "tensor_parallel_size");
}

Result<std::unique_ptr<RankGroup>> RankGroup::create(const First& first, std::vector<RankShare> others,
                                                     const RankGroupOptions& options) {
  std::unique_ptr<RankGroup> group(new RankGroup(first, options));
  RETURN_IF_ERROR(group->prepare(std::move(others)));
  RETURN_IF_ERROR(first.on.device->make_current());
  return group;
}

Status RankGroup::prepare(std::vector<RankShare> others) {
  members_.push_back({first_.on.device.get(), first_.stream, first_.ops, first_.forward});
  std::vector<RankDevice> page_owners;
  for (size_t i = 0; i < others.size(); ++i) {
    others_.push_back(std::make_unique<Other>());
    Other& other = *others_.back();
    other.share = std::move(others[i]);
    RankShare& share = other.share;
    ASSIGN_OR_RETURN(other.stream, Stream::create(share.on.device));
    for (Event& end : other.ends) {
      ASSIGN_OR_RETURN(end, Event::create(share.on.device));
    }
    if (options_.use_library && !options_.invariant) {
      ASSIGN_OR_RETURN(other.library, open_device_library(share.on.device, *share.on.ledger, options_.name));
    }
    other.ops = std::make_unique<Ops>(*share.on.device, OpsOptions{.stream = other.stream.get(),
                                                                   .blas = other.library.blas.get(),
                                                                   .blas_workspace = other.library.workspace.data(),
                                                                   .overlaps = options_.overlaps,
                                                                   .invariant = options_.invariant});
    other.forward = std::make_unique<DeviceForward>(share.spec, share.weights, share.kv, options_.max_model_len,
                                                    static_cast<int32_t>(i) + 1);
    members_.push_back({share.on.device.get(), other.stream.get(), other.ops.get(), other.forward.get()});
    page_owners.push_back(share.on);
  }
  pages_ = std::make_unique<RankPages>(first_.on.device, page_owners);
  return prepare_collectives();
}

std::vector<RankDevice> RankGroup::devices() const {
  std::vector<RankDevice> devices{first_.on};
  for (const auto& other : others_) devices.push_back(other->share.on);
  return devices;
}

Status RankGroup::prepare_collectives() {
  std::vector<CollectiveRank> ranks{{first_.on.device, first_.stream}};
  for (const auto& other : others_) ranks.push_back({other->share.on.device, other->stream.get()});
  if (options_.nccl != nullptr && !(options_.invariant && ranks.size() > kMostInvariantNcclRanks)) {
    Status connected = connect_by_nccl(ranks);
    if (connected.ok() || connected.error().code == ErrorCode::out_of_memory) return connected;
    log_warning("{}: {}", options_.name, connected.error().message);
    collectives_.reset();
    library_memory_.clear();
  }
  log_info("{}: {} ranks add up in the memory of the host; steps are not replayed as graphs", options_.name,
           ranks.size());
  ASSIGN_OR_RETURN(collectives_, make_host_collectives(std::move(ranks), *options_.host, options_.name));
  return ok_status();
}

// NCCL tells nobody what it takes of a GPU, some of it when it is first used. So it is used once, and what has gone
// meanwhile is booked.
Status RankGroup::connect_by_nccl(std::vector<CollectiveRank> ranks) {
  std::vector<size_t> free_before;
  std::vector<DeviceBuffer> words;
  for (const RankDevice& on : devices()) {
    ASSIGN_OR_RETURN(DeviceBuffer word, DeviceBuffer::allocate(on.device, *on.ledger, options_.name,
                                                               MemoryPurpose::workspace, sizeof(float)));
    words.push_back(std::move(word));
    ASSIGN_OR_RETURN(const Device::Memory memory, on.device->memory());
    free_before.push_back(memory.free);
  }
  ASSIGN_OR_RETURN(collectives_, make_nccl_collectives(*options_.nccl, std::move(ranks)));
  Status used = use_once(words);
  if (used.ok()) used = book_library(free_before);
  if (!used.ok()) collectives_->abort();  // before the words go
  return used;
}

Status RankGroup::use_once(const std::vector<DeviceBuffer>& words) {
  std::vector<float*> numbers;
  std::vector<std::byte*> bytes;
  for (const DeviceBuffer& word : words) {
    numbers.push_back(reinterpret_cast<float*>(word.data()));
    bytes.push_back(word.data());
  }
  RETURN_IF_ERROR(collectives_->all_reduce(numbers, 1));
  RETURN_IF_ERROR(collectives_->broadcast(bytes, sizeof(float)));
  for (const Member& member : members_) {
    RETURN_IF_ERROR(member.device->make_current());
    RETURN_IF_ERROR(member.device->check(member.device->driver().stream_synchronize(member.stream),
                                         "adding up for the first time"));
  }
  return ok_status();
}

Status RankGroup::book_library(const std::vector<size_t>& free_before) {
  const std::vector<RankDevice> on = devices();
  for (size_t rank = 0; rank < on.size(); ++rank) {
    ASSIGN_OR_RETURN(const Device::Memory memory, on[rank].device->memory());
    const size_t taken = free_before[rank] - std::min(free_before[rank], memory.free);
    ASSIGN_OR_RETURN(MemoryLedger::Booking booking,
                     on[rank].ledger->reserve(options_.name, MemoryPurpose::workspace, taken));
    library_memory_.push_back(std::move(booking));
  }
  return ok_status();
}

// Nothing of a rank is computed any more when its memory goes.
RankGroup::~RankGroup() {
  for (const auto& other : others_) (void)other->stream.synchronize();
  collectives_.reset();
  (void)first_.on.device->make_current();
}

template <typename Do>
Status RankGroup::on_each(Do action) {
  RETURN_IF_ERROR(health());
  for (size_t rank = 0; rank < members_.size(); ++rank) {
    Status done = members_[rank].device->make_current();
    if (done.ok()) done = action(rank, members_[rank]);
    if (!done.ok()) return keep(std::move(done));
  }
  return keep(first_.on.device->make_current());
}

Status RankGroup::keep(Status status) {
  if (!status.ok()) fail(status.error());
  return status;
}

void RankGroup::fail(const Error& error) {
  if (failure_) return;
  failure_ = error;
  collectives_->abort();
  for (const auto& other : others_) (void)other->stream.synchronize();
  (void)first_.on.device->make_current();
}

Status RankGroup::health() const { return failure_ ? Status(*failure_) : ok_status(); }

Status RankGroup::bind(const KvBinding& kv, const RankSizes& sizes) {
  for (size_t i = 0; i < others_.size(); ++i) {
    Other& other = *others_[i];
    RankShare& share = other.share;
    other.planes.clear();
    for (const std::vector<std::byte*>& planes : kv.bases) {
      const std::span<std::byte* const> bases = pages_->bases(planes[0]);
      if (bases.empty()) {
        return make_error(ErrorCode::invalid_argument, "the cache's pages are not those of the runner's kv_pages()");
      }
      other.planes.push_back(bases[i + 1]);
    }
    const auto allocate = [&](DeviceBuffer& buffer, size_t bytes) -> Status {
      ASSIGN_OR_RETURN(buffer, DeviceBuffer::allocate(share.on.device, *share.on.ledger, options_.name,
                                                      MemoryPurpose::workspace, bytes));
      return ok_status();
    };
    RETURN_IF_ERROR(share.on.device->make_current());
    RETURN_IF_ERROR(other.forward->allocate(share.on.device, *share.on.ledger, options_.name, other.stream.get(),
                                            sizes.tokens, sizes.seqs, 0));
    RETURN_IF_ERROR(allocate(other.step_data, sizes.step_bytes));
    RETURN_IF_ERROR(allocate(other.sampled, sizes.sampled_bytes));
  }
  return first_.on.device->make_current();
}

Status RankGroup::upload(const std::byte* from, size_t bytes) {
  return on_each([&](size_t rank, Member& member) -> Status {
    if (rank == 0) return ok_status();
    return member.device->check(
        member.device->driver().copy_to_device(others_[rank - 1]->step_data.address(), from, bytes, member.stream),
        "copying a step's data");
  });
}

Status RankGroup::run_half(const std::vector<DeviceBatch>& batches, size_t layer, LayerHalf half) {
  std::vector<float*> sums;
  RETURN_IF_ERROR(on_each([&](size_t rank, Member& member) {
    sums.push_back(member.forward->shared_sum(layer, half));
    return member.forward->add_half(*member.ops, batches[rank], layer, half);
  }));
  const auto count = static_cast<size_t>(batches[0].rows) * static_cast<size_t>(first_.forward->hidden_size());
  RETURN_IF_ERROR(keep(collectives_->all_reduce(sums, count)));
  return on_each([&](size_t rank, Member& member) {
    return member.forward->finish_half(*member.ops, batches[rank], layer, half);
  });
}

Status RankGroup::run(const StepUpload& step, const DeviceBatch& first) {
  std::vector<DeviceBatch> batches{first};
  for (const auto& other : others_) {
    batches.push_back(
        step.batch_at(other->step_data.data(), reinterpret_cast<const int32_t*>(other->sampled.data()), other->planes));
  }
  RETURN_IF_ERROR(
      on_each([&](size_t rank, Member& member) { return member.forward->begin(*member.ops, batches[rank]); }));
  for (size_t layer = 0; layer < first_.forward->num_layers(); ++layer) {
    RETURN_IF_ERROR(run_half(batches, layer, LayerHalf::attention));
    RETURN_IF_ERROR(run_half(batches, layer, LayerHalf::feed_forward));
  }
  return ok_status();
}

Result<std::vector<Graph>> RankGroup::capture(const StepUpload& step, const DeviceBatch& first) {
  size_t begun = 0;
  Status captured = on_each([&](size_t, Member& member) {
    Status status = Graph::begin(*member.device, member.stream);
    if (status.ok()) ++begun;
    return status;
  });
  if (captured.ok()) captured = run(step, first);
  std::vector<Graph> graphs;
  Status ended = ok_status();
  for (size_t rank = 0; rank < begun; ++rank) {
    const std::shared_ptr<Device>& device = rank == 0 ? first_.on.device : others_[rank - 1]->share.on.device;
    (void)device->make_current();
    Result<Graph> graph = Graph::end(device, members_[rank].stream);
    if (graph.ok()) {
      graphs.push_back(std::move(graph).value());
    } else if (ended.ok()) {
      ended = graph.error();
    }
  }
  (void)first_.on.device->make_current();
  RETURN_IF_ERROR(captured);
  RETURN_IF_ERROR(ended);
  return graphs;
}

Status RankGroup::launch(const std::vector<Graph>& graphs) {
  return on_each([&](size_t rank, Member& member) { return graphs[rank].launch(member.stream); });
}

Status RankGroup::share_sampled(std::byte* sampled, size_t offset, size_t bytes) {
  if (bytes == 0) return ok_status();
  RETURN_IF_ERROR(health());
  std::vector<std::byte*> buffers{sampled + offset};
  for (const auto& other : others_) buffers.push_back(other->sampled.data() + offset);
  RETURN_IF_ERROR(keep(collectives_->broadcast(buffers, bytes)));
  return keep(first_.on.device->make_current());
}

Status RankGroup::record_end(int slot) {
  return on_each([&](size_t rank, Member& member) {
    return rank == 0 ? ok_status() : others_[rank - 1]->ends[static_cast<size_t>(slot)].record(member.stream);
  });
}

Result<bool> RankGroup::have_ended(int slot, const Event& first_end) {
  RETURN_IF_ERROR(collectives_->health());
  ASSIGN_OR_RETURN(bool ended, first_end.has_happened());
  for (const auto& other : others_) {
    ASSIGN_OR_RETURN(const bool this_one, other->ends[static_cast<size_t>(slot)].has_happened());
    ended = ended && this_one;
  }
  return ended;
}

// All are looked at in turn: a rank that is lost leaves the others waiting for it.
Status RankGroup::wait(int slot, const Event& first_end) {
  RETURN_IF_ERROR(health());
  for (;;) {
    const Result<bool> ended = have_ended(slot, first_end);
    if (!ended.ok()) return keep(ended.error());
    if (*ended) return keep(first_.on.device->make_current());
    std::this_thread::yield();
  }
}

}  // namespace inferneo::cuda
