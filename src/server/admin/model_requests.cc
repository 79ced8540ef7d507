#include "server/admin/model_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/config/suggest.h"
#include "server/json_fields.h"
#include "server/keep_alive.h"

namespace inferneo {
namespace {

constexpr size_t kMaxName = 256;  // bytes; the registry's own limits are narrower
constexpr size_t kMaxSource = 4096;
constexpr size_t kMaxValue = 64 * 1024;
constexpr size_t kMaxEntries = 256;

Error unknown_name(std::string_view what, std::string_view name, std::span<const std::string_view> known) {
  const std::string shown(name.substr(0, 64));
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("'{}' is not a {} of this request{}", shown, what, did_you_mean(shown, known)), shown);
}

// ---- queries

Result<Duration> read_seconds(std::string_view text, std::string_view name, Duration longest) {
  double seconds = 0.0;
  const char* const end = text.data() + text.size();
  const auto [stop, ec] = std::from_chars(text.data(), end, seconds, std::chars_format::fixed);
  if (ec != std::errc() || stop != end || !std::isfinite(seconds) || seconds < 0.0) {
    return field_error(name, "must be a number of seconds");
  }
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(std::min(seconds, to_seconds(longest))));
}

Status read_wait(std::string_view text, AdminQuery& query) {
  query.wait = kLongestWait;
  if (text.empty()) return ok_status();
  ASSIGN_OR_RETURN(query.wait, read_seconds(text, "wait", kLongestWait));
  return ok_status();
}

Status read_timeout(std::string_view text, AdminQuery& query) {
  ASSIGN_OR_RETURN(query.timeout, read_seconds(text, "timeout", kLongestTimeout));
  return ok_status();
}

Status read_after(std::string_view text, AdminQuery& query) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, ec] = std::from_chars(text.data(), end, number);
  if (ec != std::errc() || stop != end) return field_error("after", "must be the number of an event");
  query.after = number;
  return ok_status();
}

Status read_limit(std::string_view text, AdminQuery& query) {
  int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, ec] = std::from_chars(text.data(), end, number);
  if (ec != std::errc() || stop != end || number < 1) return field_error("limit", "must be a number from 1 on");
  query.limit = number;
  return ok_status();
}

struct QueryRow {
  std::string_view name;
  Status (*read)(std::string_view text, AdminQuery& query);
};
constexpr std::array kQueries = {
    QueryRow{"wait", read_wait},
    QueryRow{"timeout", read_timeout},
    QueryRow{"after", read_after},
    QueryRow{"limit", read_limit},
};

// ---- values of bodies

bool is_set(const Json& body, const char* field) { return body.contains(field) && !body[field].is_null(); }

Result<std::string> optional_string(const Json& body, const char* field, size_t max_bytes) {
  if (!is_set(body, field)) return std::string();
  return read_string(body[field], field, max_bytes);
}

Result<std::string> required_string(const Json& body, const char* field, size_t max_bytes) {
  if (!is_set(body, field)) return field_error(field, "is required");
  ASSIGN_OR_RETURN(std::string text, read_string(body[field], field, max_bytes));
  if (text.empty()) return field_error(field, "must not be empty");
  return text;
}

Result<std::vector<std::string>> string_list(const Json& body, const char* field) {
  std::vector<std::string> values;
  if (!is_set(body, field)) return values;
  const Json& list = body[field];
  if (!list.is_array() || list.size() > kMaxEntries) {
    return field_error(field, fmt::format("must be a list of at most {} strings", kMaxEntries));
  }
  for (const Json& entry : list) {
    ASSIGN_OR_RETURN(std::string text, read_string(entry, field, kMaxName));
    values.push_back(std::move(text));
  }
  return values;
}

// Texts by name. Numbers and truth values are taken as a configuration file would have them written.
Result<std::map<std::string, std::string>> string_map(const Json& body, const char* field) {
  std::map<std::string, std::string> values;
  if (!is_set(body, field)) return values;
  const Json& object = body[field];
  if (!object.is_object() || object.size() > kMaxEntries) {
    return field_error(field, fmt::format("must be an object of at most {} texts", kMaxEntries));
  }
  for (const auto& [key, value] : object.items()) {
    if (value.is_number() || value.is_boolean()) {
      values[key] = value.dump();
      continue;
    }
    ASSIGN_OR_RETURN(values[key], read_string(value, fmt::format("{}.{}", field, key.substr(0, 64)), kMaxValue));
  }
  return values;
}

Result<std::optional<ModelFormat>> optional_format(const Json& body) {
  ASSIGN_OR_RETURN(const std::string name, optional_string(body, "format", kMaxName));
  if (name.empty()) return std::optional<ModelFormat>();
  std::string known;
  for (const ModelFormat format : {ModelFormat::HuggingFace, ModelFormat::ONNX, ModelFormat::TensorRT}) {
    if (model_format_name(format) == name) return std::optional(format);
    known += (known.empty() ? "" : ", ") + std::string(model_format_name(format));
  }
  return field_error("format", "must be one of " + known);
}

Result<std::optional<int64_t>> optional_keep_alive(const Json& body) {
  if (!is_set(body, "keep_alive")) return std::optional<int64_t>();
  ASSIGN_OR_RETURN(const int64_t seconds, read_keep_alive(body["keep_alive"], "keep_alive"));
  return std::optional(seconds);
}

constexpr std::array<std::string_view, 10> kRegistrationFields = {
    "name", "version", "source", "revision", "format", "aliases", "settings", "metadata", "pinned", "keep_alive"};

}  // namespace

Result<AdminQuery> read_query(const HttpHead& head, std::initializer_list<std::string_view> allowed) {
  AdminQuery query;
  std::string_view rest = head.query;
  while (!rest.empty()) {
    const std::string_view part = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    if (part.empty()) continue;
    const std::string_view name = part.substr(0, part.find('='));
    const bool known = std::find(allowed.begin(), allowed.end(), name) != allowed.end();
    if (!known) return unknown_name("parameter", name, std::span(allowed.begin(), allowed.size()));
    const std::optional<std::string> value = percent_decode(part.substr(std::min(name.size() + 1, part.size())));
    if (!value) return field_error(name, "holds a broken percent escape");
    const auto row = std::find_if(kQueries.begin(), kQueries.end(), [&](const QueryRow& r) { return r.name == name; });
    RETURN_IF_ERROR(row->read(*value, query));
  }
  return query;
}

Result<Json> read_body(std::string_view body, std::span<const std::string_view> fields) {
  if (body.empty()) return Json(Json::value_t::object);
  ASSIGN_OR_RETURN(Json json, parse_json_object(body));
  for (const auto& [key, value] : json.items()) {
    if (std::find(fields.begin(), fields.end(), key) == fields.end()) return unknown_name("field", key, fields);
  }
  return json;
}

Result<ModelRegistration> read_registration(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, read_body(body, kRegistrationFields));
  ModelRegistration registration;
  ASSIGN_OR_RETURN(registration.name, required_string(json, "name", kMaxName));
  ASSIGN_OR_RETURN(registration.version, optional_string(json, "version", kMaxName));
  ASSIGN_OR_RETURN(registration.path, required_string(json, "source", kMaxSource));
  ASSIGN_OR_RETURN(registration.revision, optional_string(json, "revision", kMaxName));
  ASSIGN_OR_RETURN(registration.format, optional_format(json));
  ASSIGN_OR_RETURN(registration.aliases, string_list(json, "aliases"));
  ASSIGN_OR_RETURN(registration.settings, string_map(json, "settings"));
  ASSIGN_OR_RETURN(registration.metadata, string_map(json, "metadata"));
  if (is_set(json, "pinned")) {
    ASSIGN_OR_RETURN(registration.pinned, read_bool(json["pinned"], "pinned"));
  }
  ASSIGN_OR_RETURN(registration.keep_alive, optional_keep_alive(json));
  return registration;
}

Result<ModelAmendment> read_amendment(std::string_view body) {
  constexpr std::array<std::string_view, 4> kFields = {"settings", "metadata", "pinned", "keep_alive"};
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  if (json.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "a change needs one of the fields settings, metadata, pinned and keep_alive");
  }
  ModelAmendment amendment;
  for (const auto& [field, values] :
       {std::pair("settings", &amendment.settings), std::pair("metadata", &amendment.metadata)}) {
    if (!json.contains(field)) continue;
    if (json[field].is_null()) return field_error(field, "must be an object; null stands for single entries of it");
    Json given = Json(Json::value_t::object);
    given[field] = json[field];
    if (json[field].is_object()) {
      for (const auto& [name, value] : json[field].items()) {
        if (!value.is_null()) continue;
        values->emplace(name, std::nullopt);
        given[field].erase(name);
      }
    }
    ASSIGN_OR_RETURN(auto texts, string_map(given, field));
    for (auto& [name, text] : texts) values->emplace(name, std::move(text));
  }
  if (json.contains("pinned")) {
    ASSIGN_OR_RETURN(amendment.pinned, read_bool(json["pinned"], "pinned"));
  }
  if (json.contains("keep_alive")) {
    ASSIGN_OR_RETURN(amendment.keep_alive, optional_keep_alive(json));
  }
  return amendment;
}

Result<KeepAliveChange> read_keep_alive_change(std::string_view body) {
  constexpr std::array<std::string_view, 1> kFields = {"keep_alive"};
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  if (!json.contains("keep_alive")) return field_error("keep_alive", "is required; null means the server's default");
  KeepAliveChange change;
  ASSIGN_OR_RETURN(change.seconds, optional_keep_alive(json));
  return change;
}

Result<VersionChange> read_version_change(std::string_view body) {
  constexpr std::array<std::string_view, 2> kFields = {"version", "rollback"};
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  VersionChange change;
  bool rollback = false;
  if (is_set(json, "rollback")) {
    ASSIGN_OR_RETURN(rollback, read_bool(json["rollback"], "rollback"));
  }
  if (rollback && json.contains("version")) return field_error("rollback", "and 'version' exclude each other");
  if (rollback) {
    change.kind = VersionChange::Kind::rollback;
    return change;
  }
  if (!json.contains("version")) {
    return field_error("version", "is required: a version, null to follow the policy, or rollback: true instead");
  }
  if (json["version"].is_null()) {
    change.kind = VersionChange::Kind::follow_policy;
    return change;
  }
  ASSIGN_OR_RETURN(change.version, read_string(json["version"], "version", kMaxName));
  RETURN_IF_ERROR(check_model_version(change.version));
  return change;
}

Result<VersionPolicy> read_policy(std::string_view body) {
  constexpr std::array<std::string_view, 2> kFields = {"kind", "versions"};
  using Kind = VersionPolicy::Kind;
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  ASSIGN_OR_RETURN(const std::string name, required_string(json, "kind", kMaxName));
  VersionPolicy policy;
  bool known = false;
  for (const Kind kind : {Kind::latest, Kind::all, Kind::specific}) {
    if (version_policy_name(kind) != name) continue;
    policy.kind = kind;
    known = true;
  }
  if (!known) return field_error("kind", "must be latest, all or specific");
  ASSIGN_OR_RETURN(policy.versions, string_list(json, "versions"));
  if (policy.kind == Kind::specific && policy.versions.empty()) {
    return field_error("versions", "must list the versions that may be served");
  }
  if (policy.kind != Kind::specific && !policy.versions.empty()) {
    return field_error("versions", "belongs to the kind specific");
  }
  return policy;
}

Result<std::vector<PlanRequest>> read_plan(std::string_view body) {
  constexpr std::array<std::string_view, 1> kFields = {"models"};
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  if (!is_set(json, "models") || !json["models"].is_array() || json["models"].empty() ||
      json["models"].size() > kMaxEntries) {
    return field_error("models", fmt::format("must list 1 to {} models, each with its id", kMaxEntries));
  }
  std::vector<PlanRequest> wanted;
  for (const Json& entry : json["models"]) {
    if (!entry.is_object()) return field_error("models", "must hold objects with an id");
    for (const auto& [key, value] : entry.items()) {
      constexpr std::array<std::string_view, 2> kModelFields = {"id", "context"};
      if (key != "id" && key != "context") return unknown_name("field", key, kModelFields);
    }
    PlanRequest request;
    ASSIGN_OR_RETURN(request.id, required_string(entry, "id", kMaxName));
    if (is_set(entry, "context")) {
      if (!entry["context"].is_number_integer()) return field_error("context", "must be a number of tokens");
      request.context = entry["context"].get<int64_t>();
    }
    wanted.push_back(std::move(request));
  }
  return wanted;
}

Result<std::string> read_target(std::string_view body) {
  constexpr std::array<std::string_view, 1> kFields = {"target"};
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  return required_string(json, "target", kMaxName);
}

Result<std::string> read_hub_id(std::string_view body) {
  constexpr std::array<std::string_view, 1> kFields = {"id"};
  ASSIGN_OR_RETURN(const Json json, read_body(body, kFields));
  return required_string(json, "id", kMaxName);
}

Status read_nothing(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, read_body(body, {}));
  return ok_status();
}

}  // namespace inferneo
