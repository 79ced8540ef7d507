#include "server/otlp/exporter.h"

#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <random>
#include <utility>

#include "base/log.h"

namespace inferneo {
namespace {

constexpr Duration kLookInterval = std::chrono::milliseconds(50);  // at the end of an attempt, and at its own
constexpr Duration kWarningInterval = std::chrono::minutes(1);     // for one that comes and goes
constexpr size_t kMaxAnswer = size_t{64} << 10;

TimePoint steady_now() { return std::chrono::steady_clock::now(); }

hub::HttpRequest request_of(const Collector& collector, const std::string& body) {
  hub::HttpRequest request;
  request.url = collector.url;
  request.method = "POST";
  request.json = body;
  request.fields = collector.fields;
  return request;
}

// As the specification has it; a request that got no answer may be repeated, too.
bool is_overload(int status) { return status == 429 || status == 502 || status == 503 || status == 504; }

bool is_worth_repeating(hub::HttpEnd end) {
  return end == hub::HttpEnd::unreachable || end == hub::HttpEnd::broken || end == hub::HttpEnd::timed_out;
}

Duration seconds_of(std::string_view text) {
  int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  constexpr int64_t kDay = 86400;
  return error == std::errc() && end != text.data() ? std::chrono::seconds(std::clamp<int64_t>(seconds, 0, kDay))
                                                    : Duration{0};
}

}  // namespace

OtlpExporter::OtlpExporter(Collector collector, TraceResource resource, const ExporterTuning& tuning)
    : collector_(std::move(collector)), resource_(std::move(resource)), tuning_(tuning), thread_([this] { run(); }) {}

OtlpExporter::~OtlpExporter() { stop(); }

void OtlpExporter::add(std::vector<Span> spans) {
  size_t taken = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_ && queue_.size() < tuning_.max_queue) {
      taken = std::min(spans.size(), tuning_.max_queue - queue_.size());
    }
    const bool was_empty = queue_.empty();
    const bool was_short = queue_.size() < tuning_.max_batch;
    std::move(spans.begin(), std::next(spans.begin(), static_cast<std::ptrdiff_t>(taken)), std::back_inserter(queue_));
    if (was_empty && taken > 0) oldest_ = steady_now();
    if (taken > 0 && (was_empty || (was_short && queue_.size() >= tuning_.max_batch))) changed_.notify_all();
  }
  dropped_ += spans.size() - taken;
}

SpanCounts OtlpExporter::counts() const { return {exported_.load(), dropped_.load(), failed_.load()}; }

void OtlpExporter::stop() {
  {
    const std::lock_guard lock(mutex_);
    if (!stopping_) stop_at_ = steady_now() + tuning_.flush_timeout;
    stopping_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void OtlpExporter::run() {
  sigset_t all;  // signals belong to the program's own threads
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);
  pthread_setname_np(pthread_self(), "otlp");
  HubTimeouts timeouts;
  timeouts.connect = tuning_.timeout;
  timeouts.low_speed_bytes = 0;  // an attempt has its own limit
  hub::HttpLoop http(timeouts);
  for (std::vector<Span> batch; next_batch(batch);) deliver(http, batch);
}

bool OtlpExporter::next_batch(std::vector<Span>& batch) {
  std::unique_lock lock(mutex_);
  const auto is_full = [&] { return stopping_ || queue_.size() >= tuning_.max_batch; };
  changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
  changed_.wait_until(lock, oldest_ + tuning_.batch_delay, is_full);
  batch.clear();
  if (queue_.empty()) return false;
  if (stopping_ && steady_now() >= stop_at_) {
    failed_ += queue_.size();
    return false;
  }
  const auto count = static_cast<std::ptrdiff_t>(std::min(queue_.size(), tuning_.max_batch));
  std::move(queue_.begin(), std::next(queue_.begin(), count), std::back_inserter(batch));
  queue_.erase(queue_.begin(), std::next(queue_.begin(), count));
  oldest_ = steady_now();
  return true;
}

void OtlpExporter::deliver(hub::HttpLoop& http, const std::vector<Span>& batch) {
  const std::string body = spans_json(batch, resource_);
  for (int left = tuning_.attempts; left > 0; --left) {
    const bool ending = is_stopping();
    const Attempt said = attempt(http, body);
    failures_ = said.taken ? 0 : failures_ + 1;
    if (said.taken) {
      const uint64_t rejected = std::min<uint64_t>(said.rejected, batch.size());
      exported_ += batch.size() - rejected;
      failed_ += rejected;
      return tell(said, 0);
    }
    const bool is_last = !said.may_repeat || left == 1 || ending;
    tell(said, is_last ? batch.size() : 0);
    if (is_last) break;
    if (!pause(delay_after(failures_, said.retry_after))) left = 2;  // once more, at the end
  }
  failed_ += batch.size();
}

OtlpExporter::Attempt OtlpExporter::attempt(hub::HttpLoop& http, const std::string& body) {
  const TimePoint began = steady_now();
  std::string answer;
  hub::HttpRequest request = request_of(collector_, body);
  request.on_body = [&answer](const hub::HttpResponse&, std::string_view piece) {
    if (answer.size() < kMaxAnswer) answer += piece.substr(0, kMaxAnswer - answer.size());
    return true;
  };
  http.start(std::move(request));
  std::vector<hub::HttpResult> results = http.poll(kLookInterval);
  for (; results.empty(); results = http.poll(kLookInterval)) {
    if (steady_now() < limit_of_attempt(began)) continue;
    http.cancel_all();
    return {.may_repeat = true, .reason = "does not answer in time"};
  }
  const hub::HttpResult& result = results.front();
  if (result.end != hub::HttpEnd::answered) {
    return {.may_repeat = is_worth_repeating(result.end), .reason = "cannot be asked: " + result.reason};
  }
  const int status = result.response.status;
  if (status >= 200 && status < 300) return {.taken = true, .rejected = rejected_spans(answer), .reason = {}};
  return {.may_repeat = is_overload(status),
          .retry_after = seconds_of(result.response.header("retry-after")),
          .reason = fmt::format("answers {}", status)};
}

// The end shortens an attempt that is under way.
TimePoint OtlpExporter::limit_of_attempt(TimePoint began) {
  const std::lock_guard lock(mutex_);
  const TimePoint limit = began + tuning_.timeout;
  return stopping_ ? std::min(limit, stop_at_) : limit;
}

bool OtlpExporter::is_stopping() {
  const std::lock_guard lock(mutex_);
  return stopping_;
}

bool OtlpExporter::pause(Duration duration) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, duration, [&] { return stopping_; });
  return !stopping_;
}

// Doubles from failure to failure, over batches too; half of it is chance, so that many servers do not ask in step.
Duration OtlpExporter::delay_after(int failures, Duration retry_after) {
  if (retry_after > Duration{0}) return std::min(retry_after, tuning_.max_retry_after);
  thread_local std::minstd_rand random{std::random_device{}()};
  Duration delay = tuning_.first_delay;
  for (int i = 1; i < failures && delay < tuning_.max_delay; ++i) delay *= 2;
  const int64_t longest = std::min(delay, tuning_.max_delay).count();
  return Duration(std::uniform_int_distribution<int64_t>(longest / 2, longest)(random));
}

// `spans`: that were lost with this attempt.
void OtlpExporter::tell(const Attempt& attempt, size_t spans) {
  if (!attempt.taken) {
    lost_ += spans;
    const TimePoint now = steady_now();
    if (failing_ || (failures_ < 2 && spans == 0) || now < next_warning_) return;
    failing_ = true;
    next_warning_ = now + kWarningInterval;
    log_warning("traces: the collector {}; spans wait, and are dropped when there are too many", attempt.reason);
  } else if (std::exchange(failing_, false)) {
    log_info("traces: the collector takes spans again; {} were given up meanwhile", std::exchange(lost_, 0));
  }
}

}  // namespace inferneo
