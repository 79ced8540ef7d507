#include "engine/scheduler.h"

#include <algorithm>

namespace inferneo {
namespace {

int32_t tokens_needed(const Sequence& sequence) { return sequence.num_wanted() - sequence.num_computed; }

// A sibling whose blocks can be shared when there is no prefix cache.
const Sequence* find_donor(const Sequence& sequence) {
  for (const auto& sibling : sequence.request->samples) {
    if (sibling.get() != &sequence && sibling->state == SequenceState::running && sibling->prompt_done()) {
      return sibling.get();
    }
  }
  return nullptr;
}

}  // namespace

void Scheduler::add(Sequence& sequence) {
  INFERNEO_CHECK(sequence.num_computed == 0 && sequence.num_in_flight == 0, "a waiting sequence holds nothing");
  sequence.state = SequenceState::waiting;
  queue_of(sequence).waiting.insert(sequence);
}

void Scheduler::accepted(Sequence& sequence) {
  const int32_t position = sequence.num_computed++;
  queue_of(sequence).waiting.charge(sequence, position, sequence.num_computed);
}

void Scheduler::remove(Sequence& sequence) {
  queue_of(sequence).waiting.erase(sequence);
  queue_of(sequence).running.erase(&sequence);
}

Schedule Scheduler::schedule(bool steps_in_flight, int32_t prefill_tokens_beside_decode) {
  Pass pass{.queue = normal_, .may_preempt = !steps_in_flight};
  pass.prefill_beside_decode = std::min(prefill_tokens_beside_decode, config_.max_prefill_tokens_beside_decode);
  pass.budget = config_.max_num_batched_tokens;
  fill(pass);
  return std::move(pass.schedule);
}

Schedule Scheduler::schedule_idle(int32_t token_budget) {
  Pass pass{.queue = idle_, .may_preempt = true};
  pass.prefill_beside_decode = config_.max_prefill_tokens_beside_decode;
  pass.budget = std::min(config_.max_num_batched_tokens, token_budget);
  fill(pass);
  return std::move(pass.schedule);
}

void Scheduler::fill(Pass& pass) {
  run_decodes(pass);
  continue_prompts(pass);
  if (pass.schedule.preempted.empty()) start_waiting(pass);
}

void Scheduler::run_decodes(Pass& pass) {
  std::vector<Sequence*> decoding;
  for (Sequence* sequence : pass.queue.running) {
    if (tokens_needed(*sequence) == 1) decoding.push_back(sequence);
  }
  auto num_others = static_cast<int32_t>(decoding.size());  // still to come
  for (Sequence* sequence : decoding) {
    if (pass.budget <= 0) break;  // of idle work, whose steps are short
    --num_others;
    // An earlier one may have preempted this one meanwhile.
    if (sequence->state != SequenceState::running || !sequence->can_be_scheduled()) continue;
    const int32_t num_draft = allocate_drafts(pass, *sequence, num_others);
    if (num_draft > 0 || allocate_or_preempt(pass, *sequence, 1)) take(pass, *sequence, 1, num_draft);
  }
  pass.prefill_budget = decoding.empty() ? pass.budget : std::min(pass.budget, pass.prefill_beside_decode);
}

void Scheduler::continue_prompts(Pass& pass) {
  std::vector<Sequence*> reading;
  for (Sequence* sequence : pass.queue.running) {
    if (tokens_needed(*sequence) > 1) reading.push_back(sequence);
  }
  for (Sequence* sequence : reading) {
    const int32_t chunk = std::min({tokens_needed(*sequence), pass.budget, pass.prefill_budget});
    if (chunk <= 0) return;
    if (sequence->state != SequenceState::running || !sequence->can_be_scheduled()) continue;
    if (allocate_or_preempt(pass, *sequence, chunk)) take(pass, *sequence, chunk);
  }
}

void Scheduler::start_waiting(Pass& pass) {
  Queue& queue = pass.queue;
  while (!queue.waiting.empty() && static_cast<int32_t>(queue.running.size()) < config_.max_num_seqs &&
         pass.budget > 0 && pass.prefill_budget > 0 && pass.prefill_tokens < config_.prefill_pack_tokens) {
    Sequence& sequence = *queue.waiting.first();
    if (try_start(pass, sequence)) continue;
    // The first in line is not overtaken: smaller ones behind it would starve it.
    if (is_starved(pass, 0)) pass.schedule.starved.push_back(&sequence);
    return;
  }
}

// Whether nobody of this model could help, when so many of the queue run. Idle ones may have to wait for normal ones.
bool Scheduler::is_starved(const Pass& pass, size_t num_running) const {
  const bool others = &pass.queue == &idle_ && !normal_.running.empty();
  return pass.may_preempt && pass.queue.running.size() == num_running && !others;
}

bool Scheduler::try_start(Pass& pass, Sequence& sequence) {
  const bool may_share = !reads_whole_prompt(sequence);
  int32_t hit = 0;
  int32_t chunk = 0;
  for (bool has_room = false; !has_room;) {
    hit = may_share ? kv_.acquire_prefix(sequence, find_donor(sequence)) : 0;
    chunk = std::min({tokens_needed(sequence), pass.budget, pass.prefill_budget});
    has_room = kv_.could_hold(sequence, !pass.queue.running.empty()) && kv_.allocate(sequence, chunk);
    if (has_room) break;
    kv_.release(sequence);
    if (sequence.idle() || !preempt_idle()) return false;
  }
  const bool first_time = sequence.state == SequenceState::waiting;
  if (first_time && may_share && kv_.prefix_cache() != nullptr && !sequence.idle()) {
    prefix_queries_ += static_cast<uint64_t>(sequence.num_tokens());
    const int32_t fetched = std::min(hit, sequence.num_fetched);
    prefix_hits_ += static_cast<uint64_t>(hit - fetched);
    fetched_hits_ += static_cast<uint64_t>(fetched);
  }
  if (first_time && sequence.sample == 0) sequence.request->stats.cached_tokens = hit;
  pass.queue.waiting.erase(sequence);
  pass.queue.running.insert(&sequence);
  sequence.state = SequenceState::running;
  take(pass, sequence, chunk);
  return true;
}

// Blocks for its next token and its drafts, as far as nobody has to give way for guesses; 0: none were taken.
int32_t Scheduler::allocate_drafts(const Pass& pass, Sequence& sequence, int32_t num_others) {
  const int32_t num_draft = std::min(static_cast<int32_t>(sequence.drafts.size()), pass.budget - 1 - num_others);
  return num_draft > 0 && kv_.allocate(sequence, 1 + num_draft) ? num_draft : 0;
}

bool Scheduler::allocate_or_preempt(Pass& pass, Sequence& sequence, int32_t num_tokens) {
  while (!kv_.allocate(sequence, num_tokens)) {
    if (!sequence.idle() && preempt_idle()) continue;
    if (!pass.may_preempt) return false;
    if (pass.queue.running.size() == 1) {
      if (is_starved(pass, 1)) pass.schedule.starved.push_back(&sequence);
      return false;
    }
    Sequence& victim = **pass.queue.running.rbegin();
    preempt(pass, victim);
    if (&victim == &sequence) return false;
  }
  return true;
}

void Scheduler::preempt(Pass& pass, Sequence& victim) {
  std::erase_if(pass.schedule.sequences, [&](const ScheduledSequence& s) {
    if (s.sequence != &victim) return false;
    pass.budget += s.num_tokens + s.num_draft;
    pass.schedule.num_tokens -= s.num_tokens + s.num_draft;
    return true;
  });
  give_back(victim);
  pass.schedule.preempted.push_back(&victim);
}

// In a step of normal ones, of which it is no part.
bool Scheduler::preempt_idle() {
  const auto found = std::find_if(idle_.running.rbegin(), idle_.running.rend(),
                                  [](const Sequence* sequence) { return sequence->num_in_flight == 0; });
  if (found == idle_.running.rend()) return false;
  give_back(**found);
  return true;
}

void Scheduler::preempt_all_idle() {
  while (preempt_idle()) {
  }
}

void Scheduler::give_back(Sequence& victim) {
  INFERNEO_CHECK(victim.num_in_flight == 0, "a sequence in flight keeps its blocks");
  Queue& queue = queue_of(victim);
  kv_.release(victim);
  queue.running.erase(&victim);
  victim.state = SequenceState::preempted;
  queue.waiting.insert(victim);
  ++victim.request->stats.preemptions;
  if (!victim.idle()) ++num_preemptions_;
}

void Scheduler::take(Pass& pass, Sequence& sequence, int32_t num_tokens, int32_t num_draft) {
  const bool is_prefill = tokens_needed(sequence) > 1;
  ScheduledSequence scheduled{&sequence, sequence.num_computed, num_tokens, false, num_draft};
  sequence.num_computed += num_tokens;
  queue_of(sequence).waiting.charge(sequence, scheduled.position, sequence.num_computed);
  scheduled.sample = sequence.num_computed == sequence.num_wanted() && sequence.max_output > 0;
  pass.schedule.sequences.push_back(scheduled);
  pass.schedule.num_tokens += num_tokens + num_draft;
  pass.budget -= num_tokens + num_draft;
  if (is_prefill) {
    pass.prefill_budget -= num_tokens;
    pass.prefill_tokens += num_tokens;
  }
}

}  // namespace inferneo
