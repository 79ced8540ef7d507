#include "app/pending_traffic.h"

#include <fmt/format.h>

#include <utility>

#include "experiments/definition.h"
#include "routing/condition.h"
#include "routing/rule_check.h"

namespace inferneo {
namespace {

Status check_entry(const RoutingRule& rule) {
  RETURN_IF_ERROR(check_rule(rule));
  if (const auto condition = Condition::parse(rule.condition); !condition.ok()) return condition.error();
  return ok_status();
}
Status check_entry(const ABTestConfig& test) {
  if (const auto definition = define_experiment(test); !definition.ok()) return definition.error();
  return ok_status();
}
Status check_entry(const ShadowConfig& shadow) { return check_shadow(shadow); }

const std::string& name_of(const PendingTraffic::Entry& entry) {
  return std::visit([](const auto& value) -> const std::string& { return value.name; }, entry);
}

Status put(const PendingTraffic::Entry& entry, Traffic& traffic, ShadowBook& shadows) {
  if (const auto* rule = std::get_if<RoutingRule>(&entry)) return traffic.add_rule(*rule);
  if (const auto* test = std::get_if<ABTestConfig>(&entry)) return traffic.add_test(*test, true);
  return shadows.add(std::get<ShadowConfig>(entry));
}

}  // namespace

Status PendingTraffic::add(Entry entry) {
  RETURN_IF_ERROR(std::visit([](const auto& value) { return check_entry(value); }, entry));
  const std::lock_guard lock(mutex_);
  for (const Entry& other : entries_) {
    if (other.index() == entry.index() && name_of(other) == name_of(entry)) {
      return make_error(ErrorCode::already_exists, fmt::format("'{}' has been added already", name_of(entry)), "name");
    }
  }
  entries_.push_back(std::move(entry));
  return ok_status();
}

Status PendingTraffic::apply(Traffic& traffic, ShadowBook& shadows) {
  const std::lock_guard lock(mutex_);
  // A rule may name a test that stands behind it: again, as long as anything moves.
  for (bool moved = true; moved && !entries_.empty();) {
    moved = false;
    missing_ = ok_status();
    std::vector<Entry> left;
    Status failed = ok_status();
    for (Entry& entry : entries_) {
      Status status = failed.ok() ? put(entry, traffic, shadows) : ok_status();
      if (!failed.ok()) {
        left.push_back(std::move(entry));
      } else if (status.ok()) {
        moved = true;
      } else if (status.error().code == ErrorCode::not_found) {
        if (missing_.ok()) missing_ = std::move(status);
        left.push_back(std::move(entry));
      } else {
        failed = std::move(status);
      }
    }
    entries_ = std::move(left);
    if (!failed.ok()) return failed;
  }
  if (entries_.empty()) missing_ = ok_status();
  return ok_status();
}

std::vector<PendingTraffic::Entry> PendingTraffic::entries() const {
  const std::lock_guard lock(mutex_);
  return entries_;
}

void PendingTraffic::restore(std::vector<Entry> entries) {
  const std::lock_guard lock(mutex_);
  entries_ = std::move(entries);
}

Status PendingTraffic::status() const {
  const std::lock_guard lock(mutex_);
  return missing_;
}

}  // namespace inferneo
