// Compiled by nvcc into a module of its own.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_plain.cuh"
