// Whether a call's tensors are what a graph takes. Pure. Errors: invalid_argument, naming the tensor with what it is
// and what it should be.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "models/graph_runner.h"

namespace inferneo {

std::string_view tensor_type_name(TensorType type);             // "float32"
std::string tensor_shape_text(std::span<const int64_t> shape);  // "[?, 8]"

// Elements of a shape whose dimensions are not negative; none: more than any memory has.
std::optional<size_t> tensor_elements(std::span<const int64_t> shape);

Status check_call(const GraphSpec& spec, const TensorCall& call);

}  // namespace inferneo
