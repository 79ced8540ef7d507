// The shadows of a server: which originals are copied to whom, changes of that, and what came of it. docs/shadow.md.
//
// In front of the service that answers: tap() is asked for each original, and gives back the sink that the service is
// to use. Without shadows that is the caller's own. With one, the original passes through untouched while its events
// are noted; once the engine has accepted it, copies are offered to the shadows that want it, on the text thread that
// has done its part by then. So an original never waits for a copy.
//
// Thread-safe. Changes wait for each other; tap() waits for nothing. stop() before the service's engines end; what it
// is made of outlives it and its copies.
#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/snapshot_holder.h"
#include "manager/registry_records.h"
#include "serving/shadow.h"
#include "serving/traffic_store.h"

namespace inferneo {

class ShadowBook {
 public:
  // `store`: null, and what is added is forgotten at the end. It outlives this.
  explicit ShadowBook(Shadow::Host host, TrafficStore* store = nullptr);
  ~ShadowBook();  // stop()
  ShadowBook(const ShadowBook&) = delete;
  ShadowBook& operator=(const ShadowBook&) = delete;

  struct View {
    ShadowConfig config;
    RecordOrigin origin = RecordOrigin::api;
    size_t in_hand = 0;  // copies that wait or are under way
    std::shared_ptr<const ShadowResults> results;
  };
  // Once, before the first request: what the configuration file says, and what the store has. already_exists: a name is
  // in both; and what the file's own entries get wrong.
  Status begin(std::vector<ShadowConfig> configured);
  // Errors: invalid_argument with the field; not_found: no such model or shadow; already_exists; conflict: one of the
  // configuration file's; the store's. A change is written before it happens.
  Status add(ShadowConfig config);
  // Of that name. Results stay where the two models do.
  Status replace(ShadowConfig config);
  Status remove(const std::string& name);
  std::vector<View> list() const;  // the oldest first
  std::optional<View> find(std::string_view name) const;

  bool has_any() const { return !holder_.current()->empty(); }
  std::shared_ptr<OutputSink> tap(GenerateRequest& request, std::shared_ptr<OutputSink> sink) const;
  void yield_room() const;  // see Shadow
  void resume() const;
  void stop();  // every copy is dropped, and no more are made
  void collect(std::vector<MetricSample>& out) const;

 private:
  struct Entry {
    std::shared_ptr<Shadow> shadow;
    RecordOrigin origin = RecordOrigin::api;
  };
  using Entries = std::vector<Entry>;
  static View view_of(const Entry& entry);
  Status check(const ShadowConfig& config) const;
  Status put(ShadowConfig config, RecordOrigin origin, const TrafficEdit& edit);
  Status write(const TrafficEdit& edit) { return store_ == nullptr ? ok_status() : store_->write(edit); }

  const Shadow::Host host_;
  TrafficStore* const store_;
  std::mutex changes_;
  bool stopped_ = false;  // guarded by changes_
  SnapshotHolder<Entries> holder_;
};

Status check_shadow(const ShadowConfig& config);  // what can be said without knowing the models

}  // namespace inferneo
