#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/op_gate.h"
#include "base/result.h"
#include "base/system.h"

namespace inferneo {
namespace {

constexpr int kSpinsBetweenYields = 50;
// Longer than any pause between the ops of one step, short enough not to burn an idle core.
constexpr Duration kAwakeInSession = std::chrono::microseconds(500);
constexpr int kSpinsIdle = 500;
// Who is taken off its core amid a chunk holds the op up until the other process has had its turn, which is some
// milliseconds. The kernel gives turns of about 4 ms where both want the core; who offers it earlier, between two
// chunks, holds nobody up.
constexpr Duration kTurn = std::chrono::milliseconds(2);
// How often a worker looks at the clock: chunks of small models take less than a look would be worth.
constexpr Duration kLook = std::chrono::microseconds(200);
constexpr int64_t kMostChunksBetweenLooks = 64;

// A worker's turn on its core, as far as it knows.
struct Turn {
  TimePoint began;
  TimePoint looked;
  TimePoint moved;
  int64_t chunks_between_looks = 1;
  int64_t chunks_since = 0;
};
thread_local Turn turn;

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(int num_threads) : size(num_threads) {
    for (int i = 1; i < size; ++i) workers.emplace_back([this, i] { work(i); });
  }

  // The gate's word once it has an op that is not `seen`.
  uint32_t await_op(uint32_t seen) {
    const SteadyClock clock;
    std::optional<TimePoint> until;
    for (int spins = 0;; ++spins) {
      const uint32_t word = gate.look();
      if (OpGate::is_news(word, seen)) return word;
      cpu_pause();
      const bool in_session = session_open.load(std::memory_order_relaxed);
      if (spins < (in_session ? OpGate::kSpinsBeforeYield : kSpinsIdle)) continue;
      if (spins % kSpinsBetweenYields != 0) continue;
      const TimePoint now = clock.now();
      if (!until) until = now + kAwakeInSession;
      if (in_session) leave_caller(now);
      if (in_session && now < *until) {
        std::this_thread::yield();
      } else {
        gate.sleep(word);
        turn.began = clock.now();
      }
    }
  }

  void work(int index) {
    for (uint32_t seen = 0;;) {
      const uint32_t word = await_op(seen);
      if (stopping.load(std::memory_order_relaxed)) return;
      if (OpGate::is_open(word) && !gate.enter(word)) continue;
      seen = word;
      if (!OpGate::is_open(word)) continue;  // over before this thread came
      if ((*job)(index)) gate.leave();
    }
  }

  // A worker and the caller on one core leave another to other processes: the kernel balances by numbers of threads,
  // and does not know that these two wait for each other.
  void leave_caller(TimePoint now) {
    if (sched_getcpu() != caller_cpu.load(std::memory_order_relaxed) || now - turn.moved < kTurn) return;
    turn.moved = now;
    if (leave_cpu(caller_cpu.load(std::memory_order_relaxed))) turn.began = now;
  }

  // Of a worker, between two chunks of an op: another process may have the core now, if it would take it amid the next
  // chunks. False: the op is over, and the worker outside of it.
  bool offer_core(uint32_t op) {
    if (++turn.chunks_since < turn.chunks_between_looks) return true;
    const SteadyClock clock;
    const TimePoint now = clock.now();
    const Duration chunk = (now - turn.looked) / turn.chunks_since;
    turn.chunks_between_looks = std::clamp<int64_t>(kLook / std::max(chunk, Duration(1)), 1, kMostChunksBetweenLooks);
    turn.chunks_since = 0;
    turn.looked = now;
    leave_caller(now);
    if (now - turn.began + chunk * turn.chunks_between_looks < kTurn) return true;
    gate.leave();
    std::this_thread::yield();
    turn.began = turn.looked = clock.now();
    return gate.enter_again(op);
  }

  // Whether a thread is still inside of the op when it has done its part.
  void run(FunctionRef<bool(int)> body) {
    if (size == 1) {
      body(0);
      return;
    }
    job = &body;
    caller_cpu.store(sched_getcpu(), std::memory_order_relaxed);
    gate.open();
    body(0);
    gate.close();
  }

  const int size;
  std::vector<std::thread> workers;

  std::mutex turn_mutex;
  std::condition_variable turn_changed;
  TurnQueue turns;
  TurnQueue::Client nobody;  // the account of sessions without a client

  std::atomic<bool> stopping{false};
  std::atomic<bool> session_open{false};
  const FunctionRef<bool(int)>* job = nullptr;
  std::atomic<int> caller_cpu{-1};  // when it opened the last op
  alignas(64) OpGate gate;
  alignas(64) std::atomic<int64_t> next_chunk{0};
};

ThreadPool::ThreadPool(int num_threads) {
  INFERNEO_CHECK(num_threads >= 1, "a thread pool has at least one thread");
  impl_ = std::make_unique<Impl>(num_threads);
}

ThreadPool::~ThreadPool() {
  impl_->stopping.store(true, std::memory_order_relaxed);
  impl_->gate.wake_all();
  for (std::thread& worker : impl_->workers) worker.join();
}

int ThreadPool::size() const { return impl_->size; }

ThreadPool::Client::~Client() {
  const std::lock_guard lock(pool_.impl_->turn_mutex);
  pool_.impl_->turns.forget(account_);
}

ThreadPool::Session::Session(ThreadPool& pool) : Session(pool, pool.impl_->nobody, false) {}

ThreadPool::Session::Session(ThreadPool& pool, TurnQueue::Client& account, bool idle) : pool_(pool) {
  Impl& impl = *pool_.impl_;
  const SteadyClock clock;
  std::unique_lock lock(impl.turn_mutex);
  const TurnQueue::Ticket ticket = impl.turns.ask(account, idle);
  for (;;) {
    const TurnQueue::Answer answer = impl.turns.look(ticket, clock.now());
    if (answer.granted) break;
    if (answer.look_again) {
      impl.turn_changed.wait_until(lock, *answer.look_again);
    } else {
      impl.turn_changed.wait(lock);
    }
  }
  impl.session_open.store(true, std::memory_order_relaxed);
}

ThreadPool::Session::~Session() {
  Impl& impl = *pool_.impl_;
  {
    std::lock_guard lock(impl.turn_mutex);
    impl.session_open.store(false, std::memory_order_relaxed);
    impl.turns.leave(SteadyClock().now());
  }
  impl.turn_changed.notify_all();
}

int ThreadPool::Session::num_threads() const { return pool_.impl_->size; }

void ThreadPool::Session::run(FunctionRef<void(int)> body) {
  std::atomic<int> arrived{0};
  pool_.impl_->run([&](int thread) {
    arrived.fetch_add(1, std::memory_order_relaxed);
    body(thread);
    // The op stays open until every thread is in it.
    while (thread == 0 && arrived.load(std::memory_order_relaxed) < num_threads()) std::this_thread::yield();
    return true;
  });
}

void ThreadPool::Session::for_chunks(int64_t num_chunks, FunctionRef<void(int64_t, int)> body) {
  if (num_chunks <= 0) return;
  if (num_chunks == 1) {
    body(0, 0);
    return;
  }
  std::atomic<int64_t>& next = pool_.impl_->next_chunk;
  next.store(0, std::memory_order_relaxed);
  Impl& impl = *pool_.impl_;
  const uint32_t op = impl.gate.next_op();
  impl.run([&](int thread) {
    for (int64_t chunk = next.fetch_add(1, std::memory_order_relaxed); chunk < num_chunks;
         chunk = next.fetch_add(1, std::memory_order_relaxed)) {
      body(chunk, thread);
      if (thread != 0 && !impl.offer_core(op)) return false;
    }
    return true;
  });
}

}  // namespace inferneo
