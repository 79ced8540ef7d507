// Compiled by nvcc into a module of its own.
#include "kernels/cuda/quant.cuh"
