#include "engine/speculator.h"

#include <algorithm>

namespace inferneo {
namespace {

constexpr double kLeastGain = 1.02;     // of tokens per time, below which a draft is not worth its noise
constexpr double kPriorWeight = 4.0;    // of what all sequences taught, in tokens of one sequence
constexpr double kSequenceDecay = 0.9;  // per draft
constexpr int32_t kProbe = 2;           // tokens of a try
constexpr int32_t kPlainEvery = 64;     // steps with drafts, after which one without keeps that cost known

}  // namespace

bool Speculator::may_speculate(const Sequence& sequence) const {
  const SamplingParams& params = sequence.request->request.sampling;
  // Before min_tokens and under a grammar, each row would need a mask of its own.
  return !sequence.idle() && sequence.grammar == nullptr && sequence.num_in_flight == 0 &&
         params.num_speculative_tokens != 0 && sequence.num_output() >= params.min_tokens &&
         sequence.num_wanted() - sequence.num_computed == 1 && sequence.max_output - sequence.num_output() > 1;
}

void Speculator::look_up(Sequence& sequence) {
  if (sequence.draft_state == nullptr) {
    const std::vector<Token>& prediction = sequence.request->request.prediction;
    sequence.draft_state = std::make_unique<DraftState>(prediction.size() + sequence.tokens.capacity());
    sequence.draft_state->lookup.append(prediction);
    if (!prediction.empty()) sequence.draft_state->lookup.append_border();
  }
  DraftState& state = *sequence.draft_state;
  state.lookup.append(std::span(sequence.tokens).subspan(static_cast<size_t>(state.num_known)));
  state.num_known = sequence.num_tokens();
  state.match = state.lookup.match();
}

double Speculator::acceptance(const Sequence& sequence) const {
  const DraftState& state = *sequence.draft_state;
  return state.acceptance.share(learnt_.share(state.match.length), kPriorWeight);
}

void Speculator::plan(const Scheduler::Sequences& running, bool may_draft) {
  for (Sequence* sequence : running) sequence->drafts.clear();
  const auto num_running = static_cast<int32_t>(running.size());
  if (!enabled() || !may_draft || num_running == 0 || num_running >= StepCost::kMaxTokens) return;
  candidates_.clear();
  for (Sequence* sequence : running) {
    if (!may_speculate(*sequence)) continue;
    look_up(*sequence);
    if (sequence->draft_state->match.length == 0) continue;
    const int32_t wanted = sequence->request->request.sampling.num_speculative_tokens.value_or(config_.max_draft);
    const int32_t room = sequence->max_output - sequence->num_output() - 1;
    candidates_.push_back({sequence, acceptance(*sequence), std::min({wanted, config_.max_draft, room})});
  }
  if (candidates_.empty()) return;
  if (++steps_with_drafts_ > kPlainEvery) {
    steps_with_drafts_ = 0;
    return;
  }
  choose(num_running);
}

// Tokens join in the order of their chance; the best number of them is where tokens per time are most.
void Speculator::choose(int32_t num_running) {
  for (Candidate& candidate : candidates_) candidate.chance = candidate.acceptance;
  const auto next_best = [&]() -> Candidate* {
    Candidate* best = nullptr;
    for (Candidate& candidate : candidates_) {
      if (candidate.taken < candidate.limit && (best == nullptr || candidate.chance > best->chance)) best = &candidate;
    }
    return best;
  };
  std::vector<Candidate*> order;
  double expected = num_running;
  double best_rate = kLeastGain * expected / cost_.of(num_running);
  size_t best_count = 0;
  for (int32_t tokens = num_running + 1; tokens <= StepCost::kMaxTokens; ++tokens) {
    Candidate* candidate = next_best();
    if (candidate == nullptr) break;
    expected += candidate->chance;
    candidate->chance *= candidate->acceptance;
    ++candidate->taken;
    order.push_back(candidate);
    const double rate = expected / cost_.of(tokens);
    if (rate <= best_rate) continue;
    best_rate = rate;
    best_count = order.size();
  }
  for (Candidate& candidate : candidates_) candidate.taken = 0;
  for (size_t i = 0; i < best_count; ++i) ++order[i]->taken;
  for (Candidate& candidate : candidates_) give(candidate, candidate.taken);
}

void Speculator::give(Candidate& candidate, int32_t num_drafts) {
  DraftState& state = *candidate.sequence->draft_state;
  if (num_drafts == 0) {
    if (++state.paused < state.pause) return;
    num_drafts = std::min(kProbe, candidate.limit);
    state.pause = std::min(2 * state.pause, DraftState::kLongestPause);
  }
  state.paused = 0;
  state.lookup.draft(state.match, num_drafts, candidate.sequence->drafts);
}

void Speculator::verified(Sequence& sequence, int32_t num_draft, int32_t num_accepted) {
  DraftState& state = *sequence.draft_state;
  learnt_.add(state.match.length, num_draft, num_accepted);
  state.acceptance.add(num_draft, num_accepted, kSequenceDecay);
  if (num_accepted == num_draft) state.pause = DraftState::kFirstPause;
  ++stats_.drafts;
  stats_.draft_tokens += static_cast<uint64_t>(num_draft);
  stats_.accepted_tokens += static_cast<uint64_t>(num_accepted);
  for (int32_t i = 0; i < num_accepted; ++i) {
    ++stats_.accepted_at[static_cast<size_t>(std::min(i, SpeculationStats::kPositions - 1))];
  }
}

}  // namespace inferneo
