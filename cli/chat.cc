#include "cli/chat.h"

#include <fmt/format.h>

#include <array>
#include <csignal>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/config/suggest.h"
#include "cli/generation_stream.h"

namespace inferneo {
namespace {

constexpr std::string_view kPrompt = ">>> ";
constexpr std::string_view kContinuePrompt = "... ";

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t") - first + 1));
}

std::string messages_json(const std::string& system, const std::vector<ChatMessage>& history) {
  nlohmann::json messages = nlohmann::json::array();
  if (!system.empty()) messages.push_back({{"role", "system"}, {"content", system}});
  for (const ChatMessage& message : history) {
    messages.push_back({{"role", message.role}, {"content", message.content}});
  }
  // A terminal may send bytes that are no UTF-8.
  return messages.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

struct Chat::SlashCommand {
  std::string_view name;
  std::string_view argument;
  std::string_view help;
  void (Chat::*run)(const std::string& argument);  // null: leaves
};

std::span<const Chat::SlashCommand> Chat::slash_commands() {
  static constexpr std::array kCommands = {
      SlashCommand{"/clear", "", "Forget the conversation", &Chat::clear},
      SlashCommand{"/system", "[TEXT]", "Set the system message, or remove it, and start anew", &Chat::set_system},
      SlashCommand{"/set", "[NAME VALUE]", "Show the sampling settings, or change one", &Chat::set_option},
      SlashCommand{"/retry", "", "Answer the last message again", &Chat::retry},
      SlashCommand{"/stats", "", "Show or hide the numbers after an answer", &Chat::toggle_stats},
      SlashCommand{"/quit", "", "Leave; so do /exit, /bye and Ctrl-D", nullptr},
  };
  return kCommands;
}

Chat::Chat(InferenceService& service, CommandContext& context, ChatOptions options, bool uses_template)
    : service_(service),
      terminal_(context.terminal),
      signals_(context.signals),
      options_(std::move(options)),
      uses_template_(uses_template) {
  options_.stats = options_.stats || terminal_.err_is_tty();
}

int Chat::answer_once(const std::string& prompt) {
  switch (answer(prompt)) {
    case Answered::whole:
    case Answered::reader_gone:
      return kExitDone;
    case Answered::cancelled:
      return 128 + last_signal_;
    case Answered::failed:
      return kExitFailed;
  }
  return kExitFailed;
}

int Chat::converse(LineReader& reader) {
  const bool prompts = terminal_.in_is_tty();
  if (prompts) terminal_.note(terminal_.dim("/help lists the commands, Ctrl-D leaves") + "\n");
  for (;;) {
    std::optional<std::string> text;
    {
      const Signals::Scope at_prompt(signals_, [this](int signal, int) {
        if (signal != SIGINT) ::_exit(128 + signal);
        terminal_.note(fmt::format("\n{}\n{}", terminal_.dim("Ctrl-D or /quit leaves"), kPrompt));
      });
      text = reader.message([&](bool continues) {
        if (prompts) terminal_.note(continues ? kContinuePrompt : kPrompt);
      });
    }
    if (!text) break;
    const std::string line = trimmed(*text);
    if (line.empty()) continue;
    if (line[0] == '/' && !line.starts_with("//")) {
      if (run_slash_command(line) == Next::quit) return kExitDone;
      continue;
    }
    const Answered answered = answer(line[0] == '/' ? line.substr(1) : *text);
    if (answered == Answered::reader_gone) return kExitDone;
    if (answered == Answered::cancelled && last_signal_ != SIGINT) return 128 + last_signal_;
  }
  if (prompts) terminal_.note("\n");
  return kExitDone;
}

GenerateRequest Chat::make_request() const {
  GenerateRequest request;
  request.request_id = "run";
  request.sampling = options_.sampling.params;
  request.explicit_sampling = options_.sampling.set;
  if (uses_template_) {
    ChatInput input;
    input.messages = messages_json(options_.system, history_);
    request.prompt = std::move(input);
  } else {
    request.prompt = history_.back().content;
  }
  return request;
}

Chat::Answered Chat::answer(const std::string& text) {
  history_.push_back({"user", text});
  GenerationStream stream(service_, make_request());
  bool cancelled = false;
  bool reader_gone = false;
  std::string reply;
  if (!uses_template_) terminal_.write(terminal_.shown(text));
  {
    const Signals::Scope while_answering(signals_, [&](int signal, int count) {
      if (count > 1) ::_exit(128 + signal);
      last_signal_ = signal;
      cancelled = true;
      stream.cancel();
    });
    while (auto delta = stream.next()) {
      reply += delta->text;
      if (!reader_gone && !terminal_.write(terminal_.shown(delta->text))) {
        reader_gone = true;
        stream.cancel();
      }
    }
  }
  const GenerateOutcome& outcome = stream.outcome();
  if (outcome.error && !cancelled && !reader_gone) {
    history_.pop_back();
    terminal_.note(fmt::format("{}inferneo: {}\n", reply.empty() ? "" : "\n", outcome.error->message));
    if (outcome.error->code == ErrorCode::context_too_long && history_.size() > 1) {
      terminal_.note("The conversation no longer fits: /clear starts anew.\n");
    }
    return Answered::failed;
  }
  if (reader_gone) return Answered::reader_gone;
  terminal_.write("\n");
  history_.push_back({"assistant", std::move(reply)});
  if (cancelled) terminal_.note(terminal_.dim("(stopped)") + "\n");
  if (options_.stats) print_stats(outcome);
  return cancelled ? Answered::cancelled : Answered::whole;
}

void Chat::print_stats(const GenerateOutcome& outcome) {
  const RequestStats& stats = outcome.stats;
  if (outcome.usage.completion_tokens == 0) return;
  const double first = to_seconds(stats.first_token - stats.submitted);
  const double decode = to_seconds(stats.finished - stats.first_token);
  std::string line = fmt::format("first token {:.3f} s | {} tokens", first, outcome.usage.completion_tokens);
  if (outcome.usage.completion_tokens > 1 && decode > 0.0) {
    line += fmt::format(", {:.1f} tokens/s", (outcome.usage.completion_tokens - 1) / decode);
  }
  line += fmt::format(" | prompt {} tokens", outcome.usage.prompt_tokens);
  if (outcome.usage.draft_tokens > 0) {
    line += fmt::format(" | {} of {} guesses right", outcome.usage.accepted_tokens, outcome.usage.draft_tokens);
  }
  if (outcome.usage.cached_tokens > 0) line += fmt::format(", {} cached", outcome.usage.cached_tokens);
  terminal_.note(terminal_.dim(line) + "\n");
}

Chat::Next Chat::run_slash_command(const std::string& line) {
  const size_t space = line.find_first_of(" \t\n");
  const std::string name = line.substr(0, space);
  const std::string argument = space == std::string::npos ? "" : trimmed(line.substr(space + 1));
  if (name == "/help" || name == "/?") {
    show_help();
    return Next::go_on;
  }
  if (name == "/exit" || name == "/bye") return Next::quit;
  std::vector<std::string_view> known = {"/help"};
  for (const SlashCommand& command : slash_commands()) {
    known.push_back(command.name);
    if (command.name != name) continue;
    if (command.run == nullptr) return Next::quit;
    (this->*command.run)(argument);
    return Next::go_on;
  }
  const std::string hint = did_you_mean(name, known);
  terminal_.note(fmt::format("No command {}{}\n", name, hint.empty() ? "; /help lists them" : hint));
  return Next::go_on;
}

void Chat::show_help() {
  for (const SlashCommand& command : slash_commands()) {
    terminal_.note(fmt::format("  {:<22}{}\n", fmt::format("{} {}", command.name, command.argument), command.help));
  }
  terminal_.note(
      "A line that ends with \\ goes on in the next; \"\"\" begins and ends a text of\n"
      "several lines; // sends a line that begins with /. Ctrl-C stops an answer.\n");
}

void Chat::clear(const std::string&) {
  history_.clear();
  terminal_.note("The conversation starts anew.\n");
}

void Chat::set_system(const std::string& argument) {
  if (!uses_template_) {
    terminal_.note("Without a chat template there is no system message.\n");
    return;
  }
  options_.system = argument;
  history_.clear();
  terminal_.note(argument.empty() ? "No system message; the conversation starts anew.\n"
                                  : "System message set; the conversation starts anew.\n");
}

void Chat::set_option(const std::string& argument) {
  if (argument.empty()) {
    for (const SamplingOption& option : sampling_options()) {
      terminal_.note(fmt::format("  {:<22}{}\n", option.name, option.show(options_.sampling)));
    }
    return;
  }
  const size_t space = argument.find_first_of(" \t=");
  const std::string value = space == std::string::npos ? "" : trimmed(argument.substr(space + 1));
  const Status status = set_sampling_option(options_.sampling, argument.substr(0, space), value);
  if (!status.ok()) terminal_.note(status.error().message + "\n");
}

void Chat::retry(const std::string&) {
  const std::vector<ChatMessage> before = history_;
  while (!history_.empty() && history_.back().role != "user") history_.pop_back();
  if (history_.empty()) {
    terminal_.note("There is nothing to answer again.\n");
    return;
  }
  const std::string text = std::move(history_.back().content);
  history_.pop_back();
  if (answer(text) == Answered::failed) history_ = before;
}

void Chat::toggle_stats(const std::string&) {
  options_.stats = !options_.stats;
  terminal_.note(options_.stats ? "Numbers on.\n" : "Numbers off.\n");
}

}  // namespace inferneo
