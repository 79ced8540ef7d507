#include "engine/tensor_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace inferneo {
namespace {

constexpr size_t kMaxShownName = 128;

std::string described(const TensorPort& port) {
  return fmt::format("{} {}", tensor_type_name(port.type), tensor_shape_text(port.shape));
}

const TensorPort* find_port(const std::vector<TensorPort>& ports, std::string_view name) {
  const auto found = std::ranges::find(ports, name, &TensorPort::name);
  return found == ports.end() ? nullptr : &*found;
}

std::string names_of(const std::vector<TensorPort>& ports) {
  constexpr size_t kShown = 16;
  std::vector<std::string_view> names;
  for (const TensorPort& port : ports) names.push_back(port.name);
  const bool more = names.size() > kShown;
  if (more) names.resize(kShown);
  return fmt::format("{}{}", fmt::join(names, ", "), more ? ", ..." : "");
}

Error wrong(std::string_view what, std::string_view name, std::string_view problem) {
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("{} '{}' {}", what, name.substr(0, kMaxShownName), problem), "inputs");
}

bool fits(std::span<const int64_t> wanted, std::span<const int64_t> given) {
  return std::equal(wanted.begin(), wanted.end(), given.begin(), given.end(),
                    [](int64_t want, int64_t have) { return want < 0 || want == have; });
}

Status check_input(const GraphSpec& spec, const NamedTensor& tensor) {
  const TensorPort* const port = find_port(spec.inputs, tensor.name);
  if (port == nullptr) {
    return wrong("input", tensor.name, fmt::format("is none of this model's: {}", names_of(spec.inputs)));
  }
  if (tensor.type != port->type || !fits(port->shape, tensor.shape)) {
    return wrong("input", tensor.name,
                 fmt::format("is {} {}, and the model takes {}", tensor_type_name(tensor.type),
                             tensor_shape_text(tensor.shape), described(*port)));
  }
  const std::optional<size_t> elements = tensor_elements(tensor.shape);
  if (!elements || *elements > kMaxCallBytes || *elements * tensor_type_bytes(tensor.type) != tensor.data.size()) {
    return wrong("input", tensor.name,
                 fmt::format("has {} bytes, and a shape {} of {}", tensor.data.size(), tensor_shape_text(tensor.shape),
                             tensor_type_name(tensor.type)));
  }
  // Beside a size of 0 any other fits, and a library's arithmetic need not.
  if (std::any_of(tensor.shape.begin(), tensor.shape.end(), [](int64_t size) { return size > INT32_MAX; })) {
    return wrong("input", tensor.name, fmt::format("has a size beyond {}", INT32_MAX));
  }
  return ok_status();
}

}  // namespace

std::string_view tensor_type_name(TensorType type) {
  switch (type) {
    case TensorType::boolean:
      return "bool";
    case TensorType::uint8:
      return "uint8";
    case TensorType::uint16:
      return "uint16";
    case TensorType::uint32:
      return "uint32";
    case TensorType::uint64:
      return "uint64";
    case TensorType::int8:
      return "int8";
    case TensorType::int16:
      return "int16";
    case TensorType::int32:
      return "int32";
    case TensorType::int64:
      return "int64";
    case TensorType::float16:
      return "float16";
    case TensorType::float32:
      return "float32";
    case TensorType::float64:
      break;
  }
  return "float64";
}

std::string tensor_shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t dimension : shape) {
    if (text.size() > 1) text += ", ";
    text += dimension < 0 ? std::string("?") : std::to_string(dimension);
  }
  return text + "]";
}

std::optional<size_t> tensor_elements(std::span<const int64_t> shape) {
  size_t elements = 1;
  for (const int64_t dimension : shape) {
    if (dimension < 0 || __builtin_mul_overflow(elements, static_cast<size_t>(dimension), &elements)) {
      return std::nullopt;
    }
  }
  return elements;
}

Status check_call(const GraphSpec& spec, const TensorCall& call) {
  size_t bytes = 0;
  for (size_t i = 0; i < call.inputs.size(); ++i) {
    const NamedTensor& tensor = call.inputs[i];
    RETURN_IF_ERROR(check_input(spec, tensor));
    for (size_t j = 0; j < i; ++j) {
      if (call.inputs[j].name == tensor.name) return wrong("input", tensor.name, "is given twice");
    }
    bytes += tensor.data.size();
  }
  for (const TensorPort& port : spec.inputs) {
    if (std::ranges::find(call.inputs, port.name, &NamedTensor::name) == call.inputs.end()) {
      return wrong("input", port.name, fmt::format("({}) is missing", described(port)));
    }
  }
  for (size_t i = 0; i < call.outputs.size(); ++i) {
    const std::string& name = call.outputs[i];
    if (find_port(spec.outputs, name) == nullptr) {
      return wrong("output", name, fmt::format("is none of this model's: {}", names_of(spec.outputs)));
    }
    if (std::find(call.outputs.begin(), call.outputs.begin() + static_cast<std::ptrdiff_t>(i), name) !=
        call.outputs.begin() + static_cast<std::ptrdiff_t>(i)) {
      return wrong("output", name, "is asked for twice");
    }
  }
  if (bytes > kMaxCallBytes) {
    return make_error(ErrorCode::payload_too_large,
                      fmt::format("the inputs have {} bytes together, and {} are allowed", bytes, kMaxCallBytes));
  }
  return ok_status();
}

}  // namespace inferneo
