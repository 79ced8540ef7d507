#include <immintrin.h>

#ifndef __AVX512BF16__
#define __AVX512BF16__ 1  // after the intrinsics, which would want the compiler to know them
#endif
#define EMULATED_VNNI
#define TABLE_FOR_OTHER_TYPES testing::emulated_avx512_table
#define EMULATED_TABLE emulated_avx512_bf16_table
#define EMULATED_NAME "emulated avx512_bf16"
#include "emulated_table.inc"
