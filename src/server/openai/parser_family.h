// Which form a model's template gives to tool calls and reasoning, read off the template itself: one row per family.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/openai/output_parser.h"
#include "server/openai/request_draft.h"
#include "text/tokenizer.h"

namespace inferneo {

enum class ToolFamily : uint8_t { hermes, llama, mistral };

struct ChatFormat {
  ToolFamily tools = ToolFamily::hermes;
  bool reasons = false;              // the template knows <think> blocks
  bool markers_are_special = false;  // a marker is a special token: the output must keep those
};

ChatFormat detect_chat_format(std::string_view chat_template);
// Also looks at the markers' tokens. `chat_template`: used in the place of the model's own; empty: that one.
ChatFormat detect_chat_format(const Tokenizer& tokenizer, std::string_view chat_template);

// Whether a prompt that ends so has opened a <think> block.
bool prompt_opens_reasoning(std::string_view prompt_end);

// For one sample of the request.
std::unique_ptr<OutputParser> make_output_parser(const RequestDraft& draft, const ChatFormat& format,
                                                 bool begins_inside_reasoning);

// A new id for a tool call, of the form that the family's template accepts in the next request.
std::string new_tool_call_id(ToolFamily family);

}  // namespace inferneo
