#include "manager/event_log.h"

#include <chrono>
#include <utility>

namespace inferneo {

const char* model_event_name(ModelEvent::Kind kind) {
  switch (kind) {
    case ModelEvent::Kind::state:
      return "state";
    case ModelEvent::Kind::progress:
      return "progress";
    case ModelEvent::Kind::registered:
      return "registered";
    case ModelEvent::Kind::updated:
      return "updated";
    case ModelEvent::Kind::removed:
      return "removed";
    case ModelEvent::Kind::switched:
      return "switched";
    case ModelEvent::Kind::alias:
      return "alias";
  }
  return "unknown";
}

void EventLog::publish(ModelEvent event) {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  event.time_ms = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::lock_guard lock(mutex_);
  event.sequence = ++sequence_;
  kept_.push_back(std::move(event));
  if (kept_.size() > kKept) kept_.pop_front();
  for (const auto& [id, listener] : listeners_) listener(kept_.back());
}

uint64_t EventLog::subscribe(uint64_t sequence, Listener listener) {
  const std::lock_guard lock(mutex_);
  for (const ModelEvent& event : kept_) {
    if (event.sequence > sequence) listener(event);
  }
  listeners_.emplace(next_id_, std::move(listener));
  return next_id_++;
}

void EventLog::unsubscribe(uint64_t id) {
  const std::lock_guard lock(mutex_);
  listeners_.erase(id);
}

uint64_t EventLog::last_sequence() const {
  const std::lock_guard lock(mutex_);
  return sequence_;
}

}  // namespace inferneo
