#include "tracing/request_trace.h"

#include <algorithm>
#include <utility>

namespace inferneo {
namespace {

// One reading for all spans of a request: a clock that is set meanwhile does not tear them apart.
int64_t offset_to_wall_clock() {
  const auto wall = std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch());
  return (wall - std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch())).count();
}

}  // namespace

RequestTrace::RequestTrace(SpanSink& sink, TraceId trace, TimePoint begin)
    : sink_(sink),
      trace_(trace),
      flags_(kSampledFlag | kRandomFlag),
      begin_(begin),
      epoch_offset_(offset_to_wall_clock()) {}

RequestTrace::RequestTrace(SpanSink& sink, const TraceParent& parent, std::string_view trace_state, TimePoint begin)
    : sink_(sink),
      trace_(parent.trace),
      parent_(parent.span),
      flags_(parent.flags),
      trace_state_(trace_state),
      begin_(begin),
      epoch_offset_(offset_to_wall_clock()) {}

Span RequestTrace::request_span(std::string name, TimePoint end) const {
  Span span = child(std::move(name), parent_, begin_, end);
  span.id = span_;
  span.parent_is_remote = !parent_.is_zero();
  span.kind = SpanKind::server;
  return span;
}

Span RequestTrace::child(std::string name, const SpanId& parent, TimePoint begin, TimePoint end) const {
  Span span;
  span.trace = trace_;
  span.id = new_span_id();
  span.parent = parent;
  span.flags = flags_;
  span.trace_state = trace_state_;
  span.name = std::move(name);
  span.begin = since_epoch(begin);
  span.end = since_epoch(std::max(begin, end));
  return span;
}

Span RequestTrace::linked(std::string name, TimePoint begin, TimePoint end) const {
  Span span = child(std::move(name), SpanId{}, begin, end);
  span.trace = new_trace_id();
  span.flags = kSampledFlag | kRandomFlag;
  span.trace_state.clear();
  span.link = Span::Link{trace_, span_};
  return span;
}

void RequestTrace::send(Span span) const {
  std::vector<Span> spans;
  spans.push_back(std::move(span));
  sink_.add(std::move(spans));
}

}  // namespace inferneo
