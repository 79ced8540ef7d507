#include "formats/hub_requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <vector>

namespace inferneo::hub {
namespace {

constexpr size_t kAtOnce = 8;
constexpr int kMaxRedirects = 5;
constexpr Duration kTick = std::chrono::milliseconds(50);

// A request on its way through redirects and attempts.
struct Progress {
  SmallRequest* request;
  std::string url;
  bool may_authorize = true;  // false once a redirect has left the hub's origin
  int id = 0;                 // 0: not under way
  int failures = 0;
  int redirects = 0;
  TimePoint not_before = {};
  bool too_large = false;
  bool done = false;
};

bool is_redirect(int status) { return status >= 300 && status < 400 && status != 304; }

class SmallRequests {
 public:
  SmallRequests(const Session& session, std::span<SmallRequest> requests)
      : session_(session), loop_(session.tuning.timeouts) {
    for (SmallRequest& request : requests) all_.push_back({&request, request.url});
  }

  Status run() {
    const auto is_done = [](const Progress& one) { return one.done; };
    while (!std::all_of(all_.begin(), all_.end(), is_done)) {
      if (session_.stop.stop_requested()) return session_.cancelled();
      start_some();
      for (HttpResult& result : loop_.poll(patience())) {
        const auto one = std::find_if(all_.begin(), all_.end(), [&](const Progress& p) { return p.id == result.id; });
        if (one == all_.end()) continue;
        one->id = 0;
        RETURN_IF_ERROR(finish(*one, result));
      }
    }
    return ok_status();
  }

 private:
  // Until the next look at what may be started again.
  Duration patience() const {
    const TimePoint now = clock_.now();
    Duration longest = kTick;
    for (const Progress& one : all_) {
      if (!one.done && one.not_before > now) longest = std::min(longest, one.not_before - now);
    }
    return longest;
  }

  void start_some() {
    for (Progress& one : all_) {
      if (loop_.running() >= kAtOnce) return;
      if (one.done || one.id != 0 || clock_.now() < one.not_before) continue;
      HttpRequest request{.url = one.url, .head = one.request->head};
      if (one.may_authorize) request.bearer = session_.token;
      one.request->body.clear();
      request.on_body = [&one](const HttpResponse&, std::string_view data) {
        one.too_large = one.request->body.size() + data.size() > one.request->max_body;
        if (!one.too_large) one.request->body += data;
        return !one.too_large;
      };
      one.id = loop_.start(std::move(request));
    }
  }

  Status finish(Progress& one, HttpResult& result) {
    const std::string& what = one.request->what;
    if (one.too_large) {
      return session_.error(ErrorCode::malformed, fmt::format("the hub's answer about {} is larger than {} bytes", what,
                                                              one.request->max_body));
    }
    const bool answered = result.end == HttpEnd::answered;
    if (answered && is_redirect(result.response.status)) return follow(one, result.response);
    if (answered ? is_transient(result.response.status) : is_transient(result.end)) {
      const Duration delay = retry_delay(session_.tuning, ++one.failures, result.response.header("retry-after"));
      if (one.failures < session_.tuning.attempts && delay >= Duration::zero()) {
        one.not_before = clock_.now() + delay;
        one.url = one.request->url;
        one.may_authorize = true;
        return ok_status();
      }
      if (!answered) return end_error(session_, what, result, one.failures);
    }
    if (!answered) return end_error(session_, what, result, one.failures + 1);
    keep(*one.request, std::move(result.response));
    one.done = true;
    return ok_status();
  }

  Status follow(Progress& one, HttpResponse& response) {
    const Result<std::string> target = resolve_redirect(one.url, response.header("location"));
    if (!target.ok()) return session_.error(target.error().code, target.error().message);
    ASSIGN_OR_RETURN(const std::string origin, origin_of(*target));
    const bool leaves = origin != session_.origin;
    const bool describes_file = !response.header("x-repo-commit").empty() &&
                                !(response.header("x-linked-etag").empty() && response.header("etag").empty());
    if (one.request->head && leaves && describes_file) {
      keep(*one.request, std::move(response));
      one.done = true;
      return ok_status();
    }
    if (++one.redirects > kMaxRedirects) {
      return session_.error(ErrorCode::refused, fmt::format("the hub redirects {} in circles", one.request->what));
    }
    // An etag of the redirect itself is not the file's.
    response.headers.erase("etag");
    response.headers.erase("content-length");
    keep(*one.request, std::move(response));
    one.may_authorize = one.may_authorize && !leaves;
    one.url = *target;
    return ok_status();
  }

  // What an earlier redirect said about the file stays known where the later answer is silent.
  static void keep(SmallRequest& request, HttpResponse response) {
    for (const char* name : {"x-repo-commit", "x-linked-etag", "x-linked-size"}) {
      const std::string_view known = request.response.header(name);
      if (!known.empty() && response.header(name).empty()) response.headers[name] = std::string(known);
    }
    request.response = std::move(response);
  }

  const Session& session_;
  SteadyClock clock_;
  std::vector<Progress> all_;
  HttpLoop loop_;  // last: what it runs refers to all_
};

}  // namespace

Error Session::error(ErrorCode code, std::string_view what) const {
  return make_error(code, fmt::format("model '{}': {}", model, what));
}

Error Session::cancelled() const {
  return error(ErrorCode::cancelled,
               "the download was stopped; what has come is kept, and pulling again goes on there");
}

bool is_transient(int status) { return status == 408 || status == 429 || status >= 500; }

bool is_transient(HttpEnd end) {
  return end == HttpEnd::unreachable || end == HttpEnd::broken || end == HttpEnd::timed_out;
}

Duration retry_delay(const HubTuning& tuning, int failures, std::string_view retry_after) {
  Duration delay = tuning.first_delay;
  for (int i = 1; i < failures && delay < tuning.max_delay; ++i) delay *= 2;
  delay = std::min(delay, tuning.max_delay);
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(retry_after.data(), retry_after.data() + retry_after.size(), seconds);
  if (error != std::errc() || end == retry_after.data() || seconds < 0) return delay;
  if (seconds > tuning.max_retry_after.count()) return Duration(-1);
  return std::max<Duration>(delay, std::chrono::seconds(seconds));
}

Status perform(const Session& session, std::span<SmallRequest> requests) {
  return SmallRequests(session, requests).run();
}

Error end_error(const Session& session, std::string_view what, const HttpResult& result, int attempts) {
  std::string reason = result.reason;
  if (!reason.empty() && reason[0] >= 'A' && reason[0] <= 'Z') reason[0] = static_cast<char>(reason[0] - 'A' + 'a');
  switch (result.end) {
    case HttpEnd::untrusted:
      return session.error(ErrorCode::refused,
                           fmt::format("the hub's certificate does not hold ({}); nothing was read from it", reason));
    case HttpEnd::impossible:
    case HttpEnd::stopped:
      return session.error(ErrorCode::malformed,
                           fmt::format("the hub's answer about {} is no HTTP ({})", what, reason));
    default:
      return session.error(
          ErrorCode::unavailable,
          fmt::format("the hub could not be reached for {} in {} attempts ({}); check the network and try again", what,
                      attempts, reason));
  }
}

Error status_error(const Session& session, std::string_view what, const HttpResponse& response) {
  const std::string page = session.repository_url();
  const std::string_view code = response.header("x-error-code");
  const int status = response.status;
  const bool has_token = !session.token.empty();
  if (code == "GatedRepo") {
    return session.error(ErrorCode::forbidden,
                         fmt::format("it is gated: accept its licence at {} and {}", page,
                                     has_token ? "give the token of the account that did so (HF_TOKEN)"
                                               : "set HF_TOKEN to a token of that account"));
  }
  if (code == "RevisionNotFound") {
    return session.error(ErrorCode::not_found,
                         fmt::format("the hub has it, but no revision '{}'; {}/tree/main lists its branches and tags",
                                     session.id.revision, page));
  }
  if (code == "EntryNotFound") {
    return session.error(ErrorCode::not_found, fmt::format("{} is not there on the hub any more", what));
  }
  if (status == 401 && has_token && code != "RepoNotFound") {
    return session.error(ErrorCode::forbidden,
                         fmt::format("the hub does not accept the token; make a new one at {}/settings/tokens and set "
                                     "HF_TOKEN to it, or unset it for public models",
                                     session.endpoint));
  }
  if (status == 401 || status == 404) {
    return session.error(
        ErrorCode::not_found,
        fmt::format("the hub has no such model, or it is private; check the spelling, and for a "
                    "private one {}",
                    has_token ? "use a token that may read it (HF_TOKEN)" : "set HF_TOKEN to a token"));
  }
  if (status == 403) {
    return session.error(
        ErrorCode::forbidden,
        fmt::format("the hub does not allow it; see {} for what it asks for, and {}", page,
                    has_token ? "check what the token may read (HF_TOKEN)" : "set HF_TOKEN to a token"));
  }
  if (status == 429) {
    return session.error(ErrorCode::unavailable,
                         fmt::format("the hub asks to slow down; try again later{}",
                                     has_token ? "" : ", or set HF_TOKEN: known accounts may ask more often"));
  }
  const std::string_view advice = status >= 500 ? "; try again later" : "";
  return session.error(status >= 500 ? ErrorCode::unavailable : ErrorCode::malformed,
                       fmt::format("the hub answers {} when asked for {}{}", status, what, advice));
}

}  // namespace inferneo::hub
