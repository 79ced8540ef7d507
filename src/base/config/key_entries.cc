#include "base/config/key_entries.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/config/field.h"
#include "base/config/yaml_place.h"

namespace inferneo {
namespace {

constexpr double kMinWeight = 0.01;
constexpr double kMaxWeight = 100.0;
constexpr int64_t kMaxLimit = 1'000'000'000'000;
constexpr size_t kMaxName = 64;
constexpr std::string_view kName = "letters, digits, '.', '_' and '-', at most 64";

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kMaxName && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  });
}

bool is_digest(std::string_view text) {
  return text.size() == 64 &&
         std::ranges::all_of(text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

// An error that says what was expected, and never what is there: it may be a key.
Error secret_error(const YamlPlace& place, std::string_view expected) {
  return yaml_error(place.where(), ErrorCode::invalid_argument, fmt::format("{}: expected {}", place.key, expected),
                    place.key);
}

Status read_key(const YamlPlace& place, KeyLimits& entry) {
  const ConfigField& field = *find_config_field("api_key");
  if (!place.node.IsScalar() || place.node.Scalar().empty() || !field.check(place.node.Scalar())) {
    return secret_error(place, field.expected);
  }
  entry.key = place.node.Scalar();
  return ok_status();
}

Status read_digest(const YamlPlace& place, KeyLimits& entry) {
  if (!place.node.IsScalar() || !is_digest(place.node.Scalar())) {
    return secret_error(place, "the key's SHA-256 in 64 lower-case hexadecimal digits");
  }
  entry.key_sha256 = place.node.Scalar();
  return ok_status();
}

Status read_limit(const YamlPlace& place, std::optional<int64_t>& into) {
  RETURN_IF_ERROR(read_whole(place, into.emplace()));
  if (*into < 0 || *into > kMaxLimit) return place.error(fmt::format("a whole number from 0 to {}", kMaxLimit));
  return ok_status();
}

Status read_name(const YamlPlace& place, KeyLimits& entry) {
  if (!place.node.IsScalar() || !is_name(place.node.Scalar())) return place.error(kName);
  entry.name = place.node.Scalar();
  return ok_status();
}

Status read_weight(const YamlPlace& place, KeyLimits& entry) {
  RETURN_IF_ERROR(read_number(place, entry.weight));
  if (entry.weight < kMinWeight || entry.weight > kMaxWeight) return place.error("a number from 0.01 to 100");
  return ok_status();
}

// What an entry may say: one row for each key.
struct LimitKey {
  KeyEntryKeyInfo info;
  Status (*set)(const YamlPlace& place, KeyLimits& entry);
};
constexpr std::array kLimitKeys = {
    LimitKey{{"name", "letters, digits, `.`, `_`, `-`", "What metrics and errors call it; needed"}, read_name},
    LimitKey{{"key", "text", "The key itself; or"}, read_key},
    LimitKey{{"key_sha256", "64 hexadecimal digits", "its SHA-256: `printf %s KEY | sha256sum`"}, read_digest},
    LimitKey{{"requests_per_minute", "whole number", "Instead of the limit of every key; 0: no limit"},
             [](const YamlPlace& p, KeyLimits& e) { return read_limit(p, e.requests_per_minute); }},
    LimitKey{{"tokens_per_minute", "whole number", "The same"},
             [](const YamlPlace& p, KeyLimits& e) { return read_limit(p, e.tokens_per_minute); }},
    LimitKey{{"max_concurrent_requests", "whole number", "The same"},
             [](const YamlPlace& p, KeyLimits& e) { return read_limit(p, e.max_concurrent_requests); }},
    LimitKey{{"weight", "0.01 to 100", "Its share where keys compete; 1 without one"}, read_weight},
};

template <size_t... I>
constexpr auto yaml_keys(std::index_sequence<I...>) {
  return std::array{YamlKey<KeyLimits>{kLimitKeys[I].info.name, kLimitKeys[I].set}...};
}
constexpr auto kYamlKeys = yaml_keys(std::make_index_sequence<kLimitKeys.size()>());

Error invalid(const KeyLimits& entry, std::string_view what) {
  const std::string where = entry.where.empty() ? std::string() : entry.where + ": ";
  return make_error(ErrorCode::invalid_argument, fmt::format("{}key_limits: {}", where, what), "key_limits");
}

Status check_entry(const KeyLimits& entry) {
  if (!is_name(entry.name)) return invalid(entry, fmt::format("a key needs a name of {}", kName));
  if (entry.key.empty() == entry.key_sha256.empty()) {
    return invalid(entry, fmt::format("'{}' needs either a key or a key_sha256", entry.name));
  }
  if (!entry.key_sha256.empty() && !is_digest(entry.key_sha256)) {
    return invalid(entry, fmt::format("the key_sha256 of '{}' is not 64 lower-case hexadecimal digits", entry.name));
  }
  if (!(entry.weight >= kMinWeight && entry.weight <= kMaxWeight)) {
    return invalid(entry, fmt::format("the weight of '{}' is not from 0.01 to 100", entry.name));
  }
  for (const auto* limit : {&entry.requests_per_minute, &entry.tokens_per_minute, &entry.max_concurrent_requests}) {
    if (*limit && (**limit < 0 || **limit > kMaxLimit)) {
      return invalid(entry, fmt::format("a limit of '{}' is not from 0 to {}", entry.name, kMaxLimit));
    }
  }
  return ok_status();
}

}  // namespace

std::vector<KeyEntryKeyInfo> key_entry_keys() {
  std::vector<KeyEntryKeyInfo> keys;
  for (const LimitKey& key : kLimitKeys) keys.push_back(key.info);
  return keys;
}

Result<std::vector<KeyLimits>> parse_key_limits(const YAML::Node& node, const std::string& file) {
  std::vector<KeyLimits> entries;
  const auto read_entry = [&](const YamlPlace& entry) -> Status {
    KeyLimits& limits = entries.emplace_back();
    limits.where = entry.where();
    RETURN_IF_ERROR(read_mapping(entry, "a mapping with a name", kYamlKeys, limits));
    return check_entry(limits);
  };
  RETURN_IF_ERROR(read_list({node, file, "key_limits"}, "a list of keys", kMaxApiKeys, read_entry));
  return entries;
}

Status check_key_limits(const EngineConfig& config) {
  const size_t all = config.key_limits.size() + config.api_key.size();
  if (all > kMaxApiKeys) {
    return make_error(ErrorCode::invalid_argument, fmt::format("{} API keys; at most {} may be", all, kMaxApiKeys),
                      "key_limits");
  }
  std::set<std::string_view> names;
  std::set<std::string_view> keys(config.api_key.begin(), config.api_key.end());
  std::set<std::string_view> digests;
  for (const KeyLimits& entry : config.key_limits) {
    RETURN_IF_ERROR(check_entry(entry));
    // What keys without names are called in metrics.
    if (entry.name == kDefaultKeyName || entry.name.starts_with(kUnnamedKeyPrefix)) {
      return invalid(entry, fmt::format("the name '{}' is taken by requests and keys without a name", entry.name));
    }
    if (!names.insert(entry.name).second) return invalid(entry, fmt::format("two keys are named '{}'", entry.name));
    if ((!entry.key.empty() && !keys.insert(entry.key).second) ||
        (!entry.key_sha256.empty() && !digests.insert(entry.key_sha256).second)) {
      return invalid(entry, fmt::format("the key of '{}' is also that of another", entry.name));
    }
  }
  return ok_status();
}

std::string key_entries_text(const EngineConfig& config) {
  std::string text;
  if (!config.key_limits.empty()) text += "key_limits:\n";
  for (const KeyLimits& entry : config.key_limits) {
    text += fmt::format("  - name: {}  # {}\n", entry.name, entry.where.empty() ? "set" : entry.where);
    text += fmt::format("    {}: '***'\n", entry.key.empty() ? "key_sha256" : "key");
    const auto line = [&](std::string_view name, const std::optional<int64_t>& value) {
      if (value) text += fmt::format("    {}: {}\n", name, *value);
    };
    line("requests_per_minute", entry.requests_per_minute);
    line("tokens_per_minute", entry.tokens_per_minute);
    line("max_concurrent_requests", entry.max_concurrent_requests);
    if (entry.weight != 1.0) text += fmt::format("    weight: {}\n", entry.weight);
  }
  return text;
}

}  // namespace inferneo
