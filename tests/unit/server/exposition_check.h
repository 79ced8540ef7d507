// A strict reading of the Prometheus text format 0.0.4, stricter than a scraper: everything that could be wrong with
// what /metrics says is a sentence.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

// What is wrong with it; empty: nothing. Looked at: names, labels and escapes, one HELP and TYPE before a family's
// samples and the samples of a family together, no series twice, the same labels in a family, numbers, and of
// histograms that buckets rise, end with +Inf, equal _count and have a _sum.
std::vector<std::string> exposition_faults(std::string_view text);

}  // namespace inferneo
