// Decides how many tokens of which sequence are guessed, so that one step can yield several: lossless speculative
// decoding (Leviathan et al. 2023) with drafts that are looked up (prompt_lookup.h).
//
// A draft costs what the longer step takes more, which is measured (step_cost.h), and is worth its chance of being
// accepted, which is learnt: per length of the match over all sequences, and per sequence. The drafts of a step are
// those that make (tokens expected) / (time expected) largest; none where that gains too little. A sequence that got
// none is tried again, ever more seldom, so that text which nothing predicts costs next to nothing.
//
// Pure: no threads, no clock. Only sequences that are about to decode, whose last token is on the host and whose next
// one does not depend on a grammar get drafts; idle work gets none.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/draft_state.h"
#include "engine/scheduler.h"
#include "engine/speculation_stats.h"
#include "engine/step_cost.h"

namespace inferneo {

struct SpeculationConfig {
  int32_t max_draft = 0;  // tokens of one sequence and step; 0: no speculation
};

class Speculator {
 public:
  explicit Speculator(const SpeculationConfig& config) : config_(config) {}

  bool enabled() const { return config_.max_draft > 0; }

  // Sets the drafts of what runs, for the step that is scheduled next. Without `may_draft` (prompts are to be read as
  // well, which a draft would not pay beside) it only takes back the earlier ones.
  void plan(const Scheduler::Sequences& running, bool may_draft);

  // A step of decoding sequences alone, of so many tokens with drafts.
  void took(int32_t num_tokens, Duration time) { cost_.took(num_tokens, time); }
  void verified(Sequence& sequence, int32_t num_draft, int32_t num_accepted);

  const SpeculationStats& stats() const { return stats_; }

 private:
  struct Candidate {
    Sequence* sequence;
    double acceptance;    // of each of its drafts, given those before it
    int32_t limit;        // drafts at most
    int32_t taken = 0;    // of them in this step
    double chance = 0.0;  // that the next one is accepted and all before it
  };
  bool may_speculate(const Sequence& sequence) const;
  void look_up(Sequence& sequence);
  void choose(int32_t num_running);
  void give(Candidate& candidate, int32_t num_drafts);
  double acceptance(const Sequence& sequence) const;

  SpeculationConfig config_;
  StepCost cost_;
  MatchAcceptance learnt_;
  SpeculationStats stats_;
  int32_t steps_with_drafts_ = 0;  // since the last one without
  std::vector<Candidate> candidates_;
};

}  // namespace inferneo
