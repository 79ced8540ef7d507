// From the bodies of the admin API's routes about rules and A/B tests to native types. Strict, as model_requests.h.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "inferneo/config.h"
#include "serving/inference_service.h"

namespace inferneo {

// `name`: of the path; the body may repeat it and name no other. Empty: the body has it.
Result<RoutingRule> read_rule_request(std::string_view body, std::string_view name);
Result<RoutingConfig> read_routing_request(std::string_view body);

struct TestRequest {
  ABTestConfig config;
  bool start = true;
};
Result<TestRequest> read_test_request(std::string_view body);
Result<std::string> read_arm_request(std::string_view body);  // {"arm": "B"}

// A request as far as routing looks at one: `prompt`, or `messages` with their texts.
Result<GenerateRequest> read_explain_request(std::string_view body);

}  // namespace inferneo
