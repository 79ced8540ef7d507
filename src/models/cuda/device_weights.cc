#include "models/cuda/device_weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "kernels/cuda/ops.h"

namespace inferneo::cuda {
namespace {

constexpr size_t kStagingBytes = size_t{8} << 20;  // of one pinned buffer; a thread has two
constexpr int64_t kAlignment = 256;                // of a stack

Elem elem_of(DType dtype) {
  if (dtype == DType::bf16) return Elem::bf16;
  return dtype == DType::f16 ? Elem::f16 : Elem::f32;
}

TensorRole first_role(TensorRole role) {
  switch (role) {
    case TensorRole::k:
    case TensorRole::v:
      return TensorRole::q;
    case TensorRole::up:
      return TensorRole::gate;
    case TensorRole::k_bias:
    case TensorRole::v_bias:
      return TensorRole::q_bias;
    case TensorRole::up_bias:
      return TensorRole::gate_bias;
    default:
      return role;
  }
}

const SafetensorsTensor* find_tensor(const DecoderSpec& spec, const Checkpoint& checkpoint,
                                     const TensorBinding& binding) {
  if (const SafetensorsTensor* tensor = checkpoint.find(binding.name)) return tensor;
  if (spec.optional_prefix.empty() || !binding.name.starts_with(spec.optional_prefix)) return nullptr;
  return checkpoint.find(std::string_view(binding.name).substr(spec.optional_prefix.size()));
}

float read_value(const SafetensorsTensor& tensor, int64_t i) {
  const std::byte* data = tensor.bytes.data();
  if (tensor.dtype == DType::bf16) return bf16_to_f32(reinterpret_cast<const uint16_t*>(data)[i]);
  if (tensor.dtype == DType::f16) return f16_to_f32(reinterpret_cast<const uint16_t*>(data)[i]);
  return reinterpret_cast<const float*>(data)[i];
}

struct Part {
  const TensorBinding* binding = nullptr;
  const SafetensorsTensor* tensor = nullptr;  // null: random
  int64_t dest_row = 0;
};
struct Stack {
  DType dtype = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;  // 0: a vector
  int64_t offset = 0;
  std::vector<Part> parts;

  int64_t row_bytes() const { return cols == 0 ? 4 : padded_cols(cols) * elem_bytes(elem_of(dtype)); }
};

// Where everything stands: by layer and first role.
class Layout {
 public:
  // `checkpoint` null: shapes alone, all matrices in `dtype`.
  Layout(const DecoderSpec& spec, const Checkpoint* checkpoint, DType dtype) : spec_(spec) {
    for (const TensorBinding& binding : spec.tensors) {
      const SafetensorsTensor* tensor = checkpoint != nullptr ? find_tensor(spec, *checkpoint, binding) : nullptr;
      Stack& stack = stacks_[{binding.layer, first_role(binding.role)}];
      // Routers decide: their inputs are not rounded to bf16. Parts of unlike types meet in f32.
      DType stored = tensor != nullptr ? tensor->dtype : dtype;
      if (binding.role == TensorRole::router || binding.cols == 0) stored = DType::f32;
      if (stack.parts.empty()) stack.dtype = stored;
      if (stack.dtype != stored) stack.dtype = DType::f32;
      stack.cols = binding.cols;
      const int64_t first = dest_row(binding);
      stack.parts.push_back({&binding, tensor, first});
      stack.rows = std::max(stack.rows, first + binding.rows);
    }
    for (auto& [key, stack] : stacks_) {
      stack.offset = bytes_;
      bytes_ += (stack.rows * stack.row_bytes() + kAlignment - 1) / kAlignment * kAlignment;
    }
  }

  const std::map<std::pair<int32_t, TensorRole>, Stack>& stacks() const { return stacks_; }
  size_t bytes() const { return static_cast<size_t>(bytes_); }
  DType layer_dtype() const {
    const auto found = stacks_.find({0, TensorRole::attention_output});
    return found == stacks_.end() ? DType::f32 : found->second.dtype;
  }

  void place(DeviceWeights& weights) const {
    weights.layers.resize(spec_.layers.size());
    weights.bytes = bytes();
    weights.dtype = layer_dtype();
    std::byte* base = weights.memory.data();
    for (const auto& [key, stack] : stacks_) {
      DeviceWeightSet& set = key.first < 0 ? weights.ends : weights.layers[static_cast<size_t>(key.first)];
      const auto role = static_cast<size_t>(key.second);
      if (stack.cols == 0) {
        set.vectors[role] = reinterpret_cast<const float*>(base + stack.offset);
      } else {
        set.matrices[role] = {base + stack.offset, elem_of(stack.dtype), stack.rows, stack.cols};
      }
      for (const Part& part : stack.parts) {
        weights.parameters += static_cast<size_t>(part.binding->rows * std::max<int64_t>(1, part.binding->cols));
      }
    }
  }

 private:
  // q, k, v; of each expert gate, then up.
  int64_t dest_row(const TensorBinding& binding) const {
    if (binding.layer < 0) return 0;
    const LayerSpec& layer = spec_.layers[static_cast<size_t>(binding.layer)];
    const int64_t q = int64_t{layer.attention.num_heads} * layer.attention.head_dim;
    const int64_t kv = int64_t{layer.attention.num_kv_heads} * layer.attention.head_dim;
    const int64_t inner = layer.ffn.intermediate;
    const int64_t expert = std::max(binding.expert, 0);
    const int64_t of_expert = expert * inner * (layer.ffn.gated ? 2 : 1);
    switch (binding.role) {
      case TensorRole::k:
      case TensorRole::k_bias:
        return q;
      case TensorRole::v:
      case TensorRole::v_bias:
        return q + kv;
      case TensorRole::gate:
        return of_expert;
      case TensorRole::up:
        return of_expert + (layer.ffn.gated ? inner : 0);
      case TensorRole::up_bias:
        return layer.ffn.gated ? inner : 0;
      case TensorRole::down:
        return expert * spec_.hidden_size;
      default:
        return 0;
    }
  }

  const DecoderSpec& spec_;
  std::map<std::pair<int32_t, TensorRole>, Stack> stacks_;
  int64_t bytes_ = 0;
};

// Rows [begin, end) of a part, as they lie on the device.
struct Piece {
  const Stack* stack = nullptr;
  const Part* part = nullptr;
  int64_t begin = 0;
  int64_t end = 0;
};

std::vector<Piece> cut(const Layout& layout) {
  std::vector<Piece> pieces;
  for (const auto& [key, stack] : layout.stacks()) {
    const int64_t step = std::max<int64_t>(1, static_cast<int64_t>(kStagingBytes) / stack.row_bytes());
    for (const Part& part : stack.parts) {
      for (int64_t row = 0; row < part.binding->rows; row += step) {
        pieces.push_back({&stack, &part, row, std::min(part.binding->rows, row + step)});
      }
    }
  }
  return pieces;
}

void write_value(std::byte* row, DType dtype, int64_t i, float value) {
  if (dtype == DType::bf16) {
    reinterpret_cast<uint16_t*>(row)[i] = f32_to_bf16(value);
  } else if (dtype == DType::f16) {
    reinterpret_cast<uint16_t*>(row)[i] = f32_to_f16(value);
  } else {
    reinterpret_cast<float*>(row)[i] = value;
  }
}

// The source as it is stored, into rows of the device's stride.
void fill_staging(const Piece& piece, std::byte* out) {
  const Stack& stack = *piece.stack;
  const TensorBinding& from = *piece.part->binding;
  const SafetensorsTensor& tensor = *piece.part->tensor;
  const int64_t row_bytes = stack.row_bytes();
  const int64_t cols = std::max<int64_t>(1, stack.cols);
  const int64_t size = static_cast<int64_t>(dtype_size(tensor.dtype));
  const bool plain = !from.transposed && tensor.dtype == stack.dtype;
  if (plain && cols * size == row_bytes) {
    std::memcpy(out, tensor.bytes.data() + (from.row_begin + piece.begin) * row_bytes,
                static_cast<size_t>((piece.end - piece.begin) * row_bytes));
    return;
  }
  std::memset(out, 0, static_cast<size_t>((piece.end - piece.begin) * row_bytes));
  for (int64_t r = piece.begin; r < piece.end; ++r) {
    std::byte* row = out + (r - piece.begin) * row_bytes;
    const int64_t source = from.row_begin + r;
    if (plain) {
      std::memcpy(row, tensor.bytes.data() + source * cols * size, static_cast<size_t>(cols * size));
      continue;
    }
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t at = from.transposed ? c * from.source_rows + source : source * cols + c;
      write_value(row, stack.dtype, c, read_value(tensor, at));
    }
  }
}

// One thread's way of getting pieces to the device: two pinned buffers in turn.
class Courier {
 public:
  static Result<std::unique_ptr<Courier>> make(const DeviceLoad& load) {
    auto courier = std::make_unique<Courier>();
    courier->device_ = load.device;
    ASSIGN_OR_RETURN(courier->stream_, Stream::create(load.device));
    for (Half& half : courier->halves_) {
      ASSIGN_OR_RETURN(half.buffer, PinnedBuffer::allocate(load.device, *load.host, load.model, kStagingBytes));
      ASSIGN_OR_RETURN(half.copied, Event::create(load.device));
    }
    return courier;
  }
  ~Courier() { (void)stream_.synchronize(); }  // after an error, copies may still read the buffers

  Status send(const Piece& piece, std::byte* base) {
    Half& half = halves_[next_++ % halves_.size()];
    if (half.busy) RETURN_IF_ERROR(half.copied.synchronize());
    const int64_t row_bytes = piece.stack->row_bytes();
    const auto bytes = static_cast<size_t>((piece.end - piece.begin) * row_bytes);
    // A row wider than the buffer goes in parts; none is in practice, and it is refused rather than cut short.
    if (bytes > half.buffer.size()) return make_error(ErrorCode::unsupported, "a weight row of more than 8 MiB");
    fill_staging(piece, half.buffer.data());
    const int64_t to = piece.stack->offset + (piece.part->dest_row + piece.begin) * row_bytes;
    RETURN_IF_ERROR(device_->make_current());
    RETURN_IF_ERROR(device_->check(device_->driver().copy_to_device(reinterpret_cast<CuPointer>(base + to),
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
  std::vector<Piece> pieces;
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

size_t piece_bytes(const Piece& piece) {
  return static_cast<size_t>((piece.end - piece.begin) * piece.stack->row_bytes());
}

void work_through(Work& work, const DeviceLoad& load, bool reports) {
  Result<std::unique_ptr<Courier>> courier = Courier::make(load);
  if (!courier.ok()) return work.fail(courier.error());
  for (size_t i = 0; !work.failed && (i = work.next.fetch_add(1)) < work.pieces.size();) {
    if (Status sent = (*courier)->send(work.pieces[i], work.base); !sent.ok()) return work.fail(std::move(sent));
    work.done += piece_bytes(work.pieces[i]);
    if (!reports || !load.progress) continue;
    if (Status wanted = load.progress({"copying weights", work.done, work.total}); !wanted.ok()) {
      return work.fail(std::move(wanted));
    }
  }
  if (Status finished = (*courier)->finish(); !finished.ok()) work.fail(std::move(finished));
}

}  // namespace

Result<DeviceWeightPlan> plan_device_weights(const DecoderSpec& spec, const Checkpoint& headers) {
  RETURN_IF_ERROR(plan_weights(spec, headers, Quantization::none));  // all that can be wrong with them
  const Layout layout(spec, &headers, DType::f32);
  return DeviceWeightPlan{layout.bytes(), layout.layer_dtype()};
}

Result<DeviceWeights> load_device_weights(const DecoderSpec& spec, const Checkpoint& checkpoint,
                                          const DeviceLoad& load) {
  RETURN_IF_ERROR(plan_weights(spec, checkpoint, Quantization::none));
  const Layout layout(spec, &checkpoint, DType::f32);
  DeviceWeights weights;
  ASSIGN_OR_RETURN(weights.memory, DeviceBuffer::allocate(load.device, *load.ledger, load.model, MemoryPurpose::weights,
                                                          layout.bytes()));
  layout.place(weights);
  Work work;
  work.pieces = cut(layout);
  work.base = weights.memory.data();
  for (const Piece& piece : work.pieces) work.total += piece_bytes(piece);
  std::vector<std::thread> helpers;
  const auto most = static_cast<int>(work.total / kStagingBytes);
  for (int i = 1; i < std::min(load.num_threads, most); ++i) {
    helpers.emplace_back([&] { work_through(work, load, false); });
  }
  work_through(work, load, true);
  for (std::thread& helper : helpers) helper.join();
  RETURN_IF_ERROR(work.status);
  if (checkpoint.truncated()) {
    return make_error(ErrorCode::malformed,
                      "a weight file was cut short while it was being read; load the model again once its files are "
                      "complete");
  }
  if (load.progress) RETURN_IF_ERROR(load.progress({"copying weights", work.total, work.total}));
  return weights;
}

Result<DeviceWeights> random_device_weights(const DecoderSpec& spec, DType dtype, const DeviceLoad& load) {
  const Layout layout(spec, nullptr, dtype);
  DeviceWeights weights;
  ASSIGN_OR_RETURN(weights.memory, DeviceBuffer::allocate(load.device, *load.ledger, load.model, MemoryPurpose::weights,
                                                          layout.bytes()));
  layout.place(weights);
  ASSIGN_OR_RETURN(const Stream stream, Stream::create(load.device));
  Ops ops(*load.device, {.stream = stream.get()});
  uint64_t seed = 1;
  for (const auto& [key, stack] : layout.stacks()) {
    const bool vector = stack.cols == 0;
    const int64_t cols = vector ? 1 : padded_cols(stack.cols);
    // Norm weights near one; matrices as wide as keeps a vector's size.
    const float range = vector ? 1.0F : 1.7F / std::sqrt(static_cast<float>(stack.cols));
    const Elem elem = vector ? Elem::f32 : elem_of(stack.dtype);
    RETURN_IF_ERROR(ops.fill({weights.memory.data() + stack.offset, stack.rows * cols, seed++ << 32, range, elem}));
  }
  RETURN_IF_ERROR(stream.synchronize());
  return weights;
}

}  // namespace inferneo::cuda
