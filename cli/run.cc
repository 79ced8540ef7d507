// inferneo run MODEL [PROMPT]: one answer, or a conversation when there is no prompt and a terminal to ask at.
#include <vector>

#include "base/log.h"
#include "cli/chat.h"
#include "cli/commands.h"
#include "cli/open_engine.h"

namespace inferneo {
namespace {

Result<ChatOptions> chat_options(const Invocation& invocation) {
  ChatOptions options;
  for (const SamplingOption& row : sampling_options()) {
    const auto given = invocation.options.find(row.flag);
    if (given == invocation.options.end()) continue;
    for (const std::string& value : given->second) {
      RETURN_IF_ERROR(set_sampling_option(options.sampling, row.flag, value));
    }
  }
  options.system = invocation.last("--system").value_or("");
  options.raw = invocation.has("--raw");
  options.stats = invocation.has("--stats");
  return options;
}

Result<int> run(const Invocation& invocation, CommandContext& context) {
  ASSIGN_OR_RETURN(ChatOptions options, chat_options(invocation));
  ASSIGN_OR_RETURN(LoadedConfig loaded, load_invocation_config(*find_command("run"), invocation, context));
  if (loaded.config.model.size() > 1) loaded.config.model.resize(1);
  ASSIGN_OR_RETURN(const auto application, open_engine(loaded.config, context));
  InferenceService& service = application->service();
  ASSIGN_OR_RETURN(const auto tokenizer, service.tokenizer({}));
  const bool uses_template = tokenizer->has_chat_template() && !options.raw;
  if (!options.system.empty() && !uses_template) {
    return make_error(ErrorCode::invalid_argument, "--system: without a chat template there is no system message");
  }
  Chat chat(service, context, std::move(options), uses_template);
  LineReader reader(context.terminal.in());
  const bool has_prompt = invocation.positionals.size() > 1 && invocation.positionals[1] != "-";
  if (has_prompt) return chat.answer_once(invocation.positionals[1]);
  if (context.terminal.in_is_tty()) return chat.converse(reader);
  std::string prompt = reader.rest();
  while (prompt.ends_with('\n')) prompt.pop_back();
  if (prompt.empty()) return make_error(ErrorCode::invalid_argument, "run: the prompt is empty");
  return chat.answer_once(prompt);
}

}  // namespace

std::span<const CommandOption> run_options() {
  static const std::vector<CommandOption> options = [] {
    std::vector<CommandOption> rows = {
        {"--system", "TEXT", "System message"},
        {"--raw", "", "Continue the text, without the chat template"},
        {"--stats", "", "Print the numbers also where there is no terminal"},
    };
    for (const SamplingOption& row : sampling_options()) {
      rows.push_back({row.flag, row.metavar, row.help, row.name == "stop"});
    }
    return rows;
  }();
  return options;
}

int run_run(const Invocation& invocation, CommandContext& context) {
  const auto code = run(invocation, context);
  return code.ok() ? *code : report_error(context, code.error());
}

}  // namespace inferneo
