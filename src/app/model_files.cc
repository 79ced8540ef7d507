#include "app/model_files.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "base/config/field.h"
#include "base/config/load.h"
#include "base/config/suggest.h"
#include "base/system.h"

namespace inferneo {
namespace {

constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;
constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

Result<std::string> read_optional_file(const ModelDirectory& directory, const char* file, size_t max_bytes) {
  Result<std::string> text = directory.read(file, max_bytes);
  // Only a file that is not there is left out: one that may not be read is an error, as it is for the others.
  if (!text.ok() && text.error().code == ErrorCode::not_found) return std::string();
  return text;
}

// The operator's own template, named on the command line or in the configuration.
Result<std::string> read_template_override(const std::string& path) {
  Result<std::string> text = read_named_file(path, "chat_template", kMaxTemplateBytes);
  if (text.ok()) return text;
  Error error = std::move(text).error();
  error.param = "chat_template";
  return error;
}

constexpr const char* kTemplate = "chat_template";

// An override that does not compile, with its place. A model's own is its authors': it fails the chats alone.
Status check_override(std::string_view text) {
  const Status compiled = check_chat_template(text);
  if (compiled.ok()) return ok_status();
  return make_error(ErrorCode::invalid_argument, fmt::format("chat_template: {}", compiled.error().message), kTemplate);
}

// Without exceptions: a name that no path can have is not there.
bool exists(const std::string& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) && !error;
}

}  // namespace

const std::string* template_text_of(const ModelRecord& record) {
  if (record.origin != RecordOrigin::api) return nullptr;
  const auto found = record.settings.find(kTemplate);
  return found == record.settings.end() || found->second.empty() ? nullptr : &found->second;
}

Status check_template_text(const std::string& text) {
  if (text.find("{{") == std::string::npos && text.find("{%") == std::string::npos) {
    return make_error(ErrorCode::invalid_argument,
                      "chat_template is the template itself here, and this text has no Jinja in it; a file is read by "
                      "inferneo register --chat-template FILE",
                      kTemplate);
  }
  return check_override(text);
}

Result<std::shared_ptr<const Tokenizer>> load_model_tokenizer(const ModelDirectory& directory,
                                                              const EngineConfig& config, const std::string* text,
                                                              const std::shared_ptr<CacheMemory>& memory) {
  TokenizerFiles files;
  if (memory != nullptr) {
    files.cache.max_bytes = static_cast<size_t>(config.token_cache_mb * kMiB);
    // The tokenizer may outlive the model, and the books.
    files.cache.may_take = [weak = std::weak_ptr<CacheMemory>(memory)](size_t bytes) {
      const std::shared_ptr<CacheMemory> books = weak.lock();
      return books != nullptr && books->take(bytes);
    };
  }
  ASSIGN_OR_RETURN(files.tokenizer_json, directory.read("tokenizer.json", kMaxTokenizerBytes));
  ASSIGN_OR_RETURN(files.tokenizer_config_json,
                   read_optional_file(directory, "tokenizer_config.json", kMaxTokenizerBytes));
  if (text != nullptr) {
    files.chat_template_jinja = *text;
  } else if (!config.chat_template.empty()) {
    ASSIGN_OR_RETURN(files.chat_template_jinja, read_template_override(config.chat_template));
    RETURN_IF_ERROR(check_override(files.chat_template_jinja));
  } else {
    ASSIGN_OR_RETURN(files.chat_template_jinja,
                     read_optional_file(directory, "chat_template.jinja", kMaxTemplateBytes));
  }
  return load_tokenizer(files);
}

GenerationDefaults generation_defaults(const GenerationConfig& parsed) {
  GenerationDefaults defaults;
  defaults.temperature = parsed.temperature;
  defaults.top_p = parsed.top_p;
  defaults.top_k = parsed.top_k;
  defaults.min_p = parsed.min_p;
  defaults.repetition_penalty = parsed.repetition_penalty;
  if (parsed.do_sample && !*parsed.do_sample) defaults.temperature = 0.0F;  // the authors decode greedily
  return defaults;
}

Result<EngineConfig> model_config(const EngineConfig& server, const ModelRecord& record) {
  EngineConfig config = server;
  for (const auto& [name, value] : record.settings) {
    if (record.origin == RecordOrigin::api && name == kTemplate) continue;  // a text and no file's name
    const ConfigField* const field = find_config_field(name);
    if (field == nullptr || !field->per_model) {
      std::vector<std::string_view> known;
      for (const ConfigField& row : config_fields()) {
        if (row.per_model) known.push_back(row.name);
      }
      return make_error(ErrorCode::invalid_argument,
                        fmt::format("'{}' is no setting of a model{}; there are {}", name.substr(0, 128),
                                    did_you_mean(name, known), fmt::join(known, ", ")),
                        "settings");
    }
    const std::vector<std::string> values = {value};
    if (Status set = set_field(config, *field, values); !set.ok()) {
      return make_error(ErrorCode::invalid_argument, fmt::format("{}: {}", name, set.error().message), "settings");
    }
  }
  RETURN_IF_ERROR(validate_config(config));
  return config;
}

std::string source_text(const ModelRecord& record) {
  return record.revision.empty() ? record.source : record.source + "@" + record.revision;
}

Result<HubId> model_hub_id(const ModelRecord& record) { return parse_hub_id(source_text(record)); }

bool is_on_hub(const ModelRecord& record) { return !exists(record.source) && model_hub_id(record).ok(); }

Result<ModelSource> find_model_source(const EngineConfig& config, const ModelRecord& record) {
  ModelSourceOptions options;
  options.hub_cache = config.hub_cache;
  options.roots = config.model_roots;
  options.named_by_operator = record.origin == RecordOrigin::config;
  return resolve_model_source(source_text(record), options);
}

}  // namespace inferneo
