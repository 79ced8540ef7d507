// A sequence is one sample of a request; a request's state is what its samples share.
//
// Ownership: the step loop owns RequestState, which owns its sequences; scheduler, KV manager and steps in flight point
// at them. A sequence is destroyed only when no step in flight names it. One thread: the engine's. Invariants:
//   num_settled <= num_computed <= num_wanted() while it runs; both are 0 and it holds no block while it waits
//   tokens never reallocates (its whole length is reserved), so spans into it stay valid while steps are in flight
//   num_computed - num_settled tokens and num_pending samples belong to the num_in_flight steps not collected yet
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "engine/block_pool.h"
#include "engine/draft_state.h"
#include "engine/request.h"
#include "engine/sequence_grammar.h"

namespace inferneo {

enum class SequenceState : uint8_t {
  held,       // waits for its sibling's prompt, whose blocks it will share
  fetching,   // not started: what a level below the prefix cache has of its beginning is on its way
  waiting,    // not started
  running,    // holds blocks
  preempted,  // was running, gave its blocks back, waits to compute its tokens anew
  finished,
};

struct RequestState;

struct Sequence {
  uint64_t id = 0;  // unique within the engine core
  RequestState* request = nullptr;
  int32_t sample = 0;
  uint64_t seed = 0;
  SequenceState state = SequenceState::held;

  std::vector<Token> tokens;  // prompt, then output
  int32_t prompt_size = 0;
  int32_t max_output = 0;          // output tokens; 0: the prompt is only read
  bool needs_host_tokens = false;  // the next token depends on the last one in host code: never run ahead

  int32_t num_computed = 0;   // tokens in the cache once the steps in flight are done
  int32_t num_charged = 0;    // tokens, from the front, that its tenant has been charged for
  int32_t num_settled = 0;    // of these, tokens of collected steps
  int32_t num_pending = 0;    // sampled by steps in flight
  int32_t num_in_flight = 0;  // steps that name this sequence
  bool verifies = false;      // a step in flight has its drafts: how many tokens will come of it, nobody knows
  Ticket last_ticket = 0;     // of the last pending sample
  int32_t last_row = 0;

  std::vector<std::vector<BlockId>> block_tables;  // [groups][blocks]; kNoBlock: fell out of the window
  PrefixNodeId cache_tail = 0;    // content of the last of its blocks that the prefix cache knows; referenced
  int32_t num_hashed_blocks = 0;  // of its blocks, from the front
  int32_t num_fetched = 0;        // tokens that a level below the prefix cache brought for it

  std::unique_ptr<SequenceGrammar> grammar;  // null: it has none
  std::vector<Token> drafts;                 // guesses of its next tokens, for the next step to verify
  std::unique_ptr<DraftState> draft_state;   // once it may have had drafts
  TimePoint last_token_time{};
  std::optional<TimePoint> starving_since;  // no memory can be had for it, and nothing else runs

  bool idle() const;
  int32_t num_tokens() const { return static_cast<int32_t>(tokens.size()); }
  int32_t num_output() const { return num_tokens() - prompt_size; }
  int32_t num_wanted() const { return num_tokens() + num_pending; }  // tokens whose KV the next token needs
  bool prompt_done() const { return num_settled >= prompt_size; }
  // False while a step in flight must be collected before this sequence can go on.
  bool can_be_scheduled() const {
    if (verifies) return false;
    return num_pending == 0 || (!needs_host_tokens && num_output() + num_pending < max_output);
  }
};

// A sample's own seed; sample 0 keeps the request's. Any odd multiplier keeps the samples of one request apart.
inline uint64_t sample_seed(uint64_t seed, int32_t sample) {
  return seed ^ (static_cast<uint64_t>(sample) * 0x9e3779b97f4a7c15ULL);
}

struct RequestState {
  Request request;
  uint64_t arrival = 0;  // order of acceptance
  std::vector<std::unique_ptr<Sequence>> samples;
  std::vector<Token> ending_tokens;            // end-of-sequence and stop ids, banned until min_tokens
  std::vector<TokenLogprobs> prompt_logprobs;  // [prompt - 1] of sample 0, delivered once complete
  std::vector<float> prompt_rows;              // [prompt, width], the same
  RequestStats stats;
  std::optional<Error> error;
  FinishReason last_reason = FinishReason::stop;
  int32_t num_live = 0;  // samples not finished
  bool started = false;
  bool done = false;  // on_done was sent
};

inline bool Sequence::idle() const { return request->request.idle; }

// Logprobs or rows of the whole prompt are still to come: nothing of it can be skipped.
inline bool reads_whole_prompt(const Sequence& sequence) {
  const SamplingParams& asked = sequence.request->request.sampling;
  return sequence.sample == 0 && sequence.num_output() == 0 &&
         (asked.prompt_logprobs.has_value() || asked.prompt_rows != PromptRows::none);
}

// The order of service of what runs: priority, then arrival, then sample.
struct ServedBefore {
  bool operator()(const Sequence* a, const Sequence* b) const {
    return std::tuple(a->request->request.priority, a->request->arrival, a->sample) <
           std::tuple(b->request->request.priority, b->request->arrival, b->sample);
  }
};

}  // namespace inferneo
