// Quantised weights from the host's panels (kernels/packed_matrix.h) into those of a GPU (quant_layout.h): codes,
// scales, minima and units move, none changes.
#pragma once

#include <cstddef>

#include "kernels/cuda/quant_layout.h"
#include "kernels/packed_matrix.h"
#include "tensor/quantization.h"

namespace inferneo::cuda {

// What holds such weights on a GPU. `format`: f32, f16, bf16, int8, int4 or fp8.
Elem elem_of(const WeightFormat& format);

// Inputs [begin, begin + count) of a panel; `begin` is a multiple of kQuantInputs.
struct InputRange {
  int64_t begin = 0;
  int64_t count = 0;
};

// The 16 channels of view.panel(panel), all inputs or some of them, into the QuantPanels::panel_bytes() of as many
// inputs at `out`. `view` is quantised.
void repack_panel(const kernels::PackedView& view, int64_t panel, std::byte* out);
void repack_panel(const kernels::PackedView& view, int64_t panel, InputRange inputs, std::byte* out);

// One value of a panel as it lies on a GPU, with the arithmetic of kernels::dequantize(). For tests.
float panel_value(const QuantPanels& layout, const std::byte* panel, int64_t channel, int64_t input);

}  // namespace inferneo::cuda
