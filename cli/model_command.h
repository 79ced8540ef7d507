// What the commands about registered models have in common: their options, whom they ask, how they end.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "cli/command.h"
#include "cli/model_admin.h"

namespace inferneo {

inline constexpr CommandOption kUrlOption = {"--url", "URL", "Server to ask [INFERNEO_URL, else the running one]"};
inline constexpr CommandOption kJsonOption = {"--json", "", "Print the answer as the server gives it"};
inline constexpr CommandOption kNoWaitOption = {"--no-wait", "", "Return as soon as the server has begun"};

struct ModelCommand {
  const Command& command;
  const Invocation& invocation;
  CommandContext& context;
  LoadedConfig loaded;
  std::unique_ptr<ModelAdmin> admin;

  const std::string& argument(size_t index) const { return invocation.positionals[index]; }
  bool json() const { return invocation.has(kJsonOption.flag); }
  // For what only a server can do. unavailable says how to start one.
  Result<const AdminClient*> server() const;
  // The answer with --json, else the sentence. The exit code.
  int tell(const AdminAnswer& answer, std::string_view sentence) const;
};

// invalid_argument with fewer than `required` positionals.
Result<ModelCommand> begin_model_command(std::string_view name, size_t required, const Invocation& invocation,
                                         CommandContext& context);

// What the server began: waits until the operation in an answer of status 202 has ended, behind a progress line, and
// returns it; any other answer is returned as it is. A signal, or --no-wait, leaves the operation running.
// Errors: the operation's own; cancelled: a signal, which is in `signal`.
struct OperationWait {
  std::string label;  // of the progress line: the model
  std::string verb;   // "loading": what goes on at the server after a signal
  int signal = 0;
};
Result<AdminAnswer> finish_operation(const ModelCommand& command, AdminAnswer answer, OperationWait& wait);

// Texts of an answer that may be anything; empty when it is not there.
std::string text_field(const nlohmann::json& object, const char* name);
bool is_running_operation(const AdminAnswer& answer);  // left running by --no-wait

}  // namespace inferneo
