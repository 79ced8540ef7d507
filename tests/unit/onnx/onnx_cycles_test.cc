// A graph is opened, used and closed again and again, and the process stays what it was.
//
// Bytes are what malloc has handed out, and that counts what it keeps for threads (tcache), which fills for as long as
// sizes come that it has not had: kilobytes for each cycle that nobody lost. So the build's tests run this without that
// cache (GLIBC_TUNABLES), where nothing at all may be left; with it, some is allowed beside what bare sessions leave.
#include <fmt/format.h>
#include <malloc.h>

#include <cstdlib>
#include <filesystem>

#include "onnx_fixture.h"

namespace inferneo::onnx {
namespace {

constexpr size_t kWarmUp = 20;
constexpr double kAllowedBytes = 64;             // one lost object in a few cycles
constexpr double kAllowedBesideCaches = 8192.0;  // and twice what bare sessions leave

size_t scaled(double count) {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max<size_t>(30, static_cast<size_t>(count * (scale == nullptr ? 0.02 : std::atof(scale))));
}
size_t entries_of(const char* folder) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}
// Bytes that the heap has handed out: resident memory also counts holes between them.
double bytes_in_use() {
  const struct mallinfo2 heap = mallinfo2();
  return static_cast<double>(heap.uordblks + heap.hblkhd);
}

struct Growth {
  double bytes = 0.0;  // of a cycle
  size_t descriptors = 0;
  size_t threads = 0;
};
template <typename Cycle>
Growth growth_of(size_t cycles, const Cycle& cycle) {
  for (size_t i = 0; i < kWarmUp && !::testing::Test::HasFailure(); ++i) cycle();
  const double bytes = bytes_in_use();
  const size_t descriptors = entries_of("/proc/self/fd");
  const size_t threads = entries_of("/proc/self/task");
  for (size_t i = 0; i < cycles && !::testing::Test::HasFailure(); ++i) cycle();
  return {(bytes_in_use() - bytes) / static_cast<double>(cycles), entries_of("/proc/self/fd") - descriptors,
          entries_of("/proc/self/task") - threads};
}

TEST(OnnxCycles, NothingIsLeftBehind) {
  mallopt(M_ARENA_MAX, 1);  // the books of one heap are the exact ones
  SKIP_WITHOUT_ONNX_RUNTIME();
  const std::vector<GoldenAnswer> goldens = golden_answers();
  const std::string folder = golden_folder() + "/copied";
  const OrtLibrary* const library = *OrtLibrary::open("");
  const Growth bare = growth_of(40, [&] {
    const auto session = OnnxSession::create(*library, folder + "/model.onnx", {.num_threads = 2});
    ASSERT_TRUE(session.ok());
  });
  const size_t cycles = scaled(300);
  const Growth whole = growth_of(cycles, [&] {
    OnnxHouse house(folder);
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
  });
  fmt::print("{} cycles: {:.0f} bytes left by each; {:.0f} by a bare session\n", cycles, whole.bytes, bare.bytes);
  const char* const tunables = std::getenv("GLIBC_TUNABLES");
  const bool exact = tunables != nullptr && std::string(tunables).find("tcache_count=0") != std::string::npos;
  EXPECT_LE(whole.bytes, exact ? kAllowedBytes : 2 * std::max(0.0, bare.bytes) + kAllowedBesideCaches);
  EXPECT_EQ(whole.descriptors, 0U);
  EXPECT_EQ(whole.threads, 0U);
}

}  // namespace
}  // namespace inferneo::onnx
