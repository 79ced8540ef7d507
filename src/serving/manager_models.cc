#include "serving/manager_models.h"

#include <algorithm>
#include <cstdint>

namespace inferneo {
namespace {

constexpr double kLatencyWeight = 0.1;  // of the newest: about the last ten requests count

double share_in_use(const ModelStatus& status, const ManagerModels::Limits& limits) {
  const auto busy =
      static_cast<double>(status.stats.running + status.stats.waiting) + static_cast<double>(status.waiting);
  return busy / limits.max_num_seqs;
}

}  // namespace

std::optional<std::string> ManagerModels::resolve(std::string_view name) const {
  const auto ids = manager_.catalog()->resolve(name);
  if (!ids.ok()) return std::nullopt;
  return ids->front().text();
}

std::optional<std::string> ManagerModels::alias_target(std::string_view name) const {
  const std::shared_ptr<const Catalog> catalog = manager_.catalog();
  const std::vector<AliasRecord>& aliases = catalog->snapshot().aliases;
  const auto found = std::ranges::find(aliases, name, &AliasRecord::alias);
  if (found == aliases.end()) return std::nullopt;
  return found->target();
}

std::vector<std::string> ManagerModels::names() const {
  const std::shared_ptr<const Catalog> catalog = manager_.catalog();
  std::vector<std::string> names;
  for (const NameRecord& name : catalog->snapshot().names) names.push_back(name.name);
  for (const AliasRecord& alias : catalog->snapshot().aliases) names.push_back(alias.alias);
  return names;
}

ChainLink ManagerModels::link(std::string_view name) const {
  const auto status = manager_.status(std::string(name));
  if (!status.ok()) return {.failed = true};
  ChainLink link;
  link.failed = status->state == ModelState::failed;
  link.queue_depth = status->stats.waiting + static_cast<int64_t>(status->waiting);
  link.overloaded = link.queue_depth >= limits_.max_queue_requests;
  return link;
}

CandidateView ManagerModels::candidate(std::string_view name) const {
  const auto status = manager_.status(std::string(name));
  if (!status.ok()) return {.available = false};
  CandidateView view;
  view.load = share_in_use(*status, limits_);
  view.available = status->state != ModelState::failed && !status->removing;
  const std::lock_guard lock(mutex_);
  if (const auto found = latency_.find(status->id); found != latency_.end()) view.latency = found->second;
  return view;
}

std::optional<double> ManagerModels::load(std::string_view name) const {
  const auto status = manager_.status(std::string(name));
  if (!status.ok()) return std::nullopt;
  return share_in_use(*status, limits_);
}

bool ManagerModels::loaded(std::string_view name) const {
  const auto status = manager_.status(std::string(name));
  return status.ok() && status->state == ModelState::ready;
}

void ManagerModels::load_if_there_is_room(const std::string& name) {
  const auto plan = manager_.plan({{.id = name}});
  if (!plan.ok() || !plan->fits || !plan->evicted.empty()) return;
  manager_.acquire(name, [](const Result<ModelLease>&) {}, {.priority = INT32_MAX});
}

void ManagerModels::note_latency(const std::string& id, double seconds) {
  if (names_variant(id)) return;
  const std::lock_guard lock(mutex_);
  const auto [entry, is_new] = latency_.try_emplace(id, seconds);
  if (!is_new) entry->second += kLatencyWeight * (seconds - entry->second);
}

}  // namespace inferneo
