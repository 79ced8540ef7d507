#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/bench_plan.h"
#include "cli/bench_report.h"
#include "fake_service.h"

namespace inferneo {
namespace {

TimePoint at(int ms) { return TimePoint(std::chrono::milliseconds(ms)); }

BenchStream stream(int scheduled, int first, int finished, int prompt, const std::vector<int>& arrivals) {
  BenchStream result;
  result.stats.submitted = result.stats.scheduled = at(scheduled);
  result.stats.first_token = at(first);
  result.stats.finished = at(finished);
  result.stats.prompt_tokens = prompt;
  result.stats.output_tokens = static_cast<int32_t>(arrivals.size());
  for (const int ms : arrivals) result.arrivals.emplace_back(at(ms), 1);
  return result;
}

TEST(BenchRates, OneStreamIsTimedByTheEngine) {
  const auto round = rate_streams({stream(100, 200, 500, 50, {200, 300, 400, 500})});
  ASSERT_TRUE(round.ok());
  EXPECT_DOUBLE_EQ(round->prefill_rate, 500.0);
  EXPECT_DOUBLE_EQ(round->decode_rate, 10.0);
  EXPECT_DOUBLE_EQ(round->time_to_first_token, 0.1);
  EXPECT_DOUBLE_EQ(round->output_rate, 4 / 0.4);
}

TEST(BenchRates, BatchesCountOnlyWhatAllDecodedTogether) {
  // The second stream starts at 300, the first ends at 500; in between each sends two tokens.
  const auto round =
      rate_streams({stream(100, 200, 500, 50, {200, 300, 400, 500}), stream(100, 300, 600, 50, {300, 400, 500, 600})});
  ASSERT_TRUE(round.ok());
  EXPECT_DOUBLE_EQ(round->prefill_rate, 100 / 0.2);
  EXPECT_DOUBLE_EQ(round->decode_rate, 4 / 0.2);
  EXPECT_DOUBLE_EQ(round->time_to_first_token, 0.15);
  EXPECT_DOUBLE_EQ(round->output_rate, 8 / 0.5);
}

TEST(BenchRates, CachedPromptTokensDoNotCount) {
  BenchStream cached = stream(0, 100, 200, 50, {100, 200});
  cached.stats.cached_tokens = 40;
  EXPECT_DOUBLE_EQ(rate_streams({cached})->prefill_rate, 100.0);
}

TEST(BenchRates, WhatNeverOverlapsIsAnError) {
  EXPECT_FALSE(rate_streams({stream(0, 10, 20, 5, {10, 20}), stream(0, 30, 40, 5, {30, 40})}).ok());
  EXPECT_FALSE(rate_streams({stream(0, 10, 10, 5, {10})}).ok());
  EXPECT_FALSE(rate_streams({}).ok());
}

TEST(BenchRates, SpreadIsMedianAndRange) {
  EXPECT_DOUBLE_EQ(spread_of({3, 1, 2}).median, 2.0);
  EXPECT_DOUBLE_EQ(spread_of({4, 1, 2, 3}).median, 2.5);
  EXPECT_DOUBLE_EQ(spread_of({4, 1, 2, 3}).min, 1.0);
  EXPECT_DOUBLE_EQ(spread_of({4, 1, 2, 3}).max, 4.0);
}

TEST(BenchRound, AsksForFreshPromptsOfTheGivenShape) {
  FakeService service;
  ASSERT_TRUE(run_bench_round(service, {5, 16, 3}, 1).ok());
  ASSERT_TRUE(run_bench_round(service, {5, 16, 3}, 2).ok());
  ASSERT_EQ(service.requests.size(), 6U);
  std::set<std::string> salts;
  std::set<std::vector<Token>> prompts;
  for (const GenerateRequest& request : service.requests) {
    const auto& prompt = std::get<std::vector<Token>>(request.prompt);
    EXPECT_EQ(prompt.size(), 5U);
    for (const Token token : prompt) EXPECT_TRUE(token > 0 && token < 100) << token;
    prompts.insert(prompt);
    salts.insert(request.cache_salt);
    EXPECT_TRUE(request.sampling.ignore_eos);
    EXPECT_EQ(request.sampling.max_tokens, 16);
    EXPECT_FLOAT_EQ(request.sampling.temperature, 0.0F);
  }
  EXPECT_EQ(salts.size(), 6U);
  EXPECT_EQ(prompts.size(), 6U);
}

TEST(BenchRound, ErrorsOfTheServiceComeBack) {
  FakeService service;
  service.replies = {{.error = make_error(ErrorCode::out_of_memory, "too much")}};
  const auto round = run_bench_round(service, {5, 8, 2}, 1);
  ASSERT_FALSE(round.ok());
  EXPECT_EQ(round.error().message, "too much");
}

TEST(BenchShares, CountBytesAndOperations) {
  ModelFacts facts;
  facts.dtype = "bf16";
  facts.layer_parameters = 1e9;
  facts.head_parameters = 1e8;
  facts.weight_bytes_read = 2.2e9;
  facts.kv_bytes_per_token = 1e5;
  kernels::MachinePeaks peaks;
  peaks.bf16_flops = 400e9;
  peaks.f32_flops = 100e9;
  peaks.read_bytes_per_second = 20e9;
  EXPECT_DOUBLE_EQ(prefill_share(facts, peaks, 500, 100.0), (2e9 + 2e8 / 500) * 100 / 400e9);
  EXPECT_DOUBLE_EQ(decode_share(facts, peaks, 1000, 1, 8.0), (2.2e9 + 1e8) * 8 / 20e9);
  EXPECT_DOUBLE_EQ(decode_share(facts, peaks, 1000, 4, 8.0), (2.2e9 + 4e8) * 2 / 20e9)
      << "weights are read once a step";
  peaks.int8_ops = 800e9;
  facts.dtype = "int4";
  EXPECT_DOUBLE_EQ(prefill_share(facts, peaks, 500, 100.0), (2e9 + 2e8 / 500) * 100 / 800e9);
  facts.dtype = "f32";
  EXPECT_DOUBLE_EQ(prefill_share(facts, peaks, 500, 10.0), (2e9 + 2e8 / 500) * 10 / 100e9);
}

TEST(BenchCase, EachRoundIsComparedWithTheBetterPeaksAroundIt) {
  FakeService service;
  BenchYardstick yardstick;
  yardstick.facts.dtype = "bf16";
  yardstick.facts.weight_bytes_read = 1e9;
  yardstick.facts.layer_parameters = 1e9;
  int calls = 0;
  yardstick.measure_peaks = [&calls]() -> Result<kernels::MachinePeaks> {
    kernels::MachinePeaks peaks;
    peaks.bf16_flops = ++calls == 1 ? 8e9 : 4e9;
    peaks.read_bytes_per_second = calls == 1 ? 1e9 : 2e9;
    return peaks;
  };
  const auto row = measure_bench_case(service, {5, 16, 1}, 1, &yardstick);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(calls, 2);
  EXPECT_DOUBLE_EQ(row->prefill_share->median, 2e9 * row->prefill.median / 8e9);
  EXPECT_DOUBLE_EQ(row->decode_share->median, 1e9 * row->decode.median / 2e9);
  EXPECT_FALSE(measure_bench_case(service, {5, 16, 1}, 2, nullptr)->decode_share.has_value());
}

Result<BenchPlan> plan_of(const std::string& flag, const std::string& value) {
  Invocation invocation;
  invocation.options[flag] = {value};
  return read_bench_plan(invocation);
}

TEST(BenchPlan, ListsOfNumbers) {
  EXPECT_THAT(plan_of("--input-len", "1,22,333")->input_lens, ::testing::ElementsAre(1, 22, 333));
  for (const auto* bad : {"", ",", "1,", ",1", "1,,2", "1;2", "0", "-1", "1.5", "x", "99999999999"}) {
    const auto plan = plan_of("--input-len", bad);
    ASSERT_FALSE(plan.ok()) << bad;
    EXPECT_THAT(plan.error().message, ::testing::HasSubstr("--input-len: expected whole numbers from 1"));
  }
  EXPECT_FALSE(plan_of("--output-len", "1").ok()) << "one token has no decode step";
}

BenchReport sample_report() {
  BenchReport report;
  report.model = "models/story";
  report.rounds = 3;
  kernels::MachinePeaks peaks;
  peaks.threads = 2;
  peaks.isa = "avx512_bf16";
  peaks.f32_flops = 100e9;
  peaks.bf16_flops = 400e9;
  peaks.int8_ops = 800e9;
  peaks.read_bytes_per_second = 20e9;
  report.peaks = peaks;
  ModelFacts facts;
  facts.dtype = "bf16";
  facts.layer_parameters = 1e9;
  facts.head_parameters = 1e8;
  facts.weight_bytes_read = 2.2e9;
  facts.parameters = 1.1e9;
  report.facts = facts;
  report.rows = {{{512, 64, 1}, {100.0, 90.25, 110.0}, {8.0, 7.5, 8.125}, {5.0, 4.0, 6.0}, {}, {}},
                 {{128, 64, 16}, {199.0, 180.0, 200.0}, {101.5, 99.9, 110.0}, {0.1, 0.1, 0.1}, {}, {}}};
  report.rows[0].prefill_share = Spread{0.5, 0.4, 0.6};
  report.rows[0].decode_share = Spread{0.88, 0.8, 0.9};
  return report;
}

TEST(BenchReport, TableIsAlignedAndFitsTheScreen) {
  const BenchReport report = sample_report();
  std::string text = bench_table_head(report);
  const size_t begin = text.rfind('\n', text.size() - 2) + 1;
  for (const BenchRow& row : report.rows) text += bench_table_row(row);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80U) << line;
  std::istringstream table(text.substr(begin));
  std::set<size_t> widths;
  for (std::string line; std::getline(table, line);) widths.insert(line.size());
  EXPECT_EQ(widths.size(), 1U) << text;
  EXPECT_THAT(text, ::testing::HasSubstr("   50 %"));
  EXPECT_THAT(text, ::testing::HasSubstr(" 88 %"));
}

TEST(BenchReport, SharesOverTheWholeAreExplained) {
  BenchReport report = sample_report();
  EXPECT_EQ(bench_table_foot(report), "");
  report.rows.front().decode_share->median = 1.01;
  EXPECT_THAT(bench_table_foot(report), ::testing::HasSubstr("over 100 %"));
}

TEST(BenchReport, JsonHoldsTheSameNumbers) {
  const auto json = nlohmann::json::parse(bench_json(sample_report()));
  EXPECT_EQ(json["rows"].size(), 2U);
  EXPECT_DOUBLE_EQ(json["rows"][0]["decode_tokens_per_second"]["median"], 8.0);
  EXPECT_DOUBLE_EQ(json["rows"][0]["decode_share_of_bandwidth"]["median"], 0.88);
  EXPECT_EQ(json["machine"]["isa"], "avx512_bf16");
  BenchReport bare = sample_report();
  bare.peaks.reset();
  bare.facts.reset();
  bare.rows[0].prefill_share.reset();
  bare.rows[0].decode_share.reset();
  EXPECT_TRUE(nlohmann::json::parse(bench_json(bare))["machine"].is_null());
  EXPECT_THAT(bench_table_row(bare.rows[0]), ::testing::HasSubstr(" - "));
}

}  // namespace
}  // namespace inferneo
