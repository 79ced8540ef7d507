// Definitions that are refused, and the life of a test.
#include "experiments/experiment.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace inferneo {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

ABTestConfig good() {
  return {.name = "model_comparison", .model_a = "gpt-3.5-turbo", .model_b = "code-llama", .traffic_split = 0.3};
}

ABTestConfig three_arms() {
  ABTestConfig config{.name = "three"};
  config.arms = {{.model = "small"}, {.model = "small", .version = "2"}, {.name = "hot", .model = "small"}};
  config.arms[2].sampling.temperature = 1.5F;
  return config;
}

TimePoint at(int64_t second) { return TimePoint{} + seconds(second); }

TEST(Definition, PromptsAndSettingsMakeAnArmAnother) {
  ABTestConfig config = three_arms();
  config.arms = {{.model = "small"}, {.model = "small"}};
  EXPECT_FALSE(define_experiment(config).ok()) << "the same twice";
  const auto accepted = [&](const ABTestArm& b) {
    config.arms[1] = b;
    return define_experiment(config).ok();
  };
  EXPECT_TRUE(accepted({.model = "small", .prompt_template = "{{ messages }}"}));
  EXPECT_TRUE(accepted({.model = "small", .system_prompt = "Be brief."}));
  EXPECT_TRUE(accepted({.model = "small", .settings = {{"max_num_seqs", "4"}}}));
  EXPECT_FALSE(accepted({.model = "small", .settings = {{"chat_template", "x"}}}));
  EXPECT_FALSE(accepted({.model = "small", .prompt_template = std::string(64 * 1024 + 1, 'x')}));
  EXPECT_TRUE(accepted({.model = "small", .prompt_template = std::string(64 * 1024, 'x')}));
  std::map<std::string, std::string> many;
  for (int i = 0; i < 65; ++i) many[std::to_string(i)] = "x";
  EXPECT_FALSE(accepted({.model = "small", .settings = many}));
}

TEST(Definition, IsWrittenOutInFull) {
  const ExperimentDefinition definition = define_experiment(good()).value();
  ASSERT_EQ(definition.num_arms(), 2U);
  EXPECT_EQ(definition.arms[0].model, "gpt-3.5-turbo");
  EXPECT_EQ(definition.arms[1].model, "code-llama");
  EXPECT_EQ(definition.arms[1].name, "B");
  EXPECT_EQ(definition.shares[1], 0.3);
  EXPECT_EQ(definition.find_arm("B"), 1U);
  EXPECT_EQ(definition.find_arm("nobody"), 2U);
  ASSERT_EQ(definition.ramp.size(), 1U);

  const ExperimentDefinition three = define_experiment(three_arms()).value();
  EXPECT_EQ(three.arms[1].name, "B");
  EXPECT_EQ(three.arms[2].name, "hot");
  EXPECT_NEAR(three.full_share(), 2.0 / 3, 1e-15);
}

struct Wrong {
  const char* param;
  const char* says;
  std::function<void(ABTestConfig&)> change;
};

TEST(Definition, RefusesWhatCannotBeAndSaysWhy) {
  const std::vector<Wrong> cases{
      {"name", "not a name", [](ABTestConfig& c) { c.name = ""; }},
      {"name", "not a name", [](ABTestConfig& c) { c.name = "a b"; }},
      {"name", "not a name", [](ABTestConfig& c) { c.name = std::string(129, 'a'); }},
      {"model_a", "needs model_a", [](ABTestConfig& c) { c.model_a = ""; }},
      {"model_b", "needs model_b", [](ABTestConfig& c) { c.model_b = ""; }},
      {"traffic_split", "traffic_split is 0,", [](ABTestConfig& c) { c.traffic_split = 0; }},
      {"traffic_split", "traffic_split is 1,", [](ABTestConfig& c) { c.traffic_split = 1; }},
      {"traffic_split", "traffic_split is -0.1", [](ABTestConfig& c) { c.traffic_split = -0.1; }},
      {"traffic_split", "traffic_split is nan", [](ABTestConfig& c) { c.traffic_split = kNan; }},
      {"arms", "not both", [](ABTestConfig& c) { c.arms = three_arms().arms; }},
      {"arms", "are the same", [](ABTestConfig& c) { c.model_b = c.model_a; }},
      {"arms", "2 to 8 arms, not 1", [](ABTestConfig& c) { c = three_arms(), c.arms.resize(1); }},
      {"arms", "2 to 8 arms, not 9", [](ABTestConfig& c) { c = three_arms(), c.arms.resize(9); }},
      {"arms", "called 'hot'", [](ABTestConfig& c) { c = three_arms(), c.arms[0].name = "hot"; }},
      {"arms", "not a name of an arm", [](ABTestConfig& c) { c = three_arms(), c.arms[0].name = "a/b"; }},
      {"arms", "names no model", [](ABTestConfig& c) { c = three_arms(), c.arms[1].model = ""; }},
      {"weight", "weight is 0", [](ABTestConfig& c) { c = three_arms(), c.arms[1].weight = 0; }},
      {"weight", "weight is nan", [](ABTestConfig& c) { c = three_arms(), c.arms[1].weight = kNan; }},
      {"weight", "one in a million", [](ABTestConfig& c) { c = three_arms(), c.arms[1].weight = 1e-300; }},
      {"weight", "one in a million",
       [](ABTestConfig& c) { c = three_arms(), c.arms[0].weight = c.arms[2].weight = 1e-300; }},
      {"traffic_split", "one in a million", [](ABTestConfig& c) { c.traffic_split = 1e-300; }},
      {"temperature", "temperature is 3",
       [](ABTestConfig& c) { c = three_arms(), c.arms[1].sampling.temperature = 3; }},
      {"top_p", "top_p is 0", [](ABTestConfig& c) { c = three_arms(), c.arms[1].sampling.top_p = 0; }},
      {"max_tokens", "max_tokens is 0", [](ABTestConfig& c) { c = three_arms(), c.arms[1].sampling.max_tokens = 0; }},
      {"price", "negative", [](ABTestConfig& c) { c = three_arms(), c.arms[1].prompt_price = -1; }},
      {"salt", "256", [](ABTestConfig& c) { c.salt = std::string(257, 's'); }},
      {"ramp", "times begin at 0",
       [](ABTestConfig& c) {
         c.ramp = {{-1, 0.1}, {5, 0.3}};
       }},
      {"ramp", "times begin at 0",
       [](ABTestConfig& c) {
         c.ramp = {{5, 0.1}, {5, 0.3}};
       }},
      {"ramp", "times begin at 0",
       [](ABTestConfig& c) {
         c.ramp = {{kNan, 0.1}, {5, 0.3}};
       }},
      {"ramp", "times begin at 0",
       [](ABTestConfig& c) {
         c.ramp = {{0, 0.1}, {1e18, 0.3}};
       }},
      {"ramp", "rise",
       [](ABTestConfig& c) {
         c.ramp = {{0, 0.2}, {5, 0.1}, {6, 0.3}};
       }},
      {"ramp", "must reach 0.3",
       [](ABTestConfig& c) {
         c.ramp = {{0, 0.1}, {5, 0.2}};
       }},
      {"ramp", "must reach 0.3",
       [](ABTestConfig& c) {
         c.ramp = {{0, 0.1}, {5, 0.4}};
       }},
      {"false_alarm_rate", "0.05 is usual", [](ABTestConfig& c) { c.false_alarm_rate = 0; }},
      {"minimum_effect", "10 %", [](ABTestConfig& c) { c.minimum_effect = kNan; }},
      {"minimum_difference", "5 points", [](ABTestConfig& c) { c.minimum_difference = 1; }},
      {"minimum_samples", "at least 30", [](ABTestConfig& c) { c.minimum_samples = 29; }},
      {"max_error_rate", "between 0 and 1", [](ABTestConfig& c) { c.guardrails.max_error_rate = 1.0; }},
      {"max_p95_time_to_first_token", "above 0",
       [](ABTestConfig& c) { c.guardrails.max_p95_time_to_first_token = 0.0; }},
      {"minimum_samples", "at least 1", [](ABTestConfig& c) { c.guardrails.minimum_samples = 0; }},
  };
  for (const Wrong& wrong : cases) {
    ABTestConfig config = good();
    wrong.change(config);
    const auto result = define_experiment(config);
    ASSERT_FALSE(result.ok()) << wrong.says;
    EXPECT_EQ(result.error().code, ErrorCode::invalid_argument) << wrong.says;
    EXPECT_EQ(result.error().param, wrong.param) << result.error().message;
    EXPECT_THAT(result.error().message, HasSubstr(wrong.says));
  }
}

TEST(Definition, ARampEndsAtTheExactShare) {
  ABTestConfig config = good();
  config.ramp = {{0, 0.1}, {5, 0.3 - 1e-10}};
  EXPECT_EQ(define_experiment(config).value().ramp.back().share, 0.3);
}

TEST(Definition, NamesOfMetricsAndKeysReadBack) {
  for (const ABTestMetric metric : all_ab_test_metrics()) {
    EXPECT_EQ(parse_ab_test_metric(ab_test_metric_name(metric)).value(), metric);
  }
  EXPECT_EQ(all_ab_test_metrics().size(), static_cast<size_t>(kNumABTestMetrics));
  EXPECT_THAT(parse_ab_test_metric("speed").error().message, HasSubstr("feedback"));
  for (const ABTestKey key : {ABTestKey::user, ABTestKey::session, ABTestKey::request}) {
    EXPECT_EQ(parse_ab_test_key(ab_test_key_name(key)).value(), key);
  }
  EXPECT_FALSE(parse_ab_test_key("ip").ok());
}

// Which of start, pause, stop, promote each state allows.
TEST(ExperimentLife, AllowsExactlyTheLegalTransitions) {
  using State = ExperimentState;
  const auto brought_to = [](State state) {
    Experiment experiment = Experiment::create(good()).value();
    if (state == State::draft) return experiment;
    EXPECT_TRUE(experiment.start(at(0)).ok());
    if (state == State::paused) {
      EXPECT_TRUE(experiment.pause(at(1)).ok());
    }
    if (state == State::stopped) {
      EXPECT_TRUE(experiment.stop(at(1)).ok());
    }
    if (state == State::promoted) {
      EXPECT_TRUE(experiment.promote("B", at(1)).ok());
    }
    EXPECT_EQ(experiment.state(), state);
    return experiment;
  };
  struct Row {
    State from;
    bool start, pause, stop, promote, stop_arm;
  };
  const std::vector<Row> rows{{State::draft, true, false, false, false, false},
                              {State::running, false, true, true, true, true},
                              {State::paused, true, false, true, true, true},
                              {State::stopped, false, false, false, true, false},
                              {State::promoted, false, false, false, false, false}};
  for (const Row& row : rows) {
    const std::vector<std::pair<bool, std::function<Status(Experiment&)>>> steps{
        {row.start, [](Experiment& e) { return e.start(at(5)); }},
        {row.pause, [](Experiment& e) { return e.pause(at(5)); }},
        {row.stop, [](Experiment& e) { return e.stop(at(5)); }},
        {row.promote, [](Experiment& e) { return e.promote("A", at(5)); }},
        {row.stop_arm, [](Experiment& e) { return e.stop_arm(1, "slow", at(5)); }}};
    for (const auto& [allowed, step] : steps) {
      Experiment experiment = brought_to(row.from);
      const Status status = step(experiment);
      EXPECT_EQ(status.ok(), allowed) << experiment_state_name(row.from);
      if (!allowed) {
        EXPECT_EQ(status.error().code, ErrorCode::conflict);
        EXPECT_THAT(status.error().message, HasSubstr("model_comparison"));
        EXPECT_EQ(experiment.state(), row.from);
      }
    }
  }
}

TEST(ExperimentLife, OnlyARunningTestSplits) {
  Experiment experiment = Experiment::create(good()).value();
  const auto in_b = [&] {
    int count = 0;
    for (int i = 0; i < 1000; ++i) count += experiment.assign({.key = fmt::format("u{}", i)}).arm == 1 ? 1 : 0;
    return count;
  };
  EXPECT_EQ(in_b(), 0);
  ASSERT_TRUE(experiment.start(at(0)).ok());
  const int split = in_b();
  EXPECT_NEAR(split, 300, 73);
  ASSERT_TRUE(experiment.pause(at(1)).ok());
  EXPECT_EQ(in_b(), 0);
  EXPECT_EQ(experiment.assign({.key = "u"}).reason, AssignmentReason::not_running);
  ASSERT_TRUE(experiment.start(at(2)).ok());
  EXPECT_EQ(in_b(), split);
  ASSERT_TRUE(experiment.promote("B", at(3)).ok());
  EXPECT_EQ(in_b(), 1000);
  EXPECT_FALSE(experiment.assign({.key = "u"}).counted);
  EXPECT_EQ(experiment.share(1), 1.0);
}

TEST(ExperimentLife, ASnapshotStaysAsItWas) {
  Experiment experiment = Experiment::create(good()).value();
  ASSERT_TRUE(experiment.start(at(0)).ok());
  const Experiment snapshot = experiment;
  ASSERT_TRUE(experiment.promote("B", at(3)).ok());
  EXPECT_EQ(snapshot.state(), ExperimentState::running);
  EXPECT_EQ(snapshot.share(1), 0.3);
}

TEST(ExperimentLife, TheRampCountsRunningTime) {
  ABTestConfig config = good();
  config.ramp = {{10, 0.01}, {100, 0.1}, {200, 0.3}};
  Experiment experiment = Experiment::create(config).value();
  EXPECT_FALSE(experiment.next_step());
  ASSERT_TRUE(experiment.start(at(1000)).ok());
  EXPECT_EQ(experiment.next_step(), at(1010));
  EXPECT_FALSE(experiment.advance(at(1009)));
  EXPECT_TRUE(experiment.advance(at(1010)));
  EXPECT_FALSE(experiment.advance(at(1011)));
  ASSERT_TRUE(experiment.pause(at(1050)).ok());
  EXPECT_FALSE(experiment.advance(at(5000)));
  EXPECT_FALSE(experiment.next_step());
  ASSERT_TRUE(experiment.start(at(5000)).ok());
  EXPECT_EQ(experiment.next_step(), at(5050));
  EXPECT_NEAR(experiment.share(1), 0.01, 1e-15);
  // Late: both steps at once.
  EXPECT_TRUE(experiment.advance(at(9000)));
  EXPECT_EQ(experiment.share(1), 0.3);
  EXPECT_TRUE(experiment.at_full_share());
}

TEST(ExperimentLife, SurvivesARestart) {
  ABTestConfig config = three_arms();
  config.ramp = {{0, 0.1}, {100, 2.0 / 3}};
  Experiment experiment = Experiment::create(config).value();
  ASSERT_TRUE(experiment.start(at(0)).ok());
  ASSERT_TRUE(experiment.stop_arm(2, "fails", at(10)).ok());
  const ExperimentProgress kept = experiment.progress(at(60));
  EXPECT_EQ(kept.ran, seconds(60));

  Experiment restored = Experiment::restore(config, kept, at(7000)).value();
  EXPECT_EQ(restored.state(), ExperimentState::running);
  EXPECT_EQ(restored.stopped_because(2), "fails");
  EXPECT_EQ(restored.next_step(), at(7040));
  for (int i = 0; i < 2000; ++i) {
    const std::string key = fmt::format("u{}", i);
    EXPECT_EQ(restored.assign({.key = key}).arm, experiment.assign({.key = key}).arm);
  }
  EXPECT_TRUE(restored.advance(at(7040)));
  EXPECT_EQ(restored.progress(at(7050)).ran, seconds(110));

  ExperimentProgress foreign = kept;
  foreign.stopped_because.pop_back();
  EXPECT_EQ(Experiment::restore(config, foreign, at(0)).error().code, ErrorCode::malformed);
  foreign = kept;
  foreign.state = static_cast<ExperimentState>(9);
  EXPECT_FALSE(Experiment::restore(config, foreign, at(0)).ok());
  foreign = kept;
  foreign.promoted_arm = 3;
  EXPECT_FALSE(Experiment::restore(config, foreign, at(0)).ok());
}

TEST(ExperimentLife, StopsWithItsLastArm) {
  Experiment experiment = Experiment::create(three_arms()).value();
  ASSERT_TRUE(experiment.start(at(0)).ok());
  EXPECT_EQ(experiment.stop_arm(0, "x", at(1)).error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(experiment.stop_arm(3, "x", at(1)).error().code, ErrorCode::invalid_argument);
  EXPECT_TRUE(experiment.stop_arm(1, "slow", at(1)).ok());
  EXPECT_TRUE(experiment.stop_arm(1, "again", at(1)).ok());
  EXPECT_EQ(experiment.stopped_because(1), "slow");
  EXPECT_EQ(experiment.state(), ExperimentState::running);
  EXPECT_TRUE(experiment.stop_arm(2, "fails", at(2)).ok());
  EXPECT_EQ(experiment.state(), ExperimentState::stopped);
  EXPECT_EQ(experiment.promote("nobody", at(3)).error().code, ErrorCode::not_found);
  EXPECT_TRUE(experiment.promote("A", at(3)).ok());
}

}  // namespace
}  // namespace inferneo
