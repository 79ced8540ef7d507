// Tensors as the Open Inference Protocol (KServe's v2) writes them in JSON: names of types, shapes, lists of numbers.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "server/json.h"
#include "server/json_writer.h"
#include "tensor/named_tensor.h"

namespace inferneo {

std::string_view kserve_type_name(TensorType type);  // "FP32"
std::optional<TensorType> kserve_type(std::string_view name);

// One of a request's inputs: {"name", "shape", "datatype", "data"}, its data one list of numbers, row by row, or nested
// as the shape says. `room`: bytes that a request's tensors may still have. Errors: invalid_argument and
// payload_too_large, naming the field.
Result<NamedTensor> read_tensor(const Json& json, const std::string& where, size_t& room);

// {"name", "shape", "datatype", "data": one list}. What is no number is null.
void write_tensor(JsonWriter& json, const NamedTensor& tensor);

void write_ports(JsonWriter& json, const std::vector<TensorPort>& ports);  // [{"name", "datatype", "shape"}]

}  // namespace inferneo
