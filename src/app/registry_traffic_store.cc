#include "app/registry_traffic_store.h"

#include <fmt/format.h>

#include <utility>

#include "server/admin/traffic_definition.h"

namespace inferneo {
namespace {

// Part of the file's format.
constexpr std::string_view kRule = "rule";
constexpr std::string_view kRouting = "routing";
constexpr std::string_view kTest = "ab_test";
constexpr std::string_view kShadow = "shadow";
constexpr std::string_view kConfiguredTest = "configured_ab_test";  // kept for its progress and outcomes

std::string text(std::string_view view) { return std::string(view); }

std::string_view kind_of(const KeptTest& test) { return test.configured ? kConfiguredTest : kTest; }

Result<KeptTest> test_of(const TrafficRecord& record) {
  KeptTest test{.outcomes = record.outcomes, .created = record.created, .configured = record.kind == kConfiguredTest};
  ASSIGN_OR_RETURN(test.config, parse_test(record.definition));
  ASSIGN_OR_RETURN(test.progress, parse_progress(record.progress));
  return test;
}

Status add(const TrafficRecord& record, KeptTraffic& kept) {
  if (record.kind == kTest || record.kind == kConfiguredTest) {
    ASSIGN_OR_RETURN(KeptTest test, test_of(record));
    kept.tests.push_back(std::move(test));
    return ok_status();
  }
  if (record.kind == kShadow) {
    ASSIGN_OR_RETURN(ShadowConfig shadow, parse_shadow(record.definition));
    kept.shadows.push_back(std::move(shadow));
    return ok_status();
  }
  if (record.kind != kRule && record.kind != kRouting) {
    return make_error(ErrorCode::unsupported, "this program knows no such entry");
  }
  if (record.kind == kRouting) {
    ASSIGN_OR_RETURN(kept.routing, parse_routing(record.definition));
    return ok_status();
  }
  ASSIGN_OR_RETURN(RoutingRule rule, parse_rule(record.definition));
  rule.created = record.created;
  kept.rules.push_back(std::move(rule));
  return ok_status();
}

}  // namespace

Result<KeptTraffic> RegistryTrafficStore::load() const {
  ASSIGN_OR_RETURN(const std::vector<TrafficRecord> records, registry_.traffic());
  KeptTraffic kept;
  for (const TrafficRecord& record : records) {
    // A newer program may have written what this one cannot read; it is left where it is.
    if (const Status added = add(record, kept); !added.ok()) {
      kept.unreadable.push_back(fmt::format("the registry's entry '{}' ({}) is left out: {}", record.name, record.kind,
                                            added.error().message));
    }
  }
  return kept;
}

Status RegistryTrafficStore::write(const TrafficEdit& edit) {
  std::vector<TrafficRecord> put;
  std::vector<TrafficKey> erase;
  for (const RoutingRule& rule : edit.rules) {
    put.push_back({.kind = text(kRule), .name = rule.name, .definition = rule_text(rule), .created = rule.created});
  }
  for (const std::string& name : edit.removed_rules) erase.push_back({text(kRule), name});
  if (edit.routing) put.push_back({.kind = text(kRouting), .name = "", .definition = routing_text(*edit.routing)});
  for (const KeptTest& test : edit.tests) {
    put.push_back({.kind = text(kind_of(test)),
                   .name = test.config.name,
                   .definition = test_text(test.config),
                   .progress = progress_text(test.progress),
                   .outcomes = test.outcomes,
                   .created = test.created});
  }
  for (const std::string& name : edit.removed_tests) {
    erase.push_back({text(kTest), name});
    erase.push_back({text(kConfiguredTest), name});
  }
  for (const ShadowConfig& shadow : edit.shadows) {
    put.push_back({.kind = text(kShadow), .name = shadow.name, .definition = shadow_text(shadow)});
  }
  for (const std::string& name : edit.removed_shadows) erase.push_back({text(kShadow), name});
  return registry_.change_traffic(put, erase);
}

}  // namespace inferneo
