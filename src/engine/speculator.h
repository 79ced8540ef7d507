// Decides how many tokens of which sequence are guessed, so that one step can yield several: lossless speculative
// decoding (Leviathan et al. 2023) with drafts that a grammar foresees (text/grammar.h), then for each sequence and
// step those that are looked up (prompt_lookup.h) or that a draft model says (draft_model.h), whichever is more often
// right.
//
// A draft costs what the longer step takes more (step_cost.h) and what the draft model's steps take (draft_cost.h), all
// measured, and is worth its chance of being accepted, which is learnt: per source, per length of the match over all
// sequences, and per sequence; of what a grammar foresees by how sure that is.
// The drafts of a step are those that make (tokens expected) / (time expected) largest; none where that gains too
// little. A sequence that got none is tried again, ever more seldom, and so is a draft model that does not pay
// anywhere, so that text which nothing predicts costs next to nothing.
//
// Before it guesses a draft model has to read. It does so once what it would have saved of the output so far is what
// reading costs, as one who does not know how long the snow lasts buys skis when the rent has reached their price
// (Karlin et al. 1988): never twice what was best.
//
// Where steps run ahead (a GPU), a step with drafts of a sequence that would run ahead is waited for, so that its batch
// stays together, and so is the step before the first of them. What such a wait takes is measured and is part of a
// draft's cost, as the masks are that each draft under a grammar needs, and asking the grammar what it foresees. Where
// that does not pay it is asked ever more seldom.
//
// No threads, no clock, and of the draft model nothing but questions: whoever calls plan() grants the wishes. Only
// sequences that are about to decode and whose last token is on the host get drafts; idle work gets none.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "engine/draft_model.h"
#include "engine/draft_state.h"
#include "engine/scheduler.h"
#include "engine/speculation_stats.h"
#include "engine/step_cost.h"
#include "engine/wait_cost.h"

namespace inferneo {

struct SpeculationConfig {
  int32_t max_draft = 0;  // tokens of one sequence and step; 0: no speculation
};

class Speculator {
 public:
  explicit Speculator(const SpeculationConfig& config) : config_(config) {}

  bool enabled() const { return config_.max_draft > 0; }

  // Sets the drafts of what runs, but for what a step in flight names, that are foreseen or looked up, for the step
  // that is scheduled next, and what the draft model is to say behind them. Without `may_draft` (prompts are to be read
  // as well, which a draft would not pay beside) it only takes back the earlier ones. `model`: null where there is
  // none.
  void plan(const Scheduler::Sequences& running, bool may_draft, DraftModel* model = nullptr);
  const std::vector<DraftWish>& wishes() const { return wishes_; }

  // With a step in flight, whose tokens nobody knows yet: whether to wait for them rather than run ahead, since going
  // on from what was found would pay, were they what was found. What is found without waiting for it is compared with
  // the token that came, which teaches the chances at no cost; so text that nothing predicts is not waited for.
  // Looked-up drafts only.
  bool worth_waiting(const Scheduler::Sequences& running);
  // What a step took more, from the end of the one before it, since it did not run ahead. Never told where none does.
  void waited(Duration time) { wait_.took(time); }

  // A step of decoding sequences alone, of so many tokens with drafts.
  void took(int32_t num_tokens, Duration time) { cost_.took(num_tokens, time); }
  void verified(Sequence& sequence, int32_t num_draft, int32_t num_accepted);

  const SpeculationStats& stats() const { return stats_; }

 private:
  struct Candidate {
    Sequence* sequence;
    double acceptance = 0.0;   // of each of its drafts behind those that are foreseen, given those before it
    int32_t limit = 0;         // drafts at most
    double holds = 1.0;        // that what they are drafts behind is what comes
    int32_t num_foreseen = 0;  // the first of its drafts
    std::array<double, kNumCertainties> foreseen{};  // the same of these, by how sure they are
    int32_t room = 0;                                // drafts at most that the draft model could say now
    bool needs_foresight = false;                    // what was found does not say the same as surely
    bool from_model = false;                         // it says those behind the foreseen ones
    int32_t taken = 0;                               // in this step
    double chance = 0.0;                             // that the next one is accepted and all before it

    double acceptance_of(int32_t draft) const {
      if (draft >= num_foreseen) return acceptance;
      const Certainty certainty = sequence->draft_state->foresight.certainty[static_cast<size_t>(draft)];
      return foreseen[static_cast<size_t>(certainty)];
    }
    int32_t from_source() const { return taken - std::min(taken, num_foreseen); }
  };
  struct Terms {  // of a step, in seconds beside its tokens' and the draft model's
    int32_t num_running;
    double always = 0.0;  // with drafts and without
    double waits = 0.0;   // with drafts of a sequence that would run ahead
  };
  Terms terms_of(const Scheduler::Sequences& running) const;
  struct Reader {  // for whom the draft model has to read first
    Sequence* sequence;
    int32_t behind;
  };
  bool may_speculate(const Sequence& sequence) const;
  int32_t draft_limit(const Sequence& sequence) const;
  void look_up(Sequence& sequence);
  void foresee(Sequence& sequence);
  void learn_from_token(const Sequence& sequence, DraftState& state);
  void follow_text(Candidate& candidate) const;
  void follow_model(Candidate& candidate) const;
  void gather(const Scheduler::Sequences& running, DraftModel* model);
  bool choose(const Terms& terms, const DraftModel* model, double least_gain);
  Candidate* next_best();
  void give(Candidate& candidate, bool model_pays);
  void give_known(const Candidate& candidate);
  void rate_foresight(const Candidate& candidate, double step_seconds);
  void learn(DraftState& state, int32_t num_draft, int32_t num_accepted);
  void learn_foreseen(DraftState& state, int32_t num_draft, int32_t num_accepted);
  void read_where_it_pays(int32_t num_running, const DraftModel& model);
  void try_model_again(bool model_pays);
  double best_gain(int32_t num_running, int32_t num_guessed, double acceptance, const DraftModel& model) const;
  double lookup_acceptance(const Sequence& sequence) const;
  double model_acceptance(const Sequence& sequence) const;
  void begin_with_foreseen(Candidate& candidate, int32_t count) const;

  SpeculationConfig config_;
  StepCost cost_;
  MatchAcceptance learnt_;
  SourceAcceptance learnt_of_model_{0.7};
  std::array<SourceAcceptance, kNumCertainties> learnt_of_grammar_ = {SourceAcceptance(0.95), SourceAcceptance(0.8),
                                                                      SourceAcceptance(0.6)};
  SpeculationStats stats_;
  int32_t foresights_unpaid_ = 0;  // in a row, over all sequences, that were not worth it to ask for
  int32_t steps_with_drafts_ = 0;  // since the last one without
  int32_t model_pause_ = DraftState::kFirstPause;
  int32_t model_paused_ = 0;  // steps since the draft model guessed last, of those in which it might have
  WaitCost wait_;
  int32_t wait_pause_ = DraftState::kFirstPause;
  int32_t wait_paused_ =
      0;  // steps that would have been waited for if waiting cost nothing, since the last one that was
  bool tries_wait_ = false;  // for the sake of knowing what it costs
  std::vector<Candidate> candidates_;
  std::vector<Reader> readers_;
  std::vector<DraftWish> wishes_;
};

}  // namespace inferneo
