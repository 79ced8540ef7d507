#include "serving/text_pool.h"

#include <pthread.h>

#include <utility>

namespace inferneo {

TextPool::TextPool(int num_threads, size_t max_queue) : max_queue_(max_queue) {
  for (int i = 0; i < num_threads; ++i) threads_.emplace_back([this] { run(); });
}

TextPool::~TextPool() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

bool TextPool::try_post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_ || queue_.size() >= max_queue_) return false;
    queue_.push_back(std::move(task));
  }
  changed_.notify_one();
  return true;
}

void TextPool::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(task));
  }
  changed_.notify_one();
}

void TextPool::run() {
  pthread_setname_np(pthread_self(), "text");
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::function<void()> task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    task();
    task = nullptr;  // captured state dies outside the lock
    lock.lock();
  }
}

}  // namespace inferneo
