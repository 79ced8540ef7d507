#include <array>

#include "formats/onnx/graph_scan.h"

namespace inferneo::onnx {
namespace {

struct TypeRow {
  ElementType type;
  std::string_view name;
  int bits;
};
constexpr std::array kTypes = {
    TypeRow{ElementType::undefined, "undefined", 0},
    TypeRow{ElementType::float32, "float32", 32},
    TypeRow{ElementType::uint8, "uint8", 8},
    TypeRow{ElementType::int8, "int8", 8},
    TypeRow{ElementType::uint16, "uint16", 16},
    TypeRow{ElementType::int16, "int16", 16},
    TypeRow{ElementType::int32, "int32", 32},
    TypeRow{ElementType::int64, "int64", 64},
    TypeRow{ElementType::string, "string", 0},
    TypeRow{ElementType::boolean, "bool", 8},
    TypeRow{ElementType::float16, "float16", 16},
    TypeRow{ElementType::float64, "float64", 64},
    TypeRow{ElementType::uint32, "uint32", 32},
    TypeRow{ElementType::uint64, "uint64", 64},
    TypeRow{ElementType::complex64, "complex64", 64},
    TypeRow{ElementType::complex128, "complex128", 128},
    TypeRow{ElementType::bfloat16, "bfloat16", 16},
    TypeRow{ElementType::float8e4m3fn, "float8e4m3fn", 8},
    TypeRow{ElementType::float8e4m3fnuz, "float8e4m3fnuz", 8},
    TypeRow{ElementType::float8e5m2, "float8e5m2", 8},
    TypeRow{ElementType::float8e5m2fnuz, "float8e5m2fnuz", 8},
    TypeRow{ElementType::uint4, "uint4", 4},
    TypeRow{ElementType::int4, "int4", 4},
    TypeRow{ElementType::float4e2m1, "float4e2m1", 4},
};

}  // namespace

std::string_view element_type_name(ElementType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.name;
  }
  return "unknown";
}

int element_bits(ElementType type) {
  for (const TypeRow& row : kTypes) {
    if (row.type == type) return row.bits;
  }
  return 0;
}

}  // namespace inferneo::onnx
