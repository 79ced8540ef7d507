// What all requests of one pull share, and the small ones among them: listings and the facts about files.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <stop_token>
#include <string>

#include "formats/hub_client.h"
#include "formats/hub_http.h"

namespace inferneo::hub {

struct Session {
  std::string endpoint;  // without a slash at its end
  std::string origin;    // of the endpoint: the only one that the token is sent to
  std::string token;     // secret; empty: none
  std::string model;     // as the user wrote it, for errors
  HubId id;
  HubTuning tuning;
  std::stop_token stop;

  std::string repository_url() const { return endpoint + "/" + id.repository; }
  Error cancelled() const;
  // "model 'org/name': what"
  Error error(ErrorCode code, std::string_view what) const;
};

struct SmallRequest {
  std::string url;
  std::string what;  // for errors: "its list of files"
  bool head = false;
  size_t max_body = size_t{1} << 20;
  HttpResponse response = {};  // the last one; of HEAD with the headers about a file of redirects before it
  std::string body = {};
};

// All of them, a few at a time, with retries. Redirects are followed, the token staying behind where the origin
// changes; HEAD stops at one that leaves the origin and says what the file is. Ok when each has an answer of whatever
// status. Errors: unavailable when a server cannot be reached or keeps failing, refused for redirects, cancelled,
// malformed.
Status perform(const Session& session, std::span<SmallRequest> requests);

// True for answers that another attempt may change: 408, 429, 5xx.
bool is_transient(int status);
// Before attempt `failures` + 1; what the server asks for counts. Negative: it asks for more than is ever waited.
Duration retry_delay(const HubTuning& tuning, int failures, std::string_view retry_after);
// What an answer that is no success means, and what to do.
Error status_error(const Session& session, std::string_view what, const HttpResponse& response);
// For an end of a request that is no answer; `attempts` were made.
Error end_error(const Session& session, std::string_view what, const HttpResult& result, int attempts);
// True when another attempt may help.
bool is_transient(HttpEnd end);

}  // namespace inferneo::hub
