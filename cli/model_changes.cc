// inferneo rm, pin, unpin, keep-alive, alias, unalias: what is registered, changed.
#include <fmt/format.h>

#include <array>

#include "base/config/time_value.h"
#include "cli/commands.h"
#include "cli/model_command.h"
#include "cli/units.h"

namespace inferneo {
namespace {

constexpr std::array kChangeOptions = {kJsonOption, kUrlOption};
constexpr std::array kRemoveOptions = {
    CommandOption{"--timeout", "SEC", "What its running requests get [30]"},
    kJsonOption,
    kUrlOption,
};
constexpr double kTimeout = 30.0;

Result<double> timeout_of(const Invocation& invocation) {
  const auto given = invocation.last("--timeout");
  return given ? parse_seconds(*given, "--timeout") : Result<double>(kTimeout);
}

std::string id_of(const AdminAnswer& answer, const std::string& given) {
  std::string id = text_field(answer.json, "id");
  return id.empty() ? given : id;
}

Result<int> remove(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const double timeout, timeout_of(invocation));
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("rm", 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->remove(command.argument(0), timeout));
  std::string sentence = "removed " + id_of(answer, command.argument(0));
  const auto dropped = answer.json.find("dropped_aliases");
  if (dropped != answer.json.end() && dropped->is_array() && !dropped->empty()) {
    std::string names;
    for (const nlohmann::json& alias : *dropped) {
      if (alias.is_string()) names += (names.empty() ? "" : ", ") + alias.get<std::string>();
    }
    sentence += fmt::format(", and with it the alias{} {}", dropped->size() == 1 ? "" : "es", names);
  }
  return command.tell(answer, sentence);
}

Result<int> set_pinned(bool pinned, const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command(pinned ? "pin" : "unpin", 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->set_pinned(command.argument(0), pinned));
  return command.tell(
      answer,
      fmt::format("{} {}: {}", pinned ? "pinned" : "unpinned", id_of(answer, command.argument(0)),
                  pinned ? "no other model takes its place in memory" : "other models may take its place in memory"));
}

Result<int> set_keep_alive(const Invocation& invocation, CommandContext& context) {
  std::optional<int64_t> seconds;
  if (invocation.positionals.size() > 1) {
    ASSIGN_OR_RETURN(seconds, parse_keep_alive(invocation.positionals[1]));
  }
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("keep-alive", 2, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->set_keep_alive(command.argument(0), seconds));
  const std::string how_long = !seconds                   ? "as long as the server's keep_alive says"
                               : *seconds == kKeepForever ? "for ever"
                                                          : duration_text(static_cast<double>(*seconds));
  return command.tell(
      answer, fmt::format("{} stays in memory {} without a request", id_of(answer, command.argument(0)), how_long));
}

Result<int> set_alias(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("alias", 2, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->set_alias(command.argument(0), command.argument(1)));
  return command.tell(answer, fmt::format("the alias {} means {}", command.argument(0), command.argument(1)));
}

Result<int> remove_alias(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("unalias", 1, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->remove_alias(command.argument(0)));
  return command.tell(answer, fmt::format("removed the alias {}", command.argument(0)));
}

int ended(CommandContext& context, const Result<int>& code) {
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace

std::span<const CommandOption> change_options() { return kChangeOptions; }
std::span<const CommandOption> remove_options() { return kRemoveOptions; }

int run_remove(const Invocation& invocation, CommandContext& context) {
  return ended(context, remove(invocation, context));
}
int run_pin(const Invocation& invocation, CommandContext& context) {
  return ended(context, set_pinned(true, invocation, context));
}
int run_unpin(const Invocation& invocation, CommandContext& context) {
  return ended(context, set_pinned(false, invocation, context));
}
int run_keep_alive(const Invocation& invocation, CommandContext& context) {
  return ended(context, set_keep_alive(invocation, context));
}
int run_alias(const Invocation& invocation, CommandContext& context) {
  return ended(context, set_alias(invocation, context));
}
int run_unalias(const Invocation& invocation, CommandContext& context) {
  return ended(context, remove_alias(invocation, context));
}

}  // namespace inferneo
