// Peak loops over one vector register type. Included inside a per-ISA anonymous namespace, which defines Register,
// kPeakLanes (f32), kPairsInOneStep, peak_fma, peak_pair, peak_bytes and peak_load_xor.

constexpr int kChains = 12;  // more than latency times throughput of any of the machines

// The empty statements keep the compiler from merging or dropping steps, and from taking what a step makes of `a` and
// `b` alone (AVX2's products of bytes) out of the loop; the values stay in registers.
template <Register (*kStep)(Register, Register, Register)>
double run_chains(int64_t iterations, double ops_per_step) {
  Register chains[kChains] = {};
  Register a = {};
  Register b = {};
  asm volatile("" : "+x"(a), "+x"(b));
  for (int64_t i = 0; i < iterations; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) {
      chains[c] = kStep(chains[c], a, b);
      asm volatile("" : "+x"(chains[c]), "+x"(a));
    }
  }
  return static_cast<double>(iterations) * kChains * ops_per_step;
}

double f32_loop(int64_t iterations) { return run_chains<peak_fma>(iterations, 2.0 * kPeakLanes); }
double bf16_loop(int64_t iterations) {
  return run_chains<peak_pair>(iterations, (kPairsInOneStep ? 4.0 : 2.0) * kPeakLanes);
}
double int8_loop(int64_t iterations) { return run_chains<peak_bytes>(iterations, 8.0 * kPeakLanes); }

uint64_t read_loop(const std::byte* data, size_t bytes) {
  Register sums[8] = {};
  const size_t step = 8 * sizeof(Register);
  for (size_t at = 0; at + step <= bytes; at += step) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const std::byte* from = data + at + static_cast<size_t>(i) * sizeof(Register);
      __builtin_prefetch(from + 4096);
      sums[i] = peak_load_xor(sums[i], from);
    }
  }
  for (int i = 1; i < 8; ++i) sums[0] = peak_load_xor(sums[0], reinterpret_cast<const std::byte*>(&sums[i]));
  uint64_t words[sizeof(Register) / 8];
  __builtin_memcpy(words, &sums[0], sizeof(Register));
  uint64_t all = 0;
  for (const uint64_t word : words) all ^= word;
  return all;
}

constexpr PeakLoops kLoops{f32_loop, bf16_loop, int8_loop, read_loop};
