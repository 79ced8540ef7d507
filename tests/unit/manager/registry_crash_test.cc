// A registry's program is killed with SIGKILL while it registers, switches and removes. What it had been told was done
// is there afterwards, what was under way is there wholly or not at all, and the file passes its check.
// INFERNEO_SOAK_SCALE scales the number of kills of the soak build (1: full).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <thread>

#include "support/temp_tree.h"
#include "unit/manager/registry_churn.h"
#include "unit/manager/registry_fixture.h"

namespace inferneo {
namespace {

constexpr int kKillsPerFile = 25;  // then a new one, whose making is killed too

int num_kills() {
  if (INFERNEO_KILLS < 1000) return INFERNEO_KILLS;
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max(10, static_cast<int>(INFERNEO_KILLS * (scale == nullptr ? 0.02 : std::atof(scale))));
}

// Runs the writer, kills it `delay` after its start, or after it has opened the registry, and returns what it said.
std::string run_and_kill(const std::string& path, uint64_t seed, bool once_open, std::chrono::microseconds delay) {
  std::array<int, 2> ends{};
  EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  std::string program = INFERNEO_CRASH_WRITER, file = path, number = std::to_string(seed);
  std::array<char*, 4> arguments = {program.data(), file.data(), number.data(), nullptr};
  pid_t child = 0;
  EXPECT_EQ(::posix_spawn(&child, program.c_str(), &actions, nullptr, arguments.data(), environ), 0);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  std::string said;
  std::array<char, 4096> buffer;
  if (once_open && ::read(ends[0], buffer.data(), 1) == 1) said += buffer[0];
  std::this_thread::sleep_for(delay);
  ::kill(child, SIGKILL);
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "it ended by itself with " << WEXITSTATUS(status);
  for (;;) {
    const ssize_t size = ::read(ends[0], buffer.data(), buffer.size());
    if (size <= 0) break;
    said.append(buffer.data(), static_cast<size_t>(size));
  }
  ::close(ends[0]);
  return said;
}

struct Counts {
  int kills = 0, while_opening = 0, in_flight_there = 0, in_flight_absent = 0;
  int64_t acknowledged = 0;
};

// `mirror` is in memory and has seen every operation that the file is known to hold.
void kill_once(const std::string& path, Registry& mirror, std::mt19937_64& random, Counts& counts) {
  const uint64_t seed = random();
  const bool once_open = random() % 5 != 0;
  const std::chrono::microseconds delay(random() % (once_open ? 25'000 : 15'000));
  const std::string said = run_and_kill(path, seed, once_open, delay);
  ++counts.kills;
  counts.while_opening += said.empty() ? 1 : 0;

  testing::RegistryChurn churn(seed);
  for (size_t i = 1; i < said.size(); ++i) {
    ASSERT_EQ(churn.step(mirror), said[i] == 'y') << "operation " << i;
    counts.acknowledged += said[i] == 'y' ? 1 : 0;
  }
  const RegistrySnapshot acknowledged = testing::snapshot(mirror);
  if (!std::filesystem::exists(path)) {
    ASSERT_TRUE(said.empty()) << "the registry is gone";
    ASSERT_EQ(acknowledged, RegistrySnapshot()) << "the registry is gone";
  }
  auto opened = Registry::open(path);  // with its integrity check and all check values
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  const RegistrySnapshot found = testing::snapshot(**opened);
  if (said.empty()) {
    ASSERT_EQ(found, acknowledged);
    return;
  }
  testing::RegistryChurn same = churn;
  const bool changes = churn.step(mirror);
  const RegistrySnapshot with_next = testing::snapshot(mirror);
  const bool is_there = found == with_next && with_next != acknowledged;
  ASSERT_TRUE(is_there || found == acknowledged) << "after " << said.size() - 1 << " operations";
  counts.in_flight_there += changes && is_there ? 1 : 0;
  counts.in_flight_absent += changes && !is_there ? 1 : 0;
  // It writes on where it was cut off.
  if (!is_there) {
    ASSERT_EQ(same.step(**opened), changes);
  }
  ASSERT_EQ(testing::snapshot(**opened), with_next);
}

TEST(RegistryCrash, NothingAcknowledgedIsLostAndNothingIsHalfThere) {
  const testing::TempTree tree;
  std::mt19937_64 random(4711);
  Counts counts;
  const int kills = num_kills();
  std::string path;
  std::unique_ptr<Registry> mirror;
  while (counts.kills < kills) {
    if (counts.kills % kKillsPerFile == 0) {
      path = tree.path("registry-" + std::to_string(counts.kills) + ".db");
      mirror = testing::open_registry("");
    }
    SCOPED_TRACE(::testing::Message() << "kill " << counts.kills);
    kill_once(path, *mirror, random, counts);
    ASSERT_FALSE(HasFailure());
  }
  std::printf(
      "registry: killed %d times (%d while opening) over %lld acknowledged writes: 0 lost, 0 corrupt; the write under "
      "way was there %d times and not there %d times\n",
      counts.kills, counts.while_opening, static_cast<long long>(counts.acknowledged), counts.in_flight_there,
      counts.in_flight_absent);
}

}  // namespace
}  // namespace inferneo
