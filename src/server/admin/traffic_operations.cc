#include "server/admin/traffic_operations.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/admin/model_requests.h"
#include "server/admin/traffic_json.h"
#include "server/admin/traffic_requests.h"

namespace inferneo {
namespace {

using Answer = Result<TrafficAnswer>;

TrafficAnswer removed(std::string_view name) {
  JsonWriter json;
  json.begin_object().field("name", name).field("removed", true).end_object();
  return {json.take()};
}

// ---- rules

Answer answer_rule(const TrafficDesk& desk, const std::string& name, int status = 200) {
  const auto traffic = desk.traffic.snapshot();
  const std::optional<size_t> index = traffic->find_rule(name);
  if (!index) return make_error(ErrorCode::not_found, "there is no routing rule '" + name.substr(0, 128) + "'", "name");
  JsonWriter json;
  write_rule(json, *traffic, *index);
  return TrafficAnswer{json.take(), status};
}

Answer list_rules(const TrafficDesk& desk, const std::string&, const std::string&) {
  const auto traffic = desk.traffic.snapshot();
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (size_t i = 0; i < traffic->rules->size(); ++i) write_rule(json, *traffic, i);
  json.end_array().end_object();
  return TrafficAnswer{json.take()};
}

Answer show_rule(const TrafficDesk& desk, const std::string& id, const std::string&) { return answer_rule(desk, id); }

Answer add_rule(const TrafficDesk& desk, const std::string&, const std::string& body) {
  ASSIGN_OR_RETURN(const RoutingRule rule, read_rule_request(body, ""));
  RETURN_IF_ERROR(desk.traffic.add_rule(rule));
  return answer_rule(desk, rule.name, 201);
}

Answer replace_rule(const TrafficDesk& desk, const std::string& id, const std::string& body) {
  ASSIGN_OR_RETURN(RoutingRule rule, read_rule_request(body, id));
  RETURN_IF_ERROR(desk.traffic.replace_rule(std::move(rule)));
  return answer_rule(desk, id);
}

Answer remove_rule(const TrafficDesk& desk, const std::string& id, const std::string& body) {
  RETURN_IF_ERROR(read_nothing(body));
  RETURN_IF_ERROR(desk.traffic.remove_rule(id));
  return removed(id);
}

Answer show_routing(const TrafficDesk& desk, const std::string&, const std::string&) {
  return TrafficAnswer{routing_json(*desk.traffic.snapshot())};
}

Answer set_routing(const TrafficDesk& desk, const std::string& id, const std::string& body) {
  ASSIGN_OR_RETURN(RoutingConfig routing, read_routing_request(body));
  RETURN_IF_ERROR(desk.traffic.set_routing(std::move(routing)));
  return show_routing(desk, id, body);
}

// ---- A/B tests

Answer answer_test(const TrafficDesk& desk, const std::string& name, int status = 200) {
  const auto traffic = desk.traffic.snapshot();
  const TestInForce* const test = traffic->find_test(name);
  if (test == nullptr) {
    return make_error(ErrorCode::not_found, "there is no A/B test '" + name.substr(0, 128) + "'", "name");
  }
  JsonWriter json;
  write_test(json, *test, TestDetail::results, desk.clock.now());
  return TrafficAnswer{json.take(), status};
}

Answer list_tests(const TrafficDesk& desk, const std::string&, const std::string&) {
  const auto traffic = desk.traffic.snapshot();
  JsonWriter json;
  json.begin_object().field("object", "list").key("data").begin_array();
  for (const auto& test : traffic->tests) write_test(json, *test, TestDetail::sentence, desk.clock.now());
  json.end_array().end_object();
  return TrafficAnswer{json.take()};
}

Answer show_test(const TrafficDesk& desk, const std::string& id, const std::string&) { return answer_test(desk, id); }

Answer add_test(const TrafficDesk& desk, const std::string&, const std::string& body) {
  ASSIGN_OR_RETURN(const TestRequest request, read_test_request(body));
  RETURN_IF_ERROR(desk.traffic.add_test(request.config, request.start));
  return answer_test(desk, request.config.name, 201);
}

Answer remove_test(const TrafficDesk& desk, const std::string& id, const std::string& body) {
  RETURN_IF_ERROR(read_nothing(body));
  RETURN_IF_ERROR(desk.traffic.remove_test(id));
  return removed(id);
}

template <Status (Traffic::*Change)(const std::string&)>
Answer change_test(const TrafficDesk& desk, const std::string& id, const std::string& body) {
  RETURN_IF_ERROR(read_nothing(body));
  RETURN_IF_ERROR((desk.traffic.*Change)(id));
  return answer_test(desk, id);
}

Answer promote(const TrafficDesk& desk, const std::string& id, const std::string& body) {
  ASSIGN_OR_RETURN(const std::string arm, read_arm_request(body));
  RETURN_IF_ERROR(desk.traffic.promote(id, arm));
  return answer_test(desk, id);
}

// ---- what would become of a request

Answer explain(const TrafficDesk& desk, const std::string&, const std::string& body) {
  if (desk.routed == nullptr || desk.manager == nullptr) {
    return make_error(ErrorCode::unavailable, "only a running server can say what would become of a request");
  }
  ASSIGN_OR_RETURN(const GenerateRequest request, read_explain_request(body));
  const RouteExplanation explanation = desk.routed->explain(request);
  std::optional<ModelPlan> plan;
  if (!explanation.route.refusal && !explanation.route.model.empty()) {
    // A model that is gone has no plan: the route names it.
    Result<ModelPlan> found = desk.manager->plan({{.id = explanation.route.model}});
    if (found.ok()) plan = std::move(*found);
  }
  return TrafficAnswer{explanation_json(explanation, plan)};
}

constexpr std::array kOperations = {
    TrafficOperation{Method::get, "/admin/routing-rules", list_rules},
    TrafficOperation{Method::post, "/admin/routing-rules", add_rule},
    TrafficOperation{Method::get, "/admin/routing-rules/{id}", show_rule},
    TrafficOperation{Method::put, "/admin/routing-rules/{id}", replace_rule},
    TrafficOperation{Method::del, "/admin/routing-rules/{id}", remove_rule},
    TrafficOperation{Method::get, "/admin/routing", show_routing},
    TrafficOperation{Method::put, "/admin/routing", set_routing},
    TrafficOperation{Method::get, "/admin/ab-tests", list_tests},
    TrafficOperation{Method::post, "/admin/ab-tests", add_test},
    TrafficOperation{Method::get, "/admin/ab-tests/{id}", show_test},
    TrafficOperation{Method::del, "/admin/ab-tests/{id}", remove_test},
    TrafficOperation{Method::post, "/admin/ab-tests/{id}/start", change_test<&Traffic::start_test>},
    TrafficOperation{Method::post, "/admin/ab-tests/{id}/pause", change_test<&Traffic::pause_test>},
    TrafficOperation{Method::post, "/admin/ab-tests/{id}/stop", change_test<&Traffic::stop_test>},
    TrafficOperation{Method::post, "/admin/ab-tests/{id}/promote", promote},
    TrafficOperation{Method::post, "/admin/explain", explain},
};

}  // namespace

std::span<const TrafficOperation> traffic_operations() { return kOperations; }

const TrafficOperation* find_traffic_operation(Method method, std::string_view path) {
  const auto found = std::ranges::find_if(
      kOperations, [&](const TrafficOperation& row) { return row.method == method && row.path == path; });
  return found == kOperations.end() ? nullptr : &*found;
}

}  // namespace inferneo
