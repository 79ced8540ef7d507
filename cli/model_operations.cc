// inferneo load, unload, sleep, wake-up, switch, verify, plan: what a running server does with its models.
#include <fmt/format.h>

#include <array>

#include "base/config/time_value.h"
#include "cli/commands.h"
#include "cli/model_command.h"
#include "cli/model_table.h"
#include "cli/units.h"

namespace inferneo {
namespace {

constexpr std::array kLoadOptions = {kNoWaitOption, kJsonOption, kUrlOption};
constexpr std::array kUnloadOptions = {
    CommandOption{"--timeout", "SEC", "What its running requests get [30]"},
    kNoWaitOption,
    kJsonOption,
    kUrlOption,
};
constexpr std::array kSwitchOptions = {
    CommandOption{"--rollback", "", "Back to the version before"},
    CommandOption{"--latest", "", "Follow the newest version again"},
    kNoWaitOption,
    kJsonOption,
    kUrlOption,
};
constexpr std::array kPlanOptions = {
    CommandOption{"--context", "N", "Tokens of prompt and output to plan for"},
    kUrlOption,
};
// Most is done before a person would look: then one question suffices.
constexpr std::string_view kShortWait = "wait=0.3";
constexpr double kTimeout = 30.0;

// A signal is an end of its own.
int ended(CommandContext& context, const Result<int>& code, const OperationWait& wait) {
  if (code.ok()) return *code;
  const int exit = report_error(context, code.error());
  return wait.signal != 0 ? 128 + wait.signal : exit;
}

// The model that an answer is about: itself, or the result of an operation; else it is asked for.
Result<ModelView> model_of(const AdminClient& server, const AdminAnswer& answer, const std::string& path) {
  const auto result = answer.json.find("result");
  const nlohmann::json& model = result != answer.json.end() && result->is_object() ? *result : answer.json;
  Result<ModelView> view = view_of_model(model);
  const bool operation = answer.json.contains("kind") && &model == &answer.json;
  if (view.ok() && !operation) return view;
  ASSIGN_OR_RETURN(const AdminAnswer asked, server.call("GET", "/admin/models/" + path));
  return view_of_model(asked.json);
}

std::string began(const AdminAnswer& answer, std::string_view what, const std::string& model) {
  return fmt::format("{} {} goes on at the server (operation {}); 'inferneo models' shows it", what, model,
                     text_field(answer.json, "id"));
}

// What brings a model into memory, or takes it out: the route's last part, and the words for it.
struct Move {
  std::string_view command;
  std::string_view verb;  // "loading"
  std::string_view done;  // "is out of memory"; empty: the state that it is in is told
};
constexpr Move kLoad{"load", "loading", {}};
constexpr Move kWakeUp{"wake-up", "waking", {}};
constexpr Move kUnload{"unload", "unloading", "is out of memory"};
constexpr Move kSleep{"sleep", "putting to sleep", "sleeps"};

Result<int> bring_in(const Move& move, const Invocation& invocation, CommandContext& context, OperationWait& wait) {
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command(move.command, 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminClient* const server, command.server());
  ASSIGN_OR_RETURN(const std::string path, model_path(command.argument(0)));
  wait.label = path;
  wait.verb = move.verb;
  const bool waits = !invocation.has(kNoWaitOption.flag);
  ASSIGN_OR_RETURN(AdminAnswer answer, server->call("POST", fmt::format("/admin/models/{}/{}{}{}", path, move.command,
                                                                        waits ? "?" : "", waits ? kShortWait : "")));
  ASSIGN_OR_RETURN(answer, finish_operation(command, std::move(answer), wait));
  if (is_running_operation(answer)) return command.tell(answer, began(answer, move.verb, path));
  ASSIGN_OR_RETURN(const ModelView model, model_of(*server, answer, path));
  std::string sentence = fmt::format("{} is {}", model.id, model.state);
  if (model.memory_bytes > 0) sentence += ": " + size_text(model.memory_bytes);
  if (model.load_seconds) sentence += fmt::format(", loaded in {}", duration_text(*model.load_seconds));
  return command.tell(answer, sentence);
}

Result<int> take_out(const Move& move, const Invocation& invocation, CommandContext& context, OperationWait& wait) {
  double timeout = kTimeout;
  if (const auto given = invocation.last("--timeout")) {
    ASSIGN_OR_RETURN(timeout, parse_seconds(*given, "--timeout"));
  }
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command(move.command, 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminClient* const server, command.server());
  ASSIGN_OR_RETURN(const std::string path, model_path(command.argument(0)));
  wait.label = path;
  wait.verb = move.verb;
  const bool waits = !invocation.has(kNoWaitOption.flag);
  ASSIGN_OR_RETURN(AdminAnswer answer,
                   server->call("POST", fmt::format("/admin/models/{}/{}?timeout={}{}{}", path, move.command, timeout,
                                                    waits ? "&" : "", waits ? kShortWait : "")));
  ASSIGN_OR_RETURN(answer, finish_operation(command, std::move(answer), wait));
  if (is_running_operation(answer)) return command.tell(answer, began(answer, move.verb, path));
  return command.tell(answer, fmt::format("{} {}", path, move.done));
}

Result<ModelAdmin::Switch> wanted_switch(const Invocation& invocation) {
  using To = ModelAdmin::Switch::To;
  const bool rollback = invocation.has("--rollback"), latest = invocation.has("--latest");
  const size_t words = invocation.positionals.size();
  if (static_cast<int>(rollback) + static_cast<int>(latest) + static_cast<int>(words > 1) > 1) {
    return make_error(ErrorCode::invalid_argument,
                      "switch: give one of a version, --rollback and --latest; usage: inferneo switch NAME VERSION");
  }
  if (rollback) return ModelAdmin::Switch{To::previous};
  if (latest) return ModelAdmin::Switch{To::latest};
  if (words < 2) {
    return make_error(ErrorCode::invalid_argument,
                      "switch: to which version? Usage: inferneo switch NAME VERSION, or NAME --rollback or --latest");
  }
  RETURN_IF_ERROR(check_model_version(invocation.positionals[1]));
  return ModelAdmin::Switch{To::version, invocation.positionals[1]};
}

Result<int> switch_version(const Invocation& invocation, CommandContext& context, OperationWait& wait) {
  ASSIGN_OR_RETURN(const ModelAdmin::Switch wanted, wanted_switch(invocation));
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("switch", 1, invocation, context));
  const std::string& name = command.argument(0);
  RETURN_IF_ERROR(check_model_name(name, "name"));
  wait.label = name;
  wait.verb = "switching";
  ASSIGN_OR_RETURN(AdminAnswer answer, command.admin->switch_version(name, wanted));
  ASSIGN_OR_RETURN(answer, finish_operation(command, std::move(answer), wait));
  if (is_running_operation(answer)) return command.tell(answer, began(answer, "switching", name));
  const auto result = answer.json.find("result");
  const nlohmann::json& about = result != answer.json.end() && result->is_object() ? *result : answer.json;
  const std::string active = text_field(about, "active"), previous = text_field(about, "previous");
  std::string sentence =
      active.empty() ? fmt::format("{} is switched", name) : fmt::format("{} now means version {}", name, active);
  if (!previous.empty() && previous != active) {
    sentence += fmt::format(", before it was {}; back: inferneo switch {} --rollback", previous, name);
  }
  return command.tell(answer, sentence);
}

// A line for each file; how many are not as they were.
std::string file_lines(const nlohmann::json& result, size_t& changed) {
  std::string text;
  const auto files = result.is_object() ? result.find("files") : result.end();
  if (files == result.end() || !files->is_array()) return text;
  for (const nlohmann::json& file : *files) {
    const std::string state = text_field(file, "state");
    if (state != "ok" && state != "unknown") ++changed;
    const auto bytes = file.is_object() ? file.find("bytes") : file.end();
    const bool sized = bytes != file.end() && bytes->is_number_unsigned();
    text += fmt::format("{:<8} {:>10}  {}\n", state, sized ? size_text(bytes->get<uint64_t>()) : "-",
                        text_field(file, "file"));
  }
  return text;
}

Result<int> verify(const Invocation& invocation, CommandContext& context, OperationWait& wait) {
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("verify", 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminClient* const server, command.server());
  ASSIGN_OR_RETURN(const std::string path, model_path(command.argument(0)));
  wait.label = path;
  wait.verb = "verifying";
  ASSIGN_OR_RETURN(AdminAnswer answer, server->call("POST", fmt::format("/admin/models/{}/verify", path)));
  ASSIGN_OR_RETURN(answer, finish_operation(command, std::move(answer), wait));
  if (is_running_operation(answer)) return command.tell(answer, began(answer, "verifying", path));
  const auto result = answer.json.find("result");
  size_t changed = 0;
  std::string text = file_lines(result != answer.json.end() ? *result : answer.json, changed);
  if (text.empty()) return make_error(ErrorCode::malformed, "the server does not say which files it looked at");
  text.pop_back();
  command.tell(answer, text);
  if (changed == 0) return kExitDone;
  context.terminal.note(fmt::format("inferneo: {} of the files of {} changed since it was loaded\n", changed, path));
  return kExitFailed;
}

uint64_t number_field(const nlohmann::json& object, const char* field) {
  const auto found = object.find(field);
  return found != object.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

// A line for each model, who would have to go, and what it comes to. Whatever the server says, as far as it is there.
std::string plan_text(const nlohmann::json& plan, bool fits) {
  std::string text;
  const auto models = plan.find("models");
  if (models != plan.end() && models->is_array()) {
    for (const nlohmann::json& model : *models) {
      if (!model.is_object()) continue;
      const std::string reason = text_field(model, "reason");
      const uint64_t context = number_field(model, "context"), more = number_field(model, "more_tokens");
      text += fmt::format("{:<24} {:>10}", text_field(model, "id"), size_text(number_field(model, "bytes")));
      if (const std::string dtype = text_field(model, "dtype"); !dtype.empty()) text += "  in " + dtype;
      if (context > 0) text += fmt::format("  with {} tokens of cache", context);
      if (!reason.empty()) text += "  does not fit: " + reason;
      const auto resident = model.find("resident"), time = model.find("load_seconds");
      if (resident != model.end() && *resident == true) {
        text += "  in memory";
      } else if (time != model.end() && time->is_number()) {
        text += fmt::format("  about {} to load", duration_text(time->get<double>()));
      }
      if (fits && more > 0) text += fmt::format("  room for {} more tokens", more);
      text += '\n';
    }
  }
  std::string gone;
  const auto evicted = plan.find("evicted");
  if (evicted != plan.end() && evicted->is_array()) {
    for (const nlohmann::json& id : *evicted) {
      if (id.is_string()) gone += (gone.empty() ? "" : ", ") + id.get<std::string>();
    }
  }
  text += gone.empty() ? "nobody would have to go\n" : "would go: " + gone + "\n";
  return text + fmt::format("{}: {} of {} would be in use", fits ? "fits" : "does not fit",
                            size_text(number_field(plan, "used_after_bytes")),
                            size_text(number_field(plan, "budget_bytes")));
}

Result<int> plan(const Invocation& invocation, CommandContext& context) {
  nlohmann::json models = nlohmann::json::array();
  for (const std::string& id : invocation.positionals) {
    ASSIGN_OR_RETURN(const std::string checked, model_path(id));
    models.push_back({{"id", checked}});
    if (const auto given = invocation.last("--context")) {
      EngineConfig scratch;
      const std::vector<std::string> values = {*given};
      const Status set = set_field(scratch, *find_config_field("max_model_len"), values);
      if (!set.ok()) return make_error(ErrorCode::invalid_argument, "--context: " + set.error().message);
      if (scratch.max_model_len) models.back()["context"] = *scratch.max_model_len;
    }
  }
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("plan", 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminClient* const server, command.server());
  const nlohmann::json body = {{"models", models}};
  ASSIGN_OR_RETURN(const AdminAnswer answer, server->call("POST", "/admin/plan", body.dump()));
  const auto verdict = answer.json.find("fits");
  const bool fits = verdict != answer.json.end() && verdict->is_boolean() && verdict->get<bool>();
  command.tell(answer, plan_text(answer.json, fits));
  if (fits) return kExitDone;
  context.terminal.note("inferneo: they do not fit together; raise max_memory_gb, or unpin or plan for fewer\n");
  return kExitFailed;
}

template <typename Operation>
int run_operation(Operation operation, const Invocation& invocation, CommandContext& context) {
  OperationWait wait;
  const Result<int> code = operation(invocation, context, wait);
  return ended(context, code, wait);
}

template <typename Way>
int run_move(Way way, const Move& move, const Invocation& invocation, CommandContext& context) {
  OperationWait wait;
  const Result<int> code = way(move, invocation, context, wait);
  return ended(context, code, wait);
}

}  // namespace

std::span<const CommandOption> load_options() { return kLoadOptions; }
std::span<const CommandOption> unload_options() { return kUnloadOptions; }
std::span<const CommandOption> switch_options() { return kSwitchOptions; }
std::span<const CommandOption> plan_options() { return kPlanOptions; }

int run_load(const Invocation& invocation, CommandContext& context) {
  return run_move(bring_in, kLoad, invocation, context);
}
int run_wake_up(const Invocation& invocation, CommandContext& context) {
  return run_move(bring_in, kWakeUp, invocation, context);
}
int run_unload(const Invocation& invocation, CommandContext& context) {
  return run_move(take_out, kUnload, invocation, context);
}
int run_sleep(const Invocation& invocation, CommandContext& context) {
  return run_move(take_out, kSleep, invocation, context);
}
int run_switch(const Invocation& invocation, CommandContext& context) {
  return run_operation(switch_version, invocation, context);
}
int run_verify(const Invocation& invocation, CommandContext& context) {
  return run_operation(verify, invocation, context);
}
int run_plan(const Invocation& invocation, CommandContext& context) {
  const Result<int> code = plan(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
