#include "cli/roofline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <sstream>

#include "cli/roofline_run.h"

namespace inferneo {
namespace {

using kernels::Arithmetic;
using kernels::Phase;
using ::testing::HasSubstr;

kernels::MachinePeaks roof() {
  kernels::MachinePeaks peaks;
  peaks.threads = 2;
  peaks.isa = "avx2";
  peaks.f32_flops = 100e9;
  peaks.bf16_flops = 200e9;
  peaks.int8_ops = 400e9;
  peaks.read_bytes_per_second = 10e9;
  return peaks;
}

void put(StepSample& sample, Phase phase, double seconds, double bytes, Arithmetic arithmetic, double operations) {
  kernels::PhaseWork& work = sample[static_cast<size_t>(phase)];
  work.seconds = seconds;
  work.cost.bytes = bytes;
  work.cost.operations[static_cast<size_t>(arithmetic)] = operations;
}

std::vector<StepSample> samples() {
  std::vector<StepSample> all(3);
  for (size_t i = 0; i < all.size(); ++i) {
    const double slow = 1.0 + static_cast<double>(i);
    put(all[i], Phase::qkv, 0.010 * slow, 50e6, Arithmetic::bf16, 2e8);       // 5 ms of memory, 1 ms of computing
    put(all[i], Phase::attention, 0.004 * slow, 1e6, Arithmetic::bf16, 8e8);  // 0.1 and 4 ms
    put(all[i], Phase::activation, 0.001 * slow, 0.0, Arithmetic::f32, 1e8);  // 1 ms
  }
  return all;
}

const RooflinePhase& phase_of(const RooflineCase& rated, std::string_view name) {
  return *std::find_if(rated.phases.begin(), rated.phases.end(),
                       [&](const RooflinePhase& phase) { return phase.name == name; });
}

TEST(Roofline, APhaseIsHeldToTheSlowerOfMemoryAndArithmetic) {
  const RooflineCase rated = rate_steps({1, 512, 1}, samples(), roof(), roof());
  ASSERT_EQ(rated.phases.size(), 3U) << "phases that took no time are left out";
  const RooflinePhase& qkv = phase_of(rated, "q, k, v");
  EXPECT_TRUE(qkv.by_memory);
  EXPECT_DOUBLE_EQ(qkv.limit_seconds, 0.005);
  EXPECT_DOUBLE_EQ(qkv.share(), 0.25) << "of the median";
  const RooflinePhase& attention = phase_of(rated, "attention");
  EXPECT_FALSE(attention.by_memory);
  EXPECT_DOUBLE_EQ(attention.limit_seconds, 0.004);
  EXPECT_DOUBLE_EQ(phase_of(rated, "activation").limit_seconds, 0.001) << "at the peak of f32";
  EXPECT_DOUBLE_EQ(rated.step.limit_seconds, 0.010) << "phases run one after the other";
  EXPECT_DOUBLE_EQ(rated.step.seconds.median, 0.030);
  EXPECT_DOUBLE_EQ(rated.step.bytes, 51e6);
  EXPECT_EQ(rated.repetitions, 3);
}

TEST(Roofline, TheBetterPeaksCountAndAMachineThatDriftsIsNamed) {
  kernels::MachinePeaks after = roof();
  after.read_bytes_per_second = 9.6e9;
  EXPECT_EQ(peaks_warning(roof(), after), "");
  after.read_bytes_per_second = 20e9;
  after.f32_flops = 90e9;
  const RooflineCase rated = rate_steps({1, 0, 8}, samples(), roof(), after);
  EXPECT_DOUBLE_EQ(phase_of(rated, "q, k, v").limit_seconds, 0.0025);
  EXPECT_DOUBLE_EQ(phase_of(rated, "activation").limit_seconds, 0.001);
  EXPECT_THAT(peaks_warning(roof(), after), HasSubstr("the read bandwidth was 10.0 GB/s before and 20.0 after, 50 %"));
  EXPECT_THAT(roofline_table(rated), HasSubstr("not quiet"));
  EXPECT_THAT(peaks_warning(after, roof()), HasSubstr("the read bandwidth was 20.0 GB/s before and 10.0"));
}

TEST(Roofline, TablesLineUpAndFitTheScreen) {
  std::vector<StepSample> all = samples();
  for (StepSample& sample : all) put(sample, Phase::gate_up, 54.3215, 98.7e9, Arithmetic::bf16, 7654e9);
  RooflineReport report{"models/story", {}, {rate_steps({1, 0, 2048}, all, roof(), roof())}};
  const std::string text = roofline_head(report, roof()) + roofline_table(report.cases[0]) + roofline_foot(report);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80U) << line;
  std::istringstream table(text.substr(text.find("phase ")));
  std::set<size_t> widths;
  for (std::string line; std::getline(table, line) && !line.empty();) widths.insert(line.size());
  EXPECT_EQ(widths.size(), 1U) << text;
  EXPECT_THAT(text, HasSubstr("prefill of 2048 tokens: "));
  EXPECT_EQ(roofline_foot(report), "");
  for (StepSample& sample : all) put(sample, Phase::norms, 1e-6, 1e6, Arithmetic::f32, 0.0);
  report.cases[0] = rate_steps({1, 0, 2048}, all, roof(), roof());
  EXPECT_THAT(roofline_foot(report), HasSubstr("over 100 %"));
}

TEST(Roofline, JsonHoldsTheSameNumbers) {
  RooflineReport report{"models/story", {}, {rate_steps({4, 512, 1}, samples(), roof(), roof())}};
  const auto json = nlohmann::json::parse(roofline_json(report));
  const auto& rated = json["cases"][0];
  EXPECT_EQ(rated["kind"], "decode");
  EXPECT_EQ(rated["streams"], 4);
  EXPECT_EQ(rated["quiet"], true);
  EXPECT_EQ(rated["phases"].size(), 3U);
  EXPECT_EQ(rated["phases"][0]["phase"], "q, k, v");
  EXPECT_EQ(rated["phases"][0]["limited_by"], "memory");
  EXPECT_DOUBLE_EQ(rated["phases"][0]["share_of_limit"], 0.25);
  EXPECT_DOUBLE_EQ(rated["step"]["seconds"]["median"], 0.030);
  EXPECT_DOUBLE_EQ(rated["peaks_before"]["read_bytes_per_second"], 10e9);
}

TEST(Roofline, DecodesAfterTheLongestPrompt) {
  const BenchPlan plan{.input_lens = {64, 256, 128}, .output_lens = {}, .batches = {1, 8}, .rounds = 1};
  const std::vector<StepCase> cases = roofline_cases(plan);
  ASSERT_EQ(cases.size(), 5U);
  EXPECT_EQ(cases[1].tokens, 256);
  EXPECT_FALSE(is_decode(cases[1]));
  EXPECT_EQ(cases[4].streams, 8);
  EXPECT_EQ(cases[4].context, 256);
  EXPECT_TRUE(is_decode(cases[4]));
}

// The bundled storyteller: 4 layers of 192 with 6 heads of 32 on 2, 512 between, a vocabulary of 1536.
EngineConfig story() {
  EngineConfig config;
  config.model = {std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story"};
  config.device = "cpu";
  return config;
}

class Steps : public ::testing::Test {
 protected:
  Result<std::unique_ptr<StepBench>> open(const EngineConfig& config) {
    return StepBench::open(config, pool_, ledger_, cases_);
  }
  double operations(const StepBench& bench, Phase phase) const {
    const auto& all = bench.profile().phases()[static_cast<size_t>(phase)].cost.operations;
    return std::accumulate(all.begin(), all.end(), 0.0);
  }

  ThreadPool pool_{2};
  MemoryLedger ledger_{size_t{1} << 30};
  std::vector<StepCase> cases_ = {{1, 0, 48}, {3, 100, 1}};
};

TEST_F(Steps, CountWhatTheModelComputes) {
  const auto bench = open(story());
  ASSERT_TRUE(bench.ok()) << bench.error().message;
  EXPECT_EQ((*bench)->num_layers(), 4);
  for (const StepCase& work : cases_) {
    ASSERT_TRUE((*bench)->run(work).ok());
    const double tokens = work.streams * work.tokens;
    EXPECT_DOUBLE_EQ(operations(**bench, Phase::qkv), 2.0 * tokens * 4 * 192 * (192 + 64 + 64));
    EXPECT_DOUBLE_EQ(operations(**bench, Phase::attention_output), 2.0 * tokens * 4 * 192 * 192);
    EXPECT_DOUBLE_EQ(operations(**bench, Phase::gate_up), 2.0 * tokens * 4 * 192 * 1024);
    EXPECT_DOUBLE_EQ(operations(**bench, Phase::down), 2.0 * tokens * 4 * 192 * 512);
    const double head = 4.0 * 192 + 2.0 * 192 * 1536;  // with its norm
    EXPECT_DOUBLE_EQ(operations(**bench, Phase::head), work.streams * head) << "the last token of each stream";
    double pairs = 0.0;
    for (int i = 0; i < work.tokens; ++i) pairs += work.streams * (work.context + i + 1);
    EXPECT_DOUBLE_EQ(operations(**bench, Phase::attention), 4.0 * pairs * 4 * 192);
    for (const Phase phase : {Phase::norms, Phase::rope, Phase::activation, Phase::sampling, Phase::embedding}) {
      EXPECT_GT((*bench)->profile().phases()[static_cast<size_t>(phase)].cost.bytes, 0.0);
    }
    EXPECT_DOUBLE_EQ((*bench)->profile().phases()[static_cast<size_t>(Phase::routing)].seconds, 0.0);
  }
}

TEST_F(Steps, RunTheSameEachTimeAndInPieces) {
  const auto whole = open(story());
  EngineConfig config = story();
  config.max_num_batched_tokens = 20;
  const auto pieces = open(config);
  ASSERT_TRUE(whole.ok() && pieces.ok());
  const auto first = (*whole)->run(cases_[0]);
  const double operations_of_whole = operations(**whole, Phase::gate_up);
  const auto again = (*whole)->run(cases_[0]);
  const auto cut = (*pieces)->run(cases_[0]);
  ASSERT_TRUE(first.ok() && again.ok() && cut.ok());
  EXPECT_EQ(first->sequences[0].tokens, again->sequences[0].tokens);
  EXPECT_EQ(first->sequences[0].tokens, cut->sequences[0].tokens);
  EXPECT_DOUBLE_EQ(operations(**whole, Phase::gate_up), operations_of_whole) << "each run is counted alone";
  EXPECT_DOUBLE_EQ(operations(**pieces, Phase::gate_up), operations_of_whole) << "all pieces of a run count";
}

TEST_F(Steps, SayWhatTheyCannotMeasure) {
  EngineConfig config = story();
  config.device = "cuda:0";
  EXPECT_EQ(open(config).error().code, ErrorCode::unsupported);
  config.device = "cpu";
  cases_.push_back({1, 1020, 8});
  EXPECT_EQ(open(config).error().code, ErrorCode::context_too_long);
  cases_.pop_back();
  config.model = {"./absent"};
  EXPECT_EQ(open(config).error().code, ErrorCode::not_found);
  config.model.clear();
  EXPECT_EQ(open(config).error().code, ErrorCode::invalid_argument);
}

TEST_F(Steps, AreMeasuredBetweenTwoLooksAtThePeaks) {
  const auto bench = open(story());
  ASSERT_TRUE(bench.ok());
  int looks = 0;
  std::vector<RooflineCase> rated;
  const auto measure = [&](size_t stop_after) {
    return measure_roofline(
        **bench, cases_, 1,
        [&]() -> Result<kernels::MachinePeaks> {
          ++looks;
          return roof();
        },
        [&](const RooflineCase& one) {
          rated.push_back(one);
          return rated.size() < stop_after;
        });
  };
  ASSERT_TRUE(measure(9).ok());
  EXPECT_EQ(looks, 3);
  ASSERT_EQ(rated.size(), 2U);
  EXPECT_GE(rated[0].repetitions, 1);
  EXPECT_GT(rated[1].step.seconds.median, 0.0);
  rated.clear();
  ASSERT_TRUE(measure(1).ok());
  EXPECT_EQ(rated.size(), 1U) << "nobody reads any more";
}

}  // namespace
}  // namespace inferneo
