#include "engine/prompt_lookup.h"

#include <algorithm>
#include <bit>

#include "base/split_mix.h"

namespace inferneo {

PromptLookup::PromptLookup(size_t expected_tokens) {
  constexpr size_t kFewest = 256;
  constexpr size_t kMost = size_t{1} << 16;
  heads_.assign(std::bit_ceil(std::clamp(expected_tokens, kFewest, kMost)), -1);
  tokens_.reserve(expected_tokens);
  previous_.reserve(expected_tokens + 1);
  previous_.push_back(-1);
}

size_t PromptLookup::bucket(int32_t end) const {
  uint64_t hash = 0;
  for (int32_t i = end - kMinMatch; i < end; ++i) {
    hash = split_mix(hash ^ static_cast<uint32_t>(tokens_[static_cast<size_t>(i)]));
  }
  return hash & (heads_.size() - 1);
}

bool PromptLookup::has_border_before(int32_t end) const {
  return std::find(tokens_.begin() + (end - kMinMatch), tokens_.begin() + end, kBorder) != tokens_.begin() + end;
}

void PromptLookup::append(std::span<const Token> tokens) {
  for (const Token token : tokens) {
    // What stands before the new token is known to go on with it only now.
    const int32_t end = size();
    if (end >= kMinMatch && token != kBorder && !has_border_before(end)) {
      int32_t& head = heads_[bucket(end)];
      previous_.back() = head;
      head = end;
    }
    tokens_.push_back(token);
    previous_.push_back(-1);
  }
}

void PromptLookup::append_border() {
  constexpr Token border[] = {kBorder};
  append(border);
}

int32_t PromptLookup::match_length(int32_t end) const {
  const int32_t most = std::min(kMaxMatch, end);
  int32_t length = 0;
  while (length < most) {
    const Token token = tokens_[static_cast<size_t>(end - 1 - length)];
    if (token == kBorder || token != tokens_[tokens_.size() - 1 - static_cast<size_t>(length)]) break;
    ++length;
  }
  return length;
}

PromptLookup::Match PromptLookup::match() const {
  Match best;
  if (size() < kMinMatch || has_border_before(size())) return best;
  int32_t position = heads_[bucket(size())];
  for (int32_t compared = 0; position >= 0 && compared < kMaxCompared; ++compared) {
    const int32_t length = match_length(position);
    if (length >= kMinMatch && length > best.length) best = {length, position};
    if (best.length == kMaxMatch) break;
    position = previous_[static_cast<size_t>(position)];
  }
  return best;
}

void PromptLookup::draft(const Match& match, int32_t count, std::vector<Token>& drafts) const {
  drafts.clear();
  if (match.length == 0) return;
  const int32_t period = size() - match.next;
  for (int32_t i = 0; i < count; ++i) {
    const Token token =
        i < period ? tokens_[static_cast<size_t>(match.next + i)] : drafts[static_cast<size_t>(i - period)];
    if (token == kBorder) return;
    drafts.push_back(token);
  }
}

}  // namespace inferneo
