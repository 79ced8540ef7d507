// Counts what a program allocates with operator new, to show that something does not.
#pragma once

#include <cstdint>

uint64_t allocations_of_this_thread();
