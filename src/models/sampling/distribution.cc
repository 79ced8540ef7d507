#include "models/sampling/distribution.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "models/sampling/row_math.h"

namespace inferneo {
namespace {

// Reorders items so that those that come first under `before`, until their weights reach `mass`, stand in front, and
// returns how many: the smallest prefix whose weight is at least `mass`, at least one item. Expected linear time.
template <typename Item, typename Before>
size_t select_mass(std::vector<Item>& items, double mass, Before before) {
  constexpr size_t kSortBelow = 32;
  size_t low = 0;
  size_t high = items.size();
  const auto at = [&](size_t i) { return items.begin() + static_cast<std::ptrdiff_t>(i); };
  while (high - low > kSortBelow) {
    const size_t middle = low + (high - low) / 2;
    std::nth_element(at(low), at(middle), at(high), before);
    double weight = 0.0;
    for (size_t i = low; i < middle; ++i) weight += items[i].weight;
    if (weight >= mass) {
      high = middle;
    } else {
      mass -= weight;
      low = middle;
    }
  }
  std::sort(at(low), at(high), before);
  size_t count = low;
  while (count < high && (mass > 0.0 || count == 0)) mass -= items[count++].weight;
  return count;
}

constexpr std::array kFilters = {
    DistributionFilter{"typical_p", [](const SamplingParams& p, int) { return p.typical_p < 1.0F; },
                       [](Distribution& d, const SamplingParams& p) { d.keep_typical(p.typical_p); }},
    DistributionFilter{"top_k",
                       [](const SamplingParams& p, int vocab_size) { return p.top_k > 0 && p.top_k < vocab_size; },
                       [](Distribution& d, const SamplingParams& p) { d.keep_top_k(p.top_k); }},
    DistributionFilter{"top_p", [](const SamplingParams& p, int) { return p.top_p < 1.0F; },
                       [](Distribution& d, const SamplingParams& p) { d.keep_top_p(p.top_p); }},
    DistributionFilter{"min_p", [](const SamplingParams& p, int) { return p.min_p > 0.0F; },
                       [](Distribution& d, const SamplingParams& p) { d.keep_min_p(p.min_p); }},
};

}  // namespace

void Distribution::start(std::span<const float> logits, std::span<const float> block_max, float max,
                         float temperature) {
  logits_ = logits;
  block_max_ = block_max;
  max_ = max;
  scale_ = 1.0F / temperature;
  has_weights_ = false;
  is_sparse_ = false;
  candidates_.clear();
}

float Distribution::weight_of(float logit) const { return exp_nonpositive((logit - max_) * scale_); }

void Distribution::ensure_weights() {
  if (has_weights_) return;
  weights_.resize(logits_.size());
  sums_.resize(block_max_.size());
  dense_total_ = row_math().exp_weights(logits_.data(), static_cast<int>(logits_.size()), max_, scale_, weights_.data(),
                                        sums_.data());
  has_weights_ = true;
}

void Distribution::collect(float threshold) {
  candidates_.clear();
  for (size_t b = 0; b < block_max_.size(); ++b) {
    if (block_max_[b] < threshold || block_max_[b] == -kInfinity) continue;
    const size_t end = std::min(logits_.size(), (b + 1) * kRowBlock);
    for (size_t i = b * kRowBlock; i < end; ++i) {
      const float logit = logits_[i];
      if (logit >= threshold && logit != -kInfinity) {
        candidates_.push_back({logit, has_weights_ ? weights_[i] : weight_of(logit), static_cast<Token>(i)});
      }
    }
  }
  is_sparse_ = true;
}

float Distribution::bound_of_best(int count) {
  if (static_cast<size_t>(count) > block_max_.size()) return -kInfinity;
  bounds_.assign(block_max_.begin(), block_max_.end());
  const auto nth = bounds_.begin() + (count - 1);
  std::nth_element(bounds_.begin(), nth, bounds_.end(), std::greater<>());
  return *nth;
}

void Distribution::collect_mass(double mass) {
  for (const size_t share : {size_t{16}, size_t{2}}) {
    const size_t count = block_max_.size() / share;
    if (count == 0) continue;
    collect(bound_of_best(static_cast<int>(count)));
    if (candidate_weight() >= mass) return;
  }
  collect(-kInfinity);
}

double Distribution::candidate_weight() const {
  double weight = 0.0;
  for (const Candidate& candidate : candidates_) weight += candidate.weight;
  return weight;
}

double Distribution::total() {
  if (is_sparse_) return candidate_weight();
  ensure_weights();
  return dense_total_;
}

void Distribution::keep_typical(float mass) {
  if (!is_sparse_) {
    ensure_weights();
    collect(-kInfinity);
  }
  const double weight = candidate_weight();
  const double log_total = std::log(weight);
  const auto information = [&](const Candidate& c) { return log_total - static_cast<double>(c.logit - max_) * scale_; };
  double entropy = 0.0;
  for (const Candidate& c : candidates_) {
    if (c.weight > 0.0F) entropy += c.weight / weight * information(c);
  }
  const auto distance = [&](const Candidate& c) { return std::abs(information(c) - entropy); };
  const auto before = [&](const Candidate& a, const Candidate& b) {
    const double da = distance(a);
    const double db = distance(b);
    return da < db || (da == db && is_better(a, b));
  };
  const size_t count = select_mass(candidates_, static_cast<double>(mass) * weight, before);
  const double limit = distance(candidates_[count - 1]);
  const auto tied = std::partition(candidates_.begin() + static_cast<std::ptrdiff_t>(count), candidates_.end(),
                                   [&](const Candidate& c) { return distance(c) <= limit; });
  candidates_.erase(tied, candidates_.end());
}

void Distribution::keep_top_k(int k) {
  if (!is_sparse_) collect(bound_of_best(k));
  if (candidates_.size() <= static_cast<size_t>(k)) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + k, candidates_.end(), is_better);
  candidates_.resize(static_cast<size_t>(k));
}

void Distribution::keep_top_p(float p) {
  const double mass = static_cast<double>(p) * total();
  if (!is_sparse_) collect_mass(mass);
  candidates_.resize(select_mass(candidates_, mass, is_better));
}

void Distribution::keep_min_p(float p) {
  if (!is_sparse_) {
    // A little below the line, so that the exact comparison of weights decides.
    collect(p >= 1.0F ? max_ : max_ + (std::log(p) - 0.01F) / scale_);
  }
  float best = 0.0F;
  for (const Candidate& candidate : candidates_) best = std::max(best, candidate.weight);
  std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.weight < p * best; });
}

Token Distribution::draw(double u) {
  double left = u * total();
  if (is_sparse_) {
    // By id, so that the draw does not depend on how the filters left the candidates.
    std::sort(candidates_.begin(), candidates_.end(),
              [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
    Token last = candidates_.front().token;
    for (const Candidate& candidate : candidates_) {
      if (candidate.weight <= 0.0F) continue;
      last = candidate.token;
      left -= candidate.weight;
      if (left < 0.0) return last;
    }
    return last;  // rounding: u was next to 1
  }
  Token last = 0;
  for (size_t b = 0; b < sums_.size(); ++b) {
    if (sums_[b] <= 0.0F) continue;
    const bool is_here = left < sums_[b];
    if (!is_here && b + 1 < sums_.size()) {
      left -= sums_[b];
      // Remembered for the case that all later blocks are empty.
      last = static_cast<Token>(b * kRowBlock);
      continue;
    }
    const size_t end = std::min(logits_.size(), (b + 1) * kRowBlock);
    for (size_t i = b * kRowBlock; i < end; ++i) {
      if (weights_[i] <= 0.0F) continue;
      last = static_cast<Token>(i);
      left -= weights_[i];
      if (left < 0.0) return last;
    }
    return last;
  }
  // Rounding at the very end: the last token of weight in the last block that has any.
  const size_t end = std::min(logits_.size(), static_cast<size_t>(last) + kRowBlock);
  for (size_t i = static_cast<size_t>(last); i < end; ++i) {
    if (weights_[i] > 0.0F) last = static_cast<Token>(i);
  }
  return last;
}

double Distribution::probability(Token token) {
  const double all = total();
  if (!is_sparse_) return weights_[static_cast<size_t>(token)] / all;
  for (const Candidate& candidate : candidates_) {
    if (candidate.token == token) return candidate.weight / all;
  }
  return 0.0;
}

void Distribution::write_probabilities(std::span<float> p) {
  const double all = total();
  if (!is_sparse_) {
    for (size_t i = 0; i < p.size(); ++i) p[i] = static_cast<float>(weights_[i] / all);
    return;
  }
  std::fill(p.begin(), p.end(), 0.0F);
  for (const Candidate& c : candidates_) p[static_cast<size_t>(c.token)] = static_cast<float>(c.weight / all);
}

std::vector<Token> Distribution::kept() {
  std::vector<Token> tokens;
  if (!is_sparse_) collect(-kInfinity);
  for (const Candidate& candidate : candidates_) tokens.push_back(candidate.token);
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

std::span<const DistributionFilter> distribution_filters() { return kFilters; }

}  // namespace inferneo
