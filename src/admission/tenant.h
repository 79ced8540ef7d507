// Whom a request counts for: one tenant for each API key, and one for all requests that come without a key.
//
// Tenants are numbered by the configuration, never by what a client says (`user` is whatever it likes), so that nobody
// can make new ones and everything that is kept for each tenant is bounded.
#pragma once

#include <cstdint>

namespace inferneo {

using TenantId = uint32_t;

inline constexpr TenantId kDefaultTenant = 0;  // without a key: everybody, and the program that embeds the engine

struct TenantShare {
  TenantId id = kDefaultTenant;
  double weight = 1.0;  // of two tenants that both wait, one of weight 3 is served three times the tokens of one of 1
};

}  // namespace inferneo
