// A/B tests as their owner writes them: which arms there are, who gets which, what is watched and when an arm is
// stopped. Plain data; it is checked when the test is added, and errors name the field. docs/experiments.md explains
// it.
//
//   ABTestConfig{.name = "model_comparison", .model_a = "gpt-3.5-turbo", .model_b = "code-llama", .traffic_split = 0.3}
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace inferneo {

// What an arm samples differently; what is not set stays as the request has it. Ranges as in SamplingParams.
struct SamplingOverrides {
  std::optional<float> temperature = {};
  std::optional<int> top_k = {};
  std::optional<float> top_p = {};
  std::optional<float> min_p = {};
  std::optional<float> repetition_penalty = {};
  std::optional<float> presence_penalty = {};
  std::optional<float> frequency_penalty = {};
  std::optional<int> max_tokens = {};

  bool operator==(const SamplingOverrides&) const = default;
};

struct ABTestArm {
  std::string name = {};     // in results and in the override header: 1 to 64 of [A-Za-z0-9._-]; empty: A, B, C, ...
  std::string model = {};    // as it is registered
  std::string version = {};  // empty: whichever the name means
  double weight = 1.0;       // its share is its weight over the sum of all
  SamplingOverrides sampling = {};
  std::string prompt_template = {};  // of its chats: Jinja instead of the model's own template; empty: that one
  std::string system_prompt = {};    // begins those of its chats that have no system message; empty: nothing does
  // Of the model's engine, by their configuration names, beside the model's own: the arm has an engine of its own.
  std::map<std::string, std::string> settings = {};
  double prompt_price = 0.0;      // per million tokens, in any currency
  double completion_price = 0.0;  // per million tokens

  bool operator==(const ABTestArm&) const = default;
};

// The same key always gets the same arm.
enum class ABTestKey : uint8_t { user, session, request };

enum class ABTestMetric : uint8_t {
  time_to_first_token,      // ratio of geometric means
  inter_token,              // ratio of geometric means
  end_to_end,               // ratio of geometric means
  completion_tokens,        // ratio of geometric means
  error_rate,               // difference of rates
  feedback,                 // difference of mean scores in [0, 1]
  p95_time_to_first_token,  // ratio of 95th percentiles
};
inline constexpr int kNumABTestMetrics = 7;

// From `after_seconds` of running time on, `share` of the traffic leaves arm A.
struct ABTestRampStep {
  double after_seconds = 0.0;
  double share = 0.0;

  bool operator==(const ABTestRampStep&) const = default;
};

// Limits that stop an arm by themselves, once it is certain that the arm breaks them (not that a few requests did).
struct ABTestGuardrails {
  std::optional<double> max_error_rate = {};               // (0, 1)
  std::optional<double> max_p95_time_to_first_token = {};  // seconds
  int64_t minimum_samples = 100;                           // of an arm, before it may be stopped

  bool operator==(const ABTestGuardrails&) const = default;
};

struct ABTestConfig {
  std::string name = {};  // 1 to 128 of [A-Za-z0-9._-]
  // Two arms: A is what is there, B is what is tried.
  std::string model_a = {};
  std::string model_b = {};
  double traffic_split = 0.5;  // the share of arm B, in (0, 1)
  // Or two to eight arms in full, of which the first is A; then the three fields above stay as they are.
  std::vector<ABTestArm> arms = {};

  ABTestKey sticky_by = ABTestKey::user;
  std::string salt = {};                  // another salt assigns anew; empty: the name
  std::vector<ABTestRampStep> ramp = {};  // times and shares rise, and the last share is the full one; empty: at once
  ABTestGuardrails guardrails = {};

  ABTestMetric primary_metric = ABTestMetric::time_to_first_token;  // the one that decides
  double false_alarm_rate = 0.05;    // (0, 0.5): that the primary ever shows a difference where there is none
  double minimum_effect = 0.1;       // a ratio worth knowing: 0.1 is 10 %; (0, 1]
  double minimum_difference = 0.05;  // a difference of rates or scores worth knowing: 0.05 is 5 points; (0, 1)
  int64_t minimum_samples = 100;     // of each arm, before anything is said; at least 30

  bool operator==(const ABTestConfig&) const = default;
};

// "time_to_first_token", as in files and over the API, and back. invalid_argument lists the names.
std::string_view ab_test_metric_name(ABTestMetric metric);
Result<ABTestMetric> parse_ab_test_metric(std::string_view name);
std::span<const ABTestMetric> all_ab_test_metrics();
std::string_view ab_test_key_name(ABTestKey key);
Result<ABTestKey> parse_ab_test_key(std::string_view name);

}  // namespace inferneo
