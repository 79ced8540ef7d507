#include "server/admin/worker.h"

#include <pthread.h>

#include <csignal>

namespace inferneo {

AdminWorker::AdminWorker() {
  thread_ = std::thread([this] {
    sigset_t all;  // signals belong to the program's own threads
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    pthread_setname_np(pthread_self(), "admin");
    run();
  });
}

AdminWorker::~AdminWorker() { stop(); }

bool AdminWorker::try_post(Task task) {
  const std::lock_guard lock(mutex_);
  if (stopping_ || tasks_.size() >= kMaxQueue) return false;
  tasks_.push_back(std::move(task));
  changed_.notify_one();
  return true;
}

void AdminWorker::post(Task task) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return;
  tasks_.push_back(std::move(task));
  changed_.notify_one();
}

uint64_t AdminWorker::at(TimePoint time, Task task) {
  const std::lock_guard lock(mutex_);
  const uint64_t timer = next_timer_++;
  if (stopping_) return timer;
  timers_.emplace(std::pair(time, timer), std::move(task));
  times_.emplace(timer, time);
  changed_.notify_one();
  return timer;
}

void AdminWorker::cancel(uint64_t timer) {
  Task dropped;  // destroyed outside the lock
  const std::lock_guard lock(mutex_);
  const auto time = times_.find(timer);
  if (time == times_.end()) return;
  const auto found = timers_.find(std::pair(time->second, timer));
  dropped = std::move(found->second);
  timers_.erase(found);
  times_.erase(time);
}

void AdminWorker::stop() {
  std::deque<Task> tasks;
  std::map<std::pair<TimePoint, uint64_t>, Task> timers;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    tasks.swap(tasks_);
    timers.swap(timers_);
    times_.clear();
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void AdminWorker::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    Task task;
    if (!tasks_.empty()) {
      task = std::move(tasks_.front());
      tasks_.pop_front();
    } else if (!timers_.empty() && timers_.begin()->first.first <= std::chrono::steady_clock::now()) {
      task = std::move(timers_.begin()->second);
      times_.erase(timers_.begin()->first.second);
      timers_.erase(timers_.begin());
    }
    if (task) {
      lock.unlock();
      task();
      task = nullptr;
      lock.lock();
    } else if (timers_.empty()) {
      changed_.wait(lock);
    } else {
      const TimePoint next = timers_.begin()->first.first;
      changed_.wait_until(lock, next);
    }
  }
}

}  // namespace inferneo
