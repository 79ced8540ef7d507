// Every metric is declared once, here: name, type, labels and help. The exposition and docs/metrics.md follow from it.
//
// Labels are bounded by what operators set up (models, rules, tests, arms) and by fixed lists; no text of a request
// becomes one, so that a client can make no series. What belongs to a model goes when the model is removed.
#pragma once

#include <span>
#include <string_view>

namespace inferneo {

enum class MetricType { gauge, counter, histogram };

struct MetricInfo {
  std::string_view name;  // counters without the `_total` that the exposition adds
  MetricType type;
  std::string_view labels;  // their names, by commas, in the order in which they are written
  std::string_view help;
};

std::span<const MetricInfo> metrics_catalogue();

}  // namespace inferneo
