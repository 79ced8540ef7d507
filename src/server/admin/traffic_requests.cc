#include "server/admin/traffic_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/ascii.h"
#include "server/admin/traffic_definition.h"
#include "server/json_object.h"

namespace inferneo {
namespace {

Result<Json> parse_body(std::string_view body) {
  if (body.empty()) return Json(Json::value_t::object);
  return parse_json_object(body);
}

// What explain() is told of a request.
struct ExplainedRequest {
  std::string prompt = {};
  std::string model = {};
  std::string user = {};
  std::string session = {};
  std::string key = {};
  std::string arm = {};
  std::map<std::string, std::string> headers = {};
  int max_tokens = 0;
  bool stream = false;
  bool has_tools = false;
};

constexpr std::array kExplained = {
    json_field<&ExplainedRequest::prompt>("prompt"),   json_field<&ExplainedRequest::model>("model"),
    json_field<&ExplainedRequest::user>("user"),       json_field<&ExplainedRequest::session>("session"),
    json_field<&ExplainedRequest::key>("key"),         json_field<&ExplainedRequest::arm>("arm"),
    json_field<&ExplainedRequest::headers>("headers"), json_field<&ExplainedRequest::max_tokens>("max_tokens"),
    json_field<&ExplainedRequest::stream>("stream"),   json_field<&ExplainedRequest::has_tools>("has_tools"),
};

// A message's text; of a list of parts, theirs.
std::string text_of(const Json& message) {
  const auto content = message.find("content");
  if (content == message.end()) return {};
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  if (!content->is_array()) return text;
  for (const Json& part : *content) {
    if (part.is_object() && part.contains("text") && part["text"].is_string()) text += part["text"].get<std::string>();
  }
  return text;
}

Status read_messages(const Json& messages, RequestTraits& traits) {
  if (!messages.is_array() || messages.empty() || messages.size() > kMaxJsonItems) {
    return field_error("messages", fmt::format("must be a list of 1 to {} messages", kMaxJsonItems));
  }
  traits.turns = 0;
  for (const Json& message : messages) {
    if (!message.is_object()) return field_error("messages", "must hold objects with a role and a content");
    std::string text = text_of(message);
    const auto role = message.find("role");
    if (role != message.end() && *role == "user") {
      ++traits.turns;
      traits.prompt = text;
    }
    traits.conversation.push_back(std::move(text));
  }
  return ok_status();
}

}  // namespace

Result<RoutingRule> read_rule_request(std::string_view body, std::string_view name) {
  ASSIGN_OR_RETURN(const Json json, parse_body(body));
  ASSIGN_OR_RETURN(RoutingRule rule, read_rule(json));
  if (!name.empty() && rule.name.empty()) rule.name = name;
  if (!name.empty() && rule.name != name) {
    return field_error("name", fmt::format("is that of the address, '{}', or absent", name.substr(0, 128)));
  }
  return rule;
}

Result<RoutingConfig> read_routing_request(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, parse_body(body));
  return read_routing(json);
}

Result<TestRequest> read_test_request(std::string_view body) {
  TestRequest request;
  ASSIGN_OR_RETURN(Json json, parse_body(body));
  if (const auto start = json.find("start"); start != json.end()) {
    RETURN_IF_ERROR(read_value(*start, "start", request.start));
    json.erase("start");
  }
  ASSIGN_OR_RETURN(request.config, read_test(json));
  return request;
}

Result<std::string> read_arm_request(std::string_view body) {
  struct Wanted {
    std::string arm;
  } wanted;
  constexpr std::array kFields = {json_field<&Wanted::arm>("arm")};
  ASSIGN_OR_RETURN(const Json json, parse_body(body));
  RETURN_IF_ERROR(read_object(json, "", kFields, wanted));
  if (wanted.arm.empty()) return field_error("arm", "is required: the name of the arm that gets everything");
  return wanted.arm;
}

Result<GenerateRequest> read_explain_request(std::string_view body) {
  ASSIGN_OR_RETURN(Json json, parse_body(body));
  GenerateRequest request;
  const auto messages = json.find("messages");
  const bool chat = messages != json.end() && !messages->is_null();
  if (chat && json.contains("prompt")) return field_error("messages", "and 'prompt' exclude each other");
  if (chat) RETURN_IF_ERROR(read_messages(*messages, request.traits));
  json.erase("messages");
  ExplainedRequest explained;
  RETURN_IF_ERROR(read_object(json, "", kExplained, explained));
  request.prompt = std::move(explained.prompt);
  request.model = std::move(explained.model);
  request.user = std::move(explained.user);
  request.sampling.max_tokens = explained.max_tokens;
  request.traits.session = std::move(explained.session);
  request.traits.key = std::move(explained.key);
  request.traits.forced_arm = std::move(explained.arm);
  request.traits.stream = explained.stream;
  request.traits.has_tools = explained.has_tools;
  for (const auto& [name, value] : explained.headers) request.traits.headers.emplace_back(lower_case(name), value);
  return request;
}

}  // namespace inferneo
