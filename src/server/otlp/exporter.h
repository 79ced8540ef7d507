// Sends spans to a collector in batches, from a thread of its own.
//
// A request only puts its spans into a bounded queue: when that is full they are dropped and counted, whatever the
// collector does. A batch is sent when it is full or when its first span has waited long enough; one batch is under way
// at a time. An answer of 429, 502, 503 or 504, or none at all, is tried again with growing pauses (and as Retry-After
// says); any other but 2xx is not. After too many attempts the batch is given up. The log has one line when spans begin
// to fail, a minute after the last such line at the earliest, and one when they arrive again.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "formats/hub_http.h"
#include "server/otlp/collector.h"
#include "server/otlp/span_json.h"
#include "tracing/span.h"

namespace inferneo {

struct ExporterTuning {
  size_t max_queue = 2048;  // spans that wait; those of the batch under way apart
  size_t max_batch = 512;   // spans
  Duration batch_delay = std::chrono::seconds(1);
  Duration timeout = std::chrono::seconds(10);  // of one attempt
  int attempts = 5;                             // for one batch
  Duration first_delay = std::chrono::seconds(1);
  Duration max_delay = std::chrono::seconds(30);
  Duration max_retry_after = std::chrono::minutes(5);  // a collector that asks for more is asked again then
  Duration flush_timeout = std::chrono::seconds(3);    // at the end, for what is still there
};

class OtlpExporter final : public SpanSink {
 public:
  OtlpExporter(Collector collector, TraceResource resource, const ExporterTuning& tuning);
  ~OtlpExporter() override;  // stop()
  OtlpExporter(const OtlpExporter&) = delete;
  OtlpExporter& operator=(const OtlpExporter&) = delete;

  void add(std::vector<Span> spans) override;
  SpanCounts counts() const override;

  // Sends what is there, without trying again, for at most flush_timeout; what is left then has failed. Later spans are
  // dropped.
  void stop();

 private:
  struct Attempt {
    bool taken = false;
    bool may_repeat = false;
    uint64_t rejected = 0;  // of the spans taken
    Duration retry_after{0};
    std::string reason;  // for people
  };

  void run();
  bool next_batch(std::vector<Span>& batch);
  void deliver(hub::HttpLoop& http, const std::vector<Span>& batch);
  Attempt attempt(hub::HttpLoop& http, const std::string& body);
  bool is_stopping();
  bool pause(Duration duration);  // false: the end has begun
  Duration delay_after(int failures, Duration retry_after);
  TimePoint limit_of_attempt(TimePoint began);
  void tell(const Attempt& attempt, size_t spans);

  const Collector collector_;
  const TraceResource resource_;
  const ExporterTuning tuning_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Span> queue_;  // guarded by mutex_, as are the next three
  TimePoint oldest_{};      // when the queue began to fill
  bool stopping_ = false;
  TimePoint stop_at_{};

  std::atomic<uint64_t> exported_{0};
  std::atomic<uint64_t> dropped_{0};
  std::atomic<uint64_t> failed_{0};
  // of the thread alone
  int failures_ = 0;  // attempts in a row
  TimePoint next_warning_{};
  bool failing_ = false;  // the log has said so
  uint64_t lost_ = 0;     // spans since then
  std::thread thread_;    // the last: it uses all of them
};

}  // namespace inferneo
