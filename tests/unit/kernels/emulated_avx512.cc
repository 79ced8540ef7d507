#include <immintrin.h>

#undef __AVX512BF16__
#define EMULATED_TABLE emulated_avx512_table
#define EMULATED_NAME "emulated avx512"
#include "emulated_table.inc"
