// Decides how many tokens of which sequence the next step computes.
//
// One rule and no phases: a sequence has computed tokens and wanted tokens, and a step brings them closer. Chunked
// prefill, prefix hits and recompute after preemption all fall out of it.
// Pure: no threads, no clock, no tensors; the output is plain data, and equal inputs give equal outputs.
//
// Order of service within a step: running sequences that need one token (so decoding never starves behind prompts),
// then running ones that need more (a prompt begun is finished before the next begins), each in the order (priority,
// arrival, sample); then waiting ones, in the order of WaitingQueue: fair shares among tenants, in the tokens that this
// scheduler hands out. Preemption: when blocks are short, the running sequence that is served last gives
// all of its blocks back and is computed anew later. Only while no step is in flight. Progress: with nothing in flight,
// schedule() gives work, or names a starved sequence that nothing can help, unless there is no sequence at all.
//
// Idle sequences are served in steps of their own, which the caller asks for. Normal ones never see them: idle ones
// take no seats of theirs, are preempted before any of them wherever blocks are short, and get only spare blocks
// themselves.
#pragma once

#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include "engine/kv_cache_manager.h"
#include "engine/sequence.h"
#include "engine/waiting_queue.h"

namespace inferneo {

struct SchedulerConfig {
  int32_t max_num_seqs = 64;
  int32_t max_num_batched_tokens = 2048;
  int32_t max_prefill_tokens_beside_decode = 512;
  int32_t prefill_pack_tokens = 256;
};

struct ScheduledSequence {
  Sequence* sequence = nullptr;
  int32_t position = 0;  // of the first token to compute
  int32_t num_tokens = 0;
  bool sample = false;    // these are the last tokens wanted: sample the next one
  int32_t num_draft = 0;  // of Sequence::drafts, computed after them and verified
};

struct Schedule {
  std::vector<ScheduledSequence> sequences;
  std::vector<Sequence*> preempted;  // gave up their blocks in this step
  std::vector<Sequence*> starved;    // can get no blocks although nobody else holds any
  int32_t num_tokens = 0;
};

class Scheduler {
 public:
  Scheduler(const SchedulerConfig& config, KvCacheManager& kv) : config_(config), kv_(kv) {}

  using Sequences = std::set<Sequence*, ServedBefore>;

  void add(Sequence& sequence);       // to the waiting ones
  void accepted(Sequence& sequence);  // a draft, computed by the step that is collected
  void remove(Sequence& sequence);    // from wherever it is; its blocks are the caller's to release
  // Of the normal ones; beside decodes at most so many tokens of prompts, and at most what the configuration says.
  Schedule schedule(bool steps_in_flight, int32_t prefill_tokens_beside_decode = std::numeric_limits<int32_t>::max());
  Schedule schedule_idle(int32_t token_budget);  // of the idle ones; with no step in flight
  // Idle ones give their blocks back and wait; those that a step in flight names keep them.
  void preempt_all_idle();

  const WaitingQueue& waiting() const { return normal_.waiting; }
  const Sequences& running() const { return normal_.running; }
  const WaitingQueue& idle_waiting() const { return idle_.waiting; }
  const Sequences& idle_running() const { return idle_.running; }
  uint64_t num_preemptions() const { return num_preemptions_; }
  uint64_t prefix_queries() const { return prefix_queries_; }  // tokens
  uint64_t prefix_hits() const { return prefix_hits_; }        // tokens that were in memory
  uint64_t fetched_hits() const { return fetched_hits_; }      // tokens that a level below it brought

 private:
  struct Queue {
    WaitingQueue waiting;
    Sequences running;
  };
  struct Pass {  // one schedule() in the making
    Queue& queue;
    bool may_preempt = false;
    int32_t prefill_beside_decode = 0;
    Schedule schedule = {};
    int32_t budget = 0;          // tokens left
    int32_t prefill_budget = 0;  // of them, for sequences that need more than one
    int32_t prefill_tokens = 0;
  };
  Queue& queue_of(const Sequence& sequence) { return sequence.idle() ? idle_ : normal_; }
  void fill(Pass& pass);
  void run_decodes(Pass& pass);
  void continue_prompts(Pass& pass);
  void start_waiting(Pass& pass);
  bool try_start(Pass& pass, Sequence& sequence);
  bool is_starved(const Pass& pass, size_t num_running) const;
  int32_t allocate_drafts(const Pass& pass, Sequence& sequence, int32_t num_others);
  bool allocate_or_preempt(Pass& pass, Sequence& sequence, int32_t num_tokens);
  void preempt(Pass& pass, Sequence& sequence);
  bool preempt_idle();  // the last in line; false: none can go now
  void give_back(Sequence& victim);
  void take(Pass& pass, Sequence& sequence, int32_t num_tokens, int32_t num_draft = 0);

  SchedulerConfig config_;
  KvCacheManager& kv_;
  Queue normal_;
  Queue idle_;
  uint64_t num_preemptions_ = 0;  // these four: of normal ones
  uint64_t prefix_queries_ = 0;
  uint64_t prefix_hits_ = 0;
  uint64_t fetched_hits_ = 0;
};

}  // namespace inferneo
