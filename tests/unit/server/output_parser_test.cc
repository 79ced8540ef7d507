// What each parser makes of what models write, cut in two at every place and byte by byte.
#include "server/openai/output_parser.h"

#include <gtest/gtest.h>

#include "support/cpu_time.h"

namespace inferneo {
namespace {

using Make = std::unique_ptr<OutputParser> (*)();

// Events as one line: content as it is, ~reasoning~, @index name, arguments in backquotes.
class Told {
 public:
  void take(const EventList& list) {
    for (const OutputEvent& event : list.events()) {
      const bool goes_on = event.kind == kind_ && event.kind != OutputEvent::Kind::call_begin;
      if (!goes_on) close();
      kind_ = event.kind;
      if (!goes_on) line_ += opening(event);
      line_ += event.text;
    }
  }
  std::string line() {
    close();
    return line_;
  }

 private:
  static std::string opening(const OutputEvent& event) {
    switch (event.kind) {
      case OutputEvent::Kind::reasoning:
        return "~";
      case OutputEvent::Kind::call_begin:
        return "@" + std::to_string(event.call) + " ";
      case OutputEvent::Kind::call_arguments:
        return "`";
      default:
        return "";
    }
  }
  void close() {
    if (kind_ == OutputEvent::Kind::reasoning) line_ += "~";
    if (kind_ == OutputEvent::Kind::call_arguments) line_ += "`";
    kind_ = OutputEvent::Kind::content;
  }
  std::string line_;
  OutputEvent::Kind kind_ = OutputEvent::Kind::content;
};

std::string parse(Make make, const std::vector<std::string_view>& pieces) {
  const auto parser = make();
  Told told;
  for (const std::string_view piece : pieces) {
    EventList list;
    parser->push(piece, list);
    told.take(list);
  }
  EventList list;
  parser->finish(list);
  told.take(list);
  return told.line();
}

struct Row {
  Make make;
  std::string text;
  std::string told;
};

std::unique_ptr<OutputParser> llama() { return make_llama_parser({"weather", "f"}); }
std::unique_ptr<OutputParser> thinking() { return make_reasoning_parser(false, make_hermes_parser()); }
std::unique_ptr<OutputParser> in_thought() { return make_reasoning_parser(true, make_content_parser()); }

const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
      {make_hermes_parser, "Just text with <tool_ca and </tool_call> in it",
       "Just text with <tool_ca and </tool_call> in it"},
      {make_hermes_parser, "a\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"}\\\"\"}}\n</tool_call>",
       "a@0 f`{\"x\": \"}\\\"\"}`"},
      {make_hermes_parser,
       "<tool_call>{\"arguments\": {\"a\": [1, {}]}, \"name\": \"f\"}</tool_call><tool_call>{\"name\":\"g\"}",
       "@0 f`{\"a\": [1, {}]}`@1 g`{}`"},
      {make_hermes_parser, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>",
       "@0 f`{\"a\": 1}`"},
      {make_hermes_parser, "<tool_call>not JSON</tool_call> after", "not JSON after"},
      {make_hermes_parser, "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\"", "@0 f`{\"a\"`"},
      {make_hermes_parser, "<tool_call>{\"name\": \"f", "{\"name\": \"f"},
      {make_hermes_parser, "<tool_call>{\"name\": 7, \"arguments\": {}}</tool_call>",
       "{\"name\": 7, \"arguments\": {}}"},
      {make_hermes_parser, "<<tool_call>{\"name\":\"f\"}</tool_call>", "<@0 f`{}`"},
      {llama, "{\"name\": \"weather\", \"parameters\": {\"city\": \"Ulm\"}}", "@0 weather`{\"city\": \"Ulm\"}`"},
      {llama, "<|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"f\", \"parameters\": {}}",
       "@0 f`{}`@1 f`{}`"},
      {llama, "{\"name\": \"unknown\", \"parameters\": {}}", "{\"name\": \"unknown\", \"parameters\": {}}"},
      {llama, "{\"answer\": 42}", "{\"answer\": 42}"},
      {llama, "  text {\"name\": \"f\"}", "  text {\"name\": \"f\"}"},
      {llama, "<|python_", "<|python_"},
      {make_mistral_parser,
       "I will.[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
       "I will.@0 f`{\"a\": 1}`@1 g`{}`"},
      {make_mistral_parser, "[TOOL_CALLS]f[ARGS]{\"a\": 1}[TOOL_CALLS]g{\"b\": 2}", "@0 f`{\"a\": 1}`@1 g`{\"b\": 2}`"},
      {make_mistral_parser, "[TOOL_CALLS", "[TOOL_CALLS"},
      {thinking, "<think>\nhm </think\n</think>\n\nYes.", "~hm </think~Yes."},
      {thinking, "No <think>thought</think>", "No <think>thought</think>"},
      {thinking, "<think>x</think><tool_call>{\"name\":\"f\"}</tool_call>", "~x~@0 f`{}`"},
      {in_thought, "hm</think>yes", "~hm~yes"},
      {in_thought, "<think>hm</think>yes", "~hm~yes"},
      {in_thought, "never ends </th", "~never ends </th~"},
      {make_call_list_parser, "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
       "@0 f`{\"a\": 1}`@1 g`{}`"},
      {[] { return make_named_call_parser("f"); }, "{\"a\": 1}", "@0 f`{\"a\": 1}`"},
      {[] { return make_named_call_parser("f"); }, "", "@0 f"},
  };
  return all;
}

TEST(OutputParsers, TellTheSameHoweverTheTextIsCut) {
  for (const Row& row : rows()) {
    const std::string_view text = row.text;
    EXPECT_EQ(parse(row.make, {text}), row.told) << text;
    for (size_t cut = 1; cut < text.size(); ++cut) {
      EXPECT_EQ(parse(row.make, {text.substr(0, cut), text.substr(cut)}), row.told) << text << " at " << cut;
    }
    std::vector<std::string_view> bytes;
    for (size_t i = 0; i < text.size(); ++i) bytes.push_back(text.substr(i, 1));
    EXPECT_EQ(parse(row.make, bytes), row.told) << text << " byte by byte";
  }
}

TEST(OutputParsers, TakeLinearTimeForWhatNeverEnds) {
  const std::vector<std::string> beginnings = {"",
                                               "<tool_call>",
                                               "<tool_call>{",
                                               "<tool_call>{\"",
                                               "<tool_call>{\"name\": \"",
                                               "<tool_call>{\"arguments\": {\"a\": \"",
                                               "[TOOL_CALLS]",
                                               "[TOOL_CALLS][{",
                                               "[TOOL_CALLS]f[ARGS]{",
                                               "{\"",
                                               "<think>",
                                               "<think>\n",
                                               "[",
                                               "[{\""};
  const std::vector<std::string> units = {" ", "a",  "<",  "<tool_call",   "</tool_call>", "{",
                                          "[", "\\", "\"", "[TOOL_CALLS]", "</thin"};
  for (const Make make : {Make(make_hermes_parser), Make(llama), Make(make_mistral_parser), Make(thinking),
                          Make(in_thought), Make(make_call_list_parser)}) {
    for (const std::string& beginning : beginnings) {
      for (const std::string& unit : units) {
        std::string text = beginning;
        while (text.size() < 50'000) text += unit;
        // A tenth of a microsecond for each byte is what a line takes; the square would be minutes.
        EXPECT_LT(cpu_seconds([&] {
                    const auto parser = make();
                    for (size_t at = 0; at < text.size(); at += 4) {
                      EventList list;
                      parser->push(std::string_view(text).substr(at, 4), list);
                    }
                    EventList list;
                    parser->finish(list);
                  }),
                  0.1 * kSlowdown)
            << beginning << " and then " << unit;
      }
    }
  }
}

}  // namespace
}  // namespace inferneo
