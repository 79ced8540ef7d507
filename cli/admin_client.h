// Asks the admin routes of a running server.
//
// One request at a time on the calling thread; every answer is bounded in size and in time, redirects are not followed,
// certificates are checked. Whatever the server sends, an error is a value: the server's own words where it has some.
// Keys are in no message.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/result.h"

namespace inferneo {

struct AdminAnswer {
  int status = 0;       // 200 to 299
  std::string text;     // as it came
  nlohmann::json json;  // the same: an object
};

class AdminClient {
 public:
  struct Options {
    std::string key = {};  // of the admin routes; empty: none
    Duration patience = std::chrono::seconds(30);
    // Who named the server; ends what is said when nothing answers there.
    std::string found_by = {};
  };

  // invalid_argument for what is no http:// or https:// address. A `/v1` at its end, as clients of the API have it,
  // does not count.
  static Result<AdminClient> create(std::string url, Options options);

  // `path` with its query, "/admin/models"; `body`: JSON, empty for none. Errors: cancelled once `stop` asks for it;
  // unavailable, deadline_exceeded, refused (a certificate, a redirect), malformed (what came is no answer of such a
  // server); not_found when the server has no such route, which the message says; else by its own code or
  // the status, with the server's message.
  Result<AdminAnswer> call(std::string_view method, const std::string& path, const std::string& body = {},
                           const std::stop_token& stop = {}) const;

  const std::string& url() const { return url_; }

 private:
  AdminClient(std::string url, Options options) : url_(std::move(url)), options_(std::move(options)) {}
  Error failure_of(int status, const std::string& text, const std::string& path) const;

  std::string url_;
  Options options_;
};

// By the name that a server's errors have.
std::optional<ErrorCode> error_code_named(std::string_view name);

// A name, name:version or alias as a part of a path. invalid_argument for what can be none.
Result<std::string> model_path(std::string_view id);

}  // namespace inferneo
