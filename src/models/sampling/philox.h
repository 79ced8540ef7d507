// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
// the generator that GPU libraries use too. A draw is a pure function of (seed, position, stream), so a sample depends
// neither on its batch nor on what was drawn before it, and a preempted sequence draws the same numbers again.
#pragma once

#include <array>
#include <cstdint>

namespace inferneo {

// key: the seed's low and high word; counter: four words.
std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// What a draw is for; one position may need several.
enum class RandomStream : uint32_t { sample = 0, accept_draft = 1, residual = 2, derive_seed = 3 };

// Uniform in [0, 1), a multiple of 2^-53.
double uniform(uint64_t seed, int64_t position, RandomStream stream);

// The seed of sample `index` of a request: sample 0 draws from the request's own seed.
uint64_t sample_seed(uint64_t seed, int index);

}  // namespace inferneo
