// One model's requests, advanced step by step: schedule, execute, update. The single-threaded heart of EngineCore,
// which adds the thread, the inbox and admission; tests drive it by hand.
//
// Ownership: owns the requests and the steps in flight; points at runner, KV manager, clock and draft model, which
// outlive it.
// Invariants: each added request gets exactly one on_done; a sequence's blocks are released when it has ended and no
// step in flight names it; num_live() == 0 and no step in flight mean that the KV manager is idle.
// Errors: what concerns one sequence ends that sequence; step() fails only when the runner as a whole does, and the
// caller then ends everything with fail_all().
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "engine/engine_core.h"
#include "engine/idle_pace.h"
#include "engine/kv_cache_manager.h"
#include "engine/prefill_pace.h"
#include "engine/scheduler.h"
#include "engine/speculator.h"
#include "engine/step_batch.h"
#include "engine/tier_traffic.h"

namespace inferneo {

struct StepLoopConfig {
  SchedulerConfig scheduler;
  int32_t context_limit = 0;  // prompt and output of one sequence
  Duration starvation_patience{0};
  SpeculationConfig speculation;
  std::optional<Duration> inter_token_target;  // none: max_prefill_tokens_beside_decode alone
};

struct StepLoopEvents {                                                 // for the owner's accounting; neither may throw
  std::function<void(const Request&)> started = [](const Request&) {};  // or ended without having been started
  std::function<void(const Request&)> done = [](const Request&) {};     // right after the sink's on_done
};

class StepLoop {
 public:
  StepLoop(const StepLoopConfig& config, ModelRunner& runner, KvCacheManager& kv, const Clock& clock,
           StepLoopEvents events = {}, DraftModel* draft_model = nullptr);  // null: there is none
  ~StepLoop();
  void use_tier(TierTraffic* traffic) { traffic_ = traffic; }  // outlives the loop; before the first add()

  void add(Request request, TimePoint submitted);                      // admitted: prompt fits the context limit
  void end_sample(RequestId id, int32_t sample, FinishReason reason);  // unknown or ended: nothing happens
  void end_request(RequestId id, FinishReason reason, std::optional<Error> error = std::nullopt);

  Status step();  // of normal work
  // A short one of idle work; what is in flight is collected before, and so is this one. False: there was nothing to
  // compute, or there are no spare blocks for it.
  Result<bool> step_idle();
  Duration idle_cost() const { return pace_.cost(); }          // of the next idle step
  Duration last_idle_time() const { return last_idle_time_; }  // of computing, in the last one

  void collect_all();  // waits for the steps in flight and forgets their results
  void end_all(const Error& error);
  // The runner failed: what is in flight is waited for and dropped.
  void fail_all(const Error& error);
  void end_idle(const Error& error);
  void preempt_idle() {
    scheduler_.preempt_all_idle();
  }  // their blocks are free, as far as no step in flight names them

  size_t num_live() const { return by_id_.size(); }  // requests without on_done
  size_t num_live_idle() const { return num_live_idle_; }
  size_t num_live_normal() const { return by_id_.size() - num_live_idle_; }
  bool starves() const { return starves_; }  // the last step had no work: a sequence waits for memory of other models
  size_t num_in_flight() const { return in_flight_.size(); }  // steps
  // Nothing can be computed before what is fetched from below the prefix cache is there, or takes too long.
  bool waits_for_fetch() const;
  const Scheduler& scheduler() const { return scheduler_; }
  void fill_stats(EngineStats& stats) const;
  Status check_integrity() const;  // references of blocks equal those in the tables, and the KV manager's own laws

 private:
  struct Collected {  // a step and what came of it; none when nothing was in flight
    std::unique_ptr<InFlightStep> step;
    StepResult result;
  };
  Status collect_in_flight();
  void drop_in_flight();
  void begin_schedule();
  void take_fetched();
  Status plan_drafts();
  void forget_mirrors(const std::vector<Sequence*>& preempted);
  void finish_schedule(const Schedule& next);
  Result<Collected> execute(const Schedule& schedule, bool may_run_ahead);
  void update(Collected collected);
  void learn_wait(const Collected& collected, TimePoint when);
  void learn_pace(const InFlightStep& step);
  void learn_prompt_rate(const InFlightStep& step);

  Status submit(const std::vector<ScheduledSequence>& rows);
  Result<Collected> collect_oldest();
  std::vector<ScheduledSequence> fill_masks(const std::vector<ScheduledSequence>& rows);
  void update_row(const ScheduledSequence& row, SequenceResult& result);
  void take_prompt_logprobs(const ScheduledSequence& row, SequenceResult& result);
  void take_prompt_rows(const ScheduledSequence& row, const SequenceResult& result);
  void prompt_finished(Sequence& sequence);
  void take_tokens(const ScheduledSequence& row, const SequenceResult& result);
  void take_token(Sequence& sequence, Token token, const TokenLogprobs* logprobs);
  void release_held_samples(RequestState& request);
  void finish(Sequence& sequence, FinishReason reason, std::optional<Token> stop_token = std::nullopt,
              std::optional<Error> error = std::nullopt);
  void finish_all(RequestState& request, FinishReason reason, const std::optional<Error>& error);
  void finish_request(RequestState& request);
  void release_if_unused(Sequence& sequence);
  void mark_started(RequestState& request);
  template <typename Event>
  void emit(RequestState& request, Event&& event);
  void expire_deadlines();
  void reap();

  StepLoopConfig config_;
  ModelRunner& runner_;
  KvCacheManager& kv_;
  const Clock& clock_;
  StepLoopEvents events_;
  DraftModel* draft_model_;
  TierTraffic* traffic_ = nullptr;  // null: there is no level below the prefix cache
  Scheduler scheduler_;
  Speculator speculator_;
  std::deque<std::unique_ptr<InFlightStep>> in_flight_;         // oldest first
  std::map<uint64_t, std::unique_ptr<RequestState>> requests_;  // by arrival
  std::unordered_map<RequestId, RequestState*> by_id_;          // live ones
  std::set<std::pair<TimePoint, uint64_t>> deadlines_;          // (deadline, arrival) of live ones
  std::vector<uint64_t> done_;                                  // arrivals, to be reaped
  TimePoint now_{};                                             // of the step
  Duration step_time_{};                                        // of the step whose results are taken
  Duration drafting_{};                                         // of the guesses for the step that is scheduled
  std::optional<TimePoint> device_idle_since_;                  // the last step in flight was collected
  bool starves_ = false;
  uint64_t next_arrival_ = 0;
  uint64_t next_sequence_id_ = 1;
  int32_t num_live_samples_ = 0;  // of normal requests
  size_t num_live_idle_ = 0;
  IdlePace pace_;
  std::optional<PrefillPace> prefill_pace_;
  Duration last_idle_time_{};
  EngineStats counters_;
};

}  // namespace inferneo
