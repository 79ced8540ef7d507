#include "models/sampling/logits_processors.h"

#include <algorithm>
#include <array>
#include <limits>

namespace inferneo {
namespace {

constexpr float kExcluded = -std::numeric_limits<float>::infinity();

bool is_in_row(Token token, std::span<const float> logits) {
  return token >= 0 && static_cast<size_t>(token) < logits.size();
}

// A mask shorter than the row excludes what it does not cover.
void apply_mask(LogitsRow& row) {
  const std::span<const uint32_t> mask = row.input.allowed_mask;
  for (size_t word = 0; word * 32 < row.logits.size(); ++word) {
    const uint32_t bits = word < mask.size() ? mask[word] : 0;
    if (bits == 0xffffffffU) continue;
    const std::span<float> part = row.logits.subspan(word * 32, std::min<size_t>(32, row.logits.size() - word * 32));
    for (size_t bit = 0; bit < part.size(); ++bit) {
      if ((bits >> bit & 1U) == 0) part[bit] = kExcluded;
    }
  }
}

void apply_banned(LogitsRow& row) {
  for (const Token token : row.input.banned) {
    if (is_in_row(token, row.logits)) row.logits[static_cast<size_t>(token)] = kExcluded;
  }
}

void apply_logit_bias(LogitsRow& row) {
  for (const auto& [token, bias] : row.input.params->logit_bias) {
    if (is_in_row(token, row.logits)) row.logits[static_cast<size_t>(token)] += bias;
  }
}

// Each token of the prompt or the output once, however often it occurs: positive logits are divided by the penalty,
// negative ones multiplied.
void apply_repetition_penalty(LogitsRow& row) {
  const float penalty = row.input.params->repetition_penalty;
  row.counts.reset(static_cast<int>(row.logits.size()));
  row.counts.add(row.input.prompt);
  row.counts.add(row.input.output);
  for (const Token token : row.counts.distinct()) {
    float& logit = row.logits[static_cast<size_t>(token)];
    logit = logit < 0.0F ? logit * penalty : logit / penalty;
  }
}

void count_output(LogitsRow& row) {
  row.counts.reset(static_cast<int>(row.logits.size()));
  row.counts.add(row.input.output);
}

void apply_presence_penalty(LogitsRow& row) {
  count_output(row);
  for (const Token token : row.counts.distinct()) {
    row.logits[static_cast<size_t>(token)] -= row.input.params->presence_penalty;
  }
}

void apply_frequency_penalty(LogitsRow& row) {
  count_output(row);
  for (const Token token : row.counts.distinct()) {
    row.logits[static_cast<size_t>(token)] -=
        row.input.params->frequency_penalty * static_cast<float>(row.counts.count(token));
  }
}

constexpr std::array kProcessors = {
    LogitsProcessor{"mask", [](const SamplingInput& in) { return !in.allowed_mask.empty(); }, apply_mask},
    LogitsProcessor{"banned", [](const SamplingInput& in) { return !in.banned.empty(); }, apply_banned},
    LogitsProcessor{"logit_bias", [](const SamplingInput& in) { return !in.params->logit_bias.empty(); },
                    apply_logit_bias},
    LogitsProcessor{"repetition_penalty", [](const SamplingInput& in) { return in.params->repetition_penalty != 1.0F; },
                    apply_repetition_penalty},
    LogitsProcessor{"presence_penalty", [](const SamplingInput& in) { return in.params->presence_penalty != 0.0F; },
                    apply_presence_penalty},
    LogitsProcessor{"frequency_penalty", [](const SamplingInput& in) { return in.params->frequency_penalty != 0.0F; },
                    apply_frequency_penalty},
};

}  // namespace

void TokenCounts::reset(int vocab_size) {
  for (const Token token : distinct_) counts_[static_cast<size_t>(token)] = 0;
  distinct_.clear();
  if (counts_.size() < static_cast<size_t>(vocab_size)) counts_.resize(static_cast<size_t>(vocab_size));
  vocab_size_ = static_cast<size_t>(vocab_size);
}

void TokenCounts::add(std::span<const Token> tokens) {
  for (const Token token : tokens) {
    if (token < 0 || static_cast<size_t>(token) >= vocab_size_) continue;
    if (counts_[static_cast<size_t>(token)]++ == 0) distinct_.push_back(token);
  }
}

std::span<const LogitsProcessor> logits_processors() { return kProcessors; }

}  // namespace inferneo
