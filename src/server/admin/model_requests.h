// From the admin API's queries and bodies to native types. Strict: what is not known is refused by name, with the
// nearest that is. Errors are invalid_argument with the field as `param`.
#pragma once

#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "manager/manager_core.h"
#include "server/http_message.h"
#include "server/json.h"

namespace inferneo {

struct AdminQuery {
  Duration wait{0};                             // for an operation to end; without a number: kLongestWait
  Duration timeout = std::chrono::seconds(30);  // for running requests to end
  std::optional<uint64_t> after;                // the event after which to begin
  std::optional<int64_t> limit;                 // entries of a list
};
inline constexpr Duration kLongestWait = std::chrono::seconds(600);
inline constexpr Duration kLongestTimeout = std::chrono::hours(24);

// `allowed`: the names that the route takes.
Result<AdminQuery> read_query(const HttpHead& head, std::initializer_list<std::string_view> allowed);

// A body of these fields; an empty body is an object without any.
Result<Json> read_body(std::string_view body, std::span<const std::string_view> fields);

Result<ModelRegistration> read_registration(std::string_view body);

// Some fields of a registration, as a merge patch (RFC 7396): null takes a setting, a note or a keep_alive away.
Result<ModelAmendment> read_amendment(std::string_view body);

struct KeepAliveChange {
  std::optional<int64_t> seconds;  // none: as the server's default
};
Result<KeepAliveChange> read_keep_alive_change(std::string_view body);

struct VersionChange {
  enum class Kind : uint8_t { set, follow_policy, rollback };
  Kind kind = Kind::set;
  std::string version;
};
Result<VersionChange> read_version_change(std::string_view body);

Result<VersionPolicy> read_policy(std::string_view body);
Result<std::vector<PlanRequest>> read_plan(std::string_view body);
Result<std::string> read_target(std::string_view body);  // of an alias
Result<std::string> read_hub_id(std::string_view body);  // "org/name[@revision]", as it is
Status read_nothing(std::string_view body);              // an action without fields

}  // namespace inferneo
