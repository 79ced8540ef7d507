// inferneo set ID [NAME=VALUE...]: the settings and notes of a registered model, shown or changed.
#include <fmt/format.h>

#include <array>

#include "cli/commands.h"
#include "cli/model_command.h"
#include "cli/named_values.h"

namespace inferneo {
namespace {

using Json = nlohmann::json;

constexpr std::array kSetOptions = {
    CommandOption{"--unset", "NAME", "A setting: as the server has it again; may be repeated", true},
    kTemplateOption,
    CommandOption{"--metadata", "NAME=VALUE", "A note of yours; may be repeated", true},
    CommandOption{"--unset-metadata", "NAME", "Forget a note; may be repeated", true},
    kJsonOption,
    kUrlOption,
};

using Changes = std::map<std::string, std::optional<std::string>>;

Status add(const Result<std::map<std::string, std::string>>& values, Changes& changes) {
  if (!values.ok()) return values.error();
  for (const auto& [name, value] : *values) changes[name] = value;
  return ok_status();
}

Status add_removed(const Invocation& invocation, std::string_view flag, Changes& changes) {
  const auto given = invocation.options.find(flag);
  if (given == invocation.options.end()) return ok_status();
  for (const std::string& name : given->second) {
    if (changes.emplace(name, std::nullopt).second) continue;
    return make_error(ErrorCode::invalid_argument, fmt::format("{}: '{}' is set as well", flag, name.substr(0, 80)));
  }
  return ok_status();
}

Result<ModelAmendment> amendment_of(const Invocation& invocation, const Environment& environment) {
  ModelAmendment amendment;
  const std::vector<std::string> pairs(invocation.positionals.begin() + 1, invocation.positionals.end());
  RETURN_IF_ERROR(add(named_values(pairs, "set"), amendment.settings));
  ASSIGN_OR_RETURN(const std::optional<std::string> text, template_option(invocation, environment));
  if (text) amendment.settings["chat_template"] = *text;
  RETURN_IF_ERROR(add_removed(invocation, "--unset", amendment.settings));
  RETURN_IF_ERROR(add(named_values(invocation, "--metadata"), amendment.metadata));
  RETURN_IF_ERROR(add_removed(invocation, "--unset-metadata", amendment.metadata));
  return amendment;
}

// The first line of a text that has several, such as a template.
std::string one_line(const std::string& text) {
  const size_t end = text.find('\n');
  return end == std::string::npos ? text : text.substr(0, end) + fmt::format(" ... ({} bytes)", text.size());
}

std::string values_text(const Json& model, const char* field) {
  std::string lines;
  const auto values = model.find(field);
  if (values == model.end() || !values->is_object()) return lines;
  for (const auto& [name, value] : values->items()) {
    if (value.is_string()) lines += fmt::format("  {} = {}\n", name, one_line(value.get<std::string>()));
  }
  return lines;
}

std::string model_text(const Json& model) {
  std::string text = text_field(model, "id") + "\n";
  const std::string settings = values_text(model, "settings");
  text += settings.empty() ? "  no settings of its own\n" : settings;
  if (const std::string notes = values_text(model, "metadata"); !notes.empty()) text += "metadata\n" + notes;
  const auto pending = model.find("pending_settings");
  if (pending != model.end() && pending->is_array() && !pending->empty()) {
    std::string names;
    for (const Json& name : *pending) {
      if (name.is_string()) names += (names.empty() ? "" : ", ") + name.get<std::string>();
    }
    text += fmt::format(
        "it is in memory with other values of {}: its next load takes these; inferneo unload {}, then "
        "load it\n",
        names, text_field(model, "id"));
  }
  return text;
}

Result<int> show_or_change(const Invocation& invocation, CommandContext& context) {
  ModelAmendment amendment;
  if (!invocation.positionals.empty()) {
    ASSIGN_OR_RETURN(amendment, amendment_of(invocation, context.environment));
  }
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("set", 1, invocation, context));
  const std::string& id = command.argument(0);
  ASSIGN_OR_RETURN(const AdminAnswer answer,
                   amendment.changes_definition() ? command.admin->amend(id, amendment) : command.admin->show(id));
  if (command.json()) return command.tell(answer, {});
  context.terminal.write(without_control_characters(model_text(answer.json)));
  return kExitDone;
}

}  // namespace

std::span<const CommandOption> set_options() { return kSetOptions; }

int run_set(const Invocation& invocation, CommandContext& context) {
  const auto code = show_or_change(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
