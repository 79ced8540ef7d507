#include "base/system.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

namespace inferneo {
namespace {

TEST(System, LimitsAreWithinTheMachine) {
  EXPECT_GE(available_cpus(), 1);
  EXPECT_LE(available_cpus(), sysconf(_SC_NPROCESSORS_CONF));
  EXPECT_GT(memory_limit_bytes(), size_t{64} << 20);
  EXPECT_LE(memory_limit_bytes(), static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * 4096U * 16U);
}

TEST(System, ResidentBytesFollowWhatIsTouched) {
  const size_t before = resident_bytes();
  std::vector<char> touched(size_t{32} << 20, 1);
  EXPECT_GE(resident_bytes(), before + (size_t{24} << 20));
  EXPECT_EQ(touched[100], 1);
}

}  // namespace
}  // namespace inferneo
