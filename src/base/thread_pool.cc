#include "base/thread_pool.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.h"

namespace inferneo {
namespace {

// About 0.5 ms: longer than any pause between the ops of one step, short enough not to burn an idle core.
constexpr int kSpinsInSession = 30'000;
constexpr int kSpinsIdle = 500;
constexpr int kSpinsBeforeYield = 20'000;

inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

struct ThreadPool::Impl {
  explicit Impl(int num_threads) : size(num_threads) {
    for (int i = 1; i < size; ++i) workers.emplace_back([this, i] { work(i); });
  }

  void work(int index) {
    uint32_t seen = 0;
    for (;;) {
      const int spins = session_open.load(std::memory_order_relaxed) ? kSpinsInSession : kSpinsIdle;
      for (int i = 0; i < spins && epoch.load(std::memory_order_acquire) == seen; ++i) cpu_pause();
      while (epoch.load(std::memory_order_acquire) == seen) epoch.wait(seen, std::memory_order_acquire);
      seen = epoch.load(std::memory_order_acquire);
      if (stopping.load(std::memory_order_relaxed)) return;
      (*job)(index);
      pending.fetch_sub(1, std::memory_order_release);
    }
  }

  void run(FunctionRef<void(int)> body) {
    if (size == 1) {
      body(0);
      return;
    }
    job = &body;
    pending.store(size - 1, std::memory_order_relaxed);
    epoch.fetch_add(1, std::memory_order_release);
    epoch.notify_all();
    body(0);
    for (int spins = 0; pending.load(std::memory_order_acquire) != 0; ++spins) {
      if (spins < kSpinsBeforeYield) {
        cpu_pause();
      } else {
        std::this_thread::yield();  // another process may hold the core that a worker needs
      }
    }
  }

  const int size;
  std::vector<std::thread> workers;

  std::mutex turn_mutex;
  std::condition_variable turn_changed;
  TurnQueue turns;
  TurnQueue::Client nobody;  // the account of sessions without a client

  std::atomic<bool> stopping{false};
  std::atomic<bool> session_open{false};
  const FunctionRef<void(int)>* job = nullptr;
  alignas(64) std::atomic<uint32_t> epoch{0};
  alignas(64) std::atomic<int> pending{0};
  alignas(64) std::atomic<int64_t> next_chunk{0};
};

ThreadPool::ThreadPool(int num_threads) {
  INFERNEO_CHECK(num_threads >= 1, "a thread pool has at least one thread");
  impl_ = std::make_unique<Impl>(num_threads);
}

ThreadPool::~ThreadPool() {
  impl_->stopping.store(true, std::memory_order_relaxed);
  impl_->epoch.fetch_add(1, std::memory_order_release);
  impl_->epoch.notify_all();
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

void ThreadPool::Session::run(FunctionRef<void(int)> body) { pool_.impl_->run(body); }

void ThreadPool::Session::for_chunks(int64_t num_chunks, FunctionRef<void(int64_t, int)> body) {
  if (num_chunks <= 0) return;
  if (num_chunks == 1) {
    body(0, 0);
    return;
  }
  std::atomic<int64_t>& next = pool_.impl_->next_chunk;
  next.store(0, std::memory_order_relaxed);
  pool_.impl_->run([&](int thread) {
    for (int64_t chunk = next.fetch_add(1, std::memory_order_relaxed); chunk < num_chunks;
         chunk = next.fetch_add(1, std::memory_order_relaxed)) {
      body(chunk, thread);
    }
  });
}

}  // namespace inferneo
