#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/json_fields.h"
#include "server/openai/request_draft.h"
#include "server/openai/tool_fields.h"

namespace inferneo {
namespace {

constexpr size_t kMaxMessages = 4096;

// An assistant's earlier calls, with their arguments as objects: templates render them so.
Result<Json> read_tool_calls(const Json& calls, const std::string& name) {
  if (!calls.is_array()) return field_error(name, "must be a list");
  Json out = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string call_name = fmt::format("{}[{}]", name, i);
    Json call = calls[i];
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object()) {
      return field_error(call_name, "must be an object with a `function`");
    }
    Json& function = call["function"];
    if (!function.contains("name") || !function["name"].is_string()) {
      return field_error(call_name + ".function.name", "must be a string");
    }
    const auto arguments = function.find("arguments");
    if (arguments != function.end() && arguments->is_string()) {
      const auto& text = arguments->get_ref<const std::string&>();
      Json parsed = Json::object();
      if (!text.empty()) {
        ASSIGN_OR_RETURN(parsed, parse_nested_json(text, call_name + ".function.arguments"));
      }
      if (!parsed.is_object()) return field_error(call_name + ".function.arguments", "must hold a JSON object");
      *arguments = std::move(parsed);
    }
    out.push_back(std::move(call));
  }
  return out;
}

Result<Json> read_message(const Json& message, const std::string& name) {
  if (!message.is_object()) return field_error(name, "must be an object");
  const auto role_field = message.find("role");
  if (role_field == message.end() || !role_field->is_string()) return field_error(name + ".role", "must be a string");
  const auto role = role_field->get<std::string>();
  const bool assistant = role == "assistant";
  const bool tool = role == "tool";
  if (!assistant && !tool && role != "system" && role != "user" && role != "developer") {
    return field_error(name + ".role", "must be system, developer, user, assistant or tool");
  }
  Json out = Json::object();
  out["role"] = role == "developer" ? "system" : role;  // templates know `system` only

  const auto content = message.find("content");
  const bool has_content = content != message.end() && !content->is_null();
  const auto calls = message.find("tool_calls");
  const bool has_calls = calls != message.end() && !calls->is_null() && !(calls->is_array() && calls->empty());
  if (has_content) {
    ASSIGN_OR_RETURN(out["content"], read_text_content(*content, name + ".content"));
  } else if (assistant && has_calls) {
    out["content"] = "";
  } else {
    return field_error(name + ".content", "is required");
  }
  if (has_calls) {
    if (!assistant) return field_error(name + ".tool_calls", "belongs to assistant messages only");
    ASSIGN_OR_RETURN(out["tool_calls"], read_tool_calls(*calls, name + ".tool_calls"));
  }
  for (const char* text_field : {"name", "tool_call_id", "reasoning_content"}) {
    const auto value = message.find(text_field);
    if (value == message.end() || value->is_null()) continue;
    if (!value->is_string()) return field_error(fmt::format("{}.{}", name, text_field), "must be a string");
    out[text_field] = *value;
  }
  if (tool && !out.contains("tool_call_id")) return field_error(name + ".tool_call_id", "is required");
  return out;
}

// `messages` as read: every content is a string.
void add_traits(const Json& messages, RequestTraits& traits) {
  traits.turns = 0;
  for (const Json& message : messages) {
    const auto& content = message["content"].get_ref<const std::string&>();
    traits.conversation.push_back(content);
    if (message["role"] != "user") continue;
    traits.prompt = content;
    ++traits.turns;
  }
}

Status read_messages(const Json& body, RequestDraft& draft, bool with_traits) {
  const auto messages = body.find("messages");
  if (messages == body.end() || !messages->is_array() || messages->empty()) {
    return field_error("messages", "must be a list of at least one message");
  }
  if (messages->size() > kMaxMessages) {
    return field_error("messages", fmt::format("must not hold more than {} messages", kMaxMessages));
  }
  Json out = Json::array();
  for (size_t i = 0; i < messages->size(); ++i) {
    ASSIGN_OR_RETURN(Json message, read_message((*messages)[i], fmt::format("messages[{}]", i)));
    out.push_back(std::move(message));
  }
  if (draft.continue_final_message) {
    if (draft.add_generation_prompt && body.contains("add_generation_prompt")) {
      return field_error("continue_final_message", "and 'add_generation_prompt' exclude each other");
    }
    if (out.back()["role"] != "assistant") {
      return field_error("continue_final_message", "needs an assistant message as the last one");
    }
    draft.add_generation_prompt = false;
  }
  if (with_traits) add_traits(out, draft.request.traits);
  draft.messages = out.dump();
  return ok_status();
}

Status read_template_kwargs(const Json& body, RequestDraft& draft) {
  Json kwargs = Json::object();
  const auto effort = body.find("reasoning_effort");
  if (effort != body.end() && !effort->is_null()) {
    if (!effort->is_string()) return field_error("reasoning_effort", "must be a string");
    kwargs["reasoning_effort"] = *effort;
  }
  const auto given = body.find("chat_template_kwargs");
  if (given != body.end() && !given->is_null()) {
    if (!given->is_object()) return field_error("chat_template_kwargs", "must be an object");
    for (const auto& [key, value] : given->items()) {
      if (key == "messages" || key == "tools" || key == "chat_template" || key == "add_generation_prompt") {
        return field_error("chat_template_kwargs." + key, "is a field of the request itself");
      }
      kwargs[key] = value;
    }
  }
  if (!kwargs.empty()) draft.template_kwargs = kwargs.dump();
  return ok_status();
}

Status check_logprobs(RequestDraft& draft) {
  if (draft.top_logprobs && !draft.wants_logprobs) return field_error("top_logprobs", "needs logprobs: true");
  if (draft.wants_logprobs) draft.request.sampling.logprobs = draft.top_logprobs.value_or(0);
  return ok_status();
}

}  // namespace

Result<RequestDraft> parse_chat_request(std::string_view body, bool with_traits) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(body));
  RequestDraft draft;
  draft.api = Api::chat;
  RETURN_IF_ERROR(read_shared_fields(json, draft));
  RETURN_IF_ERROR(read_messages(json, draft, with_traits));
  RETURN_IF_ERROR(read_template_kwargs(json, draft));
  RETURN_IF_ERROR(check_logprobs(draft));
  RETURN_IF_ERROR(read_tools(json, draft));
  draft.request.traits.has_tools = !draft.tools.empty();
  draft.request.traits.stream = draft.stream;
  return draft;
}

}  // namespace inferneo
