// Simulated experiments: requests with keys go through assignment, outcomes and the question of each look, exactly as a
// server's would. Everything is drawn from the seed.
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>
#include <string>
#include <vector>

#include "inferneo/experiments.h"

namespace inferneo::simulation {

class Random {
 public:
  // Scattered twice: neighbouring seeds would otherwise give one stream, a step apart.
  explicit Random(uint64_t seed) : state_(scattered(scattered(seed) ^ 0x2545f4914f6cdd1dU)) {}
  uint64_t bits() {  // SplitMix64 (Steele, Lea and Flood 2014)
    const uint64_t state = state_;
    state_ += 0x9e3779b97f4a7c15U;
    return scattered(state);
  }
  double uniform() { return (static_cast<double>(bits() >> 11) + 0.5) * 0x1p-53; }  // in (0, 1)
  double normal() { return std::sqrt(-2 * std::log(uniform())) * std::cos(2 * std::numbers::pi * uniform()); }

 private:
  static uint64_t scattered(uint64_t state) {
    uint64_t z = state + 0x9e3779b97f4a7c15U;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31);
  }
  uint64_t state_;
};

enum class Shape : uint8_t {
  lognormal,  // sigma 1
  outliers,   // lognormal, and one request in fifty takes thirty times as long
  pareto,     // exponent 1.2: its variance is infinite
  rate,       // 0 or 1
  score,      // fifths, from 0 to 1
};

struct Scenario {
  std::string name;
  ABTestMetric metric = ABTestMetric::time_to_first_token;
  Shape shape = Shape::lognormal;
  double split = 0.5;  // of all arms but A together
  size_t arms = 2;
  double level = 0.0;       // the rate of arm A
  double effect = 0.0;      // of every other arm: on the ratio (0.1: 10 % more), or on the rate
  int64_t users = 0;        // 0: every request its own; else so many, of unlike activity and unlike in their times
  bool hide_users = false;  // each request is recorded as a unit of its own, though it is not
  int64_t requests = 5000;
  double minimum_effect = 0.1;
};

struct Run {
  int64_t found_after = 0;        // requests until the first look at which a difference was shown; 0: never
  int64_t naive_found_after = 0;  // the same by a fixed-sample test at 5 %, looked at as often
};

// Looks after every request; goes on to the end for the naive test only when asked to.
Run run(const Scenario& scenario, uint64_t seed, bool naive_too);

struct Counts {
  int64_t experiments = 0;
  int64_t found = 0;
  int64_t naive_found = 0;
  std::vector<int64_t> found_after;  // sorted
};
Counts run_many(const Scenario& scenario, int64_t experiments, bool naive_too = false);

// The smallest k with P(X > k) < tail for X ~ Binomial(n, p): more than that is too many.
int64_t binomial_limit(int64_t n, double p, double tail);

// What is claimed to give false alarms in at most 5 % of the experiments. No arm differs.
std::vector<Scenario> null_scenarios();
// What the table of power in docs/experiments.md shows; the name is the row's first cell.
std::vector<Scenario> power_scenarios();
// Requests that a fixed-sample test at 5 % needs for a power of 80 %, looking once; 0: there is no simple one.
double fixed_sample_requests(const Scenario& scenario);

}  // namespace inferneo::simulation
