// The one compute pool of the process: workers sized by the cgroup quota, shared by every model's engine thread.
//
// Threads: any number of engine threads open sessions, which take turns, so that two models interleave step by step
// instead of op by op; each gets the same share of the time (turn_queue.h).
// Workers spin briefly between the ops of one session (an op is microseconds long), and sleep when no session is open.
// The calling thread takes part: a pool of size n has n - 1 workers. An op waits for no worker that has not begun: one
// whose core another process holds costs its share of the speed and no more. Workers offer their cores between chunks,
// so that another process rarely takes one amid a chunk, which the op would wait for, and leave the core that the
// caller is on.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include "base/turn_queue.h"

namespace inferneo {

// Non-owning reference to `void(int64_t index)` or `void(int thread, ...)` callables; no allocation per op.
template <typename Signature>
class FunctionRef;
template <typename R, typename... Args>
class FunctionRef<R(Args...)> {
 public:
  template <typename F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef>)
      FunctionRef(F&& f)  // NOLINT(google-explicit-constructor)
      : object_(const_cast<void*>(static_cast<const void*>(&f))), call_([](void* object, Args... args) -> R {
          return (*static_cast<std::remove_reference_t<F>*>(object))(std::forward<Args>(args)...);
        }) {}
  R operator()(Args... args) const { return call_(object_, std::forward<Args>(args)...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

class ThreadPool {
 public:
  explicit ThreadPool(int num_threads);  // >= 1, the caller included
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const;

  // Whose time a session takes: a model, or a load. The pool outlives it, and no session of it is open at its end.
  class Client {
   public:
    explicit Client(ThreadPool& pool) : pool_(pool) {}
    ~Client();
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

   private:
    friend class ThreadPool;
    ThreadPool& pool_;
    TurnQueue::Client account_;
  };

  // One turn on the pool: hold it for a step, run many ops. Not reentrant: one Session per thread at a time.
  class Session {
   public:
    explicit Session(ThreadPool& pool);  // those without a client share one
    explicit Session(Client& client, bool idle = false) : Session(client.pool_, client.account_, idle) {}
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    int num_threads() const;
    // Runs body(thread) once on each of num_threads() threads and returns when all are done.
    void run(FunctionRef<void(int thread)> body);
    // Chunks 0..num_chunks-1; each thread takes the next free one, so that neighbours are read at the same time
    // (interleaved 128 KiB chunks read memory faster than private halves) and a thread that loses its core delays one
    // chunk, not half of them. Which thread does which chunk must not change a result. `body` must not throw.
    void for_chunks(int64_t num_chunks, FunctionRef<void(int64_t chunk, int thread)> body);

   private:
    Session(ThreadPool& pool, TurnQueue::Client& account, bool idle);
    ThreadPool& pool_;
  };

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
