#include "engine/speculator.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

namespace inferneo {
namespace {

constexpr double kLeastGain = 1.02;     // of tokens per time, below which a draft is not worth its noise
constexpr double kWaitGain = 1.05;      // the same where the device is idle while its result is read
constexpr double kPriorWeight = 4.0;    // of what all sequences taught, in tokens of one sequence
constexpr double kSequenceDecay = 0.9;  // per draft
constexpr int32_t kProbe = 2;           // tokens of a try
constexpr int32_t kPlainEvery = 64;     // steps with drafts, after which one without keeps that cost known
constexpr double kAsGood = 0.9;         // as the acceptance of guesses that cost steps, for those that cost none
constexpr int32_t kUnpaid = 8;          // foresights in a row that did not pay, after which a grammar is asked seldom
constexpr int32_t kUnpaidByAny = 64;    // of all sequences, after which new ones begin so

}  // namespace

bool Speculator::may_speculate(const Sequence& sequence) const {
  const SamplingParams& params = sequence.request->request.sampling;
  // Before min_tokens each row would need bans of its own.
  return !sequence.idle() && (sequence.grammar == nullptr || sequence.grammar->can_walk()) &&
         params.num_speculative_tokens != 0 && sequence.num_output() >= params.min_tokens &&
         sequence.num_wanted() - sequence.num_computed == 1 && sequence.max_output - sequence.num_output() > 1;
}

int32_t Speculator::draft_limit(const Sequence& sequence) const {
  const int32_t wanted = sequence.request->request.sampling.num_speculative_tokens.value_or(config_.max_draft);
  return std::min({wanted, config_.max_draft, sequence.max_output - sequence.num_output() - 1});
}

void Speculator::look_up(Sequence& sequence) {
  if (sequence.draft_state == nullptr) {
    const std::vector<Token>& prediction = sequence.request->request.prediction;
    sequence.draft_state = std::make_unique<DraftState>(prediction.size() + sequence.tokens.capacity());
    sequence.draft_state->lookup.append(prediction);
    if (!prediction.empty()) sequence.draft_state->lookup.append_border();
  }
  DraftState& state = *sequence.draft_state;
  learn_from_token(sequence, state);
  state.lookup.append(std::span(sequence.tokens).subspan(static_cast<size_t>(state.num_known)));
  state.num_known = sequence.num_tokens();
  state.match = state.lookup.match();
}

void Speculator::foresee(Sequence& sequence) {
  DraftState& state = *sequence.draft_state;
  state.foresight = {};
  if (sequence.grammar == nullptr) return;
  const bool seldom = state.foresights_unpaid >= kUnpaid || foresights_unpaid_ >= kUnpaidByAny;
  if (seldom && ++state.foresight_paused < state.foresight_pause) return;
  state.foresight = sequence.grammar->foresee(draft_limit(sequence));
}

// Where what it takes is noticeable, it pays if its tokens are guessed and nobody else would have said them as surely.
void Speculator::rate_foresight(const Candidate& candidate, double step_seconds) {
  DraftState& state = *candidate.sequence->draft_state;
  if (state.foresight.tokens.empty()) return;
  const bool is_cheap = candidate.sequence->grammar->foresee_seconds() < (kLeastGain - 1.0) * step_seconds;
  if (is_cheap || (candidate.needs_foresight && candidate.taken > 0)) {
    state.foresights_unpaid = foresights_unpaid_ = 0;
    state.foresight_pause = DraftState::kFirstPause;
    return;
  }
  foresights_unpaid_ = std::min(foresights_unpaid_ + 1, kUnpaidByAny);
  if (++state.foresights_unpaid > kUnpaid) {
    state.foresight_pause = std::min(2 * state.foresight_pause, DraftState::kLongestPause);
  }
  state.foresight_paused = 0;
}

void Speculator::learn_from_token(const Sequence& sequence, DraftState& state) {
  if (!state.foretells || state.num_known >= sequence.num_tokens()) return;
  const int32_t right = sequence.tokens[static_cast<size_t>(state.num_known)] == state.foretold ? 1 : 0;
  learnt_.add(state.match.length, 1, right);
  state.acceptance.add(1, right, kSequenceDecay);
  state.foretells = false;
}

bool Speculator::worth_waiting(const Scheduler::Sequences& running) {
  const auto num_running = static_cast<int32_t>(running.size());
  if (!enabled() || num_running == 0 || num_running >= StepCost::kMaxTokens) return false;
  candidates_.clear();
  std::vector<Token> next;
  for (Sequence* sequence : running) {
    if (!may_speculate(*sequence) || sequence->num_in_flight == 0 || sequence->verifies) continue;
    look_up(*sequence);
    DraftState& state = *sequence->draft_state;
    if (state.match.length == 0 || state.foretells) continue;
    state.lookup.draft(state.match, 1, next);
    if (next.empty()) continue;
    state.foretold = next.front();
    state.foretells = true;
    const double acceptance = lookup_acceptance(*sequence);
    candidates_.push_back(
        {.sequence = sequence, .acceptance = acceptance, .limit = draft_limit(*sequence), .holds = acceptance});
  }
  Terms terms = terms_of(running);
  terms.waits *= 2;  // for the step in flight, and for the one with the drafts
  if (choose(terms, nullptr, kWaitGain)) {
    wait_pause_ = DraftState::kFirstPause;
    wait_paused_ = 0;
    return true;
  }
  // What waiting costs is only known by waiting, for a step with drafts.
  terms.waits = 0.0;
  if (!choose(terms, nullptr, kWaitGain) || ++wait_paused_ < wait_pause_) return false;
  wait_pause_ = std::min(2 * wait_pause_, DraftState::kLongestPause);
  wait_paused_ = 0;
  tries_wait_ = true;
  return true;
}

Speculator::Terms Speculator::terms_of(const Scheduler::Sequences& running) const {
  Terms terms{.num_running = static_cast<int32_t>(running.size())};
  bool runs_ahead = false;
  for (const Sequence* sequence : running) {
    runs_ahead = runs_ahead || !sequence->needs_host_tokens;
    if (sequence->grammar != nullptr) terms.always += sequence->grammar->mask_seconds();
  }
  (runs_ahead ? terms.waits : terms.always) += wait_.seconds();
  return terms;
}

// 0: nothing was found.
double Speculator::lookup_acceptance(const Sequence& sequence) const {
  const DraftState& state = *sequence.draft_state;
  if (state.match.length == 0) return 0.0;
  return state.acceptance.share(learnt_.share(state.match.length), kPriorWeight);
}

double Speculator::model_acceptance(const Sequence& sequence) const {
  return sequence.draft_state->model_acceptance.share(learnt_of_model_.share(), kPriorWeight);
}

// The first `count` of the tokens that are foreseen, or all that there are.
void Speculator::begin_with_foreseen(Candidate& candidate, int32_t count) const {
  const DraftState& state = *candidate.sequence->draft_state;
  candidate.num_foreseen = std::min(count, static_cast<int32_t>(state.foresight.tokens.size()));
  for (size_t i = 0; i < kNumCertainties; ++i) {
    candidate.foreseen[i] = state.foreseen[i].share(learnt_of_grammar_[i].share(), kPriorWeight);
  }
}

// What was found goes on behind what is foreseen where it begins with it, or from where the two part, if it has been
// right more often.
void Speculator::follow_text(Candidate& candidate) const {
  const DraftState& state = *candidate.sequence->draft_state;
  candidate.from_model = false;
  candidate.acceptance = lookup_acceptance(*candidate.sequence);
  candidate.limit = draft_limit(*candidate.sequence);
  begin_with_foreseen(candidate, candidate.limit);
  if (candidate.num_foreseen == 0 && candidate.acceptance > 0.0) return;
  std::vector<Token> found;
  state.lookup.draft(state.match, candidate.limit, found);
  const auto foreseen = std::span(state.foresight.tokens).first(static_cast<size_t>(candidate.num_foreseen));
  const auto num_equal = static_cast<int32_t>(std::ranges::mismatch(foreseen, found).in1 - foreseen.begin());
  candidate.needs_foresight =
      num_equal < candidate.num_foreseen || candidate.acceptance < kAsGood * candidate.acceptance_of(0);
  if (num_equal < candidate.num_foreseen) {
    const bool parts = num_equal < std::ssize(found);
    if (parts && candidate.acceptance > candidate.acceptance_of(num_equal)) {
      candidate.num_foreseen = num_equal;
    } else {
      candidate.acceptance = 0.0;
    }
  }
  if (candidate.acceptance == 0.0) candidate.limit = candidate.num_foreseen;
}

// The draft model goes on behind what is foreseen, which costs no steps of it, or from where it has been right more
// often.
void Speculator::follow_model(Candidate& candidate) const {
  candidate.from_model = true;
  candidate.acceptance = model_acceptance(*candidate.sequence);
  candidate.limit = std::min(draft_limit(*candidate.sequence), candidate.room);
  begin_with_foreseen(candidate, candidate.limit);
  int32_t num_better = 0;
  const double good = kAsGood * candidate.acceptance;
  while (num_better < candidate.num_foreseen && candidate.acceptance_of(num_better) >= good) ++num_better;
  candidate.num_foreseen = num_better;
}

void Speculator::plan(const Scheduler::Sequences& running, bool may_draft, DraftModel* model) {
  wishes_.clear();
  const bool tries_wait = std::exchange(tries_wait_, false);
  for (Sequence* sequence : running) sequence->drafts.clear();
  const auto num_running = static_cast<int32_t>(running.size());
  if (!enabled() || !may_draft || num_running == 0 || num_running >= StepCost::kMaxTokens) return;
  if (model != nullptr && model->failed()) model = nullptr;
  gather(running, model);
  if (candidates_.empty() && readers_.empty()) return;
  // What a draft costs is compared with the plain step, and all that a draft model's steps cost with that very one.
  if (!cost_.knows_up_to(num_running) || (model != nullptr && !cost_.knows(num_running))) return;
  if (++steps_with_drafts_ > kPlainEvery) {
    steps_with_drafts_ = 0;
    return;
  }
  Terms terms = terms_of(running);
  if (tries_wait) terms.waits = 0.0;
  choose(terms, model, kLeastGain);
  const auto is_guessed = [](const Candidate& c) { return c.from_model && c.from_source() > 0; };
  bool model_pays = std::ranges::any_of(candidates_, is_guessed);
  if (model != nullptr && !model_pays) {  // then what is known may
    for (Candidate& candidate : candidates_) follow_text(candidate);
    choose(terms, nullptr, kLeastGain);
  }
  for (Candidate& candidate : candidates_) {
    rate_foresight(candidate, cost_.of(num_running));
    give(candidate, model_pays);
  }
  if (model == nullptr) return;
  if (!readers_.empty()) read_where_it_pays(num_running, *model);
  model_pays = model_pays || !wishes_.empty();
  try_model_again(model_pays);
}

void Speculator::gather(const Scheduler::Sequences& running, DraftModel* model) {
  candidates_.clear();
  readers_.clear();
  for (Sequence* sequence : running) {
    if (!may_speculate(*sequence) || sequence->num_in_flight > 0) continue;
    look_up(*sequence);
    foresee(*sequence);
    Candidate candidate{.sequence = sequence};
    follow_text(candidate);
    const int32_t room = model == nullptr || sequence->num_output() == 0 ? 0 : model->room(*sequence);
    const int32_t behind = room == 0 ? 0 : model->behind(*sequence);
    if (behind > DraftModel::kNear) {
      readers_.push_back({sequence, behind});
    } else if (room > 0) {
      candidate.room = room;
      if (model_acceptance(*sequence) > candidate.acceptance) follow_model(candidate);
    }
    if (candidate.limit > 0) candidates_.push_back(candidate);
  }
}

Speculator::Candidate* Speculator::next_best() {
  Candidate* best = nullptr;
  for (Candidate& candidate : candidates_) {
    if (candidate.taken < candidate.limit && (best == nullptr || candidate.chance > best->chance)) best = &candidate;
  }
  return best;
}

// Tokens join in the order of their chance; the best number of them is where tokens per time are most.
bool Speculator::choose(const Terms& terms, const DraftModel* model, double least_gain) {
  for (Candidate& candidate : candidates_) {
    candidate.chance = candidate.holds * candidate.acceptance_of(0);
    candidate.taken = 0;
  }
  std::array<int32_t, StepCost::kMaxTokens> guessing{};  // by the guess, of how many sequences the draft model makes it
  std::vector<Candidate*> order;
  double expected = terms.num_running;
  double more_seconds = terms.always;
  bool waits = false;
  double best_rate = least_gain * expected / (cost_.of(terms.num_running) + more_seconds);
  size_t best_count = 0;
  for (int32_t tokens = terms.num_running + 1; tokens <= StepCost::kMaxTokens; ++tokens) {
    Candidate* candidate = next_best();
    if (candidate == nullptr || candidate->chance <= 0.0) break;
    if (candidate->from_model && candidate->taken >= candidate->num_foreseen) {
      int32_t& count = guessing[static_cast<size_t>(candidate->taken - candidate->num_foreseen)];
      more_seconds += model->cost().step(count + 1) - model->cost().step(count);
      ++count;
    }
    const Sequence& sequence = *candidate->sequence;
    if (sequence.grammar != nullptr) more_seconds += sequence.grammar->mask_seconds();
    if (candidate->taken == 0 && candidate->num_foreseen > 0) more_seconds += sequence.grammar->foresee_seconds();
    if (!sequence.needs_host_tokens && !waits) more_seconds += terms.waits;
    waits = waits || !sequence.needs_host_tokens;
    expected += candidate->chance;
    ++candidate->taken;
    candidate->chance *= candidate->acceptance_of(candidate->taken);
    order.push_back(candidate);
    const double rate = expected / (cost_.of(tokens) + more_seconds);
    if (rate <= best_rate) continue;
    best_rate = rate;
    best_count = order.size();
  }
  for (Candidate& candidate : candidates_) candidate.taken = 0;
  for (size_t i = 0; i < best_count; ++i) ++order[i]->taken;
  return best_count > 0;
}

void Speculator::give(Candidate& candidate, bool model_pays) {
  DraftState& state = *candidate.sequence->draft_state;
  int32_t num_drafts = candidate.taken;
  if (num_drafts == 0) {
    const bool may_try = candidate.from_model ? model_pays : candidate.limit > 0;
    if (!may_try || ++state.paused < state.pause) return;
    num_drafts = std::min(kProbe, candidate.limit);
    state.pause = std::min(2 * state.pause, DraftState::kLongestPause);
  }
  state.paused = 0;
  state.from_model = candidate.from_model;
  candidate.taken = num_drafts;
  give_known(candidate);
}

// What the draft model adds, it adds under the masks of all of them. Else they end where a grammar refuses one, and
// that of the first teaches as much as the model's own refusal.
void Speculator::give_known(const Candidate& candidate) {
  Sequence& sequence = *candidate.sequence;
  DraftState& state = *sequence.draft_state;
  state.num_foreseen = std::min(candidate.taken, candidate.num_foreseen);
  if (candidate.from_source() > 0 && !candidate.from_model) {
    state.lookup.draft(state.match, candidate.taken, sequence.drafts);
  } else {
    const auto first = state.foresight.tokens.begin();
    sequence.drafts.assign(first, first + state.num_foreseen);
  }
  if (candidate.from_source() > 0 && candidate.from_model) {
    wishes_.push_back({&sequence, candidate.from_source()});
    return;
  }
  if (sequence.grammar == nullptr || sequence.drafts.empty()) return;
  const Result<int32_t> filled = sequence.grammar->fill_masks(sequence.drafts);
  const int32_t num_taken = filled.ok() ? *filled : 0;  // what is wrong with it shows when the step's masks are filled
  sequence.drafts.resize(static_cast<size_t>(num_taken));
  if (num_taken == 0) learn(state, 1, 0);
}

// Of tokens per time, over a step without drafts, when the draft model guesses for so many of what runs; at least 1.
double Speculator::best_gain(int32_t num_running, int32_t num_guessed, double acceptance,
                             const DraftModel& model) const {
  const double plain = num_running / cost_.of(num_running);
  double expected = num_running;
  double chance = 1.0;
  double best = 1.0;
  for (int32_t i = 1; i <= config_.max_draft; ++i) {
    const int32_t tokens = num_running + num_guessed * i;
    if (tokens > StepCost::kMaxTokens) break;
    chance *= acceptance;
    expected += num_guessed * chance;
    best = std::max(best, expected / (cost_.of(tokens) + i * model.cost().step(num_guessed)) / plain);
  }
  return best;
}

void Speculator::read_where_it_pays(int32_t num_running, const DraftModel& model) {
  auto num_guessed = static_cast<int32_t>(readers_.size());
  for (const Candidate& candidate : candidates_) num_guessed += candidate.room > 0 ? 1 : 0;
  for (const Reader& reader : readers_) {
    const double gain = best_gain(num_running, num_guessed, model_acceptance(*reader.sequence), model);
    if (gain < kLeastGain) continue;
    const double saved = cost_.of(num_running) * (1.0 - 1.0 / gain) / num_guessed;  // per token of a sequence
    const double cost = model.cost().reading(reader.behind);
    const int32_t left = reader.sequence->max_output - reader.sequence->num_output();
    const bool pays = saved * reader.sequence->num_output() >= cost && saved * left >= cost;
    if (pays) wishes_.push_back({reader.sequence, 0});
  }
}

// Where it pays nowhere: for one sequence, which may have to read first.
void Speculator::try_model_again(bool model_pays) {
  if (model_pays) {
    model_pause_ = DraftState::kFirstPause;
    model_paused_ = 0;
    return;
  }
  const auto is_near = [](const Candidate& c) { return c.room > 0 && c.taken == 0; };
  const auto near = std::ranges::find_if(candidates_, is_near);
  if (near == candidates_.end() && readers_.empty()) return;
  if (++model_paused_ < model_pause_) return;
  if (near == candidates_.end()) {
    wishes_.push_back({std::ranges::min_element(readers_, {}, &Reader::behind)->sequence, 0});
    return;
  }
  near->sequence->draft_state->from_model = true;
  near->sequence->draft_state->num_foreseen = 0;
  wishes_.push_back({near->sequence, std::min({kProbe, draft_limit(*near->sequence), near->room})});
  model_paused_ = 0;
  model_pause_ = std::min(2 * model_pause_, DraftState::kLongestPause);
}

// Of what comes behind a wrong one nothing is known.
void Speculator::learn(DraftState& state, int32_t num_draft, int32_t num_accepted) {
  const int32_t num_foreseen = std::min(num_draft, state.num_foreseen);
  if (num_foreseen > 0) learn_foreseen(state, num_foreseen, std::min(num_accepted, num_foreseen));
  const int32_t num_rest = num_draft - num_foreseen;
  if (num_rest == 0 || num_accepted < num_foreseen) return;
  if (state.from_model) {
    learnt_of_model_.add(num_rest, num_accepted - num_foreseen);
    state.model_acceptance.add(num_rest, num_accepted - num_foreseen, kSequenceDecay);
  } else {
    learnt_.add(state.match.length, num_rest, num_accepted - num_foreseen);
    state.acceptance.add(num_rest, num_accepted - num_foreseen, kSequenceDecay);
  }
}

void Speculator::learn_foreseen(DraftState& state, int32_t num_draft, int32_t num_accepted) {
  std::array<int32_t, kNumCertainties> tried{};
  std::array<int32_t, kNumCertainties> right{};
  for (int32_t i = 0; i < std::min(num_draft, num_accepted + 1); ++i) {
    const auto certainty = static_cast<size_t>(state.foresight.certainty[static_cast<size_t>(i)]);
    ++tried[certainty];
    right[certainty] += i < num_accepted ? 1 : 0;
  }
  for (size_t i = 0; i < kNumCertainties; ++i) {
    if (tried[i] == 0) continue;
    learnt_of_grammar_[i].add(tried[i], right[i]);
    state.foreseen[i].add(tried[i], right[i], kSequenceDecay);
  }
}

void Speculator::verified(Sequence& sequence, int32_t num_draft, int32_t num_accepted) {
  DraftState& state = *sequence.draft_state;
  learn(state, num_draft, num_accepted);
  const int32_t num_foreseen = std::min(num_draft, state.num_foreseen);
  const DraftSource behind = state.from_model ? DraftSource::draft_model : DraftSource::lookup;
  if (num_accepted == num_draft) {
    state.pause = DraftState::kFirstPause;
    if (state.from_model && num_draft > num_foreseen) model_pause_ = DraftState::kFirstPause;
  }
  ++stats_.of(num_foreseen > 0 ? DraftSource::grammar : behind).drafts;
  stats_.add(DraftSource::grammar, num_foreseen, std::min(num_accepted, num_foreseen));
  stats_.add(behind, num_draft - num_foreseen, std::max(0, num_accepted - num_foreseen));
  for (int32_t i = 0; i < num_accepted; ++i) {
    ++stats_.accepted_at[static_cast<size_t>(std::min(i, SpeculationStats::kPositions - 1))];
  }
}

}  // namespace inferneo
