// Routing rules, A/B tests and shadows that were given before there was anything to check their models against: before
// the engine was started, or before the models were registered. Each is kept until what it names is there.
//
// Thread-safe.
#pragma once

#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "base/result.h"
#include "inferneo/experiments.h"
#include "inferneo/routing.h"
#include "inferneo/shadow.h"
#include "serving/shadow_book.h"
#include "serving/traffic.h"

namespace inferneo {

class PendingTraffic {
 public:
  using Entry = std::variant<RoutingRule, ABTestConfig, ShadowConfig>;

  // Keeps it. invalid_argument: what can be said without knowing the models; already_exists: a name twice.
  Status add(Entry entry);
  // Adds what can be added by now, in the order in which it came, and keeps what names things that are not there. The
  // first other error is returned; its entry is dropped.
  Status apply(Traffic& traffic, ShadowBook& shadows);
  // All that wait, and putting them back after an engine that took them could not be started.
  std::vector<Entry> entries() const;
  void restore(std::vector<Entry> entries);
  // OK when nothing is left, else why the oldest could not be added.
  Status status() const;

 private:
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  Status missing_ = ok_status();  // why the oldest waits
};

}  // namespace inferneo
