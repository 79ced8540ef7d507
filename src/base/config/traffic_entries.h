// The keys `routing_rules`, `routing`, `ab_tests` and `shadow` of a configuration file (docs/routing.md,
// docs/experiments.md, docs/shadow.md).
//
// Here a value has the right shape; whether a condition can be parsed, and whether a target exists, is said when the
// models are known. Errors: invalid_argument with the position.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "inferneo/config.h"

namespace YAML {
class Node;
}

namespace inferneo {

Result<std::vector<RoutingRule>> parse_routing_rules(const YAML::Node& node, const std::string& file);
Result<RoutingConfig> parse_routing_config(const YAML::Node& node, const std::string& file);
Result<std::vector<ABTestConfig>> parse_ab_tests(const YAML::Node& node, const std::string& file);
Result<std::vector<ShadowConfig>> parse_shadows(const YAML::Node& node, const std::string& file);

}  // namespace inferneo
