// Threads for text work: templates, tokenizing, detokenizing, grammar compilation. Never the compute pool, never an io
// thread, so that a long prompt or a grammar bomb delays neither tokens nor connections.
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

  // New work from outside: false when the queue is full. Tasks must not throw.
  bool try_post(std::function<void()> task);
  // The continuation of accepted work (a stream's next tokens): never refused.
  void post(std::function<void()> task);

 private:
  void run();
  const size_t max_queue_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace inferneo
