// Prometheus text exposition, version 0.0.4, of samples in the catalogue's order.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "serving/inference_service.h"
#include "serving/metrics_catalogue.h"

namespace inferneo {

// HELP and TYPE once per metric, `_total` after counters. Samples without a catalogue row, or of another kind than
// their row says, are left out: a scrape must not fail for one of them.
std::string render_metrics(const std::vector<MetricSample>& samples, std::span<const MetricInfo> catalogue);

}  // namespace inferneo
