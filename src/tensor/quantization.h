// How the weights of a matrix are quantised: one description, which checkpoints that come quantised can be mapped to
// and which each device has one matrix product for (kernels/matmul_args.h).
//
// A weight is unit * scale * q, or unit * (scale * q - minimum) where the scheme has minima: q is a code of `bits`,
// scale and minimum belong to `group` consecutive inputs of an output channel, unit to the whole channel. A unit costs
// nearly nothing and keeps the scales of a group within the range of few bits, however large or small the weights are.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "tensor/dtype.h"

namespace inferneo {

enum class ScaleKind : uint8_t {
  none,  // the channel's unit alone
  f16,   // scale: an f16
  u8,    // scale and minimum: a byte each, as a multiple of the channel's unit
};

struct QuantScheme {
  uint8_t bits = 0;    // of q; 0: not quantised
  uint16_t group = 0;  // inputs that share a scale, and that channels are padded to a multiple of
  ScaleKind scale = ScaleKind::f16;
  bool minimum = false;  // q is unsigned and a minimum goes off; else q is signed, within +-(2^(bits-1) - 1)
  bool e4m3 = false;     // q is no integer but a value of e4m3 (dtype.h)

  constexpr bool quantized() const { return bits != 0; }
  bool operator==(const QuantScheme&) const = default;
};

// 8.5 bits per weight and 16 per channel.
inline constexpr QuantScheme kInt8{8, 32, ScaleKind::f16, false};
// 4.5 bits per weight and 32 per channel.
inline constexpr QuantScheme kInt4{4, 32, ScaleKind::u8, true};
// 8 bits per weight and 16 per channel. A code is within a sixteenth of what it stands for, over fifteen powers of two:
// scales of groups would save little. Of the bundled models' weights the error is 2.4 % by a scale for each channel and
// 1.9 % by one for 32 inputs, where int8, of as many bits as the latter, has 0.5 % (root mean square).
inline constexpr QuantScheme kFp8{8, 32, ScaleKind::none, false, true};

// What a matrix is stored as: an element type, or a scheme (and then the type of what its codes lie in).
struct WeightFormat {
  DType dtype = DType::f32;
  QuantScheme scheme = {};

  constexpr WeightFormat() = default;
  constexpr WeightFormat(DType type) : dtype(type) {}  // NOLINT(google-explicit-constructor): a plain type is a format
  constexpr explicit WeightFormat(const QuantScheme& quantized)
      : dtype(quantized.e4m3      ? DType::f8_e4m3
              : quantized.minimum ? DType::u8
                                  : DType::i8),
        scheme(quantized) {}
  bool operator==(const WeightFormat&) const = default;
};
// "bf16", "int8", "int4", "fp8".
std::string_view weight_format_name(const WeightFormat& format);

// What a model's weights are quantised to at load.
enum class Quantization : uint8_t { none, int8, int4, fp8 };
std::string_view quantization_name(Quantization quantization);              // "int8"
std::optional<Quantization> quantization_from_name(std::string_view name);  // nullopt when unknown

}  // namespace inferneo
