#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "experiments/verdict.h"

namespace inferneo {
namespace {

struct Words {
  std::string_view label;   // "TTFT undecided"
  std::string_view lower;   // "{arm} is {amount} faster (TTFT)"
  std::string_view higher;  // with {0} for the arm and {1} for the amount
};
constexpr std::array<Words, kNumABTestMetrics> kWords{{
    {"TTFT", "{0} is {1} faster (TTFT)", "{0} is {1} slower (TTFT)"},
    {"time per token", "{0} is {1} faster (time per token)", "{0} is {1} slower (time per token)"},
    {"whole answer", "{0} is {1} faster (whole answer)", "{0} is {1} slower (whole answer)"},
    {"answer length", "{0} answers {1} shorter", "{0} answers {1} longer"},
    {"errors", "{0} fails {1} less often", "{0} fails {1} more often"},
    {"feedback", "{0} is liked {1} less (feedback)", "{0} is liked {1} more (feedback)"},
    {"TTFT p95", "{0} is {1} faster (TTFT p95)", "{0} is {1} slower (TTFT p95)"},
}};

// Two digits or so: 0.53, 9.3, 12, 150.
std::string amount(double value) {
  if (std::isinf(value)) return "any";
  const double size = std::abs(value);
  std::string text = size >= 9.95    ? fmt::format("{:.0f}", value)
                     : size >= 0.995 ? fmt::format("{:.1f}", value)
                                     : fmt::format("{:.2f}", value);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return text == "-0" ? "0" : text;
}

// "4,000": two digits, thousands set apart.
std::string about(int64_t count) {
  int64_t unit = 1;
  while (count / unit >= 100) unit *= 10;
  const std::string digits = std::to_string((count + unit / 2) / unit * unit);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

const Words& words_of(ABTestMetric metric) { return kWords[static_cast<size_t>(metric)]; }

std::string interval_text(const ExperimentDefinition& definition, const MetricVerdict& verdict, bool mirrored) {
  const double sign = mirrored ? -100.0 : 100.0;
  double low = sign * verdict.interval.lower;
  double high = sign * verdict.interval.upper;
  if (mirrored) std::swap(low, high);
  return fmt::format("{} % interval {} to {} {}", amount(100 * (1 - definition.config.false_alarm_rate)), amount(low),
                     amount(high), verdict.is_ratio ? "%" : "points");
}

bool is_worth_a_word(const MetricVerdict& verdict) {
  return verdict.is_primary || verdict.decision != VerdictDecision::too_early;
}

}  // namespace

std::string verdict_sentence(const ExperimentDefinition& definition, const MetricVerdict& verdict) {
  const std::string& name = definition.arms[verdict.arm].name;
  const Words& words = words_of(verdict.metric);
  const std::string_view unit = verdict.is_ratio ? "%" : "points";
  switch (verdict.decision) {
    case VerdictDecision::too_early:
      return fmt::format("{}: too early to say ({} and {} of {} requests)", words.label, verdict.samples_a,
                         verdict.samples, definition.config.minimum_samples);
    case VerdictDecision::undecided:
      if (!verdict.remaining) return fmt::format("{} undecided", words.label);
      if (*verdict.remaining < 10) return fmt::format("{} undecided, a few more requests needed", words.label);
      return fmt::format("{} undecided, about {} more requests needed", words.label, about(*verdict.remaining));
    case VerdictDecision::same: {
      const double least = verdict.is_ratio ? definition.config.minimum_effect : definition.config.minimum_difference;
      return fmt::format("{} and {} differ by less than {} {} ({}), {}", definition.arms[0].name, name,
                         amount(100 * least), unit, words.label, interval_text(definition, verdict, false));
    }
    case VerdictDecision::lower:
    case VerdictDecision::higher: {
      const bool mirrored = verdict.decision == VerdictDecision::lower;
      const std::string by = fmt::format("{} {}", amount(100 * std::abs(verdict.effect)), unit);
      return fmt::format("{}, {}", fmt::format(fmt::runtime(mirrored ? words.lower : words.higher), name, by),
                         interval_text(definition, verdict, mirrored));
    }
  }
  return {};
}

std::string arm_sentence(const ExperimentDefinition& definition, const std::vector<MetricVerdict>& metrics,
                         size_t arm) {
  std::string text;
  for (const bool primary : {true, false}) {
    for (const MetricVerdict& verdict : metrics) {
      if (verdict.arm != arm || verdict.is_primary != primary || !is_worth_a_word(verdict)) continue;
      text += fmt::format("{}{}", text.empty() ? "" : "; ", verdict_sentence(definition, verdict));
    }
  }
  // Of two arms there is no doubt which one is meant.
  return definition.num_arms() > 2 ? fmt::format("{}: {}", definition.arms[arm].name, text) : text;
}

}  // namespace inferneo
