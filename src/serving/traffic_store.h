// Where rules, A/B tests and shadows are kept over restarts, as Traffic and ShadowBook see it.
//
// write() is one transaction: ok means that it survives a kill. Thread-safe; it may wait for a disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "experiments/experiment.h"
#include "inferneo/config.h"
#include "inferneo/experiments.h"
#include "inferneo/routing.h"
#include "inferneo/shadow.h"

namespace inferneo {

struct KeptTest {
  ABTestConfig config = {};
  ExperimentProgress progress = {};
  std::vector<std::byte> outcomes = {};  // ExperimentOutcomes::to_bytes()
  int64_t created = 0;                   // microseconds since 1970
  bool configured = false;               // by the configuration file, which has the say over its definition
};

struct KeptTraffic {
  std::vector<RoutingRule> rules = {};        // the oldest first
  std::optional<RoutingConfig> routing = {};  // none: as at the beginning
  std::vector<KeptTest> tests = {};           // the oldest first
  std::vector<ShadowConfig> shadows = {};     // by name
  std::vector<std::string> unreadable = {};   // sentences about entries that this program cannot read
};

struct TrafficEdit {
  std::vector<RoutingRule> rules = {};  // new ones, and those that are replaced
  std::vector<std::string> removed_rules = {};
  std::optional<RoutingConfig> routing = {};
  std::vector<KeptTest> tests = {};
  std::vector<std::string> removed_tests = {};
  std::vector<ShadowConfig> shadows = {};
  std::vector<std::string> removed_shadows = {};

  bool empty() const {
    return rules.empty() && removed_rules.empty() && !routing && tests.empty() && removed_tests.empty() &&
           shadows.empty() && removed_shadows.empty();
  }
};

class TrafficStore {
 public:
  virtual ~TrafficStore() = default;
  virtual Result<KeptTraffic> load() const = 0;
  virtual Status write(const TrafficEdit& edit) = 0;
};

}  // namespace inferneo
