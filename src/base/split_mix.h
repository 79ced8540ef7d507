// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014): a bijection
// of 64 bits whose output bits each depend on every input bit.
#pragma once

#include <cstdint>

namespace inferneo {

constexpr uint64_t kGoldenGamma = 0x9e3779b97f4a7c15ULL;  // the increment of its stream

constexpr uint64_t split_mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace inferneo
