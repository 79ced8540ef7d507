#include "experiments/definition.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

namespace inferneo {
namespace {

constexpr double kSmallestShare = 1e-6;
constexpr double kLongestRamp = 10.0 * 365 * 86400;  // seconds; what a Duration holds many times over

Error wrong(std::string message, std::string param) {
  return make_error(ErrorCode::invalid_argument, std::move(message), std::move(param));
}

bool is_word(std::string_view text, size_t longest) {
  return !text.empty() && text.size() <= longest && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

constexpr size_t kMaxText = size_t{64} * 1024;  // bytes of a template or a setting, as the registry and JSON take them
constexpr size_t kMaxSettings = 64;

bool within(double value, double low, double high) { return value >= low && value <= high; }  // false for NaN
bool strictly_within(double value, double low, double high) { return value > low && value < high; }

template <typename T>
Status check_override(const std::optional<T>& value, double low, double high, std::string_view field,
                      std::string_view arm) {
  if (!value || within(static_cast<double>(*value), low, high)) return ok_status();
  return wrong(fmt::format("arm '{}': {} is {}, and it must be between {} and {}", arm, field, *value, low, high),
               std::string(field));
}

Status check_sampling(const SamplingOverrides& sampling, std::string_view arm) {
  RETURN_IF_ERROR(check_override(sampling.temperature, 0, 2, "temperature", arm));
  RETURN_IF_ERROR(check_override(sampling.top_k, -1, 1e9, "top_k", arm));
  RETURN_IF_ERROR(check_override(sampling.top_p, 1e-6, 1, "top_p", arm));
  RETURN_IF_ERROR(check_override(sampling.min_p, 0, 1, "min_p", arm));
  RETURN_IF_ERROR(check_override(sampling.repetition_penalty, 1e-3, 1e3, "repetition_penalty", arm));
  RETURN_IF_ERROR(check_override(sampling.presence_penalty, -2, 2, "presence_penalty", arm));
  RETURN_IF_ERROR(check_override(sampling.frequency_penalty, -2, 2, "frequency_penalty", arm));
  return check_override(sampling.max_tokens, 1, 1e9, "max_tokens", arm);
}

Status check_prompts(const ABTestArm& arm) {
  for (const auto& [field, text] :
       {std::pair("prompt_template", &arm.prompt_template), std::pair("system_prompt", &arm.system_prompt)}) {
    if (text->size() > kMaxText) {
      return wrong(fmt::format("arm '{}': {} is longer than {} bytes", arm.name, field, kMaxText), field);
    }
  }
  return ok_status();
}

// What they mean is for others to check.
Status check_settings(const ABTestArm& arm) {
  if (arm.settings.size() > kMaxSettings) {
    return wrong(fmt::format("arm '{}' has more than {} settings", arm.name, kMaxSettings), "settings");
  }
  if (arm.settings.contains("chat_template")) {
    return wrong(
        fmt::format("arm '{}': the template of an arm is its prompt_template; it needs no engine of its own", arm.name),
        "settings");
  }
  for (const auto& [name, value] : arm.settings) {
    if (name.size() <= kMaxText && value.size() <= kMaxText) continue;
    return wrong(fmt::format("arm '{}': a setting is longer than {} bytes", arm.name, kMaxText), "settings");
  }
  return ok_status();
}

Status check_arm(const ABTestArm& arm) {
  if (!is_word(arm.name, 64)) {
    return wrong(fmt::format("'{}' is not a name of an arm: 1 to 64 letters, digits, '.', '_' or '-'", arm.name),
                 "arms");
  }
  if (arm.model.empty()) return wrong(fmt::format("arm '{}' names no model", arm.name), "arms");
  if (!strictly_within(arm.weight, 0, 1e9)) {
    return wrong(fmt::format("arm '{}': weight is {}, and it must be above 0 (leave an arm out to give it nothing)",
                             arm.name, arm.weight),
                 "weight");
  }
  for (const double price : {arm.prompt_price, arm.completion_price}) {
    if (!within(price, 0, 1e12)) {
      return wrong(fmt::format("arm '{}': a price is {}, and it must not be negative", arm.name, price), "price");
    }
  }
  RETURN_IF_ERROR(check_prompts(arm));
  RETURN_IF_ERROR(check_settings(arm));
  return check_sampling(arm.sampling, arm.name);
}

// The arms in full, A first.
Result<std::vector<ABTestArm>> written_out(const ABTestConfig& config) {
  if (config.arms.empty()) {
    if (config.model_a.empty()) return wrong("an A/B test needs model_a, what is there now", "model_a");
    if (config.model_b.empty()) return wrong("an A/B test needs model_b, what is tried", "model_b");
    if (!strictly_within(config.traffic_split, 0, 1)) {
      return wrong(fmt::format("traffic_split is {}, and it must lie between 0 and 1, without these: it is the share "
                               "of arm B, and both arms need some",
                               config.traffic_split),
                   "traffic_split");
    }
    return std::vector<ABTestArm>{{.name = "A", .model = config.model_a, .weight = 1.0 - config.traffic_split},
                                  {.name = "B", .model = config.model_b, .weight = config.traffic_split}};
  }
  if (!config.model_a.empty() || !config.model_b.empty()) {
    return wrong("give either model_a and model_b or arms, not both", "arms");
  }
  if (config.arms.size() < 2 || config.arms.size() > kMaxArms) {
    return wrong(fmt::format("an A/B test has 2 to {} arms, not {}", kMaxArms, config.arms.size()), "arms");
  }
  auto arms = config.arms;
  for (size_t i = 0; i < arms.size(); ++i) {
    if (arms[i].name.empty()) arms[i].name = std::string(1, static_cast<char>('A' + i));
  }
  return arms;
}

Status check_arms(const std::vector<ABTestArm>& arms) {
  for (size_t i = 0; i < arms.size(); ++i) {
    RETURN_IF_ERROR(check_arm(arms[i]));
    for (size_t other = 0; other < i; ++other) {
      if (arms[other].name == arms[i].name) {
        return wrong(fmt::format("two arms are called '{}'; each needs a name of its own", arms[i].name), "arms");
      }
      ABTestArm renamed = arms[other];
      renamed.name = arms[i].name;
      renamed.weight = arms[i].weight;
      if (renamed == arms[i]) {
        return wrong(fmt::format("arms '{}' and '{}' are the same: give one of them another model, version, sampling, "
                                 "prompt template or engine setting",
                                 arms[other].name, arms[i].name),
                     "arms");
      }
    }
  }
  return ok_status();
}

Status check_numbers(const ABTestConfig& config) {
  if (!strictly_within(config.false_alarm_rate, 0, 0.5)) {
    return wrong(fmt::format("false_alarm_rate is {}, and it must lie between 0 and 0.5; 0.05 is usual",
                             config.false_alarm_rate),
                 "false_alarm_rate");
  }
  if (!(config.minimum_effect > 0 && config.minimum_effect <= 1)) {
    return wrong(
        fmt::format("minimum_effect is {}, and it must be above 0 and at most 1; 0.1 is 10 %", config.minimum_effect),
        "minimum_effect");
  }
  if (!strictly_within(config.minimum_difference, 0, 1)) {
    return wrong(fmt::format("minimum_difference is {}, and it must lie between 0 and 1; 0.05 is 5 points",
                             config.minimum_difference),
                 "minimum_difference");
  }
  if (config.minimum_samples < 30) {
    return wrong(fmt::format("minimum_samples is {}, and it must be at least 30: intervals of latencies do not hold "
                             "for less",
                             config.minimum_samples),
                 "minimum_samples");
  }
  const ABTestGuardrails& rails = config.guardrails;
  if (rails.max_error_rate && !strictly_within(*rails.max_error_rate, 0, 1)) {
    return wrong(fmt::format("max_error_rate is {}, and it must lie between 0 and 1", *rails.max_error_rate),
                 "max_error_rate");
  }
  if (rails.max_p95_time_to_first_token && !strictly_within(*rails.max_p95_time_to_first_token, 0, 1e6)) {
    return wrong(fmt::format("max_p95_time_to_first_token is {}, and it must be above 0 seconds",
                             *rails.max_p95_time_to_first_token),
                 "max_p95_time_to_first_token");
  }
  if (rails.minimum_samples < 1) {
    return wrong(fmt::format("the guardrails' minimum_samples is {}, and it must be at least 1", rails.minimum_samples),
                 "minimum_samples");
  }
  return ok_status();
}

Result<std::vector<ExperimentDefinition::RampStep>> checked_ramp(const ABTestConfig& config, double full_share) {
  std::vector<ExperimentDefinition::RampStep> ramp;
  double last_share = 0.0;
  double last_time = -1.0;
  for (const ABTestRampStep& step : config.ramp) {
    if (!within(step.after_seconds, 0, kLongestRamp) || step.after_seconds <= last_time) {
      return wrong(fmt::format("ramp: a step at {} seconds; times begin at 0 or later and rise", step.after_seconds),
                   "ramp");
    }
    if (!(step.share > last_share && step.share < 1)) {
      return wrong(fmt::format("ramp: the step at {} seconds has a share of {}; shares lie between 0 and 1 and rise",
                               step.after_seconds, step.share),
                   "ramp");
    }
    last_share = step.share;
    last_time = step.after_seconds;
    ramp.push_back(
        {std::chrono::duration_cast<Duration>(std::chrono::duration<double>(step.after_seconds)), step.share});
  }
  if (ramp.empty()) {
    ramp.push_back({Duration(0), full_share});
  }
  if (std::abs(ramp.back().share - full_share) > 1e-9) {
    return wrong(fmt::format("ramp: the last step has a share of {}, and it must reach {}, the full share of all arms "
                             "but A",
                             last_share, full_share),
                 "ramp");
  }
  ramp.back().share = full_share;
  return ramp;
}

}  // namespace

size_t ExperimentDefinition::find_arm(std::string_view name) const noexcept {
  for (size_t arm = 0; arm < arms.size(); ++arm) {
    if (arms[arm].name == name) return arm;
  }
  return arms.size();
}

double ExperimentDefinition::full_share() const { return std::accumulate(shares.begin() + 1, shares.end(), 0.0); }

Result<ExperimentDefinition> define_experiment(ABTestConfig config) {
  if (!is_word(config.name, 128)) {
    return wrong(fmt::format("'{}' is not a name of an A/B test: 1 to 128 letters, digits, '.', '_' or '-'",
                             config.name.substr(0, 200)),
                 "name");
  }
  if (config.salt.size() > 256) return wrong("salt is longer than 256 bytes", "salt");
  ExperimentDefinition definition;
  ASSIGN_OR_RETURN(definition.arms, written_out(config));
  RETURN_IF_ERROR(check_arms(definition.arms));
  RETURN_IF_ERROR(check_numbers(config));
  double total = 0.0;
  for (const ABTestArm& arm : definition.arms) total += arm.weight;
  for (const ABTestArm& arm : definition.arms) definition.shares.push_back(arm.weight / total);
  // Of two models the share of B is the number that was given, without a rounding.
  if (config.arms.empty()) definition.shares = {1.0 - config.traffic_split, config.traffic_split};
  for (size_t arm = 0; arm < definition.num_arms(); ++arm) {
    if (definition.shares[arm] >= kSmallestShare) continue;
    return wrong(fmt::format("arm '{}' gets a share of {} of the requests; at least one in a million, or leave it out",
                             definition.arms[arm].name, definition.shares[arm]),
                 config.arms.empty() ? "traffic_split" : "weight");
  }
  ASSIGN_OR_RETURN(definition.ramp, checked_ramp(config, definition.full_share()));
  definition.key = salt_key(config.salt.empty() ? config.name : config.salt);
  definition.config = std::move(config);
  return definition;
}

}  // namespace inferneo
