// Spans as OTLP's JSON: an ExportTraceServiceRequest in protobuf's JSON mapping, but for ids, which OTLP wants in
// hexadecimal digits. Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding and
// opentelemetry/proto/trace/v1/trace.proto. Pure.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tracing/span.h"

namespace inferneo {

struct TraceResource {  // who sends
  std::string service;
  std::string instance;  // of this process; unlike any other's
};

std::string spans_json(std::span<const Span> spans, const TraceResource& resource);

// Of a collector's answer to them: how many it has refused. 0 for what cannot be read.
uint64_t rejected_spans(std::string_view answer);

}  // namespace inferneo
