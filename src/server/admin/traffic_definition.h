// Rules, A/B tests, shadows and routing options as JSON objects: what the admin API takes, and what the registry keeps.
// The names of the fields are those of the configuration file (docs/routing.md, docs/experiments.md, docs/shadow.md).
//
// Reading checks shapes; what the values mean is Traffic's to check. Errors: invalid_argument with the field as
// `param`.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "experiments/experiment.h"
#include "inferneo/config.h"
#include "server/json.h"
#include "server/json_writer.h"

namespace inferneo {

// The fields alone, within an object that the caller opens and closes.
void write_rule_fields(JsonWriter& json, const RoutingRule& rule);  // without its creation
void write_routing_fields(JsonWriter& json, const RoutingConfig& routing);
void write_test_fields(JsonWriter& json, const ABTestConfig& config);
void write_arm_fields(JsonWriter& json, const ABTestArm& arm);
void write_shadow_fields(JsonWriter& json, const ShadowConfig& config);

Result<RoutingRule> read_rule(const Json& json);
Result<RoutingConfig> read_routing(const Json& json);
Result<ABTestConfig> read_test(const Json& json);
Result<ShadowConfig> read_shadow(const Json& json);

// As documents of their own.
std::string rule_text(const RoutingRule& rule);
std::string routing_text(const RoutingConfig& routing);
std::string test_text(const ABTestConfig& config);
std::string shadow_text(const ShadowConfig& config);
std::string progress_text(const ExperimentProgress& progress);
Result<RoutingRule> parse_rule(std::string_view text);
Result<RoutingConfig> parse_routing(std::string_view text);
Result<ABTestConfig> parse_test(std::string_view text);
Result<ShadowConfig> parse_shadow(std::string_view text);
Result<ExperimentProgress> parse_progress(std::string_view text);

}  // namespace inferneo
