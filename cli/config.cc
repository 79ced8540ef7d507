// inferneo config: the configuration in force and where each value comes from.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/config/key_entries.h"
#include "base/config/model_entries.h"
#include "cli/commands.h"

namespace inferneo {
namespace {

constexpr std::array kConfigOptions = {
    CommandOption{"--markdown", "", "Print docs/configuration.md instead"},
};

std::string origin_text(const LoadedConfig& loaded, const ConfigField& field) {
  const auto origin = loaded.origins.find(field.name);
  return origin == loaded.origins.end() ? "default" : origin->second.where;
}

std::string listing(const LoadedConfig& loaded) {
  constexpr size_t kWidest = 44;  // a longer value pushes its own comment aside, not everyone's
  size_t width = 0;
  size_t value_width = 0;
  for (const ConfigField& field : config_fields()) {
    width = std::max(width, field.name.size());
    const size_t length = format_field(loaded.config, field).size();
    if (length <= kWidest) value_width = std::max(value_width, length);
  }
  std::string text;
  std::string_view title;
  for (const ConfigField& field : config_fields()) {
    if (config_group_title(field.group) != title) {
      text += fmt::format("{}# {}\n", title.empty() ? "" : "\n", config_group_title(field.group));
      title = config_group_title(field.group);
    }
    const std::string value = format_field(loaded.config, field);
    text += fmt::format("{:<{}}  {:<{}}  # {}\n", std::string(field.name) + ":", width + 1, value.empty() ? "-" : value,
                        value_width, origin_text(loaded, field));
  }
  const std::string keys = key_entries_text(loaded.config);
  if (!keys.empty()) text += "\n# Named keys of the file\n" + keys;
  const std::string entries = model_entries_text(loaded.config);
  if (!entries.empty()) text += "\n# Models and aliases of the file\n" + entries;
  return text;
}

}  // namespace

std::span<const CommandOption> config_options() { return kConfigOptions; }

int run_config(const Invocation& invocation, CommandContext& context) {
  if (invocation.has("--markdown")) {
    context.terminal.write(config_markdown());
    return kExitDone;
  }
  const auto loaded = load_invocation_config(*find_command("config"), invocation, context);
  if (!loaded.ok()) return report_error(context, loaded.error());
  context.terminal.write(listing(*loaded));
  return kExitDone;
}

}  // namespace inferneo
