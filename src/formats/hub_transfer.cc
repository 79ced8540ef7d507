#include "formats/hub_transfer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <deque>

namespace inferneo::hub {
namespace {

constexpr int kMaxPartRedirects = 8;
constexpr Duration kTransferTick = std::chrono::milliseconds(100);
constexpr uint64_t kWorthForgetting = uint64_t{64} << 10;  // so much progress makes up for earlier failures

// A stretch of the file. The first in the queue goes to the file as it comes; those behind it are kept until it is
// done.
struct Part {
  uint64_t begin;
  uint64_t end;
  uint64_t received = 0;
  std::string kept = {};
  int transfer = 0;         // 0: not under way
  std::string url = {};     // that it was asked from
  bool authorized = false;  // with the token
  bool whole_file = false;  // without a range
  int redirects = 0;        // in a row
  int failures = 0;         // in a row
  uint64_t mark = 0;        // what had been received at the last of them
  TimePoint not_before = {};

  bool done() const { return begin + received == end; }
};

// "bytes 0-99/1000"; false when it is not that.
bool parse_content_range(std::string_view text, uint64_t& first, uint64_t& total) {
  constexpr std::string_view kUnit = "bytes ";
  const size_t dash = text.find('-');
  const size_t slash = text.find('/');
  if (!text.starts_with(kUnit) || dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) {
    return false;
  }
  const auto number = [](std::string_view digits, uint64_t& value) {
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  return number(text.substr(kUnit.size(), dash - kUnit.size()), first) && number(text.substr(slash + 1), total);
}

class BodyTransfer {
 public:
  BodyTransfer(const Session& session, BlobFile& file, const std::string& url, const std::string& name, uint64_t size,
               const std::function<void(uint64_t)>& on_bytes)
      : session_(session),
        file_(file),
        hub_url_(url),
        name_(name),
        size_(size),
        on_bytes_(on_bytes),
        url_(url),
        next_(file.size()),
        loop_(session.tuning.timeouts) {}

  Status run() {
    while (file_.size() < size_) {
      if (session_.stop.stop_requested()) return session_.cancelled();
      start_some();
      for (const HttpResult& result : loop_.poll(patience())) {
        RETURN_IF_ERROR(finish(result));
        if (parts_.empty()) break;  // started over: the other results are of before
      }
      uint64_t have = file_.size();
      for (const auto& part : parts_) have += part->kept.size();
      on_bytes_(have);
    }
    return ok_status();
  }

 private:
  // Why a body was not read on.
  enum class Verdict : uint8_t { none, error, no_ranges };

  // Until the next look at what may be started again.
  Duration patience() const {
    const TimePoint now = clock_.now();
    Duration longest = kTransferTick;
    const auto shorten = [&](TimePoint until) {
      if (until > now) longest = std::min(longest, until - now);
    };
    shorten(resume_at_);
    for (const auto& part : parts_) shorten(part->not_before);
    return longest;
  }

  void start_some() {
    // One alone finds out where redirects lead and whether ranges are served.
    const auto limit = static_cast<size_t>(ranges_served_ ? std::max(session_.tuning.connections, 1) : 1);
    for (const auto& part : parts_) {
      if (loop_.running() >= limit) return;
      if (part->transfer == 0 && !part->done() && clock_.now() >= part->not_before) start(*part);
    }
    if (clock_.now() < resume_at_) return;
    while (loop_.running() < limit && parts_.size() <= limit && next_ < size_) {
      const uint64_t length = ranges_refused_ ? size_ : std::min(session_.tuning.part_bytes, size_ - next_);
      parts_.push_back(std::make_unique<Part>(Part{next_, next_ + length}));
      next_ += length;
      start(*parts_.back());
    }
  }

  void start(Part& part) {
    HttpRequest request{.url = url_};
    if (authorized_) request.bearer = session_.token;
    part.authorized = authorized_;
    const uint64_t first = part.begin + part.received;
    part.whole_file = first == 0 && part.end == size_;
    if (!part.whole_file) request.range = fmt::format("{}-{}", first, part.end - 1);
    request.on_body = [this, &part, begun = false](const HttpResponse& response, std::string_view data) mutable {
      if (!begun && !check_begin(part, response)) return false;
      begun = true;
      return take(part, data);
    };
    part.url = url_;
    part.transfer = loop_.start(std::move(request));
  }

  bool fail(Error error) {
    if (verdict_ == Verdict::none) {
      verdict_ = Verdict::error;
      error_ = std::move(error);
    }
    return false;
  }

  bool wrong_size() {
    return fail(session_.error(ErrorCode::malformed,
                               fmt::format("{}: what comes is not the {} bytes that the hub announced", name_, size_)));
  }

  // The head of an answer of 2xx against what was asked for.
  bool check_begin(const Part& part, const HttpResponse& response) {
    if (response.status == 206) {
      uint64_t first = 0;
      uint64_t total = 0;
      if (!parse_content_range(response.header("content-range"), first, total) || total != size_ ||
          first != part.begin + part.received) {
        return wrong_size();
      }
      ranges_served_ = true;
      return true;
    }
    if (response.status != 200) return wrong_size();
    if (!part.whole_file) {
      if (verdict_ == Verdict::none) verdict_ = Verdict::no_ranges;
      return false;
    }
    const std::string_view length = response.header("content-length");
    return length.empty() || length == fmt::format("{}", size_) || wrong_size();
  }

  bool take(Part& part, std::string_view data) {
    if (verdict_ != Verdict::none) return false;
    if (data.size() > part.end - part.begin - part.received) return wrong_size();
    if (&part == parts_.front().get()) {
      if (Status status = file_.append(data); !status.ok()) return fail(std::move(status).error());
    } else {
      if (part.kept.empty()) part.kept.reserve(part.end - part.begin);
      part.kept += data;
    }
    part.received += data.size();
    part.redirects = 0;
    return true;
  }

  Status finish(const HttpResult& result) {
    if (verdict_ == Verdict::error) return label(error_);
    if (verdict_ == Verdict::no_ranges) {
      ranges_refused_ = true;
      return start_over();
    }
    const auto found =
        std::find_if(parts_.begin(), parts_.end(), [&](const auto& part) { return part->transfer == result.id; });
    if (found == parts_.end()) return ok_status();
    Part& part = **found;
    part.transfer = 0;
    if (part.done()) return advance();
    const int status = result.response.status;
    if (result.end != HttpEnd::answered) {
      if (!is_transient(result.end)) return end_error(session_, name_, result, part.failures + 1);
      return try_again(part, result.reason, {});
    }
    if (status == 200 || status == 206) return try_again(part, "the answer was too short", {});
    if (status >= 300 && status < 400) return follow(part, result.response);
    if (status == 416) {  // what is here is not of that file
      return start_over_after("the hub does not have the range that is missing", {});
    }
    const bool elsewhere = part.url != hub_url_;
    const bool expired = elsewhere && (status == 401 || status == 403 || status == 404 || status == 410);
    if (expired || is_transient(status)) {
      return try_again(part, fmt::format("the answer was {}", status), result.response.header("retry-after"));
    }
    return status_error(session_, name_, result.response);
  }

  Error label(const Error& error) const {
    const bool named = error.message.starts_with("model '");
    return named ? error : session_.error(error.code, error.message);
  }

  // Writes what was kept behind the parts that are done. A part stays while its transfer runs, which refers to it.
  Status advance() {
    while (!parts_.empty() && parts_.front()->done() && parts_.front()->transfer == 0) {
      parts_.pop_front();
      if (parts_.empty()) break;
      Part& front = *parts_.front();
      if (Status status = file_.append(front.kept); !status.ok()) return label(status.error());
      front.kept = {};
    }
    return ok_status();
  }

  Status follow(Part& part, const HttpResponse& response) {
    const Result<std::string> target = resolve_redirect(part.url, response.header("location"));
    if (!target.ok()) return session_.error(target.error().code, fmt::format("{}: {}", name_, target.error().message));
    if (++part.redirects > kMaxPartRedirects) {
      return session_.error(ErrorCode::refused, fmt::format("{}: the hub redirects in circles", name_));
    }
    ASSIGN_OR_RETURN(const std::string origin, origin_of(*target));
    authorized_ = part.authorized && origin == session_.origin;
    url_ = *target;
    return ok_status();
  }

  Status gave_up(int attempts, std::string_view reason) const {
    return session_.error(ErrorCode::unavailable,
                          fmt::format("{} could not be downloaded: {} attempts in a row failed, the last because: {}; "
                                      "what has come is kept, and pulling again goes on there",
                                      name_, attempts, reason));
  }

  // Attempts are counted for each part: what breaks one connection often breaks all at once.
  Status try_again(Part& part, std::string_view reason, std::string_view retry_after) {
    if (ranges_refused_) return start_over_after(reason, retry_after);
    const uint64_t worth = std::min(kWorthForgetting, session_.tuning.part_bytes / 4 + 1);
    if (part.received >= part.mark + worth) part.failures = 0;
    part.mark = part.received;
    const Duration delay = retry_delay(session_.tuning, ++part.failures, retry_after);
    if (part.failures >= session_.tuning.attempts || delay < Duration::zero()) return gave_up(part.failures, reason);
    part.not_before = clock_.now() + delay;
    // Addresses that a redirect led to are good for a while only.
    url_ = hub_url_;
    authorized_ = true;
    return ok_status();
  }

  Status start_over_after(std::string_view reason, std::string_view retry_after) {
    const Duration delay = retry_delay(session_.tuning, ++restarts_, retry_after);
    if (restarts_ >= session_.tuning.attempts || delay < Duration::zero()) return gave_up(restarts_, reason);
    resume_at_ = clock_.now() + delay;
    url_ = hub_url_;
    authorized_ = true;
    return start_over();
  }

  Status start_over() {
    loop_.cancel_all();
    parts_.clear();
    verdict_ = Verdict::none;
    next_ = 0;
    const Status status = file_.restart();
    return status.ok() ? ok_status() : Status(label(status.error()));
  }

  const Session& session_;
  BlobFile& file_;
  const std::string hub_url_;
  const std::string name_;
  const uint64_t size_;
  const std::function<void(uint64_t)>& on_bytes_;

  std::string url_;         // where the next request goes: the hub, or where it redirected to
  bool authorized_ = true;  // no redirect on the way to url_ left the hub's origin
  bool ranges_served_ = false;
  bool ranges_refused_ = false;
  uint64_t next_;             // first byte that no part covers
  int restarts_ = 0;          // of the whole file
  TimePoint resume_at_ = {};  // new parts are not asked for before
  Verdict verdict_ = Verdict::none;
  Error error_;
  SteadyClock clock_;
  std::deque<std::unique_ptr<Part>> parts_;  // in the order of the file
  HttpLoop loop_;                            // last: what it runs refers to the parts
};

}  // namespace

Status fetch_into(const Session& session, BlobFile& file, const std::string& url, const std::string& name,
                  uint64_t size, const std::function<void(uint64_t)>& on_bytes) {
  return BodyTransfer(session, file, url, name, size, on_bytes).run();
}

}  // namespace inferneo::hub
