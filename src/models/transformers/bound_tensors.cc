#include "models/transformers/bound_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

namespace inferneo {
namespace {

bool is_loadable(DType dtype) { return dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16; }

bool has_suffix(const std::string& name, const std::vector<std::string>& suffixes) {
  return std::any_of(suffixes.begin(), suffixes.end(), [&](const std::string& s) { return name.ends_with(s); });
}

const SafetensorsTensor* find_tensor(const DecoderSpec& spec, const Checkpoint& checkpoint,
                                     const TensorBinding& binding) {
  if (const SafetensorsTensor* tensor = checkpoint.find(binding.name)) return tensor;
  if (spec.optional_prefix.empty() || !binding.name.starts_with(spec.optional_prefix)) return nullptr;
  return checkpoint.find(std::string_view(binding.name).substr(spec.optional_prefix.size()));
}

Status check_tensor(const DecoderSpec& spec, const TensorBinding& binding, const SafetensorsTensor* tensor) {
  if (tensor == nullptr) {
    return make_error(ErrorCode::malformed,
                      fmt::format("the checkpoint has no tensor {}, which {} needs", binding.name, spec.architecture));
  }
  if (!is_loadable(tensor->dtype)) {
    return make_error(ErrorCode::unsupported, fmt::format("tensor {} is of type {}; f32, f16 and bf16 can be loaded",
                                                          tensor->name, dtype_name(tensor->dtype)));
  }
  std::vector<int64_t> shape{binding.source_rows};
  if (binding.cols > 0) shape.push_back(binding.cols);
  if (binding.transposed) std::reverse(shape.begin(), shape.end());
  if (tensor->shape != shape) {
    return make_error(ErrorCode::malformed,
                      fmt::format("tensor {} has shape [{}]; config.json makes it [{}]", tensor->name,
                                  fmt::join(tensor->shape, ", "), fmt::join(shape, ", ")));
  }
  return ok_status();
}

Status check_surplus(const DecoderSpec& spec, const Checkpoint& checkpoint,
                     const std::vector<const SafetensorsTensor*>& bound) {
  const std::set<const SafetensorsTensor*> used(bound.begin(), bound.end());
  for (const SafetensorsTensor* tensor : checkpoint.tensors()) {
    if (used.contains(tensor) || has_suffix(tensor->name, spec.ignored_suffixes)) continue;
    return make_error(ErrorCode::malformed,
                      fmt::format("the checkpoint has a tensor {}, which {} with this config.json "
                                  "does not use",
                                  tensor->name, spec.architecture));
  }
  return ok_status();
}

}  // namespace

Result<std::vector<const SafetensorsTensor*>> bind_tensors(const DecoderSpec& spec, const Checkpoint& checkpoint) {
  std::vector<const SafetensorsTensor*> bound;
  bound.reserve(spec.tensors.size());
  for (const TensorBinding& binding : spec.tensors) {
    bound.push_back(find_tensor(spec, checkpoint, binding));
    RETURN_IF_ERROR(check_tensor(spec, binding, bound.back()));
  }
  RETURN_IF_ERROR(check_surplus(spec, checkpoint, bound));
  return bound;
}

kernels::WeightView source_view(const TensorBinding& binding, const SafetensorsTensor& tensor) {
  return {.data = tensor.bytes.data(),
          .dtype = tensor.dtype,
          .rows = binding.source_rows,
          .cols = binding.cols,
          .row_stride = binding.transposed ? 1 : binding.cols,
          .col_stride = binding.transposed ? binding.source_rows : 1};
}

float read_element(const SafetensorsTensor& tensor, int64_t i) {
  const std::byte* data = tensor.bytes.data();
  switch (tensor.dtype) {
    case DType::bf16:
      return bf16_to_f32(reinterpret_cast<const uint16_t*>(data)[i]);
    case DType::f16:
      return f16_to_f32(reinterpret_cast<const uint16_t*>(data)[i]);
    default:
      return reinterpret_cast<const float*>(data)[i];
  }
}

}  // namespace inferneo
