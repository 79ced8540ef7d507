#include "base/system.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <thread>
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

TEST(System, AThreadLeavesACpuAndMayComeBack) {
  std::thread([] {
    cpu_set_t before;
    ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    const bool has_another = CPU_COUNT(&before) > 1;
    for (int round = 0; round < 20; ++round) {
      const int here = sched_getcpu();
      EXPECT_EQ(leave_cpu(here), has_another);
      cpu_set_t after;
      ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
      EXPECT_TRUE(CPU_EQUAL(&before, &after));
    }
    EXPECT_FALSE(leave_cpu(-1));
    EXPECT_FALSE(leave_cpu(CPU_SETSIZE));
    // Where it may run on one alone, it stays.
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_FALSE(leave_cpu(sched_getcpu()));
  }).join();
}

}  // namespace
}  // namespace inferneo
