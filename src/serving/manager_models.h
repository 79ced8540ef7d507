// What Traffic asks of the models, answered by the model manager.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "manager/manager_core.h"
#include "serving/traffic.h"

namespace inferneo {

class ManagerModels final : public TrafficModels {
 public:
  struct Limits {  // of one model
    int32_t max_num_seqs = 1;
    int32_t max_queue_requests = 1;
  };
  ManagerModels(ManagerCore& manager, const Limits& limits) : manager_(manager), limits_(limits) {}

  std::optional<std::string> resolve(std::string_view name) const override;
  std::optional<std::string> alias_target(std::string_view name) const override;
  std::vector<std::string> names() const override;
  ChainLink link(std::string_view name) const override;
  CandidateView candidate(std::string_view name) const override;
  bool loaded(std::string_view name) const override;
  Status check_variant(const ModelVariant& variant) const override { return manager_.check_variant(variant); }
  void set_variants(std::vector<ModelVariant> variants) override { manager_.set_variants(std::move(variants)); }

  // Share of the model's places in use, above 1 when requests wait; none: there is no such model.
  std::optional<double> load(std::string_view name) const;
  // Into memory, if nothing has to go for it; returns when that is known, after a look at the model's files.
  void load_if_there_is_room(const std::string& name);
  // Time to the first token of a request that `id` (name:version) answered: remembered as a moving average, for
  // lowest_latency, which knows nothing of arms' engines. Thread-safe.
  void note_latency(const std::string& id, double seconds);

 private:
  ManagerCore& manager_;
  const Limits limits_;
  mutable std::mutex mutex_;
  std::map<std::string, double> latency_;  // by name:version; bounded by the registered models
};

}  // namespace inferneo
