// The trace of one request that is traced: where its spans belong, and the clock that they share.
//
// Immutable, thread-safe. Who answers a request that is not traced holds a null pointer instead, and does nothing.
// The sink outlives it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "tracing/span.h"

namespace inferneo {

class RequestTrace {
 public:
  // The request's own span, of which all others are children. `begin`: of it.
  RequestTrace(SpanSink& sink, TraceId trace, TimePoint begin);
  RequestTrace(SpanSink& sink, const TraceParent& parent, std::string_view trace_state, TimePoint begin);

  const TraceId& trace_id() const { return trace_; }
  const SpanId& span_id() const { return span_; }

  // The request's own span, from its beginning to `end`.
  Span request_span(std::string name, TimePoint end) const;
  // A child of `parent`, which is a span of this trace.
  Span child(std::string name, const SpanId& parent, TimePoint begin, TimePoint end) const;
  Span child(std::string name, TimePoint begin, TimePoint end) const {
    return child(std::move(name), span_, begin, end);
  }
  // For what a request leads to and nobody waits for: the first span of a trace of its own, with a link to this
  // request's span.
  Span linked(std::string name, TimePoint begin, TimePoint end) const;

  void send(std::vector<Span> spans) const { sink_.add(std::move(spans)); }
  void send(Span span) const;

 private:
  int64_t since_epoch(TimePoint time) const { return epoch_offset_ + time.time_since_epoch().count(); }

  SpanSink& sink_;
  TraceId trace_;
  SpanId span_ = new_span_id();
  SpanId parent_ = {};  // somebody else's; zero: none
  uint8_t flags_;
  std::string trace_state_;
  TimePoint begin_;
  int64_t epoch_offset_;  // nanoseconds from the steady clock to the wall clock, as they were when it began
};

}  // namespace inferneo
