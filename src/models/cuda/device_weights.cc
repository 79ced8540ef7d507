#include "models/cuda/device_weights.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/quant_repack.h"
#include "kernels/quantize.h"
#include "models/cuda/weight_layout.h"
#include "models/transformers/bound_tensors.h"

namespace inferneo::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{8} << 20;    // of one pinned buffer; a thread has two
constexpr size_t kQuantisedBytes = size_t{1} << 20;  // of a piece that takes long to make
constexpr int64_t kRandomPanels = 4;                 // that differ

// One thread's way of getting pieces to the device: two pinned buffers in turn.
class Courier {
 public:
  static Result<std::unique_ptr<Courier>> make(const DeviceLoad& load) {
    auto courier = std::make_unique<Courier>();
    courier->device_ = load.device;
    ASSIGN_OR_RETURN(courier->stream_, Stream::create(load.device));
    for (Half& half : courier->halves_) {
      ASSIGN_OR_RETURN(half.buffer, PinnedBuffer::allocate(load.device, *load.host, load.model, MemoryPurpose::staging,
                                                           kStagingBytes));
      ASSIGN_OR_RETURN(half.copied, Event::create(load.device));
    }
    return courier;
  }
  ~Courier() { (void)stream_.synchronize(); }  // after an error, copies may still read the buffers

  Status send(const WeightPiece& piece, Quantization quantization, std::byte* base) {
    Half& half = halves_[next_++ % halves_.size()];
    if (half.busy) RETURN_IF_ERROR(half.copied.synchronize());
    const size_t bytes = piece.bytes();
    // A row wider than the buffer goes in parts; none is in practice, and it is refused rather than cut short.
    if (bytes > half.buffer.size()) return make_error(ErrorCode::unsupported, "a weight row of more than 8 MiB");
    RETURN_IF_ERROR(write_piece(piece, quantization, half.buffer.data()));
    RETURN_IF_ERROR(device_->make_current());
    RETURN_IF_ERROR(device_->check(device_->driver().copy_to_device(reinterpret_cast<CuPointer>(base + piece.offset()),
                                                                    half.buffer.data(), bytes, stream_.get()),
                                   "copying weights"));
    half.busy = true;
    return half.copied.record(stream_.get());
  }
  Status finish() { return stream_.synchronize(); }

 private:
  struct Half {
    PinnedBuffer buffer;
    Event copied;
    bool busy = false;
  };
  std::shared_ptr<Device> device_;
  Stream stream_;
  std::array<Half, 2> halves_;
  size_t next_ = 0;
};

// Shared by the threads of one load.
struct Work {
  std::vector<WeightPiece> pieces;
  Quantization quantization = Quantization::none;
  std::byte* base = nullptr;
  size_t total = 0;
  std::atomic<size_t> next{0};
  std::atomic<size_t> done{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  Status status;

  void fail(Status error) {
    const std::lock_guard lock(mutex);
    if (status.ok()) status = std::move(error);
    failed = true;
  }
};

void work_through(Work& work, const DeviceLoad& load, bool reports) {
  Result<std::unique_ptr<Courier>> courier = Courier::make(load);
  if (!courier.ok()) return work.fail(courier.error());
  for (size_t i = 0; !work.failed && (i = work.next.fetch_add(1)) < work.pieces.size();) {
    Status sent = (*courier)->send(work.pieces[i], work.quantization, work.base);
    if (!sent.ok()) return work.fail(std::move(sent));
    work.done += work.pieces[i].bytes();
    if (!reports || !load.progress) continue;
    if (Status wanted = load.progress({"copying weights", work.done, work.total}); !wanted.ok()) {
      return work.fail(std::move(wanted));
    }
  }
  if (Status finished = (*courier)->finish(); !finished.ok()) work.fail(std::move(finished));
}

// A few panels of random weights, quantised.
std::vector<std::byte> random_panels(const WeightStack& stack, uint64_t seed) {
  const kernels::PackedView shape{nullptr, stack.format.dtype, kRandomPanels * kQuantPanel, stack.cols,
                                  stack.format.scheme};
  std::vector<std::byte> packed(static_cast<size_t>(kRandomPanels) * shape.panel_bytes());
  kernels::PackedView view = shape;
  view.data = packed.data();
  const float range = 1.7F / std::sqrt(static_cast<float>(stack.cols));
  std::vector<float> values(static_cast<size_t>(stack.cols));
  uint64_t state = seed;
  for (int64_t row = 0; row < view.rows; ++row) {
    for (float& value : values) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      value = range * (static_cast<float>(state >> 40) * 0x1p-23F - 1.0F);
    }
    INFERNEO_CHECK(kernels::quantize_row(values.data(), view, row, packed.data()), "finite values are quantised");
  }
  const auto panel_bytes = static_cast<size_t>(stack.unit_bytes());
  std::vector<std::byte> made(static_cast<size_t>(kRandomPanels) * panel_bytes);
  for (int64_t p = 0; p < kRandomPanels; ++p) {
    repack_panel(view, p, made.data() + static_cast<size_t>(p) * panel_bytes);
  }
  return made;
}

// The first panels from the host, the others copies of what is there already, twice as many each time.
Status fill_with_panels(Ops& ops, const WeightStack& stack, std::span<const std::byte> panels, std::byte* to) {
  const auto total = static_cast<size_t>(stack.bytes());
  size_t done = std::min(panels.size(), total);
  Device& device = ops.device();
  RETURN_IF_ERROR(
      device.check(device.driver().copy_to_device(reinterpret_cast<CuPointer>(to), panels.data(), done, ops.stream()),
                   "copying random weights"));
  while (done < total) {
    const size_t bytes = std::min(done, total - done);
    RETURN_IF_ERROR(ops.copy({to, to + done, static_cast<int64_t>(bytes)}));
    done += bytes;
  }
  return ok_status();
}

void move_set(DeviceWeightSet& set, const std::byte* from, const std::byte* to) {
  for (const float*& vector : set.vectors) {
    if (vector != nullptr)
      vector = reinterpret_cast<const float*>(to + (reinterpret_cast<const std::byte*>(vector) - from));
  }
  for (DeviceMatrix& matrix : set.matrices) {
    if (matrix.data != nullptr) matrix.data = to + (matrix.data - from);
  }
}

}  // namespace

DeviceWeights DeviceWeights::moved(const std::byte* from, const std::byte* to) const {
  DeviceWeights moved;
  moved.ends = ends;
  moved.layers = layers;
  moved.dtype = dtype;
  moved.format = format;
  moved.bytes = bytes;
  moved.parameters = parameters;
  move_set(moved.ends, from, to);
  for (DeviceWeightSet& layer : moved.layers) move_set(layer, from, to);
  return moved;
}

Result<DeviceWeightPlan> plan_device_weights(const DecoderSpec& spec, const Checkpoint& headers,
                                             Quantization quantization, Rank rank) {
  ASSIGN_OR_RETURN(const std::vector<const SafetensorsTensor*> bound, bind_tensors(spec, headers));
  const WeightPlacement placement(spec, bound, DType::f32, quantization, rank);
  return DeviceWeightPlan{placement.bytes(), placement.layer_dtype(), placement.layer_format()};
}

Result<DeviceWeights> load_device_weights(const DecoderSpec& spec, const Checkpoint& checkpoint,
                                          Quantization quantization, const DeviceLoad& load) {
  ASSIGN_OR_RETURN(const std::vector<const SafetensorsTensor*> bound, bind_tensors(spec, checkpoint));
  const WeightPlacement placement(spec, bound, DType::f32, quantization, load.rank);
  DeviceWeights weights;
  ASSIGN_OR_RETURN(weights.memory, DeviceBuffer::allocate(load.device, *load.ledger, load.model, MemoryPurpose::weights,
                                                          placement.bytes()));
  placement.place(weights);
  const size_t most_bytes = quantization == Quantization::none ? kStagingBytes : kQuantisedBytes;
  Work work;
  work.pieces = placement.cut(most_bytes);
  work.quantization = quantization;
  work.base = weights.memory.data();
  for (const WeightPiece& piece : work.pieces) work.total += piece.bytes();
  std::vector<std::thread> helpers;
  const auto most = static_cast<int>(work.total / most_bytes);
  for (int i = 1; i < std::min(load.num_threads, most); ++i) {
    helpers.emplace_back([&] { work_through(work, load, false); });
  }
  work_through(work, load, true);
  for (std::thread& helper : helpers) helper.join();
  if (checkpoint.truncated()) {
    return make_error(ErrorCode::malformed,
                      "a weight file was cut short while it was being read; load the model again once its files are "
                      "complete");
  }
  RETURN_IF_ERROR(work.status);
  if (load.progress) RETURN_IF_ERROR(load.progress({"copying weights", work.total, work.total}));
  return weights;
}

Result<DeviceWeights> random_device_weights(const DecoderSpec& spec, DType dtype, Quantization quantization,
                                            const DeviceLoad& load) {
  const WeightPlacement placement(spec, {}, dtype, quantization, load.rank);
  DeviceWeights weights;
  ASSIGN_OR_RETURN(weights.memory, DeviceBuffer::allocate(load.device, *load.ledger, load.model, MemoryPurpose::weights,
                                                          placement.bytes()));
  placement.place(weights);
  ASSIGN_OR_RETURN(const Stream stream, Stream::create(load.device));
  Ops ops(*load.device, {.stream = stream.get()});
  std::map<std::pair<Elem, int64_t>, std::vector<std::byte>> panels;  // live until the copies have been waited for
  uint64_t seed = 1;
  for (const auto& [key, stack] : placement.stacks()) {
    std::byte* to = weights.memory.data() + stack.offset;
    if (stack.quantised()) {
      std::vector<std::byte>& made = panels[{stack.panels().elem, stack.cols}];
      if (made.empty()) made = random_panels(stack, seed++);
      RETURN_IF_ERROR(fill_with_panels(ops, stack, made, to));
      continue;
    }
    const bool vector = stack.cols == 0;
    const int64_t cols = vector ? 1 : padded_cols(stack.cols);
    // Norm weights near one; matrices as wide as keeps a vector's size.
    const float range = vector ? 1.0F : 1.7F / std::sqrt(static_cast<float>(stack.cols));
    RETURN_IF_ERROR(ops.fill({to, stack.rows * cols, seed++ << 32, range, elem_of(stack.format)}));
  }
  RETURN_IF_ERROR(stream.synchronize());
  return weights;
}

}  // namespace inferneo::cuda
