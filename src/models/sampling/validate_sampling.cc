#include "models/sampling/validate_sampling.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace inferneo {
namespace {

using Limits = SamplingLimits;

Error invalid(std::string_view field, const std::string& problem) {
  return make_error(ErrorCode::invalid_argument, fmt::format("{} {}", field, problem), std::string(field));
}

// NaN fails every comparison, so the test is for being inside.
Status check_range(std::string_view field, float value, float min, float max) {
  if (value >= min && value <= max) return ok_status();
  return invalid(field, fmt::format("must be from {} to {}, got {}", min, max, value));
}

// (0, max]
Status check_positive(std::string_view field, float value, float max) {
  if (value > 0.0F && value <= max) return ok_status();
  return invalid(field, fmt::format("must be above 0 and at most {}, got {}", max, value));
}

Status check_int(std::string_view field, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return ok_status();
  if (max == INT32_MAX) return invalid(field, fmt::format("must be at least {}, got {}", min, value));
  return invalid(field, fmt::format("must be from {} to {}, got {}", min, max, value));
}

Status check_count(std::string_view field, size_t count, size_t max) {
  if (count <= max) return ok_status();
  return invalid(field, fmt::format("may have at most {} entries, got {}", max, count));
}

Status check_token(std::string_view field, Token token, int vocab_size) {
  if (token >= 0 && token < vocab_size) return ok_status();
  if (token < 0) return invalid(field, fmt::format("names token {}; tokens are numbered from 0", token));
  return invalid(field, fmt::format("names token {}, outside the vocabulary of {}", token, vocab_size));
}

Status check_filters(const SamplingParams& params) {
  RETURN_IF_ERROR(check_range("temperature", params.temperature, 0.0F, Limits::kMaxTemperature));
  RETURN_IF_ERROR(check_int("top_k", params.top_k, -1, INT32_MAX));
  RETURN_IF_ERROR(check_positive("top_p", params.top_p, 1.0F));
  RETURN_IF_ERROR(check_range("min_p", params.min_p, 0.0F, 1.0F));
  RETURN_IF_ERROR(check_positive("typical_p", params.typical_p, 1.0F));
  RETURN_IF_ERROR(check_positive("repetition_penalty", params.repetition_penalty, Limits::kMaxRepetitionPenalty));
  RETURN_IF_ERROR(check_range("presence_penalty", params.presence_penalty, -Limits::kMaxPenalty, Limits::kMaxPenalty));
  return check_range("frequency_penalty", params.frequency_penalty, -Limits::kMaxPenalty, Limits::kMaxPenalty);
}

Status check_lists(const SamplingParams& params, int vocab_size) {
  RETURN_IF_ERROR(check_count("logit_bias", params.logit_bias.size(), Limits::kMaxLogitBias));
  for (const auto& [token, bias] : params.logit_bias) {
    RETURN_IF_ERROR(check_token("logit_bias", token, vocab_size));
    RETURN_IF_ERROR(check_range("logit_bias", bias, -Limits::kMaxLogitBiasValue, Limits::kMaxLogitBiasValue));
  }
  RETURN_IF_ERROR(check_count("stop", params.stop.size(), Limits::kMaxStops));
  for (const std::string& stop : params.stop) {
    if (stop.empty()) return invalid("stop", "may not hold an empty string");
    if (stop.size() > Limits::kMaxStopBytes) {
      return invalid("stop",
                     fmt::format("may hold strings of at most {} bytes, got {}", Limits::kMaxStopBytes, stop.size()));
    }
  }
  RETURN_IF_ERROR(check_count("stop_token_ids", params.stop_token_ids.size(), Limits::kMaxStopTokens));
  for (const Token token : params.stop_token_ids) RETURN_IF_ERROR(check_token("stop_token_ids", token, vocab_size));
  return ok_status();
}

}  // namespace

Status validate_sampling(const SamplingParams& params, int vocab_size) {
  RETURN_IF_ERROR(check_filters(params));
  RETURN_IF_ERROR(check_lists(params, vocab_size));
  RETURN_IF_ERROR(check_int("n", params.n, 1, Limits::kMaxSamples));
  if (params.logprobs) RETURN_IF_ERROR(check_int("logprobs", *params.logprobs, 0, Limits::kMaxLogprobs));
  if (params.prompt_logprobs) {
    RETURN_IF_ERROR(check_int("prompt_logprobs", *params.prompt_logprobs, 0, Limits::kMaxLogprobs));
  }
  if (params.max_tokens) RETURN_IF_ERROR(check_int("max_tokens", *params.max_tokens, 1, INT32_MAX));
  RETURN_IF_ERROR(check_int("min_tokens", params.min_tokens, 0, INT32_MAX));
  if (params.max_tokens && params.min_tokens > *params.max_tokens) {
    return invalid("min_tokens",
                   fmt::format("may not exceed max_tokens ({}), got {}", *params.max_tokens, params.min_tokens));
  }
  if (params.num_speculative_tokens) {
    RETURN_IF_ERROR(check_int("num_speculative_tokens", *params.num_speculative_tokens, 0, INT32_MAX));
  }
  return ok_status();
}

}  // namespace inferneo
