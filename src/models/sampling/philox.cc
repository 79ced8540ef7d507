#include "models/sampling/philox.h"

namespace inferneo {

std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53U} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57U} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

namespace {

std::array<uint32_t, 4> draw(uint64_t seed, uint64_t position, RandomStream stream) {
  return philox4x32(
      {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), static_cast<uint32_t>(stream), 0},
      {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

}  // namespace

double uniform(uint64_t seed, int64_t position, RandomStream stream) {
  const auto words = draw(seed, static_cast<uint64_t>(position), stream);
  const uint64_t bits = (uint64_t{words[0]} << 32 | words[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

uint64_t sample_seed(uint64_t seed, int index) {
  if (index == 0) return seed;
  const auto words = draw(seed, static_cast<uint64_t>(index), RandomStream::derive_seed);
  return uint64_t{words[0]} << 32 | words[1];
}

}  // namespace inferneo
