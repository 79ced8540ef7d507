#include "tensor/quantization.h"

#include <array>

namespace inferneo {
namespace {

constexpr std::array<std::string_view, 4> kNames = {"none", "int8", "int4", "fp8"};

}  // namespace

std::string_view weight_format_name(const WeightFormat& format) {
  if (format.scheme.e4m3) return "fp8";
  if (format.scheme.quantized()) return format.scheme.bits == 4 ? "int4" : "int8";
  return dtype_name(format.dtype);
}

std::string_view quantization_name(Quantization quantization) { return kNames[static_cast<size_t>(quantization)]; }

std::optional<Quantization> quantization_from_name(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (kNames[i] == name) return static_cast<Quantization>(i);
  }
  return std::nullopt;
}

}  // namespace inferneo
