// Threads for text work: templates, tokenizing, detokenizing, grammar compilation. Never the compute pool, never an io
// thread, so that a long prompt or a grammar bomb delays neither tokens nor connections: what runs goes first, and
// where there are two threads or more, one of them does nothing else.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace inferneo {

class TextPool {
 public:
  TextPool(int num_threads, size_t max_queue);
  ~TextPool();  // runs what is queued, then joins
  TextPool(const TextPool&) = delete;
  TextPool& operator=(const TextPool&) = delete;

  size_t num_waiting() const;  // new and accepted work that nobody has begun
  size_t max_queue() const { return max_queue_; }

  // New work from outside: false when the queue is full. Tasks must not throw.
  bool try_post(std::function<void()> task);
  // The beginning of accepted work, which may take long: in line with new work, but never refused.
  void post_beginning(std::function<void()> task);
  // The continuation of running work (a stream's next tokens): short, before all others, never refused.
  void post(std::function<void()> task);

 private:
  using Queue = std::deque<std::function<void()>>;
  void run(bool continuations_only);
  const size_t max_queue_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;    // for the threads that take both kinds
  std::condition_variable continued_;  // for the one that takes continuations only
  bool own_thread_waits_ = false;      // that one, and nobody has woken it yet
  Queue continuations_;
  Queue beginnings_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace inferneo
