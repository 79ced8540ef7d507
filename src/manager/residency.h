// Which models are in memory, as pure decisions: no thread, no clock, no memory and no model of its own. The model
// manager reports events and carries out what next() decides, one decision at a time, until it decides nothing.
//
// Life of a model: unloaded -> loading -> ready -> draining -> unloaded, and failed after a load that did not succeed
// or an engine that died; somebody who asks for it again starts anew. A model of a GPU may sleep instead of being
// unloaded: draining -> sleeping, its weights in the host's memory; from there it wakes (loading -> ready) or leaves
// that memory too (draining -> unloaded).
//
// Rules
// - One load at a time, in the order (priority, arrival) of those who wait. All who wait for a model share its load.
// - Room is made in two stages. First ready models without a lease, pinned ones too, give back what they keep besides
//   their weights (trim), the one that has idled longest first, each once while it idles. Where that is not enough,
//   such models that are not pinned are unloaded, never more than the need. Which: the cheapest by (measured load time)
//   / (idle time) per byte freed, the greedy rule of GreedyDual-Size (Cao and Irani, 1997) over the models that may go,
//   after which what turned out superfluous stays. Of one that may sleep and has been woken before, the time that its
//   wake took counts instead. What models share is free when the last of them has gone; until then each counts with
//   its part of it.
// - Nobody starves: when who is first in line has waited longer than `patience` for models that are busy, the cheapest
//   of these yield: they grant no new leases until the first in line has been served.
// - A model idles for its keep_alive after its last lease, then goes; a pinned one stays.
// - Who goes for want of room or after its keep_alive sleeps, where the memory for that has room. Sleepers that were
//   used longer ago than the one that goes make room for it, the one used least recently first, unless they are pinned
//   or waited for; where that is not enough it is unloaded. An operator may put any model to sleep, and then every such
//   sleeper makes room. When the host needs its memory for something else, sleepers leave it in the same order.
// - Who asks for a sleeper wakes it: a load like any other, but for where the weights come from.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/result.h"

namespace inferneo {

enum class ModelState : uint8_t { unloaded, loading, ready, draining, failed, sleeping };
const char* model_state_name(ModelState state);

// Why a model left the memory; a label of the metrics.
enum class UnloadReason : uint8_t { asked, idle, room, failed };
inline constexpr size_t kNumUnloadReasons = 4;
const char* unload_reason_name(UnloadReason reason);

class Residency {
 public:
  using Key = size_t;  // small numbers, so that they may be indices

  struct Limits {
    int32_t max_models = 0;  // in memory at once; 0: as many as fit
    Duration patience = std::chrono::seconds(1);
  };
  struct Traits {
    std::optional<Duration> keep_alive = {};  // none: for ever
    bool pinned = false;
  };
  // What the ledger says at this moment.
  struct Memory {
    size_t budget = 0;
    size_t used = 0;
    std::vector<size_t> resident = {};  // bytes of each model, by key: what its going would free by itself
    struct Shared {
      size_t bytes = 0;
      std::vector<Key> users = {};  // when the last of them goes, the bytes are free
    };
    std::vector<Shared> shared = {};  // what several models use
    std::vector<size_t> kv = {};      // of what is resident, what a trim may give back; empty: nothing
    // Of the host's memory, where models of a GPU sleep; nothing: none does.
    struct Host {
      size_t limit = 0;  // bytes of all that sleep together
      size_t free = 0;   // of the host's budget
      // By key: what a sleeper takes, or a model in memory would; 0: it cannot sleep.
      std::vector<size_t> sleepers = {};
    };
    Host host = {};
  };
  struct Decision {
    // unload: of one in memory or of a sleeper. sleep: its slept(), or unloaded() where that failed, is to come.
    enum class Kind : uint8_t { none, grant, estimate, load, wake, trim, sleep, unload, refuse };
    Kind kind = Kind::none;
    Key key = 0;
    size_t bytes = 0;                           // load, wake: to be held for it; refuse: that can never be there
    UnloadReason reason = UnloadReason::asked;  // unload, sleep
  };

  explicit Residency(Limits limits) : limits_(limits) {}

  Key add(Traits traits);  // a key that remove() has freed, or the next
  // Of a model that is not in memory, that has no lease and that nobody waits for: see abandon().
  void remove(Key key);
  void set_traits(Key key, Traits traits) { models_[key].traits = traits; }
  // Idle time in memory instead of the model's own, until it has been unloaded. None: for ever.
  void set_stay(Key key, std::optional<Duration> stay) { models_[key].stay = Stay{stay}; }

  // ---- events
  // True: the model is ready and has one lease more. False: the caller waits for grant or refuse, or for failed().
  bool acquire(Key key, int32_t priority, TimePoint now);
  void release(Key key, TimePoint now);
  // The same for who has no say in what is in memory: nothing is loaded for it, false means that it gets none, and its
  // use keeps the model as keep_alive says but does not make it dearer than others when room is made.
  bool acquire_idle(Key key);
  void release_idle(Key key, TimePoint now);
  // Once its leases have ended; no effect on what is neither in memory nor asleep.
  void ask_unload(Key key, UnloadReason reason);
  // The same, and it sleeps if there can be room for it, else it is unloaded; no effect on what is on its way out.
  void ask_sleep(Key key);
  // Somebody's memory cannot grow: models that idle shall go until so many bytes are free.
  void need_room(size_t bytes) { wanted_room_ = std::max(wanted_room_, bytes); }
  // The same of the host's memory, and of models that sleep there.
  void need_host_room(size_t bytes) { wanted_host_room_ = std::max(wanted_host_room_, bytes); }

  // ---- what came of the decisions
  size_t granted(Key key);                // the number of those who waited; each has a lease now
  void estimated(Key key, size_t bytes);  // resident and transient bytes of a load
  void loaded(Key key, Duration took, TimePoint now);
  void woken(Key key, Duration took, TimePoint now);
  void slept(Key key);
  // Of an estimate, a load, a wake or a refusal: those who waited are told. Who slept sleeps on, unless what it would
  // wake from is gone (forget_sleep() before).
  void failed(Key key);
  void forget_sleep(Key key) { models_[key].asleep = false; }
  bool is_asleep(Key key) const { return models_[key].asleep; }  // also while it wakes, or leaves the host's memory
  void trimmed(Key key);              // what it could give is back; it may come late, or never
  void retry(Key key, size_t bytes);  // a load that found less room than it needed: that much is needed
  void unloaded(Key key);
  void abandon(Key key);  // nobody waits any more for what is neither in memory nor being loaded

  Decision next(const Memory& memory, TimePoint now);
  // When to ask again though nothing happens; none: no need to.
  std::optional<TimePoint> wake_at(TimePoint now) const;

  ModelState state(Key key) const { return models_[key].state; }
  const Traits& traits(Key key) const { return models_[key].traits; }
  std::optional<Duration> keep_alive(Key key) const;                       // in force
  std::optional<size_t> need(Key key) const { return models_[key].need; }  // bytes, as last estimated
  int32_t leases(Key key) const { return models_[key].leases; }
  size_t waiting(Key key) const { return models_[key].waiting; }
  TimePoint last_used(Key key) const { return models_[key].last_used; }
  // Whether an operator may put it to sleep at this moment: others who sleep may have to leave for it.
  bool has_room_to_sleep(const Memory& memory, Key key) const {
    return sleeps(memory, key, UnloadReason::asked).has_value();
  }
  // Whether sleepers will leave for what need_host_room() asked for.
  bool makes_host_room(const Memory& memory) const;
  TimePoint idle_since(Key key) const { return std::max(models_[key].last_used, models_[key].kept_until); }
  // Somebody waits for memory, or for a model to go: idle leases should end.
  bool is_pressed() const;
  Duration load_time(Key key) const { return models_[key].load_time; }  // of the last load; zero: never loaded
  Duration wake_time(Key key) const { return models_[key].wake_time; }  // of the last wake; zero: it has not slept
  // 1: the next to be loaded; 0: nobody waits for it or its load is under way.
  size_t queue_place(Key key) const;

  // The law of the books; for tests.
  Status check_integrity() const;

 private:
  struct Stay {
    std::optional<Duration> idle;
  };
  struct Model {
    Traits traits;
    std::optional<Stay> stay;
    ModelState state = ModelState::unloaded;
    int32_t leases = 0;
    size_t waiting = 0;
    int32_t priority = 0;  // of the most urgent who waits
    uint64_t arrival = 0;  // of the first who waits
    TimePoint wanted_since{};
    TimePoint last_used{};
    TimePoint kept_until{};  // the last idle lease's end
    Duration load_time{};
    Duration wake_time{};
    std::optional<size_t> need;
    size_t last_need = 0;               // what its last load was given: a wake needs that
    bool need_raised = false;           // by a load for which the estimate was too low
    std::optional<UnloadReason> going;  // draining, or to be drained once loaded
    bool to_sleep = false;              // going, and to sleep, as an operator asked
    bool asleep = false;  // its weights are in the host's memory: sleeping, waking, or about to leave that
    bool yielding = false;
    bool trimmed = false;                     // or asked to be, since its last lease
    std::optional<TimePoint> trimming_since;  // asked and not answered
  };

  static bool in_memory(const Model& model);
  static bool waits(const Model& model);  // for its turn
  void become_ready(Model& model, TimePoint now);
  bool may_go(Key key, bool even_busy) const;
  bool may_trim(const Memory& memory, Key key) const;
  bool awaits_trim(Key key, TimePoint now) const;
  std::optional<Key> first_in_line() const;
  bool before(Key a, Key b) const;
  Decision decide_grant() const;
  Decision begin_unload(Key key, UnloadReason reason);
  // Sleep, or the sleeper that has to leave first, or unload.
  Decision begin_going(const Memory& memory, Key key, UnloadReason reason);
  // Who has to leave so that `key` can sleep; none: it cannot.
  std::optional<std::vector<Key>> sleeps(const Memory& memory, Key key, UnloadReason reason) const;
  std::vector<Key> sleepers_by_use() const;  // that may be made to leave, the one used least recently first
  Decision decide_host_room(const Memory& memory);
  Duration return_time(const Memory& memory, Key key) const;  // until it would be back
  Decision decide_unload(const Memory& memory, TimePoint now);
  Decision decide_load(const Memory& memory, TimePoint now);
  Decision decide_room(const Memory& memory, TimePoint now);
  // Bytes that are free once all of `gone` have left, shared ones included.
  static size_t freed_by(const Memory& memory, const std::vector<Key>& gone);
  // The first stage of making room: whom to trim, or none while an answer is awaited. nullopt: it is over.
  std::optional<Decision> decide_trim(const Memory& memory, TimePoint now);
  // The cheapest models whose going frees `bytes` and, when `slot` is set, a place among max_models; none: impossible.
  std::optional<std::vector<Key>> choose(const Memory& memory, size_t bytes, bool slot, Key except, bool even_busy,
                                         TimePoint now) const;
  void stop_yielding();

  const Limits limits_;
  std::vector<Model> models_;
  std::vector<Key> free_keys_;
  uint64_t next_arrival_ = 1;
  size_t wanted_room_ = 0;
  size_t wanted_host_room_ = 0;
};

}  // namespace inferneo
