// What a chat model writes, told apart while it is being written: content, reasoning, tool calls.
//
// Parsers are pure, incremental state machines that look at one byte at a time: however the text is cut into pieces,
// the joined events are the same. Markers never come out as content; text that only began like one does, in finish() at
// the latest. One parser per sample, one thread at a time.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

struct OutputEvent {
  enum class Kind { content, reasoning, call_begin, call_arguments };
  Kind kind = Kind::content;
  int call = 0;      // index of the call, for the last two kinds
  std::string text;  // the function's name for call_begin

  bool operator==(const OutputEvent&) const = default;
};

// Events in order; neighbours of one kind become one.
class EventList {
 public:
  void content(std::string_view text) { append(OutputEvent::Kind::content, 0, text); }
  void reasoning(std::string_view text) { append(OutputEvent::Kind::reasoning, 0, text); }
  void call_begin(int call, std::string_view name);
  void call_arguments(int call, std::string_view text) { append(OutputEvent::Kind::call_arguments, call, text); }
  const std::vector<OutputEvent>& events() const { return events_; }
  void clear() { events_.clear(); }

 private:
  void append(OutputEvent::Kind kind, int call, std::string_view text);
  std::vector<OutputEvent> events_;
};

class OutputParser {
 public:
  virtual ~OutputParser() = default;
  virtual void push(std::string_view text, EventList& out) = 0;
  virtual void finish(EventList& out) = 0;  // the sample has ended, perhaps in the middle of something
};

// All of the text is content.
std::unique_ptr<OutputParser> make_content_parser();

// <think>reasoning</think>content, where `content` parses what follows. begins_inside: the prompt has opened the block.
std::unique_ptr<OutputParser> make_reasoning_parser(bool begins_inside, std::unique_ptr<OutputParser> content);

// <tool_call>{"name": ..., "arguments": {...}}</tool_call>, among content.
std::unique_ptr<OutputParser> make_hermes_parser();

// The whole output is {"name": ..., "parameters": {...}}, one or more, perhaps after <|python_tag|>. JSON whose name is
// not a known tool is content.
std::unique_ptr<OutputParser> make_llama_parser(std::vector<std::string> tool_names);

// [TOOL_CALLS] [{"name": ..., "arguments": {...}}, ...], or [TOOL_CALLS]name[ARGS]{...}, after content.
std::unique_ptr<OutputParser> make_mistral_parser();

// Output that a grammar has forced to be the arguments of one function.
std::unique_ptr<OutputParser> make_named_call_parser(std::string name);

// Output that a grammar has forced to be [{"name": ..., "arguments": {...}}, ...].
std::unique_ptr<OutputParser> make_call_list_parser();

}  // namespace inferneo
