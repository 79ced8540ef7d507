#include "server/openai/parser_family.h"

#include <array>

#include "server/request_id.h"

namespace inferneo {
namespace {

struct FamilyRow {
  ToolFamily family;
  std::string_view sign;    // in the template
  std::string_view marker;  // in the output
};
// The first sign found decides. Templates of Llama 3.1+ show the form of a call in their instructions.
constexpr std::array kFamilies = {
    FamilyRow{ToolFamily::mistral, "[TOOL_CALLS]", "[TOOL_CALLS]"},
    FamilyRow{ToolFamily::hermes, "<tool_call>", "<tool_call>"},
    FamilyRow{ToolFamily::llama, "<|python_tag|>", "<|python_tag|>"},
    FamilyRow{ToolFamily::llama, "\"parameters\": dictionary of argument name", "<|python_tag|>"},
};

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

}  // namespace

ChatFormat detect_chat_format(std::string_view chat_template) {
  ChatFormat format;
  for (const FamilyRow& row : kFamilies) {
    if (contains(chat_template, row.sign)) {
      format.tools = row.family;
      break;
    }
  }
  format.reasons = contains(chat_template, "</think>");
  return format;
}

ChatFormat detect_chat_format(const Tokenizer& tokenizer, std::string_view chat_template) {
  const std::string own = chat_template.empty() ? tokenizer.chat_template_source() : std::string();
  ChatFormat format = detect_chat_format(chat_template.empty() ? own : chat_template);
  for (const FamilyRow& row : kFamilies) {
    if (row.family != format.tools) continue;
    const std::optional<Token> token = tokenizer.token_to_id(row.marker);
    // Llama's tag may go: the braces after it say the same.
    if (token && tokenizer.is_special(*token) && row.family != ToolFamily::llama) format.markers_are_special = true;
  }
  return format;
}

bool prompt_opens_reasoning(std::string_view prompt_end) {
  const size_t open = prompt_end.rfind("<think>");
  const size_t close = prompt_end.rfind("</think>");
  return open != std::string_view::npos && (close == std::string_view::npos || close < open);
}

std::unique_ptr<OutputParser> make_output_parser(const RequestDraft& draft, const ChatFormat& format,
                                                 bool begins_inside_reasoning) {
  if (draft.tool_choice == ToolChoice::named) return make_named_call_parser(draft.named_tool);
  if (draft.tool_choice == ToolChoice::required) return make_call_list_parser();
  // Constrained output is what the constraint says, from its first byte.
  if (!draft.grammar_source.empty()) return make_content_parser();
  std::unique_ptr<OutputParser> content;
  if (draft.tool_choice == ToolChoice::none) {
    content = make_content_parser();
  } else {
    switch (format.tools) {
      case ToolFamily::hermes:
        content = make_hermes_parser();
        break;
      case ToolFamily::llama:
        content = make_llama_parser(draft.tool_names);
        break;
      case ToolFamily::mistral:
        content = make_mistral_parser();
        break;
    }
  }
  if (!format.reasons) return content;
  return make_reasoning_parser(begins_inside_reasoning, std::move(content));
}

std::string new_tool_call_id(ToolFamily family) {
  return family == ToolFamily::mistral ? random_id("", 9) : random_id("call_", 24);
}

}  // namespace inferneo
