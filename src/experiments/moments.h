// Exact running moments of a stream in constant space, mergeable. Pure.
// Source: Welford, "Note on a method for calculating corrected sums of squares and products" (1962); the merge: Chan,
// Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace inferneo {

struct Moments {
  int64_t count = 0;
  double mean = 0.0;
  double squares = 0.0;  // sum of squared deviations from the mean
  double least = std::numeric_limits<double>::infinity();
  double greatest = -std::numeric_limits<double>::infinity();

  void add(double value) {  // finite
    ++count;
    const double before = value - mean;
    mean += before / static_cast<double>(count);
    squares += before * (value - mean);
    least = std::min(least, value);
    greatest = std::max(greatest, value);
  }
  void merge(const Moments& other) {
    if (other.count == 0) return;
    const auto here = static_cast<double>(count);
    const auto there = static_cast<double>(other.count);
    const double apart = other.mean - mean;
    count += other.count;
    mean += apart * (there / (here + there));
    squares += other.squares + apart * apart * (here * there / (here + there));
    least = std::min(least, other.least);
    greatest = std::max(greatest, other.greatest);
  }
  double variance() const { return count < 2 ? 0.0 : squares / static_cast<double>(count - 1); }  // unbiased

  bool operator==(const Moments&) const = default;
};

}  // namespace inferneo
