// The admin API's answers about rules, A/B tests and routes.
#pragma once

#include <optional>
#include <string>

#include "manager/model_plan.h"
#include "server/json_writer.h"
#include "serving/traffic.h"

namespace inferneo {

void write_rule(JsonWriter& json, const Traffic::Snapshot& traffic, size_t index);
std::string routing_json(const Traffic::Snapshot& traffic);

// With all that has come of it, or the sentence alone.
enum class TestDetail : uint8_t { sentence, results };
void write_test(JsonWriter& json, const TestInForce& test, TestDetail detail, TimePoint now);

// `plan`: of loading the model that would answer; none: there is nothing to load.
std::string explanation_json(const RouteExplanation& explanation, const std::optional<ModelPlan>& plan);

}  // namespace inferneo
