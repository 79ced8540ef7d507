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
#include "engine/step_loop.h"

namespace inferneo {
namespace {

constexpr size_t kMaxPromptRowsBytes = size_t{256} << 20;            // of one request's; no budget knows of them
constexpr Duration kStarvationPause = std::chrono::milliseconds(5);  // between two attempts to get memory

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
    listener = gate.subscribe([this] {
      if (parked) inbox.wake();
    });
  }
  ~Impl() { gate.unsubscribe(listener); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  // The engine thread.
  void run();
  void apply(Inbox::Taken taken);
  void wait_for_work();
  void trim(const std::vector<std::function<void()>>& told);
  void step();
  enum class IdleStep : uint8_t { computed, starved, not_now };
  IdleStep step_idle();
  void wait_for_gate();
  void done(const Request& request);
  void shut_down();
  void fail(const Error& error);
  void publish_stats();

  // Any thread.
  Status check_request(const Request& request) const;
  Status check_length(const Request& request) const;
  Status check_rows(const Request& request) const;

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
  if (loop.num_live() + loop.num_in_flight() > 0) return;
  if (config.idle_trim_after) {
    if (inbox.wait_for(*config.idle_trim_after)) return;
    trim({});
  }
  inbox.wait();
}

void EngineCore::Impl::trim(const std::vector<std::function<void()>>& told) {
  // Steps in flight may still name blocks of sequences that have ended.
  while (loop.num_live() == 0 && loop.num_in_flight() > 0) step();
  loop.preempt_idle();
  if (draft != nullptr) (void)draft->yield();
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
}

void EngineCore::Impl::publish_stats() {
  std::lock_guard lock(stats_mutex);
  loop.fill_stats(stats);
}

Status EngineCore::Impl::check_length(const Request& request) const {
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  const bool reads_only = request.sampling.prompt_rows != PromptRows::none;
  const int64_t output = reads_only ? 0 : request.sampling.max_tokens.value_or(1);
  const int64_t limit = plan.context_limit;
  if (prompt + std::max<int64_t>(output, 0) <= limit) return ok_status();
  const std::string limit_text =
      limit == plan.max_model_len
          ? fmt::format("the maximum context length is {} tokens", limit)
          : fmt::format("the KV memory holds {} tokens of one sequence (max_model_len is {}): raise max_memory_gb",
                        limit, plan.max_model_len);
  if (prompt + std::min<int64_t>(output, 1) > limit) {
    return make_error(ErrorCode::context_too_long, fmt::format("the prompt has {} tokens; {}", prompt, limit_text),
                      "prompt");
  }
  return make_error(
      ErrorCode::context_too_long,
      fmt::format("{} prompt tokens and {} output tokens are {}; {}", prompt, output, prompt + output, limit_text),
      "max_tokens");
}

Status EngineCore::Impl::check_rows(const Request& request) const {
  const SamplingParams& p = request.sampling;
  if (p.prompt_rows == PromptRows::none) return ok_status();
  const ModelSpec& spec = runner->spec();
  const bool logits = p.prompt_rows == PromptRows::logits;
  const auto width = static_cast<size_t>(logits ? spec.vocab_size : spec.hidden_size);
  if (width == 0) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("what runs '{}' gives no hidden states (device {})", config.model, spec.device),
                      "prompt_rows");
  }
  if (p.n != 1) return make_error(ErrorCode::invalid_argument, "n must be 1 where prompt_rows are asked for", "n");
  const size_t most = kMaxPromptRowsBytes / (width * sizeof(float));
  if (request.prompt.size() <= most) return ok_status();
  return make_error(ErrorCode::context_too_long,
                    fmt::format("the prompt has {} tokens; {} rows of {} numbers may be asked for at a time",
                                request.prompt.size(), most, width),
                    "prompt");
}

Status EngineCore::Impl::check_request(const Request& request) const {
  const int32_t vocab = runner->spec().vocab_size;
  const auto known = [&](Token token) { return token >= 0 && token < vocab; };
  const auto bad = [](std::string message, std::string param) {
    return make_error(ErrorCode::invalid_argument, std::move(message), std::move(param));
  };
  const SamplingParams& p = request.sampling;
  if (request.sink == nullptr) return bad("a request needs a sink", "");
  if (request.prompt.empty()) return bad("the prompt is empty", "prompt");
  if (!std::ranges::all_of(request.prediction, known)) {
    return bad("a token of the prediction lies outside the model's vocabulary", "prediction");
  }
  if (!std::ranges::all_of(request.prompt, known)) {
    return bad(fmt::format("the prompt has a token outside the vocabulary of {}", vocab), "prompt");
  }
  if (!std::ranges::all_of(p.stop_token_ids, known)) {
    return bad(fmt::format("stop_token_ids must be in [0, {})", vocab), "stop_token_ids");
  }
  if (!std::ranges::all_of(p.logit_bias, [&](const auto& bias) { return known(bias.first); })) {
    return bad(fmt::format("logit_bias names a token outside [0, {})", vocab), "logit_bias");
  }
  if (p.n < 1 || p.n > 1024) return bad("n must be in [1, 1024]", "n");
  RETURN_IF_ERROR(check_rows(request));
  if (p.max_tokens && *p.max_tokens < 0) return bad("max_tokens must not be negative", "max_tokens");
  return check_length(request);
}

Status EngineCore::submit(Request request) {
  RETURN_IF_ERROR(impl_->check_request(request));
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

void add_counters(EngineStats& stats, const EngineStats& gone) {
  stats.steps += gone.steps;
  stats.preemptions += gone.preemptions;
  stats.prefix_queries += gone.prefix_queries;
  stats.prefix_hits += gone.prefix_hits;
  stats.prompt_tokens += gone.prompt_tokens;
  stats.generation_tokens += gone.generation_tokens;
  stats.finished_requests += gone.finished_requests;
  for (size_t i = 0; i < stats.iteration_tokens.size(); ++i) stats.iteration_tokens[i] += gone.iteration_tokens[i];
  for (size_t i = 0; i < kNumQueueRefusals; ++i) stats.refused[i] += gone.refused[i];
  stats.iteration_tokens_sum += gone.iteration_tokens_sum;
  stats.speculation.drafts += gone.speculation.drafts;
  stats.speculation.draft_tokens += gone.speculation.draft_tokens;
  stats.speculation.accepted_tokens += gone.speculation.accepted_tokens;
  for (size_t i = 0; i < SpeculationStats::kPositions; ++i) {
    stats.speculation.accepted_at[i] += gone.speculation.accepted_at[i];
  }
  stats.schedule_seconds += gone.schedule_seconds;
  stats.execute_seconds += gone.execute_seconds;
  stats.update_seconds += gone.update_seconds;
}

}  // namespace inferneo
