// Decides which requests are traced: as the caller's traceparent says, else a share of them.
//
// Immutable, thread-safe; a request that is not traced costs a look at its headers and no allocation. The sink outlives
// the tracer and its traces.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "base/clock.h"
#include "tracing/request_trace.h"

namespace inferneo {

class Tracer {
 public:
  Tracer(SpanSink& sink, double ratio) : sink_(sink), ratio_(ratio) {}

  // Of a request that begins now; null: it is not traced. Without a traceparent, or with one that is none,
  // `trace_state` means nothing.
  std::shared_ptr<const RequestTrace> begin(std::string_view traceparent, std::string_view trace_state,
                                            TimePoint now) const;
  SpanCounts counts() const { return sink_.counts(); }

 private:
  SpanSink& sink_;
  double ratio_;
};

}  // namespace inferneo
