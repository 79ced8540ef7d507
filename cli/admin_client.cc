#include "cli/admin_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "cli/terminal.h"
#include "formats/hub_http.h"
#include "formats/json.h"
#include "manager/registry_records.h"

namespace inferneo {
namespace {

constexpr size_t kMaxAnswer = size_t{16} << 20;
constexpr size_t kMaxMessage = 1000;
constexpr Duration kTick = std::chrono::milliseconds(50);  // how soon a stop is seen
constexpr std::string_view kNoRoute = "There is no such route.";

HubTimeouts timeouts_of(Duration patience) {
  HubTimeouts timeouts;
  timeouts.connect = std::min<Duration>(patience, timeouts.connect);
  timeouts.low_speed_seconds = 0;  // a server may be silent while it works; the whole request has its deadline
  return timeouts;
}

// The server's words for people: one line, nothing that drives a terminal.
std::string shown(std::string_view text) {
  std::string line = without_control_characters(text.substr(0, kMaxMessage));
  std::replace_if(
      line.begin(), line.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return line;
}

// Of the usual error body; empty when it is something else.
std::string error_text(const nlohmann::json& body, const char* name) {
  const auto error = body.is_object() ? body.find("error") : body.end();
  if (error == body.end() || !error->is_object()) return {};
  const auto text = error->find(name);
  return text != error->end() && text->is_string() ? shown(text->get_ref<const std::string&>()) : std::string();
}

ErrorCode code_of(int status) {
  constexpr std::array<std::pair<int, ErrorCode>, 11> kCodes = {{{400, ErrorCode::invalid_argument},
                                                                 {401, ErrorCode::unauthorized},
                                                                 {403, ErrorCode::forbidden},
                                                                 {404, ErrorCode::not_found},
                                                                 {409, ErrorCode::conflict},
                                                                 {413, ErrorCode::payload_too_large},
                                                                 {422, ErrorCode::invalid_argument},
                                                                 {429, ErrorCode::queue_full},
                                                                 {501, ErrorCode::conflict},
                                                                 {503, ErrorCode::unavailable},
                                                                 {507, ErrorCode::out_of_memory}}};
  for (const auto& [known, code] : kCodes) {
    if (known == status) return code;
  }
  return status >= 500 ? ErrorCode::internal : ErrorCode::invalid_argument;
}

Error not_reached(const hub::HttpResult& result, const std::string& url, const std::string& found_by) {
  using hub::HttpEnd;
  const std::string hint = found_by.empty() ? std::string() : "; " + found_by;
  switch (result.end) {
    case HttpEnd::unreachable:
      return make_error(ErrorCode::unavailable,
                        fmt::format("no server answers at {} ({}){}", url, result.reason, hint));
    case HttpEnd::broken:
      return make_error(ErrorCode::unavailable,
                        fmt::format("the server at {} broke the connection off; 'inferneo models' shows whether it did "
                                    "what was asked",
                                    url));
    case HttpEnd::untrusted:
      return make_error(
          ErrorCode::refused,
          fmt::format("the certificate of {} does not hold ({}); name the server as its certificate does, "
                      "with --url",
                      url, result.reason));
    case HttpEnd::stopped:
      return make_error(
          ErrorCode::malformed,
          fmt::format("{} answered with more than {} MiB; is it an Inferneo server?", url, kMaxAnswer >> 20));
    default:
      return make_error(ErrorCode::malformed,
                        fmt::format("{} did not answer in HTTP ({}){}", url, result.reason, hint));
  }
}

}  // namespace

Result<AdminClient> AdminClient::create(std::string url, Options options) {
  const auto cut = [&](std::string_view end) {
    if (url.ends_with(end)) url.resize(url.size() - end.size());
  };
  cut("/");
  cut("/v1");
  const bool printable = std::all_of(url.begin(), url.end(), [](char c) { return c > ' ' && c < 0x7f; });
  const Result<std::string> origin = hub::origin_of(url);
  if (!printable || !origin.ok() || url.find_first_of("?#") != std::string::npos) {
    // Not the address itself, which may hold a password.
    return make_error(ErrorCode::invalid_argument,
                      fmt::format("--url: expected an address such as http://127.0.0.1:8000{}",
                                  origin.ok() ? "" : " (" + origin.error().message + ")"));
  }
  return AdminClient(std::move(url), std::move(options));
}

Result<AdminAnswer> AdminClient::call(std::string_view method, const std::string& path, const std::string& body,
                                      const std::stop_token& stop) const {
  static const SteadyClock clock;
  AdminAnswer answer;
  hub::HttpRequest request;
  request.url = url_ + path;
  if (method != "GET") request.method = method;
  request.json = body;
  request.bearer = options_.key;
  request.all_bodies = true;
  request.on_body = [&](const hub::HttpResponse&, std::string_view piece) {
    if (piece.size() > kMaxAnswer - answer.text.size()) return false;
    answer.text += piece;
    return true;
  };
  hub::HttpLoop loop(timeouts_of(options_.patience));
  loop.start(std::move(request));
  const TimePoint deadline = clock.now() + options_.patience;
  std::vector<hub::HttpResult> results;
  while ((results = loop.poll(kTick)).empty()) {
    if (stop.stop_requested()) return make_error(ErrorCode::cancelled, "interrupted");
    if (clock.now() < deadline) continue;
    return make_error(ErrorCode::deadline_exceeded, fmt::format("the server at {} did not answer within {:.0f} s", url_,
                                                                to_seconds(options_.patience)));
  }
  const hub::HttpResult& result = results.front();
  if (result.end == hub::HttpEnd::timed_out) {
    return make_error(ErrorCode::unavailable, fmt::format("no connection to {} ({})", url_, result.reason));
  }
  if (result.end != hub::HttpEnd::answered) return not_reached(result, url_, options_.found_by);
  answer.status = result.response.status;
  if (answer.status < 200 || answer.status > 299) return failure_of(answer.status, answer.text, path);
  Result<nlohmann::json> json = parse_json(answer.text, "the answer of " + url_, {.max_bytes = kMaxAnswer});
  if (!json.ok() || !json->is_object()) {
    return make_error(ErrorCode::malformed,
                      fmt::format("{} answered with what is no JSON object{}; is it an Inferneo server?", url_,
                                  json.ok() ? "" : " (" + shown(json.error().message) + ")"));
  }
  answer.json = std::move(*json);
  return answer;
}

Error AdminClient::failure_of(int status, const std::string& text, const std::string& path) const {
  if (status < 400) {
    return make_error(ErrorCode::refused, fmt::format("{} redirects elsewhere (status {}), which is not followed; give "
                                                      "the address of the server itself with --url",
                                                      url_, status));
  }
  const Result<nlohmann::json> body = parse_json(text, "error", {.max_bytes = kMaxAnswer});
  const std::string message = body.ok() ? error_text(*body, "message") : std::string();
  if ((status == 404 && (message.empty() || message == kNoRoute)) || status == 405) {
    const std::string_view route(path.data(), std::min(path.find('?'), path.size()));
    return make_error(ErrorCode::not_found,
                      fmt::format("the server at {} cannot do that: it has no {}; a newer one may", url_, route));
  }
  if (status == 401 || status == 403) {
    const std::string_view hint = options_.key.empty() ? "give its admin key in INFERNEO_ADMIN_KEY or with --admin-key"
                                                       : "is the admin key right?";
    return make_error(code_of(status), fmt::format("the server at {} refuses: {}; {}", url_,
                                                   message.empty() ? fmt::format("status {}", status) : message, hint));
  }
  if (message.empty()) {
    return make_error(code_of(status),
                      fmt::format("the server at {} answered with status {} and no reason", url_, status));
  }
  // Not `unsupported`: nothing is wrong with what was asked.
  if (status == 501) return make_error(ErrorCode::conflict, fmt::format("the server cannot do that: {}", message));
  // The same command ends with the same code when it works on the registry's file.
  return make_error(error_code_named(error_text(*body, "code")).value_or(code_of(status)), message);
}

std::optional<ErrorCode> error_code_named(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::internal); ++i) {
    const auto code = static_cast<ErrorCode>(i);
    if (error_info(code).name == name) return code;
  }
  return std::nullopt;
}

Result<std::string> model_path(std::string_view id) {
  const size_t colon = id.find(':');
  RETURN_IF_ERROR(check_model_name(id.substr(0, colon), "model"));
  if (colon != std::string_view::npos) RETURN_IF_ERROR(check_model_version(id.substr(colon + 1)));
  return std::string(id);  // nothing in it means anything in an address
}

}  // namespace inferneo
