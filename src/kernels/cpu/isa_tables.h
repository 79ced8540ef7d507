// The tables of the per-ISA files; dispatch.cc decides which may be used.
#pragma once

#include "kernels/op_table.h"

namespace inferneo::kernels {

const OpTable* avx512_bf16_table();
const OpTable* avx512_table();
const OpTable* avx2_table();

}  // namespace inferneo::kernels
