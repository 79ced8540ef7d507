// What happens to the models, as a stream: the last events are kept, and who listens gets the later ones.
//
// Thread-safe. Listeners run on the thread that publishes, one event at a time, and must neither block nor call the
// log; they may look at the manager. After unsubscribe() has returned the listener is not called any more.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "manager/residency.h"

namespace inferneo {

struct ModelEvent {
  enum class Kind : uint8_t { state, progress, registered, updated, removed, switched, alias };
  Kind kind = Kind::state;
  std::string model;   // name:version; the name alone for switched, the alias for alias
  std::string detail;  // state: why; switched: the version; alias: its target, empty when it is gone
  ModelState state = ModelState::unloaded;  // state
  std::string stage;                        // progress: "reading weights", ...
  uint64_t bytes_done = 0;
  uint64_t bytes_total = 0;  // 0: not known
  uint64_t sequence = 0;     // set by the log: 1, 2, ...
  int64_t time_ms = 0;       // set by the log: milliseconds since the epoch
};
const char* model_event_name(ModelEvent::Kind kind);

class EventLog {
 public:
  static constexpr size_t kKept = 512;
  using Listener = std::function<void(const ModelEvent&)>;

  void publish(ModelEvent event);
  // Calls back with the kept events after `sequence` before it returns, then with each that comes.
  uint64_t subscribe(uint64_t sequence, Listener listener);
  void unsubscribe(uint64_t id);
  uint64_t last_sequence() const;

 private:
  mutable std::mutex mutex_;
  std::deque<ModelEvent> kept_;
  uint64_t sequence_ = 0;
  uint64_t next_id_ = 1;
  std::map<uint64_t, Listener> listeners_;
};

}  // namespace inferneo
