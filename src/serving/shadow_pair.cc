#include "serving/shadow_pair.h"

#include <algorithm>

#include "serving/model_metrics.h"

namespace inferneo {
namespace {

constexpr std::array<std::string_view, kNumShadowTimes> kNames = {"time_to_first_token", "inter_token", "end_to_end"};

// FNV-1a: for telling equal from different, not against anybody.
uint64_t hashed(uint64_t hash, const void* data, size_t size) {
  const auto* const bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3ULL;
  return hash;
}

ShadowPair::Side side_of(const ShadowAnswer& answer) {
  const RequestStats& stats = answer.stats();
  ShadowPair::Side side;
  side.model = answer.model();
  if (answer.finish()) side.finish = finish_reason_name(*answer.finish());
  side.prompt_tokens = answer.prompt_tokens();
  side.completion_tokens = answer.completion_tokens();
  side.text = answer.text();
  if (answer.completion_tokens() > 0) {
    side.computing[static_cast<size_t>(ShadowTime::time_to_first_token)] = to_seconds(stats.computing_first);
    side.computing[static_cast<size_t>(ShadowTime::end_to_end)] = to_seconds(stats.computing);
  }
  if (answer.completion_tokens() > 1) {
    side.computing[static_cast<size_t>(ShadowTime::inter_token)] =
        to_seconds(stats.computing - stats.computing_first) / (answer.completion_tokens() - 1);
  }
  side.waited = std::max(0.0, to_seconds(stats.finished - stats.submitted - stats.computing));
  return side;
}

}  // namespace

std::string_view shadow_time_name(ShadowTime time) { return kNames[static_cast<size_t>(time)]; }

void ShadowAnswer::add(const PromptInfo& info) {
  model_ = info.model;
  prompt_hash_ = hashed(prompt_hash_, info.tokens.data(), info.tokens.size() * sizeof(Token));
}

void ShadowAnswer::add(const OutputDelta& delta) {
  if (delta.sample != 0) return;
  text_hash_ = hashed(text_hash_, delta.text.data(), delta.text.size());
  text_bytes_ += delta.text.size();
  if (keep_text_ && text_.size() < kMaxText) text_ += delta.text;
  num_tokens_ += static_cast<int64_t>(delta.tokens.size());
  const size_t room = kMaxTokens - std::min(kMaxTokens, tokens_.size());
  tokens_.insert(tokens_.end(), delta.tokens.begin(),
                 delta.tokens.begin() + static_cast<std::ptrdiff_t>(std::min(room, delta.tokens.size())));
  if (delta.finish) finish_ = delta.finish;
}

void ShadowAnswer::end(const GenerateOutcome& outcome) {
  error_ = outcome.error;
  usage_ = outcome.usage;
  stats_ = outcome.stats;
}

std::optional<int32_t> ShadowAnswer::first_difference(const ShadowAnswer& other) const {
  if (prompt_hash_ != other.prompt_hash_) return std::nullopt;
  const auto [here, there] = std::mismatch(tokens_.begin(), tokens_.end(), other.tokens_.begin(), other.tokens_.end());
  const bool both_end = here == tokens_.end() && there == other.tokens_.end();
  if (both_end && num_tokens_ == other.num_tokens_) return std::nullopt;
  return static_cast<int32_t>(here - tokens_.begin());
}

ShadowPair compare(const ShadowAnswer& original, const ShadowAnswer& copy) {
  ShadowPair pair;
  pair.original = side_of(original);
  pair.copy = side_of(copy);
  pair.same_text = original.same_text(copy);
  pair.first_difference = original.first_difference(copy);
  return pair;
}

void ShadowDifferences::Compared::add(double of_original, double of_copy) {
  original.add(of_original);
  copy.add(of_copy);
  if (of_original > 0.0) ratio.add(of_copy / of_original);
}

void ShadowDifferences::add(const ShadowPair& pair) {
  ++pairs;
  same_text += pair.same_text ? 1 : 0;
  same_finish += pair.original.finish == pair.copy.finish ? 1 : 0;
  if (pair.first_difference) first_difference.add(*pair.first_difference);
  completion_tokens.add(pair.original.completion_tokens, pair.copy.completion_tokens);
  for (size_t i = 0; i < kNumShadowTimes; ++i) {
    const auto& original = pair.original.computing[i];
    const auto& copy = pair.copy.computing[i];
    if (original && copy) computing[i].add(*original, *copy);
  }
}

}  // namespace inferneo
