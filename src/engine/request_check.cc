#include "engine/request_check.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr size_t kMaxPromptRowsBytes = size_t{256} << 20;  // of one request's; no budget knows of them

Status check_length(const Request& request, const RequestLimits& limits) {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const bool reads_only = request.sampling.prompt_rows != PromptRows::none;
  const int64_t output = reads_only ? 0 : request.sampling.max_tokens.value_or(1);
  const int64_t limit = limits.context_limit;
  if (prompt + std::max<int64_t>(output, 0) <= limit) return ok_status();
  const std::string limit_text =
      limit == limits.max_model_len
          ? fmt::format("the maximum context length is {} tokens", limit)
          : fmt::format("the KV memory holds {} tokens of one sequence (max_model_len is {}): raise max_memory_gb",
                        limit, limits.max_model_len);
  if (prompt + std::min<int64_t>(output, 1) > limit) {
    return make_error(ErrorCode::context_too_long, fmt::format("the prompt has {} tokens; {}", prompt, limit_text),
                      "prompt");
  }
  return make_error(
      ErrorCode::context_too_long,
      fmt::format("{} prompt tokens and {} output tokens are {}; {}", prompt, output, prompt + output, limit_text),
      "max_tokens");
}

Status check_rows(const Request& request, const RequestLimits& limits) {
  const SamplingParams& p = request.sampling;
  if (p.prompt_rows == PromptRows::none) return ok_status();
  const ModelSpec& spec = limits.spec;
  const bool logits = p.prompt_rows == PromptRows::logits;
  const auto width = static_cast<size_t>(logits ? spec.vocab_size : spec.hidden_size);
  if (width == 0) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("what runs '{}' gives no hidden states (device {})", limits.model, spec.device),
                      "prompt_rows");
  }
  if (p.n != 1) return make_error(ErrorCode::invalid_argument, "n must be 1 where prompt_rows are asked for", "n");
  const size_t most = kMaxPromptRowsBytes / (width * sizeof(float));
  if (request.prompt.size() <= most) return ok_status();
  return make_error(ErrorCode::context_too_long,
                    fmt::format("the prompt has {} tokens; {} rows of {} numbers may be asked for at a time",
                                request.prompt.size(), most, width),
                    "prompt");
}

}  // namespace

Status check_request(const Request& request, const RequestLimits& limits) {
  const int32_t vocab = limits.spec.vocab_size;
  const auto known = [&](Token token) { return token >= 0 && token < vocab; };
  const auto bad = [](std::string message, std::string param) {
    return make_error(ErrorCode::invalid_argument, std::move(message), std::move(param));
  };
  const SamplingParams& p = request.sampling;
  if (request.sink == nullptr) return bad("a request needs a sink", "");
  if (request.prompt.empty()) return bad("the prompt is empty", "prompt");
  if (!std::ranges::all_of(request.prediction, known)) {
    return bad("a token of the prediction lies outside the model's vocabulary", "prediction");
  }
  if (!std::ranges::all_of(request.prompt, known)) {
    return bad(fmt::format("the prompt has a token outside the vocabulary of {}", vocab), "prompt");
  }
  if (!std::ranges::all_of(p.stop_token_ids, known)) {
    return bad(fmt::format("stop_token_ids must be in [0, {})", vocab), "stop_token_ids");
  }
  if (!std::ranges::all_of(p.logit_bias, [&](const auto& bias) { return known(bias.first); })) {
    return bad(fmt::format("logit_bias names a token outside [0, {})", vocab), "logit_bias");
  }
  if (p.n < 1 || p.n > 1024) return bad("n must be in [1, 1024]", "n");
  RETURN_IF_ERROR(check_rows(request, limits));
  if (p.max_tokens && *p.max_tokens < 0) return bad("max_tokens must not be negative", "max_tokens");
  return check_length(request, limits);
}

}  // namespace inferneo
