// What speculation remembers: of each sequence, and of all together.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "engine/prompt_lookup.h"
#include "text/grammar.h"

namespace inferneo {

// Of drafted tokens, the share that was accepted, each given that those before it were: a decaying count, so that what
// was long ago is forgotten.
class AcceptanceCount {
 public:
  void add(int32_t num_draft, int32_t num_accepted, double decay) {
    accepted_ = accepted_ * decay + num_accepted;
    tried_ = tried_ * decay + num_accepted + (num_accepted < num_draft ? 1 : 0);
  }
  // As if `weight` tokens more had been tried and `prior` of them accepted.
  double share(double prior, double weight) const { return (accepted_ + prior * weight) / (tried_ + weight); }

 private:
  double accepted_ = 0.0;
  double tried_ = 0.0;
};

// Over all sequences of a model, by the length of the match that a draft came from.
class MatchAcceptance {
 public:
  void add(int32_t match_length, int32_t num_draft, int32_t num_accepted) {
    counts_[class_of(match_length)].add(num_draft, num_accepted, kDecay);
  }
  double share(int32_t match_length) const {
    const size_t c = class_of(match_length);
    return counts_[c].share(kAssumed[c], kAssumedWeight);
  }

 private:
  static constexpr std::array<int32_t, 5> kLongest = {2, 3, 5, 9, PromptLookup::kMaxMatch};  // match of each class
  static constexpr std::array<double, 5> kAssumed = {0.4, 0.5, 0.6, 0.75, 0.85};             // before anything is known
  static constexpr double kAssumedWeight = 4.0;
  static constexpr double kDecay = 0.98;

  static size_t class_of(int32_t length) {
    const auto found = std::lower_bound(kLongest.begin(), kLongest.end() - 1, length);
    return static_cast<size_t>(found - kLongest.begin());
  }

  std::array<AcceptanceCount, kLongest.size()> counts_;
};

// Over all sequences of a model, of what comes from one source.
class SourceAcceptance {
 public:
  explicit SourceAcceptance(double assumed) : assumed_(assumed) {}  // before anything is known

  void add(int32_t num_draft, int32_t num_accepted) { count_.add(num_draft, num_accepted, kDecay); }
  double share() const { return count_.share(assumed_, kAssumedWeight); }

 private:
  static constexpr double kAssumedWeight = 4.0;
  static constexpr double kDecay = 0.98;

  double assumed_;
  AcceptanceCount count_;
};

struct DraftState {
  explicit DraftState(size_t expected_tokens) : lookup(expected_tokens) {}

  static constexpr int32_t kFirstPause = 32;
  static constexpr int32_t kLongestPause = 1024;

  PromptLookup lookup;
  int32_t num_known = 0;  // of the sequence's tokens, those in `lookup`
  PromptLookup::Match match;
  Token foretold = 0;                                     // what `match` says the token after num_known is
  bool foretells = false;                                 // it does, and the token has not come yet
  AcceptanceCount acceptance;                             // of what was looked up
  AcceptanceCount model_acceptance;                       // of what the draft model said
  Foresight foresight;                                    // what the grammar says about the tokens after num_known
  std::array<AcceptanceCount, kNumCertainties> foreseen;  // of its tokens, by how sure they are
  int32_t foresights_unpaid = 0;                          // in a row, whose tokens were not worth it to guess
  int32_t foresight_pause = kFirstPause;
  int32_t foresight_paused = 0;  // steps since the grammar was asked last
  // Of the drafts given last: how many were foreseen, and whether the rest is from the draft model, or was looked up.
  int32_t num_foreseen = 0;
  bool from_model = false;
  bool model_refused = false;   // the draft model cannot guess for this sequence
  int32_t pause = kFirstPause;  // steps between tries while drafts do not seem to pay
  int32_t paused = 0;           // steps since the last one
};

}  // namespace inferneo
