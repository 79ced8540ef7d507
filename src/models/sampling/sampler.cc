#include "models/sampling/sampler.h"

#include <algorithm>
#include <cmath>

#include "models/sampling/row_math.h"

namespace inferneo {
namespace {

bool is_greedy(const SamplingParams& params) { return params.temperature < kGreedyTemperature; }

float to_logprob(double logprob) {
  return logprob > static_cast<double>(kLowestLogprob) ? static_cast<float>(std::min(logprob, 0.0)) : kLowestLogprob;
}

}  // namespace

Status Sampler::scan(std::span<const float> logits) {
  if (logits.empty()) return make_error(ErrorCode::numeric, "the model returned no logits");
  const int n = static_cast<int>(logits.size());
  block_max_.resize(static_cast<size_t>(num_row_blocks(n)));
  const RowScan result = row_math().scan(logits.data(), n, block_max_.data());
  max_ = result.max;
  if (result.has_nan) return make_error(ErrorCode::numeric, "the model returned NaN logits");
  if (result.max == kInfinity) return make_error(ErrorCode::numeric, "the model returned infinite logits");
  if (result.max == -kInfinity) return make_error(ErrorCode::numeric, "no token can be chosen: every logit is -inf");
  return ok_status();
}

Token Sampler::best_token(std::span<const float> logits) const {
  const auto block = std::find(block_max_.begin(), block_max_.end(), max_) - block_max_.begin();
  const auto from = logits.begin() + block * kRowBlock;
  return static_cast<Token>(std::find(from, logits.end(), max_) - logits.begin());
}

double Sampler::log_total(std::span<const float> logits) const {
  return std::log(row_math().exp_total(logits.data(), static_cast<int>(logits.size()), max_));
}

void Sampler::fill_top(std::span<const float> logits, double log_sum, int num_top, TokenLogprobs& out) {
  if (num_top <= 0) return;
  // At least num_top logits are at or above the num_top-th largest block maximum.
  float threshold = -kInfinity;
  if (static_cast<size_t>(num_top) <= block_max_.size()) {
    top_bounds_.assign(block_max_.begin(), block_max_.end());
    const auto nth = top_bounds_.begin() + (num_top - 1);
    std::nth_element(top_bounds_.begin(), nth, top_bounds_.end(), std::greater<>());
    threshold = *nth;
  }
  top_.clear();
  for (size_t b = 0; b < block_max_.size(); ++b) {
    if (block_max_[b] < threshold || block_max_[b] == -kInfinity) continue;
    const size_t end = std::min(logits.size(), (b + 1) * kRowBlock);
    for (size_t i = b * kRowBlock; i < end; ++i) {
      if (logits[i] >= threshold && logits[i] != -kInfinity) top_.emplace_back(static_cast<Token>(i), logits[i]);
    }
  }
  const size_t count = std::min(top_.size(), static_cast<size_t>(num_top));
  std::partial_sort(
      top_.begin(), top_.begin() + static_cast<std::ptrdiff_t>(count), top_.end(),
      [](const auto& a, const auto& b) { return a.second > b.second || (a.second == b.second && a.first < b.first); });
  for (size_t i = 0; i < count; ++i) {
    out.top.emplace_back(top_[i].first, to_logprob(static_cast<double>(top_[i].second) - max_ - log_sum));
  }
}

Result<TokenLogprobs> Sampler::logprobs_of(std::span<const float> logits, Token token, int num_top) {
  RETURN_IF_ERROR(scan(logits));
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
    return make_error(ErrorCode::invalid_argument, "a token lies outside the model's vocabulary");
  }
  const double log_sum = log_total(logits);
  TokenLogprobs out;
  out.token = token;
  out.logprob = to_logprob(static_cast<double>(logits[static_cast<size_t>(token)]) - max_ - log_sum);
  fill_top(logits, log_sum, num_top, out);
  return out;
}

Status Sampler::prepare(std::span<float> logits, const SamplingInput& input) {
  LogitsRow row{logits, input, counts_};
  bool changed = false;
  for (const LogitsProcessor& processor : logits_processors()) {
    if (!processor.is_wanted(input)) continue;
    processor.apply(row);
    changed = true;
  }
  return changed ? scan(logits) : ok_status();
}

void Sampler::narrow(std::span<float> logits, const SamplingParams& params) {
  distribution_.start(logits, block_max_, max_, params.temperature);
  for (const DistributionFilter& filter : distribution_filters()) {
    if (filter.is_wanted(params, static_cast<int>(logits.size()))) filter.apply(distribution_, params);
  }
}

Token Sampler::choose(std::span<float> logits, const SamplingInput& input, int64_t position) {
  if (is_greedy(*input.params)) return best_token(logits);
  narrow(logits, *input.params);
  return distribution_.draw(uniform(input.seed, position, RandomStream::sample));
}

Sampler::RawLogprobs Sampler::remember(std::span<const float> logits, int num_top, TokenLogprobs& out) {
  raw_.assign(logits.begin(), logits.end());
  const RawLogprobs raw{static_cast<double>(max_), log_total(logits)};
  fill_top(logits, raw.log_sum, num_top, out);
  return raw;
}

void Sampler::finish_logprobs(const RawLogprobs& raw, SampledToken& result) const {
  result.logprobs.token = result.token;
  result.logprobs.logprob =
      to_logprob(static_cast<double>(raw_[static_cast<size_t>(result.token)]) - raw.max - raw.log_sum);
}

Result<SampledToken> Sampler::sample(std::span<float> logits, const SamplingInput& input, int64_t position) {
  SampledToken result;
  RawLogprobs raw;
  RETURN_IF_ERROR(scan(logits));
  if (input.params->logprobs) raw = remember(logits, *input.params->logprobs, result.logprobs);
  RETURN_IF_ERROR(prepare(logits, input));
  result.token = choose(logits, input, position);
  if (input.params->logprobs) finish_logprobs(raw, result);
  return result;
}

}  // namespace inferneo
