#include "server/json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace inferneo {
namespace {

// Leaves the parser from within its callback; never crosses this file.
struct LimitReached {
  std::string message;
};

struct ParseLimits {
  std::string last_key;
  std::vector<size_t> keys;  // of the open objects

  bool on_event(int depth, Json::parse_event_t event, const Json& parsed) {
    using Event = Json::parse_event_t;
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= kMaxJsonDepth) throw LimitReached{fmt::format("is nested deeper than {} levels", kMaxJsonDepth)};
      if (event == Event::object_start) keys.push_back(0);
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      last_key = parsed.get_ref<const std::string&>();
      if (++keys.back() > kMaxJsonKeys) throw LimitReached{fmt::format("has more than {} keys", kMaxJsonKeys)};
    }
    return true;
  }
};

std::string shorten(const std::string& text) { return text.size() <= 64 ? text : text.substr(0, 61) + "..."; }

}  // namespace

Result<Json> parse_json_object(std::string_view text) {
  ParseLimits limits;
  try {
    Json json = Json::parse(text.begin(), text.end(), [&limits](int depth, Json::parse_event_t event, Json& parsed) {
      return limits.on_event(depth, event, parsed);
    });
    if (!json.is_object()) return make_error(ErrorCode::invalid_argument, "The request body must be a JSON object.");
    return json;
  } catch (const LimitReached& reached) {
    // In logit_bias and the like the last key is an entry, so the message says "near".
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("The request body {} (near '{}').", reached.message, shorten(limits.last_key)),
                      shorten(limits.last_key));
  } catch (const Json::parse_error& error) {
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("The request body is not valid JSON at byte {}{}.", error.byte,
                                  limits.last_key.empty() ? "" : " (near '" + shorten(limits.last_key) + "')"),
                      shorten(limits.last_key));
  } catch (const Json::exception&) {  // a number that no double holds
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("'{}' holds a number out of range.", shorten(limits.last_key)),
                      shorten(limits.last_key));
  }
}

}  // namespace inferneo
