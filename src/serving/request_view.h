// What rules may ask of a request and of the models, whatever kind of request it is. Lives as long as one decision.
#pragma once

#include <ctime>

#include <cstdint>
#include <optional>
#include <random>
#include <string_view>
#include <vector>

#include "serving/routed_service.h"

namespace inferneo {

inline uint64_t random_bits() {
  thread_local std::mt19937_64 source{(static_cast<uint64_t>(std::random_device{}()) << 32) | std::random_device{}()};
  return source();
}

// The views are of what its maker holds.
class RequestView final : public RoutingView {
 public:
  // `tokens`: of the prompt, where it came as tokens; else they are counted. `salt`: of what is remembered of it then.
  RequestView(const RoutedService::Context& context, const RequestTraits& traits, std::string_view prompt,
              std::optional<int64_t> tokens, std::string_view salt = {})
      : context_(context), traits_(traits), prompt_(prompt), tokens_(tokens), salt_(salt) {}

  std::string_view header(std::string_view name) const override {
    for (const auto& [key, value] : traits_.headers) {
      if (key == name) return value;
    }
    return {};
  }
  std::optional<int64_t> prompt_tokens() const override {
    if (tokens_) return tokens_;
    // Nobody loads a model to count tokens.
    if (!context_.models.loaded("")) return std::nullopt;
    const auto tokenizer = context_.inner.tokenizer("");
    if (!tokenizer.ok() || *tokenizer == nullptr) return std::nullopt;
    const auto tokens = (*tokenizer)->encode_salted(prompt_, false, salt_);
    if (!tokens.ok()) return std::nullopt;
    return static_cast<int64_t>(tokens->size());
  }
  std::optional<double> load(std::string_view model) const override { return context_.models.load(model); }
  bool loaded(std::string_view model) const override { return context_.models.loaded(model); }
  int minute_of_day() const override {
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    if (::localtime_r(&now, &local) == nullptr) return 0;
    return local.tm_hour * 60 + local.tm_min;
  }

 private:
  const RoutedService::Context& context_;
  const RequestTraits& traits_;
  const std::string_view prompt_;
  const std::optional<int64_t> tokens_;
  const std::string_view salt_;
};

inline RequestKeys keys_of(const RequestTraits& traits, std::string_view user) {
  return {.user = user,
          .session = traits.session,
          .request = traits.key,
          .forced_arm = traits.forced_arm,
          .random = random_bits()};
}

// Errors of the model rather than of the request: the next one of the chain may do better.
inline bool may_fall_back(const Error& error) {
  switch (error.code) {
    case ErrorCode::unavailable:
    case ErrorCode::queue_full:
    case ErrorCode::out_of_memory:
    case ErrorCode::context_too_long:
    case ErrorCode::numeric:
    case ErrorCode::internal:
      return true;
    default:
      return false;
  }
}

inline Error refusal_of(const RoutingRefusal& refusal) {
  Error error = make_error(ErrorCode::forbidden, refusal.message);
  if (error.message.empty()) error.message = "a routing rule refuses this request";
  error.http_status = refusal.status;
  return error;
}

}  // namespace inferneo
