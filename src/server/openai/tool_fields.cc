#include "server/openai/tool_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "server/json_fields.h"

namespace inferneo {
namespace {

bool is_function_name(std::string_view name) {
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-' ||
           c == '.';
  });
}

Status read_tool(const Json& tool, const std::string& name, RequestDraft& draft) {
  if (!tool.is_object() || tool.value("type", Json()) != "function") {
    return field_error(name + ".type", "must be \"function\"");
  }
  const auto function = tool.find("function");
  if (function == tool.end() || !function->is_object()) return field_error(name + ".function", "must be an object");
  const auto function_name = function->find("name");
  if (function_name == function->end() || !function_name->is_string() ||
      !is_function_name(function_name->get_ref<const std::string&>())) {
    return field_error(name + ".function.name", "must be 1 to 64 letters, digits, '_', '-' or '.'");
  }
  const auto parameters = function->find("parameters");
  if (parameters != function->end() && !parameters->is_null() && !parameters->is_object()) {
    return field_error(name + ".function.parameters", "must be a JSON schema");
  }
  const auto& text = function_name->get_ref<const std::string&>();
  if (std::find(draft.tool_names.begin(), draft.tool_names.end(), text) != draft.tool_names.end()) {
    return field_error(name + ".function.name", "is used by an earlier tool");
  }
  draft.tool_names.push_back(text);
  return ok_status();
}

Json parameters_of(const Json& tool) {
  const Json& function = tool["function"];
  const auto parameters = function.find("parameters");
  if (parameters == function.end() || parameters->is_null() || parameters->empty()) {
    return Json{{"type", "object"}, {"properties", Json::object()}, {"additionalProperties", false}};
  }
  Json schema = *parameters;
  if (!schema.contains("type") && schema.contains("properties")) schema["type"] = "object";
  return schema;
}

// References such as "#/$defs/x" are relative to the document's root, so definitions move there.
Status hoist_definitions(Json& schema, Json& root, const std::string& field) {
  for (const char* keyword : {"$defs", "definitions"}) {
    const auto found = schema.find(keyword);
    if (found == schema.end() || !found->is_object()) continue;
    for (const auto& [key, definition] : found->items()) {
      Json& place = root[keyword][key];
      if (!place.is_null() && place != definition) {
        return field_error(field, fmt::format("defines {}/{} differently from another tool", keyword, key));
      }
      place = definition;
    }
    schema.erase(keyword);
  }
  return ok_status();
}

Status constrain_to_calls(const Json& tools, RequestDraft& draft) {
  Json choices = Json::array();
  Json schema = Json::object();
  for (size_t i = 0; i < tools.size(); ++i) {
    Json parameters = parameters_of(tools[i]);
    RETURN_IF_ERROR(hoist_definitions(parameters, schema, fmt::format("tools[{}].function.parameters", i)));
    Json properties = Json::object();
    properties["name"] = Json{{"const", tools[i]["function"]["name"]}};
    properties["arguments"] = std::move(parameters);
    choices.push_back(Json{{"type", "object"},
                           {"properties", std::move(properties)},
                           {"required", Json::array({"name", "arguments"})},
                           {"additionalProperties", false}});
  }
  schema["type"] = "array";
  schema["minItems"] = 1;
  if (!draft.parallel_tool_calls) schema["maxItems"] = 1;
  schema["items"] = Json{{"anyOf", std::move(choices)}};
  return set_grammar(draft, "tool_choice", GrammarSpec{GrammarSpec::Kind::json_schema, schema.dump(), {}});
}

Status read_named_choice(const Json& choice, const Json& tools, RequestDraft& draft) {
  const auto function = choice.find("function");
  const bool well_formed = choice.value("type", Json()) == "function" && function != choice.end() &&
                           function->is_object() && function->contains("name") && (*function)["name"].is_string();
  if (!well_formed) {
    return field_error("tool_choice",
                       "must be none, auto, required, or {\"type\":\"function\",\"function\":{\"name\":...}}");
  }
  draft.named_tool = (*function)["name"].get<std::string>();
  const auto known = std::find(draft.tool_names.begin(), draft.tool_names.end(), draft.named_tool);
  if (known == draft.tool_names.end())
    return field_error("tool_choice", "names a function that is not among the tools");
  draft.tool_choice = ToolChoice::named;
  const Json schema = parameters_of(tools[static_cast<size_t>(known - draft.tool_names.begin())]);
  return set_grammar(draft, "tool_choice", GrammarSpec{GrammarSpec::Kind::json_schema, schema.dump(), {}});
}

}  // namespace

Status read_tools(const Json& body, RequestDraft& draft) {
  const auto found = body.find("tools");
  const Json tools = found == body.end() || found->is_null() ? Json::array() : *found;
  if (!tools.is_array()) return field_error("tools", "must be a list");
  if (tools.size() > kMaxTools) return field_error("tools", fmt::format("must not hold more than {} tools", kMaxTools));
  for (size_t i = 0; i < tools.size(); ++i) {
    RETURN_IF_ERROR(read_tool(tools[i], fmt::format("tools[{}]", i), draft));
  }
  draft.tool_choice = tools.empty() ? ToolChoice::none : ToolChoice::automatic;

  const auto choice = body.find("tool_choice");
  if (choice != body.end() && !choice->is_null()) {
    if (*choice == "none") {
      draft.tool_choice = ToolChoice::none;
    } else if (*choice == "required" || choice->is_object()) {
      if (tools.empty()) return field_error("tool_choice", "needs tools");
      if (choice->is_object()) {
        RETURN_IF_ERROR(read_named_choice(*choice, tools, draft));
      } else {
        draft.tool_choice = ToolChoice::required;
        RETURN_IF_ERROR(constrain_to_calls(tools, draft));
      }
    } else if (*choice != "auto") {
      return field_error("tool_choice", "must be none, auto, required or a named function");
    }
  }
  // With `none` the model must not call, so it is not told of the tools either.
  if (draft.tool_choice != ToolChoice::none) draft.tools = tools.dump();
  return ok_status();
}

}  // namespace inferneo
