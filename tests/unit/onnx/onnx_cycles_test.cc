// A graph is opened, used and closed again and again, and the process stays what it was.
#include <fmt/format.h>
#include <malloc.h>

#include <cstdlib>
#include <filesystem>

#include "base/system.h"
#include "onnx_fixture.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kWarmUp = 20;
constexpr double kAllowedDrift = 0.01;

size_t scaled(double count) {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max<size_t>(30, static_cast<size_t>(count * (scale == nullptr ? 0.02 : std::atof(scale))));
}
size_t entries_of(const char* folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

TEST(OnnxCycles, NothingIsLeftBehind) {
  SKIP_WITHOUT_ONNX_RUNTIME();
  mallopt(M_ARENA_MAX, 1);  // over several heaps what is freed spreads by chance
  const std::vector<GoldenAnswer> goldens = golden_answers();
  const size_t cycles = scaled(300);
  std::vector<size_t> resident;
  size_t descriptors = 0, threads = 0;
  for (size_t i = 0; i < kWarmUp + cycles; ++i) {
    {
      OnnxHouse house(golden_folder() + (i % 3 == 0 ? "/copied" : "/shared"));
      Result<std::unique_ptr<ModelRunner>> runner = house.load();
      ASSERT_TRUE(runner.ok()) << runner.error().message;
      {
        SlotHarness harness(**runner, 4);
        auto sequence = harness.start(goldens[0].prompt);
        while (sequence.output().size() < 3) harness.step({{&sequence}});
        EXPECT_EQ(sequence.output()[2], goldens[0].answer[2]);
      }
      runner->reset();
      ASSERT_EQ(house.ledger.used(), 0U);
    }
    malloc_trim(0);
    resident.push_back(resident_bytes());
    if (i == kWarmUp) {
      descriptors = entries_of("/proc/self/fd");
      threads = entries_of("/proc/self/task");
    }
  }
  EXPECT_LE(entries_of("/proc/self/fd"), descriptors);
  EXPECT_LE(entries_of("/proc/self/task"), threads);
  const auto median = [&](size_t from) {
    std::vector<size_t> window(resident.begin() + static_cast<std::ptrdiff_t>(from),
                               resident.begin() + static_cast<std::ptrdiff_t>(from + 10));
    std::nth_element(window.begin(), window.begin() + 5, window.end());
    return static_cast<double>(window[5]);
  };
  const double before = median(kWarmUp), after = median(resident.size() - 10);
  fmt::print("{} cycles: {:.1f} MiB after the warm-up, {:.1f} MiB in the end\n", cycles, before / 1048576,
             after / 1048576);
  EXPECT_LE(after / before - 1.0, kAllowedDrift);
}

}  // namespace
}  // namespace inferneo::onnx
