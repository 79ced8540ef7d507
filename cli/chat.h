// A conversation at the terminal, or one answer: what `run` does once a model is loaded.
//
// One thread calls answer() and converse(); SIGINT cancels the answer that is being written, not the program.
#pragma once

#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/line_reader.h"
#include "cli/sampling_options.h"
#include "serving/inference_service.h"

namespace inferneo {

struct ChatOptions {
  SamplingChoice sampling;
  std::string system;  // system message; empty: none
  bool raw = false;    // continue the text as it is, without the chat template
  bool stats = false;  // also where the error stream is no terminal
};

struct ChatMessage {
  std::string role;
  std::string content;
};

class Chat {
 public:
  // The service's default model is asked. `uses_template`: messages go through the model's chat template.
  Chat(InferenceService& service, CommandContext& context, ChatOptions options, bool uses_template);

  int answer_once(const std::string& prompt);  // the exit code
  int converse(LineReader& reader);            // until /quit or the end of input

 private:
  enum class Next { go_on, quit };
  enum class Answered { whole, cancelled, failed, reader_gone };
  struct SlashCommand;

  // Adds the user's text and the model's answer to the history; after a failure neither.
  Answered answer(const std::string& text);
  GenerateRequest make_request() const;
  void print_stats(const GenerateOutcome& outcome);
  Next run_slash_command(const std::string& line);
  static std::span<const SlashCommand> slash_commands();

  void show_help();
  void clear(const std::string& argument);
  void set_system(const std::string& argument);
  void set_option(const std::string& argument);
  void retry(const std::string& argument);
  void toggle_stats(const std::string& argument);

  InferenceService& service_;
  Terminal& terminal_;
  Signals& signals_;
  ChatOptions options_;
  const bool uses_template_;
  std::vector<ChatMessage> history_;
  int last_signal_ = 0;
};

}  // namespace inferneo
