#include <array>
#include <vector>

#include "cli/commands.h"

namespace inferneo {
namespace {

using G = ConfigGroup;
constexpr std::array kServerGroups = {G::server, G::models, G::hub,       G::batching, G::kv_cache,
                                      G::device, G::onnx,   G::admission, G::logging,  G::tracing};
constexpr std::array kEngineGroups = {G::models, G::hub, G::batching, G::kv_cache, G::device, G::onnx, G::logging};
constexpr std::array kHubGroups = {G::hub, G::logging};
constexpr std::array<std::string_view, 1> kConvertFields = {"num_threads"};
constexpr std::array kLogGroups = {G::logging};
constexpr std::array<std::string_view, 3> kRegistryFields = {"registry", "home", "admin_key"};
// Without a server it is checked here whether one would take the model.
constexpr std::array<std::string_view, 5> kRegisterFields = {"registry", "home", "admin_key", "model_roots",
                                                             "hub_cache"};

// A row of those that manage registered models.
struct Management {
  std::string_view name, summary, usage;
  size_t max_positionals;
  std::span<const CommandOption> options;
  int (*run)(const Invocation& invocation, CommandContext& context);
  std::string_view examples;
  std::span<const std::string_view> fields = kRegistryFields;
};

Command row(const Management& about) {
  return {.name = about.name,
          .summary = about.summary,
          .usage = about.usage,
          .max_positionals = about.max_positionals,
          .num_models = 0,
          .groups = kLogGroups,
          .options = about.options,
          .logs = false,
          .run = about.run,
          .fields = about.fields,
          .examples = about.examples,
          .about_registered = true};
}

std::vector<Command> engine_commands() {
  return {
      Command{.name = "serve",
              .summary = "Serve models over an OpenAI-compatible API",
              .usage = "serve [MODEL...] [options]",
              .max_positionals = SIZE_MAX,
              .num_models = SIZE_MAX,
              .groups = kServerGroups,
              .options = {},
              .logs = true,
              .run = run_serve,
              .examples = "  inferneo serve    every model that is registered\n"},
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
              .run = run_bench,
              .examples = "  inferneo bench models/inferneo-story --roofline --batch-size 1,8\n"},
      Command{.name = "pull",
              .summary = "Download a model from the hub into its cache",
              .usage = "pull ORG/NAME[@REVISION] [options]",
              .max_positionals = 1,
              .num_models = 0,
              .groups = kHubGroups,
              .options = pull_options(),
              .logs = false,
              .run = run_pull},
      Command{.name = "convert",
              .summary = "Write a model as ONNX",
              .usage = "convert MODEL OUTPUT [options]",
              .max_positionals = 2,
              .num_models = 0,
              .groups = kHubGroups,
              .options = convert_options(),
              .logs = false,
              .run = run_convert,
              .fields = kConvertFields,
              .examples = "  inferneo convert models/inferneo-story story-onnx --precision int8\n"},
      Command{.name = "config",
              .summary = "Print the configuration and where it comes from",
              .usage = "config [MODEL...] [options]",
              .max_positionals = SIZE_MAX,
              .num_models = SIZE_MAX,
              .groups = kServerGroups,
              .options = config_options(),
              .logs = false,
              .run = run_config},
      Command{.name = "doctor",
              .summary = "Say what this machine has to compute with, and what is missing",
              .usage = "doctor",
              .max_positionals = 0,
              .num_models = 0,
              .groups = kLogGroups,
              .options = {},
              .logs = false,
              .run = run_doctor},
  };
}

std::vector<Management> management_commands() {
  return {
      Management{"models", "Registered models: what is in memory, what failed", "models [options]", 0, models_options(),
                 run_models, "  inferneo models\n  inferneo models --json | jq '.data[].id'\n"},
      Management{"register", "Give a model a name that a server keeps", "register NAME[:VERSION] SOURCE [options]", 2,
                 register_options(), run_register,
                 "  inferneo register story models/inferneo-story --pin\n"
                 "  inferneo register chat:2 org/name --revision v2 --alias assistant\n"
                 "  inferneo register code ./code --setting max_model_len=512\n",
                 kRegisterFields},
      Management{"set", "Show or change a model's settings and notes", "set ID [NAME=VALUE...] [options]", SIZE_MAX,
                 set_options(), run_set,
                 "  inferneo set story\n"
                 "  inferneo set story max_model_len=512 --unset kv_keep_alive --metadata owner=me\n"
                 "  inferneo set story --chat-template chat.jinja\n",
                 kRegisterFields},
      Management{"rm", "Forget a model, or one version of it", "rm ID [options]", 1, remove_options(), run_remove,
                 "  inferneo rm story:1\n"},
      Management{"load", "Load a model, and wait until it is ready", "load ID [options]", 1, load_options(), run_load,
                 "  inferneo load story\n  inferneo load story:2 --no-wait\n"},
      Management{"unload", "Take a model out of memory", "unload ID [options]", 1, unload_options(), run_unload,
                 "  inferneo unload story --timeout 5\n"},
      Management{"sleep", "Keep a GPU model's weights in host memory", "sleep ID [options]", 1, unload_options(),
                 run_sleep, "  inferneo sleep story --timeout 5\n"},
      Management{"wake-up", "Bring a model that sleeps back", "wake-up ID [options]", 1, load_options(), run_wake_up,
                 "  inferneo wake-up story\n"},
      Management{"switch", "Choose the version that a name means", "switch NAME [VERSION] [options]", 2,
                 switch_options(), run_switch,
                 "  inferneo switch story 2           loads it first; requests go on\n"
                 "  inferneo switch story --rollback  back to the one before\n"
                 "  inferneo switch story --latest    whichever was registered last\n"},
      Management{"pin", "Keep a model in memory: nothing takes its place", "pin ID [options]", 1, change_options(),
                 run_pin, "  inferneo pin story\n"},
      Management{"unpin", "Let other models take its place again", "unpin ID [options]", 1, change_options(), run_unpin,
                 "  inferneo unpin story\n"},
      Management{"keep-alive", "How long a model stays without requests", "keep-alive ID TIME [options]", 2,
                 change_options(), run_keep_alive,
                 "  inferneo keep-alive story 10m\n"
                 "  inferneo keep-alive story forever\n"
                 "  inferneo keep-alive story default  as the server's configuration says\n"},
      Management{"alias", "Give a name, or one version, a further name", "alias NAME TARGET [options]", 2,
                 change_options(), run_alias, "  inferneo alias assistant chat\n  inferneo alias stable chat:1\n"},
      Management{"unalias", "Forget an alias", "unalias NAME [options]", 1, change_options(), run_unalias,
                 "  inferneo unalias assistant\n"},
      Management{"verify", "Look whether a model's files are as they were", "verify ID [options]", 1, load_options(),
                 run_verify, "  inferneo verify story\n"},
      Management{"plan", "What loading models would take, and whether it fits", "plan ID... [options]", SIZE_MAX,
                 plan_options(), run_plan, "  inferneo plan story code --context 2048\n"},
      Management{"route", "Routing rules: which model a request gets",
                 "route [list | add NAME CONDITION MODEL | VERB NAME]", 4, route_options(), run_route,
                 "  inferneo route add code \"prompt contains 'def '\" code-llama --priority 10\n"
                 "  inferneo route add long \"prompt_length > 2000\" big --fallback small\n"
                 "  inferneo route show | off | on | rm NAME; inferneo route options\n"
                 "  inferneo route explain \"Write a function\" --user alice\n"},
      Management{"ab", "A/B tests, and what has come of them", "ab [list | add NAME MODEL_A MODEL_B | VERB NAME]", 4,
                 ab_options(), run_ab,
                 "  inferneo ab add comparison gpt-3.5-turbo code-llama --split 0.3\n"
                 "  inferneo ab show | start | pause | stop | rm NAME\n"
                 "  inferneo ab promote comparison B\n"},
  };
}

}  // namespace

std::span<const Command> commands() {
  static const std::vector<Command> all = [] {
    std::vector<Command> rows = engine_commands();
    for (const Management& about : management_commands()) rows.push_back(row(about));
    return rows;
  }();
  return all;
}

const Command* find_command(std::string_view name) {
  for (const Command& command : commands()) {
    if (command.name == name) return &command;
  }
  return nullptr;
}

}  // namespace inferneo
