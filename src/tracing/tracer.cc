#include "tracing/tracer.h"

namespace inferneo {

std::shared_ptr<const RequestTrace> Tracer::begin(std::string_view traceparent, std::string_view trace_state,
                                                  TimePoint now) const {
  if (const std::optional<TraceParent> parent = parse_traceparent(traceparent)) {
    if (!parent->sampled()) return nullptr;
    return std::make_shared<RequestTrace>(sink_, *parent, is_tracestate(trace_state) ? trace_state : "", now);
  }
  const TraceId trace = new_trace_id();
  if (!is_sampled(trace, ratio_)) return nullptr;
  return std::make_shared<RequestTrace>(sink_, trace, now);
}

}  // namespace inferneo
