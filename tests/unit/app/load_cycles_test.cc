// A model comes and goes a thousand times, and the process is what it was: memory, descriptors, threads, ledger.
// The judge is tried on leaks of its own making first, or its silence would mean nothing.
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "model_house.h"

namespace inferneo {
namespace {

constexpr double kAllowedDrift = 0.01;
constexpr size_t kWarmUp = 100;  // cycles; by then the log of the last events is full

size_t scaled(double count) {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return static_cast<size_t>(count * (scale == nullptr ? 0.02 : std::atof(scale)));
}

struct Sample {
  size_t resident = 0;  // bytes
  size_t descriptors = 0;
  size_t threads = 0;
};

// Anonymous memory and mapped files, exactly: smaps_rollup walks the page tables, where /proc/self/status is behind by
// up to 64 pages a thread. Shared memory there is none of.
size_t resident_bytes() {
  std::ifstream file("/proc/self/smaps_rollup");
  for (std::string word; file >> word;) {
    size_t kib = 0;
    if (word == "Rss:" && file >> kib) return kib << 10;
  }
  ADD_FAILURE() << "no Rss in smaps_rollup";
  return 0;
}

Sample sample() {
  // What was freed and the allocator keeps for later is no leak; how much that is depends on the order of frees.
  malloc_trim(0);
  return {resident_bytes(), open_descriptors(), running_threads()};
}

size_t median_resident(const std::vector<Sample>& samples, size_t from, size_t count) {
  std::vector<size_t> values;
  for (size_t i = from; i < from + count; ++i) values.push_back(samples[i].resident);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count / 2), values.end());
  return values[count / 2];
}

struct Judgement {
  double drift = 0.0;  // of resident memory, after the warm-up
  size_t before = 0;
  size_t after = 0;
  bool descriptors = false;  // more than there were
  bool threads = false;
  bool memory() const { return drift > kAllowedDrift; }
};

// After the warm-up the median of the first tenth is compared with that of the last.
size_t window_of(size_t measured) { return std::max<size_t>(3, measured / 10); }
Judgement judge(const std::vector<Sample>& samples) {
  const size_t window = window_of(samples.size() - kWarmUp);
  Judgement judgement;
  judgement.before = median_resident(samples, kWarmUp, window);
  judgement.after = median_resident(samples, samples.size() - window, window);
  judgement.drift = static_cast<double>(judgement.after) / static_cast<double>(judgement.before) - 1.0;
  judgement.descriptors = samples.back().descriptors > samples[kWarmUp].descriptors;
  judgement.threads = samples.back().threads > samples[kWarmUp].threads;
  return judgement;
}

class LoadCycles : public ::testing::Test {
 protected:
  // One heap for all threads: over several of them what is freed spreads by chance, and holes are not given back. What
  // is left behind stays in any of them.
  static void SetUpTestSuite() { mallopt(M_ARENA_MAX, 1); }
  LoadCycles() {
    for (const char* id : {"inferneo-story", "inferneo-story-draft"}) house_.add(id, bundled_model(id));
  }

  void cycle(const std::string& id) {
    {
      const auto lease = house_.acquire(id);
      ASSERT_TRUE(lease.ok()) << lease.error().message;
      // On a thread of its own: the tokenizers library keeps some 72 bytes for each tokenizer that a thread has used,
      // until that thread ends (rust/text says more), which is a good part of what is allowed here.
      std::thread request([&] {
        const auto prompt = (*lease)->tokenizer->encode("Once upon a time", true);
        ASSERT_TRUE(prompt.ok());
        const auto outcome = generate(*(*lease)->core, *prompt, 4);
        ASSERT_TRUE(outcome.ok() && !outcome->error);
      });
      request.join();
    }
    house_.unload(id);
    ASSERT_EQ(house_.ledger.used(), 0U);
  }

  // Samples after each cycle; `leak` is called in each and may leave something behind.
  std::vector<Sample> run(size_t measured, const std::function<void()>& leak) {
    std::vector<Sample> samples;
    samples.reserve(kWarmUp + measured);
    for (size_t i = 0; i < kWarmUp + measured && !HasFailure(); ++i) {
      cycle(i % 4 == 0 ? "inferneo-story" : "inferneo-story-draft");
      leak();
      samples.push_back(sample());
    }
    return samples;
  }

  ModelHouse house_;
};

TEST_F(LoadCycles, NothingIsLeftBehind) {
  const std::vector<Sample> samples = run(std::max<size_t>(40, scaled(1000)), [] {});
  ASSERT_FALSE(HasFailure());
  const Judgement judgement = judge(samples);
  fmt::print(
      "{} cycles: {} KiB resident after the warm-up, {} KiB in the end ({:+.2f} %), {} descriptors, {} threads\n",
      samples.size() - kWarmUp, judgement.before >> 10, judgement.after >> 10, 100.0 * judgement.drift,
      samples.back().descriptors, samples.back().threads);
  EXPECT_FALSE(judgement.memory());
  EXPECT_FALSE(judgement.descriptors);
  EXPECT_FALSE(judgement.threads);
}

// The negative control: twice the allowed drift, in equal parts over the measured cycles, and one descriptor a cycle.
TEST_F(LoadCycles, ALittleLeftBehindInEachIsFound) {
  const size_t measured = std::max<size_t>(40, scaled(200));
  for (int i = 0; i < 4; ++i) cycle("inferneo-story");
  const size_t between = measured - window_of(measured);  // the middles of the two windows
  const size_t bytes = static_cast<size_t>(2.0 * kAllowedDrift * static_cast<double>(resident_bytes())) / between;
  std::vector<std::unique_ptr<char[]>> leaked;
  std::vector<int> descriptors;
  const std::vector<Sample> samples = run(measured, [&] {
    leaked.push_back(std::make_unique<char[]>(bytes));
    std::memset(leaked.back().get(), 1, bytes);
    descriptors.push_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  });
  ASSERT_FALSE(HasFailure());
  const Judgement judgement = judge(samples);
  fmt::print("{} bytes a cycle over {} cycles: {:+.2f} %\n", bytes, measured, 100.0 * judgement.drift);
  EXPECT_TRUE(judgement.memory());
  EXPECT_TRUE(judgement.descriptors);
  EXPECT_FALSE(judgement.threads);
  for (const int descriptor : descriptors) ::close(descriptor);
}

}  // namespace
}  // namespace inferneo
