// What kernel bodies are written in: the few operations of a GPU that they need, by names of our own, so that the same
// bodies compile for a GPU (nvcc) and for the host, where tests/support/cuda/simt.h runs them thread by thread.
//
// Every block is one-dimensional. A kernel is declared with INFERNEO_KERNEL and takes one struct by value; its body begins
// when the kernels before it in the stream have ended. INFERNEO_EARLY_KERNEL's begins when all blocks of the one before have
// started: it may read what no kernel writes (weights), and must call wait_for_earlier() in every thread, on every path,
// before it touches anything else or ends.
#pragma once

#include <cstdint>

#include "kernels/cuda/args.h"

#if defined(__CUDACC__)

#include <cmath>

#define INFERNEO_DEVICE __device__ __forceinline__
#define INFERNEO_KERNEL(name, Args, threads)                                                         \
  __device__ __forceinline__ void name##_body(const Args& args);                                     \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args args) {    \
    wait_for_earlier();                                                                              \
    name##_body(args);                                                                               \
  }                                                                                                  \
  __device__ __forceinline__ void name##_body(const Args& args)
#define INFERNEO_EARLY_KERNEL(name, Args, threads) \
  extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Args args)
#define INFERNEO_SHARED __shared__
#define INFERNEO_UNROLL _Pragma("unroll")

namespace inferneo::cuda {

struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
  uint32_t x, y;
};

INFERNEO_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
INFERNEO_DEVICE int num_threads() { return static_cast<int>(blockDim.x); }
INFERNEO_DEVICE int lane() { return static_cast<int>(threadIdx.x) & 31; }
INFERNEO_DEVICE int warp() { return static_cast<int>(threadIdx.x) >> 5; }
INFERNEO_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
INFERNEO_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
INFERNEO_DEVICE int block_z() { return static_cast<int>(blockIdx.z); }
INFERNEO_DEVICE int grid_x() { return static_cast<int>(gridDim.x); }

// Where launches overlap (LaunchShape::overlaps): the next kernel may take free places from now on, and what the kernels
// before this one have written is there from here on.
INFERNEO_DEVICE void wait_for_earlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

INFERNEO_DEVICE void sync_block() { __syncthreads(); }
INFERNEO_DEVICE void sync_warp() { __syncwarp(); }
// Whether any thread of the block says so; a barrier too.
INFERNEO_DEVICE bool any_in_block(bool value) { return __syncthreads_or(value ? 1 : 0) != 0; }

template <typename T>
INFERNEO_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffU, value, mask);
}
template <typename T>
INFERNEO_DEVICE T shuffle(T value, int from) {
  return __shfl_sync(0xffffffffU, value, from);
}
template <typename T>
INFERNEO_DEVICE T shuffle_up(T value, int by) {
  return __shfl_up_sync(0xffffffffU, value, by);
}
INFERNEO_DEVICE uint32_t ballot(bool value) { return __ballot_sync(0xffffffffU, value); }

INFERNEO_DEVICE uint8_t* dynamic_shared() {
  extern __shared__ uint4 inferneo_shared[];
  return reinterpret_cast<uint8_t*>(inferneo_shared);
}

INFERNEO_DEVICE void atomic_add(uint32_t* at, uint32_t value) { ::atomicAdd(at, value); }
INFERNEO_DEVICE void atomic_add(uint64_t* at, uint64_t value) {
  ::atomicAdd(reinterpret_cast<unsigned long long*>(at), static_cast<unsigned long long>(value));
}
INFERNEO_DEVICE int32_t atomic_fetch_add(int32_t* at, int32_t value) { return ::atomicAdd(at, value); }
// What this thread has written is seen by whoever sees what it writes next.
INFERNEO_DEVICE void fence_device() { __threadfence(); }
// A value that another block has written in this launch.
INFERNEO_DEVICE float load_fresh(const float* at) { return __ldcg(at); }

INFERNEO_DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
INFERNEO_DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

// {low, high} rounded to nearest even.
INFERNEO_DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}
INFERNEO_DEVICE uint16_t to_bf16(float value) { return static_cast<uint16_t>(pack_bf16(value, 0.0F)); }
INFERNEO_DEVICE uint16_t to_f16(float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
INFERNEO_DEVICE float from_f16(uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}
// 2^x to within a few units in the last place; 0 for -inf.
INFERNEO_DEVICE float fast_exp2(float x) {
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
}

// Read once, not kept in the first-level cache.
INFERNEO_DEVICE Words4 load_stream16(const void* at) {
  Words4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}
INFERNEO_DEVICE Words2 load_stream8(const void* at) {
  Words2 v;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(at));
  return v;
}
INFERNEO_DEVICE Words2 load8(const void* at) { return *static_cast<const Words2*>(at); }
INFERNEO_DEVICE Words4 load16(const void* at) { return *static_cast<const Words4*>(at); }
INFERNEO_DEVICE void store16(void* at, const Words4& value) { *static_cast<Words4*>(at) = value; }

// 16 bytes of global memory into shared memory, zeros where !valid; done when copy_wait() says so, and visible to other
// threads behind a barrier.
INFERNEO_DEVICE void copy_async16(void* shared, const void* global, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
// The same for 4 bytes.
INFERNEO_DEVICE void copy_async4(void* shared, const void* global, bool valid) {
  const auto to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  const int bytes = valid ? 4 : 0;
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global), "r"(bytes) : "memory");
}
INFERNEO_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
INFERNEO_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Four 8x8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8 (16-byte aligned).
INFERNEO_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
INFERNEO_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  const auto at = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(at)
               : "memory");
}
// c += a b for a [16, 16], b [16, 8] of bf16, sums in f32 (PTX ISA, mma.m16n8k16, for who holds what).
INFERNEO_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c = a b
INFERNEO_DEVICE void mma_bf16_first(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %10, %10, %10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0F));
}
// a b + c of both halves, rounded once.
INFERNEO_DEVICE uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

}  // namespace inferneo::cuda

#elif !defined(INFERNEO_SIMT)
#error "kernel bodies are compiled by nvcc, or by a test that has included tests/support/cuda/simt.h"
#endif

namespace inferneo::cuda {

constexpr float kNegativeInfinity = -__builtin_huge_valf();
constexpr float kLog2E = 1.4426950408889634F;

INFERNEO_DEVICE int min_of(int a, int b) { return a < b ? a : b; }
INFERNEO_DEVICE int max_of(int a, int b) { return a > b ? a : b; }
INFERNEO_DEVICE int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }
INFERNEO_DEVICE float max_of(float a, float b) { return a > b ? a : b; }

INFERNEO_DEVICE float from_bf16(uint16_t half) { return bits_to_float(static_cast<uint32_t>(half) << 16); }
INFERNEO_DEVICE float low_bf16(uint32_t pair) { return bits_to_float(pair << 16); }
INFERNEO_DEVICE float high_bf16(uint32_t pair) { return bits_to_float(pair & 0xffff0000U); }

// As e4m3_to_f32() and f32_to_e4m3() of tensor/dtype.h, to the bit, but for NaN, which nobody stores. A code is the f32
// of 2^-120 times its value, subnormal ones too.
INFERNEO_DEVICE float from_e4m3(uint8_t code) {
  const uint32_t bits = code;
  return bits_to_float((bits & 0x7fU) << 20 | (bits & 0x80U) << 24) * 0x1p120F;
}
INFERNEO_DEVICE uint8_t to_e4m3(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  uint16_t pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0F), "f"(value));
  return static_cast<uint8_t>(pair);
#else
  const uint32_t sign = float_to_bits(value) >> 24 & 0x80U;
  const uint32_t magnitude = float_to_bits(value) & 0x7fffffffU;
  uint32_t code = 0x7e;           // 448 and above
  if (magnitude < 0x3c800000U) {  // below 2^-6: the last bit of the sum is 2^-9
    code = float_to_bits(bits_to_float(magnitude) + 16384.0F) & 0xfU;
  } else if (magnitude < 0x43e00000U) {
    code = (magnitude + 0x7ffffU + (magnitude >> 20 & 1U) - 0x3c000000U) >> 20;
  }
  return static_cast<uint8_t>(sign | code);
#endif
}

INFERNEO_DEVICE float load_elem(const void* base, Elem elem, int64_t i) {
  if (elem == Elem::bf16) return from_bf16(static_cast<const uint16_t*>(base)[i]);
  if (elem == Elem::f16) return from_f16(static_cast<const uint16_t*>(base)[i]);
  return static_cast<const float*>(base)[i];
}
INFERNEO_DEVICE void store_elem(void* base, Elem elem, int64_t i, float value) {
  if (elem == Elem::bf16) {
    static_cast<uint16_t*>(base)[i] = to_bf16(value);
  } else if (elem == Elem::f16) {
    static_cast<uint16_t*>(base)[i] = to_f16(value);
  } else {
    static_cast<float*>(base)[i] = value;
  }
}

INFERNEO_DEVICE float activate(Act kind, float x) {
  switch (kind) {
    case Act::silu:
      return x / (1.0F + expf(-x));
    case Act::gelu_tanh:
      return 0.5F * x * (1.0F + tanhf(0.7978845608028654F * (x + 0.044715F * x * x * x)));
    case Act::gelu_erf:
      return 0.5F * x * (1.0F + erff(x * 0.7071067811865476F));
    case Act::relu:
      return x > 0.0F ? x : 0.0F;
  }
  return x;
}

// Every lane gets the result.
INFERNEO_DEVICE float warp_sum(float value) {
  for (int mask = 16; mask > 0; mask >>= 1) value += shuffle_xor(value, mask);
  return value;
}
INFERNEO_DEVICE float warp_max(float value) {
  for (int mask = 16; mask > 0; mask >>= 1) value = max_of(value, shuffle_xor(value, mask));
  return value;
}
// Over a block of at most 1024 threads; `scratch` [32] is shared memory. A barrier on both sides.
INFERNEO_DEVICE float block_sum(float value, float* scratch) {
  value = warp_sum(value);
  sync_block();
  if (lane() == 0) scratch[warp()] = value;
  sync_block();
  float total = 0.0F;
  for (int w = 0; w < num_threads() / 32; ++w) total += scratch[w];
  return total;
}

}  // namespace inferneo::cuda
