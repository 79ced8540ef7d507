#include "engine/engine_core.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "engine/draft_memory.h"
#include "engine/inbox.h"
#include "engine/kv_arena.h"
#include "engine/kv_plan.h"
#include "engine/request_check.h"
#include "engine/step_loop.h"
#include "engine/tier_traffic.h"

namespace inferneo {
namespace {

constexpr Duration kStarvationPause = std::chrono::milliseconds(5);  // between two attempts to get memory
constexpr Duration kFetchPause = std::chrono::milliseconds(20);      // between two looks for fetches that take too long
constexpr Duration kRoomPause = std::chrono::milliseconds(5);        // between two attempts to hand blocks down
constexpr int kMaxRefusals = 400;                                    // of them: a disk that hangs keeps nobody
constexpr Duration kHandDownGrace = std::chrono::seconds(2);         // at the end, for blocks that are in memory alone

QueueLimits queue_limits(const EngineCoreConfig& config) {
  return {config.max_queued_requests, config.max_queued_tokens, config.several_tenants};
}

StepLoopConfig loop_config(const EngineCoreConfig& config, const KvPlan& plan) {
  SchedulerConfig scheduler;
  scheduler.max_num_seqs = config.max_num_seqs;
  scheduler.max_num_batched_tokens = config.max_num_batched_tokens;
  scheduler.max_prefill_tokens_beside_decode = config.max_prefill_tokens_beside_decode;
  scheduler.prefill_pack_tokens = config.prefill_pack_tokens;
  StepLoopConfig loop;
  loop.scheduler = scheduler;
  loop.context_limit = plan.context_limit;
  loop.starvation_patience = config.starvation_patience;
  loop.speculation.max_draft = config.num_speculative_tokens;
  loop.inter_token_target = config.inter_token_target;
  return loop;
}

}  // namespace

struct EngineCore::Impl {
  Impl(const EngineCoreConfig& config_in, KvPlan plan_in, KvArena arena_in, std::unique_ptr<ModelRunner> runner_in,
       std::unique_ptr<DraftModel> draft_in, const Clock& clock_in)
      : config(config_in),
        plan(std::move(plan_in)),
        clock(clock_in),
        own_gate(clock_in),
        gate(config.idle_gate != nullptr ? *config.idle_gate : own_gate),
        arena(std::move(arena_in)),
        runner(std::move(runner_in)),
        draft(std::move(draft_in)),
        memory(arena, draft.get()),
        kv(plan.cache, memory),
        inbox(queue_limits(config), config.model),
        loop(loop_config(config, plan), *runner, kv, clock,
             StepLoopEvents{[this](const Request& request) { inbox.started(request, clock.now()); },
                            [this](const Request& request) { done(request); }},
             draft.get()) {
    open_tier();
    listener = gate.subscribe([this] {
      if (parked) inbox.wake();
    });
  }
  ~Impl() { gate.unsubscribe(listener); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void open_tier();

  // The engine thread.
  void run();
  void apply(Inbox::Taken taken);
  void wait_for_work();
  bool hand_down();
  void hand_down_the_rest();
  void trim(const std::vector<std::function<void()>>& told);
  void step();
  enum class IdleStep : uint8_t { computed, starved, not_now };
  IdleStep step_idle();
  void wait_for_gate();
  void done(const Request& request);
  void shut_down();
  void fail(const Error& error);
  void publish_stats();

  const EngineCoreConfig config;
  const KvPlan plan;
  const Clock& clock;
  IdleGate own_gate;
  IdleGate& gate;
  uint64_t listener = 0;
  std::atomic<bool> parked{false};   // idle work waits for the gate
  std::atomic<bool> warming{false};  // the idle work is the warm-up
  KvArena arena;                     // outlives the runner, which points into it
  std::unique_ptr<ModelRunner> runner;
  std::unique_ptr<DraftModel> draft;  // null: there is none
  YieldedKvMemory memory;
  KvCacheManager kv;
  Inbox inbox;
  std::unique_ptr<KvTier> tier;          // null: memory is the prefix cache's only level
  std::unique_ptr<TierTraffic> traffic;  // null: the same
  StepLoop loop;
  bool stop_requested = false;  // the engine thread's
  std::optional<TimePoint> drain_deadline;
  std::optional<Error> failure;

  mutable std::mutex stats_mutex;
  EngineStats stats;
  mutable std::mutex join_mutex;
  std::thread thread;
};

namespace {

// Of so many bytes for two caches, the model's.
size_t part_of(size_t bytes, const ModelRunner& runner, const ModelRunner& draft) {
  return static_cast<size_t>((1.0 - draft_share(runner.kv_spec(), draft.kv_spec())) * static_cast<double>(bytes));
}

EngineCoreConfig with_kv_bytes(const EngineCoreConfig& config, size_t max_kv_bytes) {
  EngineCoreConfig own = config;
  own.max_kv_bytes = max_kv_bytes;
  return own;
}

// `bytes`: that are left for its cache.
Result<std::unique_ptr<DraftModel>> make_draft_model(const EngineCoreConfig& config, const KvPlan& of_model,
                                                     int32_t vocab_size, std::unique_ptr<ModelRunner> runner,
                                                     size_t bytes, MemoryLedger& ledger, const Clock& clock) {
  ASSIGN_OR_RETURN(const KvPlan plan,
                   plan_draft_kv(config, of_model, runner->spec(), runner->kv_spec(), runner->max_in_flight(), bytes));
  ASSIGN_OR_RETURN(KvArena arena,
                   KvArena::reserve(ledger, config.model, runner->kv_spec(), plan.cache.groups, runner->kv_pages()));
  const int32_t num_seqs = std::min(config.max_num_seqs, DraftModel::kMaxSequences);
  RETURN_IF_ERROR(runner->bind(arena.binding(), num_seqs, DraftModel::kMaxTokens));
  return std::make_unique<DraftModel>(std::move(runner), std::make_unique<SpareKvMemory>(std::move(arena)), plan.cache,
                                      DraftLimits{plan.context_limit, vocab_size}, clock);
}

}  // namespace

Result<std::unique_ptr<EngineCore>> EngineCore::create(const EngineCoreConfig& config,
                                                       std::unique_ptr<ModelRunner> runner, MemoryLedger& ledger,
                                                       const Clock& clock, std::unique_ptr<ModelRunner> draft) {
  // As if it were alone, so that its longest context does not depend on what happens to be loaded beside it.
  const size_t left = ledger.budget() - std::min(ledger.budget(), ledger.needed_by(config.model));
  // What is said of the KV memory is said of both caches.
  const size_t own_left = draft == nullptr ? left : part_of(left, *runner, *draft);
  const size_t own_most = draft == nullptr ? config.max_kv_bytes : part_of(config.max_kv_bytes, *runner, *draft);
  ASSIGN_OR_RETURN(KvPlan plan, plan_kv(with_kv_bytes(config, own_most), runner->spec(), runner->kv_spec(),
                                        runner->max_in_flight(), own_left));
  if (plan.context_limit < plan.max_model_len) {
    log_warning(
        "{}: KV memory holds {} tokens of one sequence, less than max_model_len {}: longer requests are refused",
        config.model, plan.context_limit, plan.max_model_len);
  }
  ASSIGN_OR_RETURN(KvArena arena,
                   KvArena::reserve(ledger, config.model, runner->kv_spec(), plan.cache.groups, runner->kv_pages()));
  RETURN_IF_ERROR(runner->bind(arena.binding(), config.max_num_seqs, config.max_num_batched_tokens));
  std::unique_ptr<DraftModel> draft_model;
  if (draft != nullptr) {
    ASSIGN_OR_RETURN(draft_model,
                     make_draft_model(with_kv_bytes(config, config.max_kv_bytes - own_most), plan,
                                      runner->spec().vocab_size, std::move(draft), left - own_left, ledger, clock));
  }
  auto impl = std::make_unique<Impl>(config, std::move(plan), std::move(arena), std::move(runner),
                                     std::move(draft_model), clock);
  RETURN_IF_ERROR(impl->kv.commit_minimum());
  impl->stats.last_progress = clock.now();
  impl->publish_stats();
  Impl* engine = impl.get();
  impl->thread = std::thread([engine] {
    pthread_setname_np(pthread_self(), "engine");
    engine->run();
  });
  return std::unique_ptr<EngineCore>(new EngineCore(std::move(impl)));
}

void EngineCore::Impl::open_tier() {
  if (!config.open_tier || !config.enable_prefix_caching) return;
  KvTierSpec spec{.model = config.model, .content = runner->content_key()};
  if (spec.content.empty() || kv.prefix_cache() == nullptr || &runner->kv_pages() != &host_pages()) {
    log_info(
        "{}: its cached prefixes stay in memory alone: only models in Hugging Face layout on the CPU keep them on disk",
        config.model);
    return;
  }
  spec.block_size = plan.cache.groups[0].block_size;
  for (const KvGroupConfig& group : plan.cache.groups) {
    spec.bytes_per_block.push_back(group.bytes_per_block);
    spec.content += fmt::format(" {}x{}/{}", group.block_size, group.bytes_per_block, group.window);
  }
  tier = config.open_tier(spec, [this] { inbox.wake(); });
  if (tier == nullptr) return;
  traffic = std::make_unique<TierTraffic>(spec.content, *tier, kv, runner->kv_spec(), arena.binding());
  loop.use_tier(traffic.get());
}

EngineCore::EngineCore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

EngineCore::~EngineCore() { stop(); }

void EngineCore::Impl::run() {
  try {
    while (!stop_requested) {
      wait_for_work();
      apply(inbox.take());
      if (!stop_requested && loop.num_live() + loop.num_in_flight() > 0) step();
      publish_stats();
    }
    shut_down();
  } catch (const std::exception& e) {  // a bug of ours, or no memory left for the books
    fail(make_error(ErrorCode::internal, fmt::format("the engine thread threw an exception: {}", e.what())));
    inbox.request_stop();  // the thread ends: nobody would answer what comes now
    shut_down();
  }
  publish_stats();
}

void EngineCore::Impl::wait_for_work() {
  if (loop.num_live() + loop.num_in_flight() > 0 || hand_down()) return;
  if (config.idle_trim_after) {
    if (inbox.wait_for(*config.idle_trim_after)) return;
    trim({});
  }
  inbox.wait();
}

// What is in memory alone goes down while there is nothing else to do. True: there is something else.
bool EngineCore::Impl::hand_down() {
  if (traffic == nullptr || failure) return false;
  for (int refused = 0; traffic->has_unwritten() && refused < kMaxRefusals;) {
    const bool written = traffic->write_one();
    refused = written ? 0 : refused + 1;
    if (inbox.wait_for(written ? Duration{0} : kRoomPause)) return true;
  }
  return false;
}

void EngineCore::Impl::hand_down_the_rest() {
  if (traffic == nullptr || failure) return;
  const TimePoint end = clock.now() + kHandDownGrace;
  while (traffic->has_unwritten() && clock.now() < end) {
    if (!traffic->write_one()) tier->wait_for_room(kRoomPause);
  }
}

void EngineCore::Impl::trim(const std::vector<std::function<void()>>& told) {
  // Steps in flight may still name blocks of sequences that have ended.
  while (loop.num_live() == 0 && loop.num_in_flight() > 0) step();
  loop.preempt_idle();
  if (draft != nullptr) (void)draft->yield();
  if (traffic != nullptr) traffic->begin_step();
  kv.shrink_to_minimum();
  publish_stats();
  for (const std::function<void()>& done : told) {
    if (done) done();
  }
}

void EngineCore::Impl::apply(Inbox::Taken taken) {
  for (EngineCommand& command : taken.commands) {
    if (auto* submit = std::get_if<SubmitCommand>(&command)) {
      loop.add(std::move(submit->request), submit->submitted);
    } else {
      const EndCommand& end = std::get<EndCommand>(command);
      if (end.sample) {
        loop.end_sample(end.id, *end.sample, end.reason);
      } else {
        loop.end_request(end.id, end.reason);
      }
    }
  }
  stop_requested = taken.stop;
  drain_deadline = taken.drain_deadline;
  if (drain_deadline && loop.num_live() > 0 && clock.now() >= *drain_deadline) {
    loop.end_all(make_error(ErrorCode::unavailable, fmt::format("model {} was shut down before the request was "
                                                                "finished",
                                                                config.model)));
  }
  if (drain_deadline && loop.num_live_idle() > 0) {
    loop.end_idle(make_error(ErrorCode::unavailable, fmt::format("model {} is draining", config.model)));
  }
  if (failure) loop.fail_all(*failure);  // accepted just before the failure was known
  if (!taken.trims.empty()) trim(taken.trims);
}

// One step of normal work, and before it one of idle work where that may be.
void EngineCore::Impl::step() {
  const bool has_idle = loop.num_live_idle() > 0;
  const IdleStep idle_step = has_idle ? step_idle() : IdleStep::computed;
  if (loop.num_live_normal() + loop.num_in_flight() == 0) {
    if (idle_step == IdleStep::starved && warming) {
      loop.end_idle(make_error(ErrorCode::out_of_memory,
                               fmt::format("model {} has no KV memory for its first tokens", config.model)));
      return;
    }
    if (idle_step == IdleStep::starved) inbox.wait_for(kStarvationPause);
    if (idle_step == IdleStep::not_now) wait_for_gate();
    return;
  }
  if (Status stepped = loop.step(); !stepped.ok()) fail(stepped.error());
  if (loop.starves()) {
    inbox.wait_for(kStarvationPause);
    return;  // no progress
  }
  if (loop.waits_for_fetch()) {
    inbox.wait_for(kFetchPause);  // woken when something has come
    return;
  }
  std::lock_guard lock(stats_mutex);
  stats.last_progress = clock.now();
}

EngineCore::Impl::IdleStep EngineCore::Impl::step_idle() {
  const bool gated = !warming;
  if (gated && !gate.try_begin(loop.idle_cost())) return IdleStep::not_now;
  const Result<bool> stepped = loop.step_idle();
  if (gated) gate.end(loop.last_idle_time());
  if (!stepped.ok()) fail(stepped.error());
  return stepped.ok() && !*stepped ? IdleStep::starved : IdleStep::computed;
}

void EngineCore::Impl::wait_for_gate() {
  parked = true;
  // Looked at again, since a gate that opened before `parked` was set has told nobody.
  if (!gate.is_open()) inbox.wait_for(gate.ask_again_after(loop.idle_cost()));
  parked = false;
}

void EngineCore::Impl::done(const Request& request) {
  inbox.done(request);
  if (!request.idle) gate.leave();
  warming = false;
}

void EngineCore::Impl::fail(const Error& error) {
  log_error("{}: the model failed: {}", config.model, error.message);
  failure = make_error(ErrorCode::internal, fmt::format("model {} has failed: {}", config.model, error.message));
  inbox.set_state(EngineState::failed, error.message);
  loop.fail_all(*failure);
}

void EngineCore::Impl::shut_down() {
  loop.collect_all();
  // New requests are refused since the stop was asked for; what came before it is in here.
  stop_requested = false;
  apply(inbox.take());
  loop.end_all(make_error(ErrorCode::unavailable,
                          fmt::format("model {} was shut down before the request was finished", config.model)));
  hand_down_the_rest();
}

void EngineCore::Impl::publish_stats() {
  std::lock_guard lock(stats_mutex);
  loop.fill_stats(stats);
}

Status EngineCore::submit(Request request) {
  const KvPlan& plan = impl_->plan;
  RETURN_IF_ERROR(
      check_request(request, {impl_->config.model, impl_->runner->spec(), plan.max_model_len, plan.context_limit}));
  const bool normal = !request.idle;
  if (normal) impl_->gate.enter();
  Status submitted = impl_->inbox.submit(std::move(request), impl_->clock.now());
  if (normal && !submitted.ok()) impl_->gate.leave();
  return submitted;
}

Status EngineCore::warm_up(Request request) {
  request.idle = true;
  impl_->warming = true;
  Status submitted = submit(std::move(request));
  if (!submitted.ok()) impl_->warming = false;
  return submitted;
}

void EngineCore::cancel(RequestId id, std::optional<int32_t> sample) {
  impl_->inbox.end({id, sample, FinishReason::cancelled});
}

void EngineCore::finish_sample(RequestId id, int32_t sample) { impl_->inbox.end({id, sample, FinishReason::stop}); }

void EngineCore::trim(std::function<void()> done) {
  if (!impl_->inbox.trim(done) && done) done();
}

void EngineCore::drain(TimePoint deadline) { impl_->inbox.drain(deadline); }

bool EngineCore::wait_drained(Duration timeout) { return impl_->inbox.wait_until_empty(timeout); }

void EngineCore::stop() {
  impl_->inbox.request_stop();
  std::lock_guard lock(impl_->join_mutex);
  if (impl_->thread.joinable()) impl_->thread.join();
}

size_t EngineCore::sleep_bytes() const {
  const size_t of_model = impl_->runner->sleep_bytes();
  if (of_model == 0 || impl_->draft == nullptr) return of_model;
  const size_t of_draft = impl_->draft->runner().sleep_bytes();
  return of_draft == 0 ? 0 : of_model + of_draft;
}

Result<SleepingEngine> EngineCore::sleep() {
  stop();
  const EngineStats last = stats();
  if (last.state == EngineState::failed) {
    return make_error(ErrorCode::internal, fmt::format("model {} has failed: {}", impl_->config.model, last.failure));
  }
  SleepingEngine sleeping{.config = impl_->config, .model = {}, .draft = {}};
  ASSIGN_OR_RETURN(sleeping.model, impl_->runner->sleep());
  if (impl_->draft != nullptr) {
    ASSIGN_OR_RETURN(sleeping.draft, impl_->draft->runner().sleep());
  }
  return sleeping;
}

Result<std::unique_ptr<EngineCore>> EngineCore::wake(const SleepingEngine& sleeping, MemoryLedger& ledger,
                                                     const Clock& clock) {
  ASSIGN_OR_RETURN(std::unique_ptr<ModelRunner> model, sleeping.model->wake());
  std::unique_ptr<ModelRunner> draft;
  if (sleeping.draft != nullptr) {
    ASSIGN_OR_RETURN(draft, sleeping.draft->wake());
  }
  return create(sleeping.config, std::move(model), ledger, clock, std::move(draft));
}

Status EngineCore::readiness(Duration stall_limit) const {
  const Inbox::Snapshot inbox = impl_->inbox.snapshot();
  const std::string& model = impl_->config.model;
  if (inbox.state == EngineState::failed) {
    return make_error(ErrorCode::internal, fmt::format("model {} has failed: {}", model, inbox.failure));
  }
  if (inbox.state != EngineState::running) {
    return make_error(ErrorCode::unavailable, fmt::format("model {} is draining", model));
  }
  if (inbox.num_live == 0) return ok_status();
  const Duration stalled = impl_->clock.now() - std::max(inbox.last_progress, stats().last_progress);
  if (stalled <= stall_limit) return ok_status();
  return make_error(ErrorCode::unavailable,
                    fmt::format("model {} has not finished a step for {:.1f} s", model, to_seconds(stalled)));
}

EngineStats EngineCore::stats() const {
  const Inbox::Snapshot inbox = impl_->inbox.snapshot();
  std::lock_guard lock(impl_->stats_mutex);
  EngineStats stats = impl_->stats;
  stats.state = inbox.state;
  stats.failure = inbox.failure;
  stats.refused = inbox.refused;
  stats.waiting += inbox.num_submitted;
  if (impl_->tier != nullptr) {  // it goes on while the engine rests
    PrefixTierStats now = impl_->tier->stats();
    now.queries = stats.prefix_tier.queries;
    now.hits = stats.prefix_tier.hits;
    now.dropped = stats.prefix_tier.dropped;
    stats.prefix_tier = now;
  }
  stats.last_progress = std::max(stats.last_progress, inbox.last_progress);
  return stats;
}

Status EngineCore::check_integrity() const {
  std::lock_guard lock(impl_->join_mutex);
  if (impl_->thread.joinable()) {
    return make_error(ErrorCode::invalid_argument, "the books of an engine are read when it has been stopped");
  }
  RETURN_IF_ERROR(impl_->loop.check_integrity());
  const bool draft_idle = impl_->draft == nullptr || impl_->draft->kv().idle();
  if (!impl_->kv.idle() || !draft_idle) {
    return make_error(ErrorCode::internal, "a stopped engine's blocks are still referenced");
  }
  return ok_status();
}

const ModelSpec& EngineCore::model_spec() const { return impl_->runner->spec(); }

int32_t EngineCore::max_model_len() const { return impl_->plan.context_limit; }

}  // namespace inferneo
