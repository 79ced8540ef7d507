// SipHash-2-4: a short keyed hash whose values nobody can steer without the key. Pure, allocates nothing.
// Source: Aumasson and Bernstein, "SipHash: a fast short-input PRF" (2012).
#pragma once

#include <cstdint>
#include <string_view>

namespace inferneo {

struct SipKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;

  bool operator==(const SipKey&) const = default;
};

uint64_t siphash_2_4(SipKey key, std::string_view message) noexcept;

}  // namespace inferneo
