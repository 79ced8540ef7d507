#include "experiments/log_histogram.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace inferneo {
namespace {

// Bin i holds (kLeast * growth^(i-1), kLeast * growth^i]; the value that represents it is off by the same relative
// error from both ends.
constexpr double kGrowth = (1.0 + LogHistogram::kRelativeError) / (1.0 - LogHistogram::kRelativeError);

double log_growth() {
  static const double kLogGrowth = std::log(kGrowth);
  return kLogGrowth;
}

double edge(double bin) { return LogHistogram::kLeast * std::exp(bin * log_growth()); }

}  // namespace

void LogHistogram::add(double value) {
  size_t bin = 0;
  if (value > kLeast) {
    const double position = std::ceil(std::log(value / kLeast) / log_growth());
    bin = position < static_cast<double>(kNumBins) ? static_cast<size_t>(position) : kNumBins - 1;
  }
  ++bins_[bin];
  ++count_;
}

void LogHistogram::merge(const LogHistogram& other) {
  for (size_t i = 0; i < kNumBins; ++i) bins_[i] += other.bins_[i];
  count_ += other.count_;
}

size_t LogHistogram::bin_of_rank(int64_t rank) const {
  const auto wanted = static_cast<uint64_t>(std::clamp<int64_t>(rank, 1, std::max<int64_t>(count_, 1)));
  uint64_t seen = 0;
  for (size_t bin = 0; bin < kNumBins; ++bin) {
    seen += bins_[bin];
    if (seen >= wanted) return bin;
  }
  return kNumBins - 1;
}

double LogHistogram::quantile(double q) const {
  if (count_ == 0) return 0.0;
  const auto rank = static_cast<int64_t>(std::clamp(q, 0.0, 1.0) * static_cast<double>(count_ - 1)) + 1;
  return edge(static_cast<double>(bin_of_rank(rank))) * (1.0 - kRelativeError);
}

double LogHistogram::lower_edge(int64_t rank) const { return edge(static_cast<double>(bin_of_rank(rank)) - 1.0); }
double LogHistogram::upper_edge(int64_t rank) const { return edge(static_cast<double>(bin_of_rank(rank))); }

void LogHistogram::recount() {
  count_ = static_cast<int64_t>(std::accumulate(bins_.begin(), bins_.end(), uint64_t{0}));
}

}  // namespace inferneo
