// Every metric is declared once, here: name, type, labels and help. The exposition and the docs follow from it.
#pragma once

#include <span>
#include <string_view>

namespace inferneo {

enum class MetricType { gauge, counter, histogram };

struct MetricInfo {
  std::string_view name;  // counters without the `_total` that the exposition adds
  MetricType type;
  std::string_view help;
};

std::span<const MetricInfo> metrics_catalogue();

}  // namespace inferneo
