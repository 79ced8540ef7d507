#include "models/transformers/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "formats/content_key.h"
#include "models/transformers/bound_tensors.h"

namespace inferneo {
namespace {

using kernels::kPanelRows;
using kernels::PackedMatrix;
using kernels::PackedView;
using kernels::WeightView;

constexpr size_t kTaskBytes = size_t{1} << 20;    // of the checkpoint, packed by one thread at a time
constexpr size_t kRoundBytes = size_t{64} << 20;  // between two calls of the progress callback
constexpr int64_t kAlignment = 4096;              // of a matrix

// What quantize_row() makes of the same weights; files of packed weights made by another version are not used.
constexpr int kQuantizerVersion = 1;

}  // namespace

TensorRole stack_of(TensorRole role) {
  switch (role) {
    case TensorRole::k:
    case TensorRole::v:
      return TensorRole::q;
    case TensorRole::up:
      return TensorRole::gate;
    default:
      return role;
  }
}

WeightFormat kept_format(Quantization quantization, TensorRole role, DType dtype, int64_t rows, int64_t cols) {
  const WeightFormat plain(dtype);
  if (quantization == Quantization::none) return plain;
  if (role == TensorRole::router || role == TensorRole::position_embedding) return plain;
  const bool sensitive = role == TensorRole::token_embedding || role == TensorRole::lm_head;
  const QuantScheme layers = quantization == Quantization::int4  ? kInt4
                             : quantization == Quantization::fp8 ? kFp8
                                                                 : kInt8;
  const WeightFormat wanted(sensitive ? kInt8 : layers);
  return PackedMatrix::bytes(wanted, rows, cols) < PackedMatrix::bytes(plain, rows, cols) ? wanted : plain;
}

Error not_finite_error(const std::string& tensor, Quantization quantization) {
  return make_error(ErrorCode::unsupported,
                    fmt::format("tensor {} has values that are not finite, which {} cannot hold; load the model with "
                                "quantization none",
                                tensor, quantization_name(quantization)),
                    "quantization");
}

// One load: plan (names, shapes, sizes), allocate, pack.
class WeightLoader {
 public:
  WeightLoader(const DecoderSpec& spec, const Checkpoint& checkpoint, Quantization quantization)
      : spec_(spec), checkpoint_(checkpoint), quantization_(quantization) {
    weights_.layers.resize(spec.layers.size());
  }

  Status plan();
  WeightLayout layout() const;
  Status allocate(MemoryLedger& ledger, const std::string& model);
  Status attach(std::shared_ptr<const MappedFile> mapping, std::span<const std::span<const std::byte>> sections);
  Status pack(ThreadPool& pool, const LoadProgressCallback& progress);
  ModelWeights take() { return std::move(weights_); }

 private:
  struct Part {
    const TensorBinding* binding = nullptr;
    const SafetensorsTensor* tensor = nullptr;
    int64_t dest_row = 0;  // within the stack; of a vector: its offset among all vectors
  };
  struct Stack {
    DType dtype = DType::f32;  // of the checkpoint
    WeightFormat format;       // packed
    int64_t rows = 0;
    int64_t cols = 0;
    std::vector<Part> parts;
    size_t storage = 0;  // index into matrices

    size_t bytes() const { return PackedMatrix::bytes(format, rows, cols); }
  };
  struct Task {
    const Stack* stack = nullptr;
    const Part* part = nullptr;
    int64_t begin = 0;  // rows of the binding
    int64_t end = 0;
  };

  void add_matrix(const TensorBinding& binding, const SafetensorsTensor* tensor);
  std::vector<Task> make_tasks() const;
  void pack_task(const Task& task);
  Status check_packed() const;
  void fill_vectors();
  void add_views(const std::pair<int32_t, TensorRole>& key, Stack& stack, PackedMatrix matrix);
  void add_vectors(const float* base);
  size_t vector_bytes() const { return std::max<size_t>(static_cast<size_t>(vector_elements_) * sizeof(float), 64); }
  WeightSet& set_of(const TensorBinding& binding) {
    return binding.layer < 0 ? weights_.ends : weights_.layers[static_cast<size_t>(binding.layer)];
  }

  const DecoderSpec& spec_;
  const Checkpoint& checkpoint_;
  Quantization quantization_;
  std::map<std::pair<int32_t, TensorRole>, Stack> stacks_;  // by layer and first role
  std::vector<Part> vectors_;
  int64_t vector_elements_ = 0;
  float* vector_memory_ = nullptr;             // allocated, not mapped
  std::atomic<const Part*> refused_{nullptr};  // one that has values which cannot be quantised
  ModelWeights weights_;
};

void WeightLoader::add_matrix(const TensorBinding& binding, const SafetensorsTensor* tensor) {
  Stack& stack = stacks_[{binding.layer, stack_of(binding.role)}];
  // Routers decide: their inputs are not rounded to bf16. Parts of unlike types meet in f32.
  const DType dtype = binding.role == TensorRole::router ? DType::f32 : tensor->dtype;
  if (stack.parts.empty()) stack.dtype = dtype;
  if (stack.dtype != dtype) stack.dtype = DType::f32;
  stack.cols = binding.cols;
  stack.parts.push_back({&binding, tensor, stack.rows});
  stack.rows += kernels::round_up(binding.rows, kPanelRows);
}

Status WeightLoader::plan() {
  ASSIGN_OR_RETURN(const std::vector<const SafetensorsTensor*> bound, bind_tensors(spec_, checkpoint_));
  for (size_t i = 0; i < bound.size(); ++i) {
    const TensorBinding& binding = spec_.tensors[i];
    const SafetensorsTensor* tensor = bound[i];
    if (binding.cols > 0) {
      add_matrix(binding, tensor);
    } else {
      vectors_.push_back({&binding, tensor, vector_elements_});
      vector_elements_ += kernels::round_up(binding.rows, 16);
    }
  }
  for (auto& [key, stack] : stacks_) {
    stack.format = kept_format(quantization_, key.second, stack.dtype, stack.rows, stack.cols);
  }
  return ok_status();
}

WeightLayout WeightLoader::layout() const {
  WeightLayout layout;
  std::string parts;  // many, for models of many experts: only their hash is kept
  const auto describe = [&](const Part& part) {
    const TensorBinding& from = *part.binding;
    parts += fmt::format("{} {} {} {} {} {} {} {} {} {} {}\n", from.layer, static_cast<int>(from.role), from.expert,
                         part.tensor->name, dtype_name(part.tensor->dtype), from.row_begin, from.rows, from.source_rows,
                         from.cols, from.transposed, part.dest_row);
  };
  for (const auto& [key, stack] : stacks_) {
    for (const Part& part : stack.parts) describe(part);
    layout.section_bytes.push_back(stack.bytes());
    layout.text += fmt::format("matrix {} {} {}\n", weight_format_name(stack.format), stack.rows, stack.cols);
  }
  for (const Part& part : vectors_) describe(part);
  layout.section_bytes.push_back(vector_bytes());
  if (quantization_ != Quantization::none) layout.text += fmt::format("quantizer {}\n", kQuantizerVersion);
  layout.text += fmt::format("vectors {}\nparts {}\n", vector_elements_, hash_text(parts));
  return layout;
}

void WeightLoader::add_views(const std::pair<int32_t, TensorRole>& key, Stack& stack, PackedMatrix matrix) {
  weights_.bytes += matrix.size_bytes();
  stack.storage = weights_.matrices.size();
  weights_.matrices.push_back(std::move(matrix));
  const PackedView& whole = weights_.matrices.back().view();
  for (const Part& part : stack.parts) {
    auto& views = set_of(*part.binding).matrices_[static_cast<size_t>(part.binding->role)];
    const auto expert = static_cast<size_t>(std::max(part.binding->expert, 0));
    if (views.size() <= expert) views.resize(expert + 1);
    views[expert] = {whole.panel(part.dest_row / kPanelRows), whole.dtype, part.binding->rows, stack.cols,
                     whole.scheme};
    weights_.parameters += static_cast<size_t>(part.binding->rows * stack.cols);
  }
  if (key.second == TensorRole::attention_output) {
    weights_.dtype = stack.dtype;
    weights_.format = stack.format;
  }
}

void WeightLoader::add_vectors(const float* base) {
  weights_.vectors = base;
  weights_.vector_bytes = vector_bytes();
  weights_.bytes += static_cast<size_t>(vector_elements_) * sizeof(float);
  for (const Part& part : vectors_) {
    weights_.parameters += static_cast<size_t>(part.binding->rows);
    set_of(*part.binding).vectors_[static_cast<size_t>(part.binding->role)] = base + part.dest_row;
  }
}

// In one piece, so that the matrices of a small model lie in huge pages as well, and one that is a little larger than a
// huge page takes no second one.
Status WeightLoader::allocate(MemoryLedger& ledger, const std::string& model) {
  size_t end = 0;
  const auto place_behind = [&end](size_t bytes) {
    return std::exchange(end, static_cast<size_t>(kernels::round_up(static_cast<int64_t>(end + bytes), kAlignment)));
  };
  std::vector<size_t> places;
  for (const auto& [key, stack] : stacks_) places.push_back(place_behind(stack.bytes()));
  const size_t vectors_at = place_behind(vector_bytes());
  ASSIGN_OR_RETURN(weights_.storage, Buffer::allocate(ledger, model, MemoryPurpose::packed_weights, end));
  size_t next = 0;
  for (auto& [key, stack] : stacks_) {
    const std::span<std::byte> memory(weights_.storage.data() + places[next++], stack.bytes());
    ASSIGN_OR_RETURN(PackedMatrix matrix, PackedMatrix::within(memory, stack.format, stack.rows, stack.cols));
    add_views(key, stack, std::move(matrix));
  }
  vector_memory_ = reinterpret_cast<float*>(weights_.storage.data() + vectors_at);
  add_vectors(vector_memory_);
  return ok_status();
}

Status WeightLoader::attach(std::shared_ptr<const MappedFile> mapping,
                            std::span<const std::span<const std::byte>> sections) {
  if (sections.size() != stacks_.size() + 1 || sections.back().size() != vector_bytes()) {
    return make_error(ErrorCode::malformed, "packed weights with other sections than the model has");
  }
  size_t next = 0;
  for (auto& [key, stack] : stacks_) {
    ASSIGN_OR_RETURN(PackedMatrix matrix,
                     PackedMatrix::from_memory(sections[next++], stack.format, stack.rows, stack.cols));
    add_views(key, stack, std::move(matrix));
  }
  add_vectors(reinterpret_cast<const float*>(sections.back().data()));
  weights_.mapping = std::move(mapping);
  return ok_status();
}

std::vector<WeightLoader::Task> WeightLoader::make_tasks() const {
  std::vector<Task> tasks;
  for (const auto& [key, stack] : stacks_) {
    for (const Part& part : stack.parts) {
      const size_t row_bytes = static_cast<size_t>(stack.cols) * dtype_size(part.tensor->dtype);
      const int64_t step =
          kernels::round_up(std::max<int64_t>(1, static_cast<int64_t>(kTaskBytes / row_bytes)), kPanelRows);
      for (int64_t row = 0; row < part.binding->rows; row += step) {
        tasks.push_back({&stack, &part, row, std::min(part.binding->rows, row + step)});
      }
    }
  }
  return tasks;
}

void WeightLoader::pack_task(const Task& task) {
  const TensorBinding& binding = *task.part->binding;
  const WeightView source = source_view(binding, *task.part->tensor);
  const int64_t refused = weights_.matrices[task.stack->storage].pack(
      source, binding.row_begin + task.begin, binding.row_begin + task.end, task.part->dest_row + task.begin);
  if (refused > 0) refused_ = task.part;
}

Status WeightLoader::check_packed() const {
  if (checkpoint_.truncated()) {
    return make_error(ErrorCode::malformed,
                      "a weight file was cut short while it was being read; load the model again "
                      "once its files are complete");
  }
  if (const Part* part = refused_) return not_finite_error(part->tensor->name, quantization_);
  return ok_status();
}

void WeightLoader::fill_vectors() {
  for (const Part& part : vectors_) {
    float* out = vector_memory_ + part.dest_row;
    for (int64_t i = 0; i < part.binding->rows; ++i) out[i] = read_element(*part.tensor, part.binding->row_begin + i);
  }
}

Status WeightLoader::pack(ThreadPool& pool, const LoadProgressCallback& progress) {
  const std::vector<Task> tasks = make_tasks();
  LoadProgress state{"packing weights", 0, 0};
  const auto bytes_of = [](const Task& task) {
    return static_cast<size_t>((task.end - task.begin) * task.stack->cols) * dtype_size(task.part->tensor->dtype);
  };
  for (const Task& task : tasks) state.bytes_total += bytes_of(task);
  fill_vectors();
  ThreadPool::Client turns(pool);
  for (size_t first = 0; first < tasks.size();) {
    size_t last = first;
    size_t bytes = 0;
    while (last < tasks.size() && bytes < kRoundBytes) bytes += bytes_of(tasks[last++]);
    {
      // A turn per round: models that serve go on serving while this one loads.
      ThreadPool::Session session(turns);
      session.for_chunks(static_cast<int64_t>(last - first),
                         [&](int64_t chunk, int) { pack_task(tasks[first + static_cast<size_t>(chunk)]); });
    }
    RETURN_IF_ERROR(check_packed());
    state.bytes_done += bytes;
    if (progress) RETURN_IF_ERROR(progress(state));
    first = last;
  }
  return ok_status();
}

std::vector<std::span<const std::byte>> ModelWeights::sections() const {
  std::vector<std::span<const std::byte>> sections;
  for (const PackedMatrix& matrix : matrices) sections.emplace_back(matrix.view().data, matrix.size_bytes());
  sections.emplace_back(reinterpret_cast<const std::byte*>(vectors), vector_bytes);
  return sections;
}

Result<WeightLayout> plan_weights(const DecoderSpec& spec, const Checkpoint& headers, Quantization quantization) {
  WeightLoader loader(spec, headers, quantization);
  RETURN_IF_ERROR(loader.plan());
  return loader.layout();
}

Result<ModelWeights> map_weights(const DecoderSpec& spec, const Checkpoint& headers, Quantization quantization,
                                 std::shared_ptr<const MappedFile> mapping,
                                 std::span<const std::span<const std::byte>> sections) {
  WeightLoader loader(spec, headers, quantization);
  RETURN_IF_ERROR(loader.plan());
  RETURN_IF_ERROR(loader.attach(std::move(mapping), sections));
  return loader.take();
}

Result<ModelWeights> allocate_weights(const DecoderSpec& spec, const Checkpoint& checkpoint, Quantization quantization,
                                      MemoryLedger& ledger, const std::string& model) {
  WeightLoader loader(spec, checkpoint, quantization);
  RETURN_IF_ERROR(loader.plan());
  RETURN_IF_ERROR(loader.allocate(ledger, model));
  return loader.take();
}

Result<ModelWeights> load_weights(const DecoderSpec& spec, const Checkpoint& checkpoint, Quantization quantization,
                                  MemoryLedger& ledger, const std::string& model, ThreadPool& pool,
                                  const LoadProgressCallback& progress) {
  WeightLoader loader(spec, checkpoint, quantization);
  RETURN_IF_ERROR(loader.plan());
  RETURN_IF_ERROR(loader.allocate(ledger, model));
  RETURN_IF_ERROR(loader.pack(pool, progress));
  return loader.take();
}

}  // namespace inferneo
