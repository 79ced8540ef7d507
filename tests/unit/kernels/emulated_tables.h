// The AVX-512 tables over emulated registers, for machines that have none: every line of the kernels runs, each lane
// as the instructions have it. Without VNNI, products of quantised weights are AVX2's there and the reference's here.
// The table for AVX-VNNI needs AVX2 to run.
#pragma once

#include "kernels/op_table.h"

namespace inferneo::kernels::testing {

const OpTable* emulated_avx512_table();
const OpTable* emulated_avx512_bf16_table();
const OpTable* emulated_avx_vnni_table();

}  // namespace inferneo::kernels::testing
