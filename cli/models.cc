// inferneo models: what is registered and what of it is in memory.
#include <fmt/format.h>

#include <array>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/model_command.h"
#include "cli/model_table.h"

namespace inferneo {
namespace {

constexpr std::array kModelsOptions = {
    CommandOption{"--verbose", "", "Sources, aliases and settings too"},
    kJsonOption,
    kUrlOption,
};

Result<int> models(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(const ModelCommand command, begin_model_command("models", 0, invocation, context));
  ASSIGN_OR_RETURN(const AdminAnswer answer, command.admin->list());
  ASSIGN_OR_RETURN(const std::vector<ModelView> views, views_of_list(answer.json));
  if (command.json()) return command.tell(answer, {});
  if (views.empty()) {
    context.terminal.note(fmt::format("no model is registered with {}; inferneo register NAME SOURCE adds one\n",
                                      command.admin->where()));
    return kExitDone;
  }
  TableOptions options;
  options.width = context.terminal.out_is_tty() ? context.terminal.width() : 0;
  options.now = seconds_since_epoch();
  options.verbose = invocation.has("--verbose");
  context.terminal.write(model_table(views, options));
  const std::string memory = memory_line(answer.json);
  const bool served = command.admin->server() != nullptr;
  const std::string about = served ? memory : "this is " + command.admin->where();
  if (!about.empty()) context.terminal.note(context.terminal.dim(about) + "\n");
  return kExitDone;
}

}  // namespace

std::span<const CommandOption> models_options() { return kModelsOptions; }

int run_models(const Invocation& invocation, CommandContext& context) {
  const auto code = models(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
