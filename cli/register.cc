// inferneo register NAME[:VERSION] SOURCE: makes a model known under a name, for this and later starts of the server.
#include <fmt/format.h>

#include <array>
#include <filesystem>
#include <system_error>

#include "base/config/time_value.h"
#include "cli/commands.h"
#include "cli/model_command.h"
#include "cli/named_values.h"
#include "formats/model_source.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

constexpr std::array kRegisterOptions = {
    CommandOption{"--revision", "REV", "Branch, tag or commit of a hub id"},
    CommandOption{"--format", "FORMAT", "huggingface, onnx or tensorrt [as the files say]"},
    CommandOption{"--alias", "NAME", "A further name; may be repeated", true},
    CommandOption{"--pin", "", "Nothing takes its place in memory"},
    CommandOption{"--keep-alive", "TIME", "Idle time in memory: 300, 10m, 2h, forever"},
    CommandOption{"--setting", "NAME=VALUE", "Of the engine, for this model; may be repeated", true},
    kTemplateOption,
    CommandOption{"--metadata", "NAME=VALUE", "A note of yours; may be repeated", true},
    kJsonOption,
    kUrlOption,
};

// A directory as the server, which runs elsewhere, finds it; a hub id as it is.
std::string absolute_source(const std::string& source, const Environment& environment) {
  std::error_code error;
  std::string given = environment.expand_home(source);
  const bool path = given.starts_with('/') || given.starts_with("./") || given.starts_with("../") || given == "." ||
                    given == ".." || !parse_hub_id(given).ok() || fs::is_directory(given, error);
  if (!path || given.empty() || given.find('\0') != std::string::npos) return given;
  const fs::path absolute = fs::absolute(given, error);
  if (error) return given;
  std::string normal = absolute.lexically_normal().string();
  if (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
  return normal;
}

Result<std::optional<ModelFormat>> format_of(const Invocation& invocation) {
  const auto name = invocation.last("--format");
  if (!name) return std::optional<ModelFormat>();
  for (const ModelFormat format : {ModelFormat::HuggingFace, ModelFormat::ONNX, ModelFormat::TensorRT}) {
    if (*name == model_format_name(format)) return std::optional<ModelFormat>(format);
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("--format: expected huggingface, onnx or tensorrt, got '{}'", name->substr(0, 80)));
}

Result<ModelRegistration> registration_of(const Invocation& invocation, const Environment& environment) {
  ModelRegistration registration;
  registration.name = invocation.positionals[0];
  registration.path = absolute_source(invocation.positionals[1], environment);
  registration.revision = invocation.last("--revision").value_or("");
  ASSIGN_OR_RETURN(registration.format, format_of(invocation));
  if (const auto aliases = invocation.options.find("--alias"); aliases != invocation.options.end()) {
    registration.aliases = aliases->second;
  }
  registration.pinned = invocation.has("--pin");
  if (const auto keep = invocation.last("--keep-alive")) {
    const auto seconds = parse_keep_alive(*keep);
    if (!seconds.ok()) return make_error(seconds.error().code, "--keep-alive: " + seconds.error().message);
    registration.keep_alive = *seconds;
  }
  ASSIGN_OR_RETURN(registration.settings, named_values(invocation, "--setting"));
  const auto draft = registration.settings.find("draft_model");
  if (draft != registration.settings.end()) draft->second = absolute_source(draft->second, environment);
  ASSIGN_OR_RETURN(registration.metadata, named_values(invocation, "--metadata"));
  ASSIGN_OR_RETURN(const std::optional<std::string> text, template_option(invocation, environment));
  if (text) registration.settings["chat_template"] = *text;
  // What is wrong with the names is said here as there, before anybody is asked.
  ASSIGN_OR_RETURN(const ModelRecord record, make_record(registration));
  RETURN_IF_ERROR(check_record(record));
  for (const std::string& alias : registration.aliases) RETURN_IF_ERROR(check_model_name(alias, "alias"));
  return registration;
}

Result<int> register_model(const Invocation& invocation, CommandContext& context) {
  ModelRegistration registration;
  if (invocation.positionals.size() > 1) {
    ASSIGN_OR_RETURN(registration, registration_of(invocation, context.environment));
  }
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("register", 2, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->add(registration));
  const std::string id = text_field(answer.json, "id");
  const bool served = command.admin->server() != nullptr;
  return command.tell(
      answer, fmt::format("registered {} with {}{}", id.empty() ? registration.name : id, command.admin->where(),
                          served ? "; its first request loads it, or: inferneo load " + id
                                 : "; start one with: inferneo serve"));
}

}  // namespace

std::span<const CommandOption> register_options() { return kRegisterOptions; }

int run_register(const Invocation& invocation, CommandContext& context) {
  const auto code = register_model(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
