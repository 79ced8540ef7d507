#include "manager/registry_records.h"

#include <fmt/format.h>

#include <algorithm>

namespace inferneo {
namespace {

constexpr size_t kMaxName = 128, kMaxVersion = 64;
constexpr size_t kMaxSource = 4096, kMaxRevision = 256;
constexpr size_t kMaxValues = 256, kMaxKey = 128, kMaxValue = 64 * 1024;
constexpr int64_t kMaxKeepAlive = 10LL * 366 * 24 * 3600;  // ten years; more is meant to be kKeepForever

// Not std::isalnum: what a name may be does not depend on the locale.
bool is_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_'; }
bool is_version_byte(char c) { return is_word(c) || c == '.' || c == '-'; }

// A caller's text in a message: shortened, and nothing that a terminal would act on.
std::string shown(std::string_view text) {
  std::string result(text.substr(0, kMaxName));
  std::replace_if(
      result.begin(), result.end(), [](unsigned char c) { return c < 0x20 || c >= 0x7f; }, '?');
  return result;
}

Status check_text(std::string_view text, std::string_view what, size_t limit, std::string_view param) {
  if (text.size() > limit) {
    return make_error(ErrorCode::invalid_argument, fmt::format("{} is longer than {} bytes", what, limit),
                      std::string(param));
  }
  if (text.find('\0') != std::string_view::npos) {
    return make_error(ErrorCode::invalid_argument, fmt::format("{} contains a NUL byte", what), std::string(param));
  }
  return ok_status();
}

}  // namespace

std::string_view record_origin_name(RecordOrigin origin) { return origin == RecordOrigin::config ? "config" : "api"; }

ModelRecord amended(ModelRecord record, const ModelAmendment& amendment) {
  for (const auto& [changes, values] :
       {std::pair(&amendment.settings, &record.settings), std::pair(&amendment.metadata, &record.metadata)}) {
    for (const auto& [name, value] : *changes) {
      if (value) {
        (*values)[name] = *value;
      } else {
        values->erase(name);
      }
    }
  }
  record.pinned = amendment.pinned.value_or(record.pinned);
  record.keep_alive = amendment.keep_alive.value_or(record.keep_alive);
  return record;
}

std::string_view version_policy_name(VersionPolicy::Kind kind) {
  switch (kind) {
    case VersionPolicy::Kind::latest:
      return "latest";
    case VersionPolicy::Kind::all:
      return "all";
    case VersionPolicy::Kind::specific:
      return "specific";
  }
  return "latest";
}

bool serves(const VersionPolicy& policy, std::string_view version) {
  return policy.kind != VersionPolicy::Kind::specific ||
         std::find(policy.versions.begin(), policy.versions.end(), version) != policy.versions.end();
}

const ModelRecord* RegistrySnapshot::find_model(const ModelId& id) const {
  const auto found = std::find_if(models.begin(), models.end(), [&](const auto& model) { return model.id == id; });
  return found == models.end() ? nullptr : &*found;
}

const NameRecord* RegistrySnapshot::find_name(std::string_view name) const {
  const auto found = std::find_if(names.begin(), names.end(), [&](const auto& record) { return record.name == name; });
  return found == names.end() ? nullptr : &*found;
}

std::string RegistrySnapshot::version_of(std::string_view name) const {
  const NameRecord* record = find_name(name);
  if (record == nullptr) return {};
  if (record->active) return *record->active;
  const auto last = std::find_if(models.rbegin(), models.rend(), [&](const ModelRecord& model) {
    return model.id.name == name && serves(record->policy, model.id.version);
  });
  return last == models.rend() ? std::string() : last->id.version;
}

bool is_model_name(std::string_view text) {
  if (text.empty() || text.size() > kMaxName || text.find("..") != std::string_view::npos) return false;
  bool begins = true;  // a part between slashes
  for (const char c : text) {
    if (begins ? !is_word(c) : !is_version_byte(c) && c != '/') return false;
    begins = c == '/';
  }
  return !begins;
}

bool is_model_version(std::string_view text) {
  return !text.empty() && text.size() <= kMaxVersion && std::all_of(text.begin(), text.end(), is_version_byte);
}

Status check_model_name(std::string_view text, std::string_view param) {
  if (is_model_name(text)) return ok_status();
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("'{}' cannot be a model's name or alias: at most {} letters, digits, '.', '_', '-' "
                                "and '/', no '..', and each part begins with a letter, a digit or '_'",
                                shown(text), kMaxName),
                    std::string(param));
}

Result<ModelId> parse_registered_id(std::string_view text) {
  if (text.find(':') != std::string_view::npos) return parse_model_id(text);
  RETURN_IF_ERROR(check_model_name(text, "name"));
  return ModelId{std::string(text), std::string(kFirstVersion)};
}

Status check_model_version(std::string_view text) {
  if (is_model_version(text)) return ok_status();
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("'{}' cannot be a version: 1 to {} letters, digits, '.', '_' and '-'", shown(text), kMaxVersion),
      "version");
}

Result<ModelId> parse_model_id(std::string_view text) {
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("'{}' names no version; write it as name:version", shown(text)), "model");
  }
  RETURN_IF_ERROR(check_model_name(text.substr(0, colon), "model"));
  RETURN_IF_ERROR(check_model_version(text.substr(colon + 1)));
  return ModelId{std::string(text.substr(0, colon)), std::string(text.substr(colon + 1))};
}

Status check_values(const std::map<std::string, std::string>& values, std::string_view param) {
  if (values.size() > kMaxValues) {
    return make_error(ErrorCode::invalid_argument, fmt::format("{} has more than {} entries", param, kMaxValues),
                      std::string(param));
  }
  for (const auto& [key, value] : values) {
    if (key.empty()) {
      return make_error(ErrorCode::invalid_argument, fmt::format("{} has an empty key", param), std::string(param));
    }
    RETURN_IF_ERROR(check_text(key, fmt::format("a key of {}", param), kMaxKey, param));
    RETURN_IF_ERROR(check_text(value, fmt::format("the value of '{}' in {}", shown(key), param), kMaxValue, param));
  }
  return ok_status();
}

Status check_keep_alive(const std::optional<int64_t>& keep_alive) {
  if (!keep_alive || (*keep_alive >= kKeepForever && *keep_alive <= kMaxKeepAlive)) return ok_status();
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("keep_alive is {}; it takes 0 to {} seconds, or -1 for ever", *keep_alive, kMaxKeepAlive),
      "keep_alive");
}

Status check_record(const ModelRecord& record) {
  RETURN_IF_ERROR(check_model_name(record.id.name, "name"));
  RETURN_IF_ERROR(check_model_version(record.id.version));
  if (record.source.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("the model '{}' has no source; give a path or a hub id", record.id.text()), "source");
  }
  RETURN_IF_ERROR(check_text(record.source, "the source", kMaxSource, "source"));
  RETURN_IF_ERROR(check_text(record.revision, "the revision", kMaxRevision, "revision"));
  RETURN_IF_ERROR(check_values(record.settings, "settings"));
  RETURN_IF_ERROR(check_values(record.metadata, "metadata"));
  RETURN_IF_ERROR(check_keep_alive(record.keep_alive));
  if (record.created < 0 || record.last_used < 0 || record.load_count < 0) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("the model '{}' has a negative time or count", record.id.text()));
  }
  return ok_status();
}

}  // namespace inferneo
