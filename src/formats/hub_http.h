// HTTP for the hub_* files, for the commands that ask a server and for what sends traces: several requests at once on
// the calling thread, over libcurl.
//
// Redirects are never followed here: an answer of 3xx comes back as it is, and who asked decides where the token may
// go. Only http and https are spoken, whatever an address says. Error texts name neither addresses nor headers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "formats/hub_tuning.h"

namespace inferneo::hub {

struct HttpResponse {
  int status = 0;                                           // 0: no answer
  std::map<std::string, std::string, std::less<>> headers;  // names in lower case
  // Empty when it is not there.
  std::string_view header(std::string_view name) const;
};

struct HttpRequest {
  std::string url;
  bool head = false;
  std::string method = {};               // "POST"; empty: GET, or HEAD
  std::string json = {};                 // body to send; empty: none
  std::string bearer = {};               // token to send; empty: none
  std::vector<std::string> fields = {};  // further header fields, "name: value"
  std::string range = {};                // "0-99"; empty: all of it
  // Body of an answer of 2xx, piece by piece; false ends the request. Bodies of others are thrown away, unless
  // `all_bodies`.
  std::function<bool(const HttpResponse&, std::string_view)> on_body = {};
  bool all_bodies = false;
};

enum class HttpEnd : uint8_t {
  answered,     // whole
  unreachable,  // no connection
  broken,       // reset, or shorter than announced
  timed_out,    // too slow, or silent
  stopped,      // by on_body
  untrusted,    // the certificate does not hold
  impossible,   // not a request that can be made, or not HTTP that came back
};

struct HttpResult {
  int id = 0;
  HttpEnd end = HttpEnd::impossible;
  HttpResponse response = {};
  std::string reason = {};  // of an end other than answered, for people
};

// Not thread-safe. What still runs when it is destroyed is given up.
class HttpLoop {
 public:
  explicit HttpLoop(const HubTimeouts& timeouts);
  ~HttpLoop();
  HttpLoop(const HttpLoop&) = delete;
  HttpLoop& operator=(const HttpLoop&) = delete;

  int start(HttpRequest request);                   // its id
  std::vector<HttpResult> poll(Duration patience);  // what ended, after at most about `patience`
  void cancel_all();                                // no results come of what ran
  size_t running() const { return transfers_.size(); }

 private:
  struct Transfer;
  const HubTimeouts timeouts_;
  void* multi_;
  int next_id_ = 1;
  std::map<int, std::unique_ptr<Transfer>> transfers_;
};

// "https://host:port" of an address. refused: neither http nor https, or with a user name or password in it.
Result<std::string> origin_of(const std::string& url);
// Where a redirect from `url` leads. refused as above, and from https to http.
Result<std::string> resolve_redirect(const std::string& url, std::string_view location);
// For a path: everything but unreserved characters as %XX, '/' too unless `keep_slashes`.
std::string url_encode(std::string_view text, bool keep_slashes);

}  // namespace inferneo::hub
