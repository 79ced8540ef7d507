#include "formats/hub_http.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/ascii.h"

namespace inferneo::hub {
namespace {

constexpr size_t kMaxHeaderBytes = size_t{256} << 10;
constexpr size_t kMaxIgnoredBytes = size_t{64} << 10;  // of the body of an error, which keeps the connection usable

// libcurl wants one call before all others; it is thread-safe since 7.84, and so is the static.
void initialise_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  INFERNEO_CHECK(code == CURLE_OK, "libcurl does not start");
}

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using Url = std::unique_ptr<CURLU, UrlDeleter>;

std::string url_part(const Url& url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url.get(), part, &text, flags) != CURLUE_OK) return {};
  std::string result(text);
  curl_free(text);
  return result;
}

Status check_parts(const Url& url) {
  const std::string scheme = url_part(url, CURLUPART_SCHEME);
  if (scheme != "http" && scheme != "https") {
    return make_error(ErrorCode::refused, "an address must begin with http:// or https://");
  }
  if (!url_part(url, CURLUPART_USER).empty() || !url_part(url, CURLUPART_PASSWORD).empty()) {
    return make_error(ErrorCode::refused, "an address may hold neither a user name nor a password");
  }
  return ok_status();
}

bool is_loopback(const std::string& host) { return host == "localhost" || host == "[::1]" || host.starts_with("127."); }

HttpEnd end_of(CURLcode code) {
  switch (code) {
    case CURLE_OK:
      return HttpEnd::answered;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_SSL_CONNECT_ERROR:
      return HttpEnd::unreachable;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_ERROR:
      return HttpEnd::broken;
    case CURLE_OPERATION_TIMEDOUT:
      return HttpEnd::timed_out;
    case CURLE_WRITE_ERROR:
      return HttpEnd::stopped;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
      return HttpEnd::untrusted;
    default:
      return HttpEnd::impossible;
  }
}

}  // namespace

std::string_view HttpResponse::header(std::string_view name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

struct HttpLoop::Transfer {
  int id = 0;
  HttpRequest request;
  HttpResponse response;
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  size_t header_bytes = 0;
  size_t ignored_bytes = 0;
  bool enough = false;  // the rest of the body was not waited for

  ~Transfer() {
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }

  // A number other than size * count ends the transfer; no exception may pass through the library.
  static size_t on_header(char* data, size_t size, size_t count, void* self) {
    try {
      return static_cast<Transfer*>(self)->take_header(std::string_view(data, size * count)) ? size * count : 0;
    } catch (...) {
      return 0;
    }
  }
  static size_t on_body(char* data, size_t size, size_t count, void* self) {
    try {
      return static_cast<Transfer*>(self)->take_body(std::string_view(data, size * count)) ? size * count
                                                                                           : CURL_WRITEFUNC_ERROR;
    } catch (...) {
      return CURL_WRITEFUNC_ERROR;
    }
  }

  bool take_header(std::string_view line) {
    header_bytes += line.size();
    if (header_bytes > kMaxHeaderBytes) return false;
    if (line.starts_with("HTTP/")) {  // a final answer may follow one of 1xx, or a proxy's
      response = {};
      return true;
    }
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos) return true;
    const size_t first = line.find_first_not_of(" \t", colon + 1);
    const size_t last = line.find_last_not_of(" \t\r\n");
    const bool empty = first == std::string_view::npos || last == std::string_view::npos || first > last;
    response.headers[lower_case(line.substr(0, colon))] =
        empty ? "" : std::string(line.substr(first, last - first + 1));
    return true;
  }

  bool take_body(std::string_view data) {
    long status = 0;
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    response.status = static_cast<int>(status);
    if (request.all_bodies || (status >= 200 && status < 300))
      return !request.on_body || request.on_body(response, data);
    ignored_bytes += data.size();
    enough = ignored_bytes > kMaxIgnoredBytes;
    return !enough;
  }
};

HttpLoop::HttpLoop(const HubTimeouts& timeouts) : timeouts_(timeouts), multi_(nullptr) {
  initialise_curl();
  multi_ = curl_multi_init();
  INFERNEO_CHECK(multi_ != nullptr, "libcurl has no memory");
}

HttpLoop::~HttpLoop() {
  cancel_all();
  curl_multi_cleanup(static_cast<CURLM*>(multi_));
}

int HttpLoop::start(HttpRequest request) {
  auto transfer = std::make_unique<Transfer>();
  transfer->id = next_id_++;
  transfer->request = std::move(request);
  CURL* easy = transfer->easy = curl_easy_init();
  INFERNEO_CHECK(easy != nullptr, "libcurl has no memory");
  const HttpRequest& asked = transfer->request;
  const Url url(curl_url());
  curl_url_set(url.get(), CURLUPART_URL, asked.url.c_str(), 0);

  curl_easy_setopt(easy, CURLOPT_URL, asked.url.c_str());
  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_1_1));  // a connection a request
  curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(to_seconds(timeouts_.connect) * 1e3));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, static_cast<long>(timeouts_.low_speed_bytes));
  curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, static_cast<long>(timeouts_.low_speed_seconds));
  curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 256L << 10);
  curl_easy_setopt(easy, CURLOPT_USERAGENT, "inferneo");
  if (asked.head) curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
  if (!asked.json.empty()) {
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, asked.json.c_str());  // the transfer keeps it
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, static_cast<long>(asked.json.size()));
  } else if (asked.method == "POST" || asked.method == "PUT") {  // says that its body is empty
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
  }
  if (!asked.method.empty()) curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, asked.method.c_str());
  if (!asked.range.empty()) curl_easy_setopt(easy, CURLOPT_RANGE, asked.range.c_str());
  if (is_loopback(url_part(url, CURLUPART_HOST))) curl_easy_setopt(easy, CURLOPT_PROXY, "");

  // A compressed body would have neither the announced size nor ranges of the file.
  transfer->headers = curl_slist_append(nullptr, "Accept-Encoding: identity");
  if (!asked.method.empty()) {
    transfer->headers = curl_slist_append(transfer->headers, "Expect:");  // no round trip before a small body
    transfer->headers = curl_slist_append(transfer->headers, "Content-Type: application/json");
  }
  for (const std::string& field : asked.fields) {
    transfer->headers = curl_slist_append(transfer->headers, field.c_str());
  }
  if (!asked.bearer.empty()) {
    transfer->headers = curl_slist_append(transfer->headers, ("Authorization: Bearer " + asked.bearer).c_str());
  }
  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
  curl_easy_setopt(easy, CURLOPT_HEADEROPT, static_cast<long>(CURLHEADER_SEPARATE));  // the token is no proxy's
  curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, &Transfer::on_header);
  curl_easy_setopt(easy, CURLOPT_HEADERDATA, transfer.get());
  curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, &Transfer::on_body);
  curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer.get());
  curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer.get());
  curl_multi_add_handle(static_cast<CURLM*>(multi_), easy);
  const int id = transfer->id;
  transfers_.emplace(id, std::move(transfer));
  return id;
}

std::vector<HttpResult> HttpLoop::poll(Duration patience) {
  CURLM* multi = static_cast<CURLM*>(multi_);
  std::vector<HttpResult> results;
  const auto collect = [&] {
    int running = 0;
    curl_multi_perform(multi, &running);
    int left = 0;
    while (const CURLMsg* message = curl_multi_info_read(multi, &left)) {
      if (message->msg != CURLMSG_DONE) continue;
      const CURLcode code = message->data.result;
      CURL* easy = message->easy_handle;
      Transfer* transfer = nullptr;
      curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
      long status = 0;
      curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
      transfer->response.status = static_cast<int>(status);
      HttpResult result{
          transfer->id, transfer->enough ? HttpEnd::answered : end_of(code), std::move(transfer->response), {}};
      if (result.end != HttpEnd::answered) result.reason = curl_easy_strerror(code);
      curl_multi_remove_handle(multi, easy);
      transfers_.erase(transfer->id);
      results.push_back(std::move(result));
    }
  };
  collect();
  if (!results.empty()) return results;
  const int milliseconds = static_cast<int>(to_seconds(patience) * 1e3) + 1;
  curl_multi_poll(multi, nullptr, 0, milliseconds, nullptr);
  collect();
  return results;
}

void HttpLoop::cancel_all() {
  for (const auto& [id, transfer] : transfers_) {
    curl_multi_remove_handle(static_cast<CURLM*>(multi_), transfer->easy);
  }
  transfers_.clear();
}

Result<std::string> origin_of(const std::string& url) {
  const Url parsed(curl_url());
  if (curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) {
    return make_error(ErrorCode::refused, "not an address of the form https://host");
  }
  RETURN_IF_ERROR(check_parts(parsed));
  return fmt::format("{}://{}:{}", url_part(parsed, CURLUPART_SCHEME), lower_case(url_part(parsed, CURLUPART_HOST)),
                     url_part(parsed, CURLUPART_PORT, CURLU_DEFAULT_PORT));
}

Result<std::string> resolve_redirect(const std::string& url, std::string_view location) {
  const Url parsed(curl_url());
  const std::string target(location);
  if (location.empty() || curl_url_set(parsed.get(), CURLUPART_URL, url.c_str(), 0) != CURLUE_OK ||
      curl_url_set(parsed.get(), CURLUPART_URL, target.c_str(), CURLU_URLENCODE) != CURLUE_OK) {
    return make_error(ErrorCode::refused, "the hub redirects to what is no address");
  }
  if (!check_parts(parsed).ok()) {
    return make_error(ErrorCode::refused, "the hub redirects to an address that is neither plain http nor https");
  }
  if (url.starts_with("https:") && url_part(parsed, CURLUPART_SCHEME) != "https") {
    return make_error(ErrorCode::refused, "the hub redirects from https to http");
  }
  return url_part(parsed, CURLUPART_URL);
}

std::string url_encode(std::string_view text, bool keep_slashes) {
  constexpr std::string_view kUnreserved = "-._~";
  std::string result;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       kUnreserved.find(c) != std::string_view::npos || (keep_slashes && c == '/');
    if (plain) {
      result += c;
    } else {
      result += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return result;
}

}  // namespace inferneo::hub
