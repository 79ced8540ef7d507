// Rules, A/B tests and shadows in the registry, in the words of the admin API.
#pragma once

#include "manager/registry.h"
#include "serving/traffic_store.h"

namespace inferneo {

class RegistryTrafficStore final : public TrafficStore {
 public:
  explicit RegistryTrafficStore(Registry& registry) : registry_(registry) {}

  Result<KeptTraffic> load() const override;
  Status write(const TrafficEdit& edit) override;

 private:
  Registry& registry_;
};

}  // namespace inferneo
