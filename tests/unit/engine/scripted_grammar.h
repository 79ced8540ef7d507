// A grammar from a hash: what it allows depends on all tokens so far, as that of a real one, and so do its faults.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/split_mix.h"
#include "text/grammar.h"

namespace inferneo {

struct GrammarScript {
  int32_t vocab_size = 256;
  Token eos = 0;
  uint64_t seed = 1;
  uint64_t percent = 50;      // of the tokens are allowed; three at least
  uint64_t finishes_one = 0;  // it ends by itself at one of so many places; 0: never
  bool rolls_back = true;     // false: a rollback breaks the matcher
  uint64_t breaks_one = 0;    // refusing breaks the matcher at one of so many places; 0: never
  // What it foresees after so many tokens, at most so many; none: nothing.
  std::function<Foresight(int32_t count, int32_t most)> foresees = {};
  uint64_t foreseeing_breaks_one = 0;  // it breaks the matcher at one of so many places; 0: never
};

// Of text without a choice, but where `end` is another certainty behind the last token.
inline Foresight foresight_of(std::vector<Token> tokens, Certainty end = Certainty::text) {
  Foresight foresight{std::move(tokens), {}};
  foresight.certainty.resize(foresight.tokens.size(), Certainty::text);
  if (!foresight.certainty.empty()) foresight.certainty.back() = end;
  return foresight;
}

// Where a grammar stands. Plain data, so that tests can say what must come without a matcher.
struct GrammarPlace {
  uint64_t hash = 0;
  int32_t count = 0;

  GrammarPlace after(Token token) const {
    return {split_mix(hash ^ (static_cast<uint64_t>(token) + kGoldenGamma)), count + 1};
  }
  bool one_of(uint64_t many, uint64_t salt) const { return many > 0 && split_mix(hash ^ salt) % many == 0; }
  bool allows(const GrammarScript& script, Token token) const {
    if (token == script.eos) return count > 0 && one_of(4, 77);
    const auto vocab = static_cast<uint64_t>(script.vocab_size);
    const uint64_t first = hash % vocab;
    if ((static_cast<uint64_t>(token) + vocab - first) % vocab < 3) return true;
    return split_mix(hash ^ static_cast<uint64_t>(token) << 20) % 100 < script.percent;
  }
  bool finished(const GrammarScript& script) const { return count > 0 && one_of(script.finishes_one, 99); }
};

inline GrammarPlace first_place(const GrammarScript& script) { return {split_mix(script.seed), 0}; }

class ScriptedMatcher final : public GrammarMatcher {
 public:
  explicit ScriptedMatcher(const GrammarScript& script) : script_(script), places_{first_place(script)} {}

  Status fill_mask(std::span<uint32_t> mask) override {
    if (broken_) return broken();
    EXPECT_EQ(mask.size(), (static_cast<size_t>(script_.vocab_size) + 31) / 32);
    std::ranges::fill(mask, 0U);
    for (Token token = 0; token < script_.vocab_size && !ended_; ++token) {
      if (is_finished() && token != script_.eos) continue;
      const bool allowed = places_.back().allows(script_, token) || (is_finished() && token == script_.eos);
      if (allowed) mask[static_cast<size_t>(token) / 32] |= uint32_t{1} << (token % 32);
    }
    return ok_status();
  }
  Status accept(Token token) override {
    if (broken_) return broken();
    const GrammarPlace& place = places_.back();
    if (ended_ || place.finished(script_) || !place.allows(script_, token)) {
      broken_ = place.one_of(script_.breaks_one, 55);
      return make_error(ErrorCode::invalid_argument, "not allowed");
    }
    ended_ = token == script_.eos;
    places_.push_back(place.after(token));
    return ok_status();
  }
  Status rollback(int num_tokens) override {
    broken_ = broken_ || (num_tokens > 0 && !script_.rolls_back);
    if (broken_) return broken();
    EXPECT_LT(static_cast<size_t>(num_tokens), places_.size());
    places_.resize(places_.size() - static_cast<size_t>(num_tokens), GrammarPlace{});
    if (num_tokens > 0) ended_ = false;
    return ok_status();
  }
  Result<Foresight> foresee(int32_t most) override {
    broken_ = broken_ || places_.back().one_of(script_.foreseeing_breaks_one, 33);
    if (broken_) return broken().error();
    return script_.foresees ? script_.foresees(places_.back().count, most) : Foresight{};
  }
  bool is_finished() const override { return broken_ || ended_ || places_.back().finished(script_); }

 private:
  static Status broken() { return make_error(ErrorCode::invalid_argument, "the matcher is broken"); }

  GrammarScript script_;
  std::vector<GrammarPlace> places_;
  bool ended_ = false;
  bool broken_ = false;
};

class ScriptedGrammar final : public GrammarCompiled {
 public:
  explicit ScriptedGrammar(const GrammarScript& of) : script(of) {}
  Result<std::unique_ptr<GrammarMatcher>> new_matcher() const override {
    return std::unique_ptr<GrammarMatcher>(std::make_unique<ScriptedMatcher>(script));
  }
  const GrammarScript script;
};

}  // namespace inferneo
