#include "server/kserve/tensor_json.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

#include "server/json_fields.h"
#include "server/json_object.h"
#include "tensor/dtype.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTensorName = 512;

struct TypeName {
  TensorType type;
  std::string_view name;
};
constexpr std::array kTypeNames = {TypeName{TensorType::boolean, "BOOL"},  TypeName{TensorType::uint8, "UINT8"},
                                   TypeName{TensorType::uint16, "UINT16"}, TypeName{TensorType::uint32, "UINT32"},
                                   TypeName{TensorType::uint64, "UINT64"}, TypeName{TensorType::int8, "INT8"},
                                   TypeName{TensorType::int16, "INT16"},   TypeName{TensorType::int32, "INT32"},
                                   TypeName{TensorType::int64, "INT64"},   TypeName{TensorType::float16, "FP16"},
                                   TypeName{TensorType::float32, "FP32"},  TypeName{TensorType::float64, "FP64"}};

// A float16, which C++ has no type for.
struct Half {
  uint16_t bits = 0;
};

// Calls `visit` with a value of the C++ type that holds the elements.
template <typename Visit>
auto with_type(TensorType type, Visit visit) {
  switch (type) {
    case TensorType::boolean:
      return visit(bool{});
    case TensorType::uint8:
      return visit(uint8_t{});
    case TensorType::uint16:
      return visit(uint16_t{});
    case TensorType::uint32:
      return visit(uint32_t{});
    case TensorType::uint64:
      return visit(uint64_t{});
    case TensorType::int8:
      return visit(int8_t{});
    case TensorType::int16:
      return visit(int16_t{});
    case TensorType::int32:
      return visit(int32_t{});
    case TensorType::int64:
      return visit(int64_t{});
    case TensorType::float16:
      return visit(Half{});
    case TensorType::float32:
      return visit(float{});
    case TensorType::float64:
      break;
  }
  return visit(double{});
}

// False: it is none of that type, or out of its range.
bool read_element(const Json& json, bool& value) {
  if (!json.is_boolean()) return false;
  value = json.get<bool>();
  return true;
}
bool read_element(const Json& json, double& value) {
  if (!json.is_number()) return false;
  value = json.get<double>();
  return std::isfinite(value);
}
bool read_element(const Json& json, float& value) {
  double wide = 0.0;
  if (!read_element(json, wide)) return false;
  value = static_cast<float>(wide);
  return std::isfinite(value);
}
bool read_element(const Json& json, Half& value) {
  float wide = 0.0F;
  if (!read_element(json, wide)) return false;
  value.bits = f32_to_f16(wide);
  return std::isfinite(f16_to_f32(value.bits));
}
template <typename Integer>
requires(std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>) bool read_element(const Json& json,
                                                                                          Integer& value) {
  if (json.is_number_unsigned()) {
    const auto wide = json.get<uint64_t>();
    value = static_cast<Integer>(wide);
    return std::cmp_less_equal(wide, std::numeric_limits<Integer>::max());
  }
  if (!json.is_number_integer()) return false;
  const auto wide = json.get<int64_t>();
  value = static_cast<Integer>(wide);
  return std::cmp_greater_equal(wide, std::numeric_limits<Integer>::min()) &&
         std::cmp_less_equal(wide, std::numeric_limits<Integer>::max());
}

class DataReader {
 public:
  DataReader(NamedTensor& tensor, const std::string& where) : tensor_(tensor), where_(where) {}

  Status read(const Json& data, size_t elements) {
    if (!data.is_array()) return field_error(where_, "must be a list");
    tensor_.data.reserve(elements * tensor_type_bytes(tensor_.type));
    const bool nested = !data.empty() && data.front().is_array();
    if (nested) {
      RETURN_IF_ERROR(read_level(data, 0));
    } else {
      if (data.size() != elements) {
        return field_error(where_, fmt::format("has {} elements, and the shape is of {}", data.size(), elements));
      }
      RETURN_IF_ERROR(read_row(data));
    }
    return ok_status();
  }

 private:
  Status read_level(const Json& data, size_t axis) {
    const std::vector<int64_t>& shape = tensor_.shape;
    if (axis >= shape.size() || !data.is_array() || std::cmp_not_equal(data.size(), shape[axis])) {
      return field_error(where_, "is nested in another way than the shape says");
    }
    if (axis + 1 == shape.size()) return read_row(data);
    for (const Json& part : data) RETURN_IF_ERROR(read_level(part, axis + 1));
    return ok_status();
  }

  Status read_row(const Json& data) {
    return with_type(tensor_.type, [&](auto value) -> Status {
      for (const Json& element : data) {
        if (!read_element(element, value)) {
          return field_error(where_, fmt::format("holds a value that is no {}", kserve_type_name(tensor_.type)));
        }
        const auto* const bytes = reinterpret_cast<const std::byte*>(&value);
        tensor_.data.insert(tensor_.data.end(), bytes, bytes + sizeof(value));
      }
      return ok_status();
    });
  }

  NamedTensor& tensor_;
  const std::string& where_;
};

Result<std::vector<int64_t>> read_shape(const Json& json, const std::string& where) {
  if (!json.is_array() || json.size() > kMaxTensorRank) {
    return field_error(where, fmt::format("must be a list of at most {} sizes", kMaxTensorRank));
  }
  std::vector<int64_t> shape;
  for (const Json& size : json) {
    ASSIGN_OR_RETURN(const int64_t value, read_integer(size, where, 0, std::numeric_limits<int64_t>::max()));
    shape.push_back(value);
  }
  return shape;
}

// What this server has not: data outside the JSON.
Status refuse_parameters(const Json& json, const std::string& where) {
  const auto parameters = json.find("parameters");
  if (parameters == json.end() || !parameters->is_object()) return ok_status();
  for (const char* name : {"binary_data_size", "shared_memory_region"}) {
    if (parameters->contains(name)) {
      return make_error(
          ErrorCode::unsupported,
          fmt::format("{}.parameters.{}: tensors are taken as JSON alone; send their data in `data`", where, name));
    }
  }
  return ok_status();
}

void write_element(JsonWriter& json, bool value) { json.boolean(value); }
void write_element(JsonWriter& json, double value) { json.number(value); }
void write_element(JsonWriter& json, float value) { write_value(json, value); }
void write_element(JsonWriter& json, Half value) { write_value(json, f16_to_f32(value.bits)); }
template <typename Integer>
requires(std::is_integral_v<Integer> && !std::is_same_v<Integer, bool>) void write_element(JsonWriter& json,
                                                                                           Integer value) {
  if constexpr (std::is_same_v<Integer, uint64_t>) {
    json.raw(fmt::format("{}", value));
  } else {
    json.integer(static_cast<int64_t>(value));
  }
}

void write_shape(JsonWriter& json, const std::vector<int64_t>& shape) {
  json.key("shape").begin_array();
  for (const int64_t size : shape) json.integer(size);
  json.end_array();
}

}  // namespace

std::string_view kserve_type_name(TensorType type) {
  for (const TypeName& row : kTypeNames) {
    if (row.type == type) return row.name;
  }
  return "";
}

std::optional<TensorType> kserve_type(std::string_view name) {
  for (const TypeName& row : kTypeNames) {
    if (row.name == name) return row.type;
  }
  return std::nullopt;
}

Result<NamedTensor> read_tensor(const Json& json, const std::string& where, size_t& room) {
  if (!json.is_object()) return field_error(where, "must be an object with name, shape, datatype and data");
  RETURN_IF_ERROR(refuse_parameters(json, where));
  for (const char* name : {"name", "shape", "datatype", "data"}) {
    if (!json.contains(name)) return field_error(fmt::format("{}.{}", where, name), "is required");
  }
  NamedTensor tensor;
  ASSIGN_OR_RETURN(tensor.name, read_string(json["name"], where + ".name", kMaxTensorName));
  ASSIGN_OR_RETURN(const std::string type, read_string(json["datatype"], where + ".datatype", 64));
  const std::optional<TensorType> known = kserve_type(type);
  if (!known) {
    return field_error(where + ".datatype",
                       "must be BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32 or FP64");
  }
  tensor.type = *known;
  ASSIGN_OR_RETURN(tensor.shape, read_shape(json["shape"], where + ".shape"));
  size_t bytes = tensor_type_bytes(*known);
  bool fits = true;
  for (const int64_t size : tensor.shape) {
    fits = fits && !__builtin_mul_overflow(bytes, static_cast<size_t>(size), &bytes);
  }
  if (!fits || bytes > room) {
    return make_error(ErrorCode::payload_too_large,
                      fmt::format("'{}' is larger than the {} bytes that a request's tensors may have together", where,
                                  kMaxCallBytes),
                      where);
  }
  room -= bytes;
  const std::string data = where + ".data";
  RETURN_IF_ERROR(DataReader(tensor, data).read(json["data"], bytes / tensor_type_bytes(*known)));
  return tensor;
}

void write_tensor(JsonWriter& json, const NamedTensor& tensor) {
  json.begin_object().field("name", tensor.name).field("datatype", kserve_type_name(tensor.type));
  write_shape(json, tensor.shape);
  json.key("data").begin_array();
  with_type(tensor.type, [&](auto value) {
    for (size_t at = 0; at + sizeof(value) <= tensor.data.size(); at += sizeof(value)) {
      if constexpr (std::is_same_v<decltype(value), bool>) {
        value = tensor.data[at] != std::byte{0};  // a byte of a library need not be 0 or 1
      } else {
        std::memcpy(&value, tensor.data.data() + at, sizeof(value));
      }
      write_element(json, value);
    }
  });
  json.end_array().end_object();
}

void write_ports(JsonWriter& json, const std::vector<TensorPort>& ports) {
  json.begin_array();
  for (const TensorPort& port : ports) {
    json.begin_object().field("name", port.name).field("datatype", kserve_type_name(port.type));
    write_shape(json, port.shape);
    json.end_object();
  }
  json.end_array();
}

}  // namespace inferneo
