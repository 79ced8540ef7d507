// The tables of the per-ISA files; dispatch.cc decides which may be used.
#pragma once

#include "kernels/op_table.h"

namespace inferneo::kernels {

const OpTable* avx512_bf16_table();
const OpTable* avx512_table();
const OpTable* avx2_table();

// Quantised products that the tables of later instruction sets take over.
namespace avx2 {
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end);
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end);
}  // namespace avx2

}  // namespace inferneo::kernels
