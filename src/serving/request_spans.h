// What serving has to say of a traced request, as spans: how it was routed, and each generation with its phases. Pure.
// docs/tracing.md lists them. Of the request's own words only numbers are taken, and the model's name where there is
// such a model.
#pragma once

#include <string>
#include <vector>

#include "base/clock.h"
#include "serving/inference_service.h"
#include "serving/traffic.h"
#include "tracing/request_trace.h"

namespace inferneo {

// `knows_model`: route.model is a model's name, and no word of the client's.
Span route_span(const RequestTrace& trace, const TrafficRoute& route, bool knows_model, TimePoint begin, TimePoint end);

struct GenerationTimes {
  TimePoint arrived{};
  TimePoint asked{};    // the manager, for the model; zero: not yet
  TimePoint leased{};   // by its answer; zero: not yet
  bool waited = false;  // for the model, which was not ready
  TimePoint ended{};
};

struct GenerationFacts {
  const GenerateRequest& request;
  const GenerateOutcome& outcome;
  GenerationTimes times;
  std::string asked_model = {};  // as the request names it; empty: the default, or there is no such model
  std::string model = {};        // that answered, as shown to clients; empty: none was reached
  std::string model_id = {};     // name:version of it
  std::vector<std::string> finish_reasons = {};  // of the samples
};
// The generation's span first, then its phases: load_model (if it waited), prepare, queue, prefill, decode, as far as
// it came. A copy's are a trace of their own.
std::vector<Span> generation_spans(const RequestTrace& trace, const GenerationFacts& facts);

}  // namespace inferneo
