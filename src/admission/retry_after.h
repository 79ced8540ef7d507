// How long a client that is refused should wait, as it is told.
#pragma once

#include "base/clock.h"

namespace inferneo {

inline constexpr int kLongestRetry = 600;  // seconds; beyond that an estimate says nothing

// An estimate as a time to wait; what has come to a stop would take for ever.
Duration wait_of(double seconds);

// Whole seconds, rounded up, of at least one: a client that comes a little early is refused again.
int retry_after_seconds(Duration wait);

}  // namespace inferneo
