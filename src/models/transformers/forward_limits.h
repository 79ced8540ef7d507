// What the parts of the forward pass agree on.
#pragma once

#include <cstdint>

#include "kernels/op_args.h"
#include "models/decoder_spec.h"

namespace inferneo {

inline constexpr int32_t kFfnRows = 512;  // tokens that go through a feed-forward at once: a row block of the product

inline kernels::Activation to_kernel(Activation activation) {
  switch (activation) {
    case Activation::gelu_tanh:
      return kernels::Activation::gelu_tanh;
    case Activation::gelu_erf:
      return kernels::Activation::gelu_erf;
    case Activation::relu:
      return kernels::Activation::relu;
    case Activation::silu:
      break;
  }
  return kernels::Activation::silu;
}

}  // namespace inferneo
