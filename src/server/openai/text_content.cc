#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/json_fields.h"
#include "server/openai/request_draft.h"

namespace inferneo {

Result<std::string> read_text_content(const Json& content, const std::string& field) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) return field_error(field, "must be a string or a list of text parts");
  std::string text;
  bool first = true;
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string part_name = fmt::format("{}[{}]", field, i);
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (!part.is_object() || type == part.end() || !type->is_string()) {
      return field_error(part_name, "must be an object with a `type`");
    }
    if (*type != "text") {
      return field_error(part_name,
                         fmt::format("is of type '{}'; this server takes text only, no images, audio or files",
                                     type->get<std::string>().substr(0, 64)));
    }
    const auto value = part.find("text");
    if (value == part.end() || !value->is_string()) return field_error(part_name + ".text", "must be a string");
    if (!first) text += '\n';
    first = false;
    text += value->get_ref<const std::string&>();
  }
  return text;
}

}  // namespace inferneo
