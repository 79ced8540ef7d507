// inferneo route: the rules that say which model a request gets.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <utility>

#include "cli/commands.h"
#include "cli/traffic_desk.h"
#include "cli/traffic_text.h"

namespace inferneo {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kRules = "/admin/routing-rules";
constexpr std::string_view kRule = "/admin/routing-rules/{id}";

constexpr std::array kRouteOptions = {
    CommandOption{"--priority", "N", "add: higher is asked earlier [0]"},
    CommandOption{"--test", "NAME", "add: into this A/B test, instead of MODEL"},
    CommandOption{"--fallback", "MODEL", "add: what follows MODEL when it cannot serve; may be repeated", true},
    CommandOption{"--refuse", "TEXT", "add: no model, but this answer"},
    CommandOption{"--status", "N", "add: HTTP status of --refuse [403]"},
    CommandOption{"--all", "", "add: also for requests that name a model"},
    CommandOption{"--model", "NAME", "explain: the model that is asked for"},
    CommandOption{"--user", "NAME", "explain: the user"},
    CommandOption{"--header", "NAME=VALUE", "explain: an HTTP header; may be repeated", true},
    kJsonOption,
    kUrlOption,
};

Result<int> whole_number(std::string_view flag, const std::string& text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("{}: expected a whole number, got '{}'", flag, text.substr(0, 40)));
}

Result<int> list(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::get, kRules));
  if (!command.json() && answer.json.value("data", Json::array()).empty()) {
    command.context.terminal.note(fmt::format(
        "no routing rule with {}; inferneo route add NAME CONDITION MODEL adds one\n", command.admin->where()));
    return kExitDone;
  }
  return show_answer(command, answer, rules_text(answer.json, table_width(command.context)));
}

Result<Json> rule_of(const ModelCommand& command) {
  const Invocation& invocation = command.invocation;
  const auto& words = invocation.positionals;
  Json rule = {{"name", words[1]}, {"condition", words[2]}};
  const auto test = invocation.last("--test");
  const auto refuse = invocation.last("--refuse");
  const auto followers = invocation.options.find("--fallback");
  if ((words.size() > 3) + test.has_value() + refuse.has_value() != 1) {
    return make_error(ErrorCode::invalid_argument,
                      "route add: give a MODEL, --test or --refuse, and one of them alone");
  }
  if (followers != invocation.options.end()) {
    if (words.size() < 4) return make_error(ErrorCode::invalid_argument, "--fallback: what follows which MODEL?");
    rule["models"] = Json::array({words[3]});
    for (const std::string& model : followers->second) rule["models"].push_back(model);
  } else if (words.size() > 3) {
    rule["model_name"] = words[3];
  }
  if (test) rule["ab_test"] = *test;
  if (refuse) {
    rule["refusal"] = {{"message", *refuse}};
    if (const auto status = invocation.last("--status")) {
      ASSIGN_OR_RETURN(rule["refusal"]["status"], whole_number("--status", *status));
    }
  }
  if (const auto priority = invocation.last("--priority")) {
    ASSIGN_OR_RETURN(rule["priority"], whole_number("--priority", *priority));
  }
  if (invocation.has("--all")) rule["applies_to"] = "all";
  return rule;
}

Result<int> add(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const Json rule, rule_of(command));
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::post, kRules, {}, rule));
  return show_answer(command, answer, rule_text_of(answer.json));
}

Result<int> show_one(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::get, kRule, command.argument(1)));
  return show_answer(command, answer, rule_text_of(answer.json));
}

Result<int> remove(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::del, kRule, command.argument(1)));
  return command.tell(answer, fmt::format("removed the rule {}", command.argument(1)));
}

Result<int> enable(const ModelCommand& command, bool enabled) {
  ASSIGN_OR_RETURN(const AdminAnswer before, ask_traffic(command, Method::get, kRule, command.argument(1)));
  Json rule = before.json;
  for (const char* field : {"object", "created", "source", "hits"}) rule.erase(field);
  rule["enabled"] = enabled;
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::put, kRule, command.argument(1), rule));
  return command.tell(answer, fmt::format("the rule {} is {}", command.argument(1), enabled ? "on" : "off"));
}

Result<int> show_options(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::get, "/admin/routing"));
  return show_answer(command, answer, routing_text_of(answer.json));
}

Result<int> explain(const ModelCommand& command) {
  RETURN_IF_ERROR(command.server());
  const Invocation& invocation = command.invocation;
  Json request = {{"prompt", invocation.positionals[1]}};
  if (const auto model = invocation.last("--model")) request["model"] = *model;
  if (const auto user = invocation.last("--user")) request["user"] = *user;
  if (const auto headers = invocation.options.find("--header"); headers != invocation.options.end()) {
    for (const std::string& header : headers->second) {
      const size_t equals = header.find('=');
      if (equals == std::string::npos || equals == 0) {
        return make_error(ErrorCode::invalid_argument, "--header: expected NAME=VALUE");
      }
      request["headers"][header.substr(0, equals)] = header.substr(equals + 1);
    }
  }
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::post, "/admin/explain", {}, request));
  return show_answer(command, answer, explanation_text(answer.json));
}

constexpr std::array kVerbs = {
    TrafficVerb{"list", 1, list},
    TrafficVerb{"add", 3, add},
    TrafficVerb{"show", 2, show_one},
    TrafficVerb{"rm", 2, remove},
    TrafficVerb{"on", 2, [](const ModelCommand& command) { return enable(command, true); }},
    TrafficVerb{"off", 2, [](const ModelCommand& command) { return enable(command, false); }},
    TrafficVerb{"options", 1, show_options},
    TrafficVerb{"explain", 2, explain},
};

}  // namespace

std::span<const CommandOption> route_options() { return kRouteOptions; }

int run_route(const Invocation& invocation, CommandContext& context) {
  return run_traffic_verb("route", kVerbs, invocation, context);
}

}  // namespace inferneo
