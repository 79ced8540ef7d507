// What /metrics says is valid, by a reading of our own and by Prometheus' promtool where that is there.
#include "server/exposition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "exposition_check.h"
#include "serving/model_metrics.h"

namespace inferneo {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::array kBounds = {0.5, 1.0, 2.5};

std::vector<std::string> names_of(std::string_view labels) {
  std::vector<std::string> names;
  while (!labels.empty()) {
    const size_t comma = std::min(labels.find(','), labels.size());
    names.emplace_back(labels.substr(0, comma));
    labels.remove_prefix(std::min(comma + 1, labels.size()));
  }
  return names;
}

// Each row of the catalogue with some series, of hostile names too.
std::vector<MetricSample> samples_of_all(int series) {
  std::vector<MetricSample> samples;
  for (int i = series; i-- > 0;) {
    for (const MetricInfo& info : metrics_catalogue()) {
      if (info.labels.empty() && i > 0) continue;
      MetricSample sample{std::string(info.name), {}, 0.25 * i};
      for (const std::string& name : names_of(info.labels)) {
        sample.labels = sample.labels.with(name, "va\"l\\ue\n{le=\"1\"} " + std::to_string(i));
      }
      if (info.type == MetricType::histogram) {
        Histogram histogram(kBounds);
        for (int k = 0; k <= i; ++k) histogram.observe(k);
        sample.value = histogram;
      }
      samples.push_back(std::move(sample));
    }
  }
  return samples;
}

TEST(Exposition, EveryMetricIsValidWhateverTheNames) {
  const std::string text = render_metrics(samples_of_all(4), metrics_catalogue());
  EXPECT_THAT(exposition_faults(text), IsEmpty());
  for (const MetricInfo& info : metrics_catalogue()) {
    const bool counts = info.type == MetricType::counter;
    const std::string name = std::string(info.name) + (counts                               ? "_total"
                                                       : info.type == MetricType::histogram ? "_bucket"
                                                                                            : "");
    EXPECT_NE(text.find("\n" + name + (info.labels.empty() ? " " : "{")), std::string::npos) << name;
  }
}

TEST(Exposition, NothingMeasuredYetIsValid) {
  EXPECT_THAT(exposition_faults(render_metrics({}, metrics_catalogue())), IsEmpty());
}

TEST(Exposition, WritesWhatScrapersRead) {
  constexpr std::array kRows = {MetricInfo{"a:requests", MetricType::counter, "m", "Requests."},
                                MetricInfo{"a:seconds", MetricType::histogram, "m", "Times.\nTwo lines \\."},
                                MetricInfo{"a:level", MetricType::gauge, "", "A level."}};
  Histogram histogram(kBounds);
  for (const double value : {0.5, 0.6, 9.0}) histogram.observe(value);
  const std::vector<MetricSample> samples = {{"a:level", {}, -0.125},
                                             {"a:seconds", {{"m", "x"}}, histogram},
                                             {"a:unknown", {}, 1.0},
                                             {"a:level", {}, histogram},  // of another kind than its row
                                             {"a:requests", {{"m", "q\"\\\n"}}, 1e15},
                                             {"a:requests", {{"m", "y"}}, 0.0}};
  EXPECT_EQ(render_metrics(samples, kRows),
            "# HELP a:requests_total Requests.\n"
            "# TYPE a:requests_total counter\n"
            "a:requests_total{m=\"q\\\"\\\\\\n\"} 1000000000000000\n"
            "a:requests_total{m=\"y\"} 0\n"
            "# HELP a:seconds Times.\\nTwo lines \\\\.\n"
            "# TYPE a:seconds histogram\n"
            "a:seconds_bucket{m=\"x\",le=\"0.5\"} 1\n"
            "a:seconds_bucket{m=\"x\",le=\"1\"} 2\n"
            "a:seconds_bucket{m=\"x\",le=\"2.5\"} 2\n"
            "a:seconds_bucket{m=\"x\",le=\"+Inf\"} 3\n"
            "a:seconds_sum{m=\"x\"} 10.1\n"
            "a:seconds_count{m=\"x\"} 3\n"
            "# HELP a:level A level.\n"
            "# TYPE a:level gauge\n"
            "a:level -0.125\n");
}

TEST(Exposition, TheCheckFindsFaults) {
  const std::string head = "# HELP a A.\n# TYPE a gauge\n";
  const std::string histogram = "# HELP h H.\n# TYPE h histogram\n";
  const std::pair<std::string, std::string> cases[] = {
      {head + "a 1", "the last line has no end"},
      {head + "a 1\na 2\n", "the series twice"},
      {head + "a{x=\"1\"} 1\na{y=\"1\"} 2\n", "other labels"},
      {head + "a{x=\"1\",x=\"2\"} 1\n", "a label twice"},
      {head + "a{x=\"\\q\"} 1\n", "bad labels"},
      {head + "a{x=\"1\"x=\"2\"} 1\n", "bad labels"},
      {head + "a one\n", "not a number"},
      {head + "a 1 1700000000\n", "a timestamp"},
      {head + "b 1\n", "outside its family"},
      {head + head + "a 1\n", "a second HELP"},
      {"# HELP c C.\n# TYPE c counter\nc 1\n", "without _total"},
      {histogram + "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n", "buckets that fall"},
      {histogram + "h_bucket{le=\"2\"} 0\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
       "bounds that do not rise"},
      {histogram + "h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n", "no bucket +Inf"},
      {histogram + "h_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n", "_count is not"},
      {histogram + "h_bucket{le=\"+Inf\"} 1\nh_count 1\n", "no _sum"},
  };
  for (const auto& [text, fault] : cases) {
    EXPECT_THAT(exposition_faults(text), Contains(HasSubstr(fault))) << text;
  }
}

std::string find_promtool() {
  const std::string own = std::string(INFERNEO_SOURCE_DIR) + "/build/tools/usr/bin/promtool";  // of scripts/test.sh
  for (const std::string& path : {std::string("/usr/bin/promtool"), std::string("/usr/local/bin/promtool"), own}) {
    if (std::filesystem::exists(path)) return path;
  }
  return {};
}

TEST(Exposition, PromtoolAgrees) {
  const std::string promtool = find_promtool();
  if (promtool.empty()) GTEST_SKIP() << "promtool is not there (package prometheus); the own check has run";
  const std::string path = ::testing::TempDir() + "/inferneo-metrics-" + std::to_string(getpid()) + ".txt";
  std::ofstream(path) << render_metrics(samples_of_all(4), metrics_catalogue());
  FILE* const pipe = popen((promtool + " check metrics < " + path + " 2>&1").c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string said;
  char buffer[4096];
  while (const size_t got = fread(buffer, 1, sizeof(buffer), pipe)) said.append(buffer, got);
  const int status = WEXITSTATUS(pclose(pipe));
  std::filesystem::remove(path);
  // 3: valid, and not to its taste. What it dislikes are names that vLLM has given.
  EXPECT_TRUE(status == 0 || status == 3) << status << ": " << said;
  std::istringstream lines(said);
  for (std::string line; std::getline(lines, line);) {
    const bool colon = line.ends_with("metric names should not contain ':'");
    const bool total = line.starts_with("vllm:iteration_tokens_total ");
    EXPECT_TRUE(colon || total) << line;
  }
}

}  // namespace
}  // namespace inferneo
