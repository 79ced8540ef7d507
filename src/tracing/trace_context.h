// Whose trace a request belongs to, as W3C Trace Context has it: the headers traceparent and tracestate. Pure.
//
// Source: https://www.w3.org/TR/trace-context-2/ (levels 1 and 2). What is not exactly as written there is no context:
// the request then begins a trace of its own.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace inferneo {

struct TraceId {
  std::array<uint8_t, 16> bytes{};
  bool operator==(const TraceId&) const = default;
  bool is_zero() const { return *this == TraceId{}; }  // which no trace has
  std::string hex() const;
};

struct SpanId {
  std::array<uint8_t, 8> bytes{};
  bool operator==(const SpanId&) const = default;
  bool is_zero() const { return *this == SpanId{}; }  // which no span has
  std::string hex() const;
};

// Random, never zero. Thread-safe.
TraceId new_trace_id();
SpanId new_span_id();

inline constexpr uint8_t kSampledFlag = 0x01;
inline constexpr uint8_t kRandomFlag = 0x02;  // level 2: the rightmost 7 bytes of the trace id are random

struct TraceParent {
  TraceId trace;
  SpanId span;
  uint8_t flags = 0;  // of those above; others are dropped, as no version defines them
  bool sampled() const { return (flags & kSampledFlag) != 0; }
};

// "00-<32 hex digits>-<16 hex digits>-<2 hex digits>" in lower case. Versions above 00 may have more after another '-';
// ff is none. None when it is anything else, or when an id is all zeros. Allocates nothing.
std::optional<TraceParent> parse_traceparent(std::string_view text);
std::string format_traceparent(const TraceParent& parent);  // version 00

inline constexpr size_t kMaxTraceState = 512;  // bytes that are carried

// Whether a tracestate can be carried as it is: up to 32 members "key=value" by commas (empty ones are allowed), no key
// twice, at most kMaxTraceState bytes. What cannot is dropped whole.
bool is_tracestate(std::string_view text);

// The decision of one who must decide: the same for everybody with the same ratio, since it is taken from the trace id
// alone. Its rightmost 56 bits R are random; sampled when R >= (1 - ratio) * 2^56 (OpenTelemetry's consistent
// probability sampling). `ratio` from 0 to 1.
bool is_sampled(const TraceId& trace, double ratio);

}  // namespace inferneo
