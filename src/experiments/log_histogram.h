// Quantiles of positive values (seconds, tokens) in fixed space: a histogram whose bins grow by a constant factor, so
// that every quantile between kLeast and kGreatest has a relative error of at most kRelativeError. Values outside are
// counted in the outermost bins. Merging adds counts and loses nothing. Pure.
// Source: Masson, Rim and Lee, "DDSketch: A fast and fully-mergeable quantile sketch with relative-error guarantees"
// (2019), with a fixed range of bins in place of collapsing ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace inferneo {

class LogHistogram {
 public:
  static constexpr double kRelativeError = 0.01;
  static constexpr double kLeast = 1e-5;
  static constexpr double kGreatest = 1e6;
  static constexpr size_t kNumBins = 1268;  // covers kGreatest / kLeast; a test holds it to that

  void add(double value);  // not NaN
  void merge(const LogHistogram& other);
  int64_t count() const { return count_; }
  // The value of rank floor(q * (count - 1)) from below, q in [0, 1]; 0 while it is empty.
  double quantile(double q) const;

  // Bounds of the value with `rank` values at or below it (rank in 1..count), exact but for the bin's width.
  double lower_edge(int64_t rank) const;
  double upper_edge(int64_t rank) const;

  // For keeping it.
  const std::array<uint64_t, kNumBins>& bins() const { return bins_; }
  std::array<uint64_t, kNumBins>& bins() { return bins_; }
  void recount();  // after the bins were filled by hand

  bool operator==(const LogHistogram&) const = default;

 private:
  size_t bin_of_rank(int64_t rank) const;

  std::array<uint64_t, kNumBins> bins_{};
  int64_t count_ = 0;
};

}  // namespace inferneo
