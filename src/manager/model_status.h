// What the manager tells about one registered version of a model.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "manager/life_cycle.h"
#include "manager/loaded_model.h"
#include "manager/model_loader.h"
#include "manager/registry_records.h"
#include "manager/residency.h"

namespace inferneo {

struct ModelStatus {
  ModelRecord record;
  std::string id;                         // record.id.text(): its name in the ledger
  std::string shown;                      // how answers name it
  std::string variant_of = {};            // the id of the model that it is one more of, for an A/B test; else empty
  std::vector<std::string> pending = {};  // settings that have changed since it was loaded: its next load has them
  bool active = false;                    // what its bare name means
  bool removing = false;                  // no longer registered; its last requests are under way
  std::vector<std::string> aliases = {};  // that mean this version
  ModelState state = ModelState::unloaded;
  // With failed, and with sleeping when it could not be woken: in the loader's own words, for the operator.
  std::optional<Error> failure;
  int32_t leases = 0;
  size_t waiting = 0;                            // callers who wait for it
  size_t queue_place = 0;                        // 1: the next to be loaded; 0: not in the queue
  std::optional<LoadStage> progress = {};        // while it loads
  std::optional<Duration> idle = {};             // since its last lease ended; ready ones without a lease
  std::optional<Duration> keep_alive = {};       // in force; none: for ever
  std::optional<Duration> keep_alive_left = {};  // ready ones without a lease that will go
  Duration load_time{};                          // of its last load; 0: not loaded since the start
  Duration wake_time{};                          // of its last wake; 0: it has not slept since the start
  uint64_t loads = 0;                            // that succeeded since the start
  uint64_t misses = 0;  // acquires that found it neither in memory, nor loading, nor waited for: each leads to a load
  std::array<uint64_t, kNumUnloadReasons> unloads{};  // by UnloadReason
  LifeCycle life;                                     // what came of them
  size_t memory_bytes = 0;                            // in the ledger
  size_t sleep_bytes = 0;                             // of the host's memory, while it sleeps
  int64_t last_used = 0;                              // seconds since the epoch; 0: never
  EngineStats stats;                                  // of the engines that it had, the present one included
  // A look at the model while it is in memory, which neither counts as a use nor keeps it there. Let go of it soon.
  std::shared_ptr<LoadedModel> model;
};

// What somebody who waits for a model may be told.
struct LoadOutlook {
  std::string model;                  // name:version
  bool loading = false;               // else it waits for its turn
  size_t place = 0;                   // 1: the next to be loaded
  std::optional<Duration> left = {};  // from measured load times; none: nothing to go by
  std::optional<LoadStage> progress = {};
};

}  // namespace inferneo
