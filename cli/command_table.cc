#include <array>

#include "cli/commands.h"

namespace inferneo {
namespace {

using G = ConfigGroup;
constexpr std::array kServerGroups = {G::server, G::models, G::hub, G::batching, G::kv_cache, G::device, G::logging};
constexpr std::array kEngineGroups = {G::models, G::hub, G::batching, G::kv_cache, G::device, G::logging};
constexpr std::array kHubGroups = {G::hub, G::logging};

}  // namespace

std::span<const Command> commands() {
  static const std::array kCommands = {
      Command{.name = "serve",
              .summary = "Serve models over an OpenAI-compatible API",
              .usage = "serve MODEL... [options]",
              .max_positionals = SIZE_MAX,
              .num_models = SIZE_MAX,
              .groups = kServerGroups,
              .options = {},
              .logs = true,
              .run = run_serve},
      Command{.name = "run",
              .summary = "Ask a model once, or chat with it",
              .usage = "run MODEL [PROMPT | -] [options]",
              .max_positionals = 2,
              .num_models = 1,
              .groups = kEngineGroups,
              .options = run_options(),
              .logs = false,
              .run = run_run},
      Command{.name = "bench",
              .summary = "Measure a model's speed, or the machine's",
              .usage = "bench MODEL [options]  |  inferneo bench --machine",
              .max_positionals = 1,
              .num_models = 1,
              .groups = kEngineGroups,
              .options = bench_options(),
              .logs = false,
              .run = run_bench},
      Command{.name = "pull",
              .summary = "Download a model from the hub into its cache",
              .usage = "pull ORG/NAME[@REVISION] [options]",
              .max_positionals = 1,
              .num_models = 0,
              .groups = kHubGroups,
              .options = pull_options(),
              .logs = false,
              .run = run_pull},
      Command{.name = "config",
              .summary = "Print the configuration and where it comes from",
              .usage = "config [MODEL...] [options]",
              .max_positionals = SIZE_MAX,
              .num_models = SIZE_MAX,
              .groups = kServerGroups,
              .options = config_options(),
              .logs = false,
              .run = run_config},
  };
  return kCommands;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : commands()) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

}  // namespace inferneo
