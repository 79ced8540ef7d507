#include "formats/sentence_modules.h"

#include "formats/json.h"

namespace inferneo {
namespace {

constexpr const char* kFile = "modules.json";
constexpr size_t kMaxBytes = size_t{1} << 20;

const std::string* text_field(const nlohmann::json& entry, const char* name) {
  const auto found = entry.is_object() ? entry.find(name) : entry.end();
  return found == entry.end() || !found->is_string() ? nullptr : found->get_ptr<const std::string*>();
}

}  // namespace

Result<std::vector<SentenceModule>> read_sentence_modules(const ModelDirectory& directory) {
  std::vector<SentenceModule> modules;
  if (!directory.contains(kFile)) return modules;
  ASSIGN_OR_RETURN(const std::string text, directory.read(kFile, kMaxBytes));
  ASSIGN_OR_RETURN(const nlohmann::json list, parse_json(text, kFile));
  const Error wrong = make_error(ErrorCode::malformed, "modules.json must be a list of objects with a type and a path");
  if (!list.is_array()) return wrong;
  for (const nlohmann::json& entry : list) {
    const std::string* const type = text_field(entry, "type");
    const std::string* const path = text_field(entry, "path");
    if (type == nullptr || path == nullptr) return wrong;
    modules.push_back({type->substr(type->find_last_of('.') + 1), *path});
  }
  return modules;
}

}  // namespace inferneo
