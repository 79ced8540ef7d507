// What the registry remembers, as plain data, and which names it takes. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "formats/model_directory.h"
#include "inferneo/model_registration.h"

namespace inferneo {

// Who registered something: the configuration file (read-only for the API) or the API.
enum class RecordOrigin { config, api };
std::string_view record_origin_name(RecordOrigin origin);

struct ModelId {
  std::string name;
  std::string version;

  std::string text() const { return name + ":" + version; }
  bool operator==(const ModelId&) const = default;
};

struct ModelRecord {
  ModelId id;
  std::string source;                             // local path or hub id
  std::string revision = {};                      // of a hub id; empty: the hub's main
  std::optional<ModelFormat> format = {};         // empty: found out from the files
  std::map<std::string, std::string> settings{};  // engine settings of this model alone, by their configuration names
  std::map<std::string, std::string> metadata{};  // the owner's notes
  RecordOrigin origin = RecordOrigin::api;
  bool pinned = false;                     // never evicted
  std::optional<int64_t> keep_alive = {};  // idle seconds before it may go; empty: the server's default; kKeepForever
  int64_t created = 0;                     // seconds since the epoch; 0 when it is added: now
  int64_t last_used = 0;                   // 0: never
  int64_t load_count = 0;

  bool operator==(const ModelRecord&) const = default;
};

// A change of some of what a record says; what is not in it stays.
struct ModelAmendment {
  std::map<std::string, std::optional<std::string>> settings{};  // none: as the server has it
  std::map<std::string, std::optional<std::string>> metadata{};  // none: no such note any more
  std::optional<bool> pinned = {};
  std::optional<std::optional<int64_t>> keep_alive = {};  // of which none: the server's default

  bool changes_definition() const { return !settings.empty() || !metadata.empty(); }
};
ModelRecord amended(ModelRecord record, const ModelAmendment& amendment);

// Which versions of a name may be served.
struct VersionPolicy {
  enum class Kind { latest, all, specific };
  Kind kind = Kind::latest;
  std::vector<std::string> versions = {};  // with specific; sorted

  bool operator==(const VersionPolicy&) const = default;
};
std::string_view version_policy_name(VersionPolicy::Kind kind);
bool serves(const VersionPolicy& policy, std::string_view version);

// What holds for all versions of a name; it comes with the first and goes with the last.
struct NameRecord {
  std::string name;
  VersionPolicy policy = {};
  std::optional<std::string> active = {};    // the version that the bare name means; empty: as the policy says
  std::optional<std::string> previous = {};  // the version that it meant before, for rollback

  bool operator==(const NameRecord&) const = default;
};

struct AliasRecord {
  std::string alias;
  std::string name;
  std::optional<std::string> version = {};  // empty: whichever the name means
  RecordOrigin origin = RecordOrigin::api;

  std::string target() const { return version ? name + ":" + *version : name; }
  bool operator==(const AliasRecord&) const = default;
};

// A rule, an A/B test or the like. What the texts say is its owner's business; here they are kept unharmed.
struct TrafficRecord {
  std::string kind;
  std::string name;
  std::string definition;
  std::string progress = {};             // how far it has come
  std::vector<std::byte> outcomes = {};  // what has come of it
  int64_t created = 0;                   // as its owner counts

  bool operator==(const TrafficRecord&) const = default;
};
struct TrafficKey {
  std::string kind;
  std::string name;
};

struct RegistrySnapshot {
  std::vector<ModelRecord> models;   // in order of registration
  std::vector<NameRecord> names;     // sorted
  std::vector<AliasRecord> aliases;  // sorted

  const ModelRecord* find_model(const ModelId& id) const;
  const NameRecord* find_name(std::string_view name) const;
  // The version that the bare name means: the active one, else the one registered last of those that the policy
  // serves. Empty for an unknown name.
  std::string version_of(std::string_view name) const;
  bool operator==(const RegistrySnapshot&) const = default;
};

// One use of a model, or several together.
struct ModelUsage {
  ModelId id;
  int64_t last_used = 0;  // seconds since the epoch
  int64_t loads = 0;      // added to load_count
};

// Names and aliases: at most 128 bytes of letters, digits, `.`, `_`, `-` and `/`, as hub ids have them. Each part
// between slashes begins with a letter, a digit or `_`, and `..` stands nowhere. Versions: 1 to 64 of [A-Za-z0-9._-].
bool is_model_name(std::string_view text);
bool is_model_version(std::string_view text);

// "name:version"; the version is asked for.
Result<ModelId> parse_model_id(std::string_view text);
// The same, or a name alone, which is its version kFirstVersion.
Result<ModelId> parse_registered_id(std::string_view text);
inline constexpr std::string_view kFirstVersion = "1";

// invalid_argument with the field as `param`: names, a missing source, sizes, NUL bytes, a keep_alive below -1.
Status check_record(const ModelRecord& record);
Status check_model_name(std::string_view text, std::string_view param);
Status check_model_version(std::string_view text);
Status check_values(const std::map<std::string, std::string>& values, std::string_view param);
Status check_keep_alive(const std::optional<int64_t>& keep_alive);

}  // namespace inferneo
