#include "base/config/yaml_file.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <sstream>

#include "base/config/key_entries.h"
#include "base/config/model_entries.h"
#include "base/config/suggest.h"
#include "base/config/traffic_entries.h"
#include "base/config/yaml_error.h"

namespace inferneo {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr std::string_view kModels = "models", kAliases = "aliases", kRoutingRules = "routing_rules",
                           kRouting = "routing", kABTests = "ab_tests", kShadow = "shadow", kKeyLimits = "key_limits";

std::vector<std::string_view> known_keys() {
  std::vector<std::string_view> keys;
  for (const ConfigField& field : config_fields()) keys.push_back(field.name);
  keys.insert(keys.end(), {kModels, kAliases, kRoutingRules, kRouting, kABTests, kShadow, kKeyLimits});
  return keys;
}

Result<const ConfigField*> field_of_key(const std::string& key, const std::string& where) {
  if (const ConfigField* field = find_config_field(key)) return field;
  const std::string hint = did_you_mean(key, known_keys());
  return yaml_error(where, ErrorCode::invalid_argument,
                    fmt::format("unknown key '{}'{}", key.substr(0, 80),
                                hint.empty() ? "; 'inferneo config' lists the known ones" : hint),
                    key);
}

Result<std::vector<std::string>> values_of(const YAML::Node& node, const ConfigField& field, const std::string& name) {
  std::vector<std::string> values;
  if (node.IsScalar()) {
    values.push_back(node.Scalar());
    return values;
  }
  const std::string where = yaml_position(name, node.Mark());
  if (!node.IsSequence() || !is_list_field(field)) {
    const std::string_view got = node.IsSequence() ? "a list" : node.IsMap() ? "a mapping" : "nothing";
    return yaml_error(where, ErrorCode::invalid_argument,
                      fmt::format("{}: expected {}, got {}", field.name,
                                  is_list_field(field) ? "a list of texts" : field_expectation(field), got),
                      field.name);
  }
  for (const YAML::Node& entry : node) {
    if (!entry.IsScalar()) {
      return yaml_error(yaml_position(name, entry.Mark()), ErrorCode::invalid_argument,
                        fmt::format("{}: expected a list of texts", field.name), field.name);
    }
    values.push_back(entry.Scalar());
  }
  return values;
}

// Where a document begins.
struct DocumentStart final : YAML::EventHandler {
  using Style = YAML::EmitterStyle::value;
  YAML::Mark mark = YAML::Mark::null_mark();

  void OnDocumentStart(const YAML::Mark& start) override { mark = start; }
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, Style) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, Style) override {}
  void OnMapEnd() override {}
};

Status read_key(const std::string& key, const YAML::Node& key_node, const YAML::Node& value, const std::string& name,
                ConfigFile& file) {
  if (key == kModels) {
    ASSIGN_OR_RETURN(file.models, parse_model_entries(value, name));
    return ok_status();
  }
  if (key == kAliases) {
    ASSIGN_OR_RETURN(file.aliases, parse_alias_entries(value, name));
    return ok_status();
  }
  if (key == kRoutingRules) {
    ASSIGN_OR_RETURN(file.routing_rules, parse_routing_rules(value, name));
    return ok_status();
  }
  if (key == kRouting) {
    ASSIGN_OR_RETURN(file.routing, parse_routing_config(value, name));
    return ok_status();
  }
  if (key == kABTests) {
    ASSIGN_OR_RETURN(file.ab_tests, parse_ab_tests(value, name));
    return ok_status();
  }
  if (key == kKeyLimits) {
    ASSIGN_OR_RETURN(file.key_limits, parse_key_limits(value, name));
    return ok_status();
  }
  if (key == kShadow) {
    ASSIGN_OR_RETURN(file.shadow, parse_shadows(value, name));
    return ok_status();
  }
  ASSIGN_OR_RETURN(const ConfigField* field, field_of_key(key, yaml_position(name, key_node.Mark())));
  ASSIGN_OR_RETURN(auto values, values_of(value, *field, name));
  const YAML::Mark mark = value.Mark();
  file.fields.push_back({field, std::move(values), yaml_position(name, mark.is_null() ? key_node.Mark() : mark)});
  return ok_status();
}

Result<ConfigFile> read_root(const YAML::Node& root, const std::string& name) {
  ConfigFile file;
  if (!root.IsDefined() || root.IsNull()) return file;
  if (!root.IsMap()) {
    return yaml_error(yaml_position(name, root.Mark()), ErrorCode::invalid_argument,
                      "expected lines of the form 'key: value'");
  }
  std::set<std::string> seen;
  for (const auto& pair : root) {
    const std::string where = yaml_position(name, pair.first.Mark());
    if (!pair.first.IsScalar()) return yaml_error(where, ErrorCode::invalid_argument, "expected a key");
    const std::string& key = pair.first.Scalar();
    if (!seen.insert(key).second) {
      return yaml_error(where, ErrorCode::invalid_argument,
                        fmt::format("'{}' stands here a second time", key.substr(0, 80)), key);
    }
    RETURN_IF_ERROR(read_key(key, pair.first, pair.second, name, file));
  }
  return file;
}

}  // namespace

Result<ConfigFile> parse_config_yaml(const std::string& text, const std::string& name) {
  try {
    // YAML::Load() stops after the first document, whatever follows; YAML::LoadAll() never ends on some inputs.
    std::istringstream stream(text);
    YAML::Parser parser(stream);
    DocumentStart last;
    parser.HandleNextDocument(last);
    if (parser.HandleNextDocument(last)) {
      return yaml_error(yaml_position(name, last.mark), ErrorCode::invalid_argument,
                        "a second document begins here; a configuration is one");
    }
    return read_root(YAML::Load(text), name);
  } catch (const YAML::Exception& error) {
    return yaml_error(yaml_position(name, error.mark), ErrorCode::invalid_argument, "not YAML: " + error.msg);
  }
}

Result<std::string> read_config_file(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "re"), &std::fclose);
  const auto failed = [&] {
    return make_error(ErrorCode::io_error, fmt::format("cannot read {}: {}", path, std::strerror(errno)), "config");
  };
  if (file == nullptr) return failed();
  std::string text;
  std::array<char, 4096> chunk;
  while (const size_t count = std::fread(chunk.data(), 1, chunk.size(), file.get())) {
    text.append(chunk.data(), count);
    if (text.size() > kMaxBytes) {
      return make_error(ErrorCode::invalid_argument, path + " is larger than 1 MiB: not a configuration file",
                        "config");
    }
  }
  if (std::ferror(file.get()) != 0) return failed();
  return text;
}

}  // namespace inferneo
