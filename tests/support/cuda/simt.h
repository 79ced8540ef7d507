// Runs kernel bodies on the host, thread by thread: every CUDA thread is a coroutine with a stack of its own, and meets
// the others of its warp or block at shuffles, matrix instructions and barriers. kernels/cuda/device.cuh says what
// kernels are written in; this is its other half.
//
// What it checks, besides results: a warp that diverges at a collective, a barrier that not all reach, shared memory
// read before it is written (blocks begin with NaN), an asynchronous copy read before it has been waited for (its bytes
// are NaN until then); threads run in an order that changes from block to block, so that a missing barrier shows. What
// it cannot check: the memory model of a GPU, its speed, the rounding of its approximate instructions, and whether PTX
// means what this file says it means.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "base/result.h"
#include "kernels/cuda/args.h"
#include "tensor/dtype.h"

#define INFERNEO_SIMT 1
#define INFERNEO_DEVICE inline
#define INFERNEO_KERNEL(name, Args, threads) inline void name(const Args& args)
#define INFERNEO_EARLY_KERNEL(name, Args, threads) INFERNEO_KERNEL(name, Args, threads)
#define INFERNEO_SHARED static
#define INFERNEO_UNROLL

namespace inferneo::simt {

struct Grid {
  unsigned x = 1, y = 1, z = 1, block = 1, shared_bytes = 0;
};

// Runs body() once per thread of the grid. Aborts with a message on what a GPU would hang or misbehave on.
void run_grid(const Grid& grid, const std::function<void()>& body);

// Of the thread that runs.
struct Position {
  int thread = 0;
  int block_x = 0, block_y = 0, block_z = 0;
  int grid_x = 0;
  int num_threads = 0;
};
extern Position position;
extern std::vector<uint8_t> shared_memory;

// All 32 lanes give a value and get the values of all: slots of this collective, valid until the lane's next but one.
struct Slot {
  alignas(16) uint8_t bytes[64];
};
// `act` runs once, when all lanes have come and before any goes on.
const Slot* meet_warp(const void* value, size_t bytes, const std::function<void(Slot*)>& act = {});
bool meet_block(bool value);  // whether any thread said true

void copy_later(void* to, const void* from, size_t bytes, bool valid);
void commit_copies();
void wait_copies(int pending);

template <typename T>
T read_slot(const Slot* slots, int lane) {
  T value;
  std::memcpy(&value, slots[lane].bytes, sizeof(T));
  return value;
}

}  // namespace inferneo::simt

namespace inferneo::cuda {

struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};
struct alignas(8) Words2 {
  uint32_t x, y;
};

inline int thread() { return simt::position.thread; }
inline int num_threads() { return simt::position.num_threads; }
inline int lane() { return simt::position.thread & 31; }
inline int warp() { return simt::position.thread >> 5; }
inline int block_x() { return simt::position.block_x; }
inline int block_y() { return simt::position.block_y; }
inline int block_z() { return simt::position.block_z; }
inline int grid_x() { return simt::position.grid_x; }

inline void wait_for_earlier() {}
inline void sync_block() { simt::meet_block(false); }
inline void sync_warp() { simt::meet_warp(nullptr, 0); }
inline bool any_in_block(bool value) { return simt::meet_block(value); }

template <typename T>
T shuffle_xor(T value, int mask) {
  const int from = lane() ^ mask;
  return simt::read_slot<T>(simt::meet_warp(&value, sizeof(T)), from);
}
template <typename T>
T shuffle(T value, int from) {
  return simt::read_slot<T>(simt::meet_warp(&value, sizeof(T)), from & 31);
}
template <typename T>
T shuffle_up(T value, int by) {
  const int from = lane() >= by ? lane() - by : lane();
  return simt::read_slot<T>(simt::meet_warp(&value, sizeof(T)), from);
}
inline uint32_t ballot(bool value) {
  const simt::Slot* slots = simt::meet_warp(&value, sizeof(value));
  uint32_t bits = 0;
  for (int l = 0; l < 32; ++l) bits |= (simt::read_slot<bool>(slots, l) ? 1U : 0U) << l;
  return bits;
}

inline uint8_t* dynamic_shared() { return simt::shared_memory.data(); }

inline void atomic_add(uint32_t* at, uint32_t value) { *at += value; }
inline void atomic_add(uint64_t* at, uint64_t value) { *at += value; }
inline int32_t atomic_fetch_add(int32_t* at, int32_t value) {
  const int32_t before = *at;
  *at += value;
  return before;
}
inline void fence_device() {}
inline float load_fresh(const float* at) { return *at; }

inline float bits_to_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t float_to_bits(float value) { return std::bit_cast<uint32_t>(value); }
inline uint16_t to_bf16(float value) { return f32_to_bf16(value); }
inline uint32_t pack_bf16(float low, float high) {
  return static_cast<uint32_t>(f32_to_bf16(high)) << 16 | f32_to_bf16(low);
}
inline uint16_t to_f16(float value) { return f32_to_f16(value); }
inline float from_f16(uint16_t half) { return f16_to_f32(half); }
inline float fast_exp2(float x) { return std::exp2(x); }

// A misaligned vector access faults on a GPU.
inline Words4 load16(const void* at) {
  INFERNEO_CHECK(reinterpret_cast<uintptr_t>(at) % 16 == 0, "a 16-byte read that is not aligned");
  Words4 v;
  std::memcpy(&v, at, sizeof(v));
  return v;
}
inline Words4 load_stream16(const void* at) { return load16(at); }
inline Words2 load8(const void* at) {
  INFERNEO_CHECK(reinterpret_cast<uintptr_t>(at) % 8 == 0, "an 8-byte read that is not aligned");
  Words2 v;
  std::memcpy(&v, at, sizeof(v));
  return v;
}
inline Words2 load_stream8(const void* at) { return load8(at); }
inline void store16(void* at, const Words4& value) {
  INFERNEO_CHECK(reinterpret_cast<uintptr_t>(at) % 16 == 0, "a 16-byte write that is not aligned");
  std::memcpy(at, &value, sizeof(value));
}

inline void copy_async16(void* shared, const void* global, bool valid) {
  INFERNEO_CHECK(reinterpret_cast<uintptr_t>(shared) % 16 == 0 && reinterpret_cast<uintptr_t>(global) % 16 == 0,
                 "an asynchronous copy that is not aligned");
  simt::copy_later(shared, global, 16, valid);
}
inline void copy_async4(void* shared, const void* global, bool valid) {
  INFERNEO_CHECK(reinterpret_cast<uintptr_t>(shared) % 4 == 0 && reinterpret_cast<uintptr_t>(global) % 4 == 0,
                 "an asynchronous copy that is not aligned");
  simt::copy_later(shared, global, 4, valid);
}
inline void copy_commit() { simt::commit_copies(); }
template <int kPending>
void copy_wait() {
  simt::wait_copies(kPending);
}

void load_matrix_x4(uint32_t (&r)[4], const void* row);
void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
inline void mma_bf16_first(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  for (float& sum : c) sum = 0.0F;
  mma_bf16(c, a, b0, b1);
}
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  const auto half = [](uint32_t pair, int shift) { return bits_to_float(pair >> shift << 16); };
  const float low = std::fma(half(a, 0), half(b, 0), half(c, 0));
  const float high = std::fma(half(a, 16), half(b, 16), half(c, 16));
  return pack_bf16(low, high);
}

}  // namespace inferneo::cuda
