// One loaded model's engine: one thread that schedules, executes and updates, step after step.
//
// Ownership: the core owns the runner, the KV memory and every accepted request; a request's sink is shared. The ledger
// and the clock outlive the core.
// Threads: every public function may be called from any thread, sinks included; none waits for a step (stop(), the
// destructor and wait_drained() do, so they must not be called from a sink). Sinks are called on the engine thread
// without a lock held.
// Invariants: each request that submit() accepted gets exactly one on_done, whatever happens (runner failure, drain and
// destruction included); a cancelled request's blocks are free within a step; idle means that no block is referenced.
// Errors: see each function. Exceptions of a runner or a sink stop at the engine thread's edge: a runner's fails the
// core, a sink's fails its request.
// docs/engine-contract.md is the normative text.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "admission/queue_books.h"
#include "base/cache_counts.h"
#include "base/clock.h"
#include "base/idle_gate.h"
#include "base/result.h"
#include "engine/kv_tier.h"
#include "engine/prefix_tier_stats.h"
#include "engine/request.h"
#include "engine/speculation_stats.h"
#include "models/model_runner.h"
#include "tensor/ledger.h"

namespace inferneo {

struct EngineCoreConfig {
  std::string model = "model";            // name in the ledger, in messages and logs
  int32_t max_num_seqs = 64;              // sequences in one step
  int32_t max_num_batched_tokens = 2048;  // tokens in one step; at least max_num_seqs
  int32_t max_model_len = 0;              // prompt and output; 0: as long as model and memory allow
  // Bytes of KV memory: at most max_kv_bytes (0: what the budget leaves beside this model's other memory, no more than
  // max_num_seqs full contexts need; models share what none has committed), of which min_kv_bytes are committed at once
  // and kept when idle.
  size_t max_kv_bytes = 0;
  size_t min_kv_bytes = 0;
  std::vector<int32_t> num_kv_blocks;  // per group, instead of max_kv_bytes; empty: from bytes
  bool enable_prefix_caching = true;
  // false: one block per sequence and no prefix cache. The runner must have been made with block_size >= max_model_len.
  bool enable_paged_attention = true;
  // The engine's part of `deterministic`: nothing to switch, its order is fixed. Batch invariance is the kernels' part.
  int32_t max_queued_requests = 2048;  // accepted and not started yet
  int64_t max_queued_tokens = int64_t{8} << 20;
  bool several_tenants = false;  // who then share the queue: one tenant cannot fill it
  // While others decode, a step computes at most this many prompt tokens, which bounds the gap between their tokens;
  int32_t max_prefill_tokens_beside_decode = 512;
  // and where a target is given, no more than keep it, or twice the time of decodes alone (prefill_pace.h).
  std::optional<Duration> inter_token_target;
  // Another prompt joins the step only while it holds fewer prompt tokens than this: first tokens come one after the
  // other instead of all together, and short prompts still share a step.
  int32_t prefill_pack_tokens = 256;
  int32_t num_speculative_tokens = 0;  // that are guessed at most at a time, per sequence; 0: none
  // What cannot grow although nothing else of this model runs waits so long for other models to give memory back.
  Duration starvation_patience{0};
  // Without work for so long, the core trims itself; none: only when trim() says so.
  std::optional<Duration> idle_trim_after = std::chrono::minutes(1);
  // When idle requests may compute: of the process, and it outlives the core. Null: the core has one of its own.
  IdleGate* idle_gate = nullptr;
  // The prefix cache's level below memory, opened for runners whose KV memory is the host's and has a content key.
  // None: memory alone. May give null: the level is off.
  OpenKvTier open_tier = {};
};

enum class EngineState : uint8_t { running, draining, stopped, failed };

// What is left of a core whose model sleeps in the host's memory.
struct SleepingEngine {
  EngineCoreConfig config;
  std::unique_ptr<SleepingRunner> model;
  std::unique_ptr<SleepingRunner> draft;  // null: there is none
};

// A snapshot; counters only grow. Idle requests are in steps, tokens per step and the use of blocks alone.
struct EngineStats {
  EngineState state = EngineState::running;
  std::string failure;    // with EngineState::failed
  int32_t running = 0;    // sequences
  int32_t waiting = 0;    // sequences, preempted and not yet read ones included
  double kv_usage = 0.0;  // referenced bytes over the maximum share, [0, 1]
  size_t kv_committed_bytes = 0;
  size_t kv_capacity_bytes = 0;
  int32_t blocks_total = 0;   // committed, of all groups: free + cached + referenced
  int32_t blocks_free = 0;    // without content
  int32_t blocks_cached = 0;  // unreferenced, with a prefix that may be asked for again
  int32_t block_size = 0;     // of the first group
  int32_t num_blocks = 0;     // capacity of the first group
  uint64_t steps = 0;
  uint64_t preemptions = 0;
  uint64_t prefix_queries = 0;    // tokens looked up
  uint64_t prefix_hits = 0;       // tokens found in memory
  size_t cached_bytes = 0;        // of blocks_cached
  uint64_t prefix_evictions = 0;  // blocks whose content left memory
  PrefixTierStats prefix_tier;    // the level below memory; zeroes without one
  // Of the model around the engine, filled in above it (LoadedModel::stats()): bytes of text, and requests.
  CacheCounts token_cache;
  CacheCounts answer_cache;
  uint64_t prompt_tokens = 0;  // computed or taken from the cache, once per request
  uint64_t generation_tokens = 0;
  uint64_t finished_requests = 0;                     // terminal events sent
  std::array<uint64_t, kNumQueueRefusals> refused{};  // requests, by QueueRefusal
  // Tokens per step: bucket i counts steps of at most kIterationBounds[i] tokens, the last one the rest.
  static constexpr std::array<int32_t, 13> kIterationBounds = {1,   8,    16,   32,   64,   128,  256,
                                                               512, 1024, 2048, 4096, 8192, 16384};
  std::array<uint64_t, 14> iteration_tokens{};
  uint64_t iteration_tokens_sum = 0;
  SpeculationStats speculation;
  double schedule_seconds = 0.0;  // sums over all steps
  double execute_seconds = 0.0;   // submit and collect
  double update_seconds = 0.0;    // sinks included
  TimePoint last_progress{};      // a step was collected, or work came to an idle core
};

// Adds the counters of an engine that is gone; the gauges stay as they are.
void add_counters(EngineStats& stats, const EngineStats& gone);

class EngineCore {
 public:
  // Reserves KV memory, binds the runner and starts the thread. Fails with invalid_argument (a config that contradicts
  // itself or the runner), out_of_memory (not even a few tokens fit), or the runner's own error.
  // `draft`: of a smaller model with the same tokens, which guesses where num_speculative_tokens is not 0; its cache is
  // in the same ledger, under the same name, and in the same share. Null: there is none.
  static Result<std::unique_ptr<EngineCore>> create(const EngineCoreConfig& config, std::unique_ptr<ModelRunner> runner,
                                                    MemoryLedger& ledger, const Clock& clock,
                                                    std::unique_ptr<ModelRunner> draft = nullptr);
  // The same from what sleep() left, without a file; what one says after it is what it would have said before. An error
  // leaves `sleeping` as it was and nothing booked.
  static Result<std::unique_ptr<EngineCore>> wake(const SleepingEngine& sleeping, MemoryLedger& ledger,
                                                  const Clock& clock);
  ~EngineCore();  // stop()
  EngineCore(const EngineCore&) = delete;
  EngineCore& operator=(const EngineCore&) = delete;

  // OK: accepted, on_done will come. Otherwise no event comes, and the error is one of
  //   invalid_argument  (empty prompt, token outside the vocabulary, no sink, n < 1), already_exists (the id is live),
  //   context_too_long  (prompt, or prompt and max_tokens, exceed the context or can never fit the KV memory),
  //   queue_full        (by requests, by tokens, by the tenant's part of them, or too long for the request's deadline;
  //                      with the measured time after which to try again),
  //   unavailable       (draining, stopped), internal (the runner failed).
  Status submit(Request request);
  // The core's first work, before anybody else has it: an idle request, in no prefix cache, that asks no gate, since a
  // load waits for it. When its blocks cannot be had it ends with out_of_memory. Errors: submit()'s.
  Status warm_up(Request request);

  // The request, or one sample of it, ends with FinishReason::cancelled. An unknown or finished id is no error.
  void cancel(RequestId id, std::optional<int32_t> sample = std::nullopt);
  // The text side saw a stop string: the sample ends with FinishReason::stop.
  void finish_sample(RequestId id, int32_t sample);

  // Asks for the KV memory that no live sequence needs: what is above the minimum goes back to the system, cached
  // prefixes included, of a busy core only what lies behind the last block in use. Returns at once. `done`, when given,
  // is called once: on the engine thread when the memory is back, or here when the core is stopped anyway.
  void trim(std::function<void()> done = {});

  // Refuses new requests from now on (unavailable); what is still live at the deadline ends with failed/unavailable,
  // idle requests at once.
  void drain(TimePoint deadline);
  bool wait_drained(Duration timeout);  // true when no request is live
  // Ends every live request with failed/unavailable and joins the thread, which waits for the step in progress.
  void stop();

  // Bytes of the host's memory that sleep() takes; 0: its model computes in the host's memory and cannot sleep.
  size_t sleep_bytes() const;
  // stop(), then what the model needs to come back goes into the host's memory; the cache does not. Afterwards the core
  // can only be destroyed, which gives back all that it has of the device: after an error too. internal: it has failed;
  // ModelRunner::sleep()'s.
  Result<SleepingEngine> sleep();

  // OK while tokens advance: not failed, not draining, and no live request has waited longer than `stall_limit`
  // without a step having been completed. unavailable or internal otherwise, with the reason.
  Status readiness(Duration stall_limit) const;
  EngineStats stats() const;
  // Whether the books of blocks, tables and prefixes agree (docs/engine-contract.md, B1 and B2). They belong to the
  // engine thread: invalid_argument before stop() has returned.
  Status check_integrity() const;

  const ModelSpec& model_spec() const;
  int32_t max_model_len() const;  // resolved; prompt and output of a request must fit

 private:
  struct Impl;
  explicit EngineCore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
