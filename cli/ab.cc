// inferneo ab: A/B tests, and what has come of them.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <utility>

#include "cli/commands.h"
#include "cli/named_values.h"
#include "cli/traffic_desk.h"
#include "cli/traffic_text.h"

namespace inferneo {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kTests = "/admin/ab-tests";
constexpr std::string_view kTest = "/admin/ab-tests/{id}";

constexpr std::array kAbOptions = {
    CommandOption{"--split", "SHARE", "add: the share of arm B [0.5]"},
    kTemplateOption,
    CommandOption{"--system-prompt", "TEXT", "add: begins arm B's chats that have no system message"},
    CommandOption{"--setting", "NAME=VALUE", "add: of arm B's engine; may be repeated", true},
    CommandOption{"--sticky-by", "KEY", "add: user, session or request [user]"},
    CommandOption{"--metric", "NAME", "add: the one that decides [time_to_first_token]"},
    CommandOption{"--effect", "RATIO", "add: the smallest effect worth knowing [0.1]"},
    CommandOption{"--max-error-rate", "RATE", "add: an arm above it is stopped"},
    CommandOption{"--max-p95-ttft", "SEC", "add: the same, for the first token's 95th percentile"},
    CommandOption{"--draft", "", "add: do not start it yet"},
    kJsonOption,
    kUrlOption,
};

Result<double> number_of(std::string_view flag, const std::string& text) {
  double value = 0.0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size()) return value;
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("{}: expected a number, got '{}'", flag, text.substr(0, 40)));
}

int show_test(const ModelCommand& command, const AdminAnswer& answer) {
  return show_answer(command, answer, test_text_of(answer.json, table_width(command.context)));
}

Result<int> list(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::get, kTests));
  if (!command.json() && answer.json.value("data", Json::array()).empty()) {
    command.context.terminal.note(
        fmt::format("no A/B test with {}; inferneo ab add NAME MODEL_A MODEL_B adds one\n", command.admin->where()));
    return kExitDone;
  }
  return show_answer(command, answer, tests_text(answer.json, table_width(command.context)));
}

Status put_number(const Invocation& invocation, std::string_view flag, Json& into) {
  const auto given = invocation.last(flag);
  if (!given) return ok_status();
  ASSIGN_OR_RETURN(into, number_of(flag, *given));
  return ok_status();
}

// What arm B has besides a model; an empty object: nothing.
Result<Json> own_of_b(const ModelCommand& command) {
  Json own = Json::object();
  ASSIGN_OR_RETURN(const auto text, template_option(command.invocation, command.context.environment));
  if (text) own["prompt_template"] = *text;
  if (const auto prompt = command.invocation.last("--system-prompt")) own["system_prompt"] = *prompt;
  ASSIGN_OR_RETURN(const auto settings, named_values(command.invocation, "--setting"));
  if (!settings.empty()) own["settings"] = settings;
  return own;
}

// The same two arms in full, with what B has besides.
Status write_out_arms(const ModelCommand& command, Json& test) {
  ASSIGN_OR_RETURN(Json b, own_of_b(command));
  if (b.empty()) return ok_status();
  const double split = test.value("traffic_split", 0.5);
  b["model"] = test["model_b"];
  b["weight"] = split;
  test["arms"] = Json::array({Json{{"model", test["model_a"]}, {"weight", 1.0 - split}}, b});
  for (const char* const field : {"model_a", "model_b", "traffic_split"}) test.erase(field);
  return ok_status();
}

Result<int> add(const ModelCommand& command) {
  const Invocation& invocation = command.invocation;
  const auto& words = invocation.positionals;
  Json test = {{"name", words[1]}, {"model_a", words[2]}, {"model_b", words[3]}};
  for (const auto& [flag, field] : {std::pair("--split", "traffic_split"), std::pair("--effect", "minimum_effect")}) {
    Json value;
    RETURN_IF_ERROR(put_number(invocation, flag, value));
    if (!value.is_null()) test[field] = value;
  }
  RETURN_IF_ERROR(write_out_arms(command, test));
  Json guardrails = Json::object();
  for (const auto& [flag, field] :
       {std::pair("--max-error-rate", "max_error_rate"), std::pair("--max-p95-ttft", "max_p95_time_to_first_token")}) {
    Json value;
    RETURN_IF_ERROR(put_number(invocation, flag, value));
    if (!value.is_null()) guardrails[field] = value;
  }
  if (!guardrails.empty()) test["guardrails"] = guardrails;
  if (const auto key = invocation.last("--sticky-by")) test["sticky_by"] = *key;
  if (const auto metric = invocation.last("--metric")) test["primary_metric"] = *metric;
  if (invocation.has("--draft")) test["start"] = false;
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::post, kTests, {}, test));
  return show_test(command, answer);
}

Result<int> show_one(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::get, kTest, command.argument(1)));
  return show_test(command, answer);
}

Result<int> remove(const ModelCommand& command) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::del, kTest, command.argument(1)));
  return command.tell(answer, fmt::format("removed the A/B test {}", command.argument(1)));
}

Result<int> change(const ModelCommand& command, std::string_view path, const Json& body = nullptr) {
  ASSIGN_OR_RETURN(const AdminAnswer answer, ask_traffic(command, Method::post, path, command.argument(1), body));
  return show_test(command, answer);
}

constexpr std::array kVerbs = {
    TrafficVerb{"list", 1, list},
    TrafficVerb{"add", 4, add},
    TrafficVerb{"show", 2, show_one},
    TrafficVerb{"start", 2, [](const ModelCommand& command) { return change(command, "/admin/ab-tests/{id}/start"); }},
    TrafficVerb{"pause", 2, [](const ModelCommand& command) { return change(command, "/admin/ab-tests/{id}/pause"); }},
    TrafficVerb{"stop", 2, [](const ModelCommand& command) { return change(command, "/admin/ab-tests/{id}/stop"); }},
    TrafficVerb{"promote", 3,
                [](const ModelCommand& command) {
                  return change(command, "/admin/ab-tests/{id}/promote", Json{{"arm", command.argument(2)}});
                }},
    TrafficVerb{"rm", 2, remove},
};

}  // namespace

std::span<const CommandOption> ab_options() { return kAbOptions; }

int run_ab(const Invocation& invocation, CommandContext& context) {
  return run_traffic_verb("ab", kVerbs, invocation, context);
}

}  // namespace inferneo
