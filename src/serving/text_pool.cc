#include "serving/text_pool.h"

#include <pthread.h>

#include <utility>

namespace inferneo {

TextPool::TextPool(int num_threads, size_t max_queue) : max_queue_(max_queue) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this, continuations_only = i > 0 && i + 1 == num_threads] { run(continuations_only); });
  }
}

TextPool::~TextPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  continued_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

size_t TextPool::num_waiting() const {
  std::lock_guard lock(mutex_);
  return beginnings_.size();
}

bool TextPool::try_post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || beginnings_.size() >= max_queue_) return false;
    beginnings_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

void TextPool::post_beginning(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    beginnings_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void TextPool::post(std::function<void()> task) {
  bool to_its_own = false;
  {
    std::lock_guard lock(mutex_);
    continuations_.push_back(std::move(task));
    to_its_own = std::exchange(own_thread_waits_, false);
  }
  // One thread is woken for one task, as this happens for every token; whoever is busy looks at the queue afterwards.
  (to_its_own ? continued_ : changed_).notify_one();
}

void TextPool::run(bool continuations_only) {
  pthread_setname_np(pthread_self(), "text");
  std::unique_lock lock(mutex_);
  const auto next = [&]() -> Queue* {
    if (!continuations_.empty()) return &continuations_;
    return continuations_only || beginnings_.empty() ? nullptr : &beginnings_;
  };
  for (;;) {
    Queue* queue = next();
    while (queue == nullptr && !stopping_) {
      own_thread_waits_ |= continuations_only;
      (continuations_only ? continued_ : changed_).wait(lock);
      queue = next();
    }
    if (queue == nullptr) return;
    std::function<void()> task = std::move(queue->front());
    queue->pop_front();
    lock.unlock();
    task();
    task = nullptr;  // captured state dies outside the lock
    lock.lock();
  }
}

}  // namespace inferneo
