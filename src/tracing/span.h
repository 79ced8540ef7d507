// One operation of a trace, as plain data: what OTLP calls a span. Docs: docs/tracing.md.
//
// Nothing of what people write or get may stand in one: no prompt, no answer, no key, no header, no user. Names are
// those of models, rules, tests and arms, as operators gave them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "tracing/trace_context.h"

namespace inferneo {

enum class SpanKind : uint8_t { internal = 1, server = 2 };  // OTLP's numbers

using SpanValue = std::variant<bool, int64_t, double, std::string, std::vector<std::string>>;
struct SpanAttribute {
  std::string_view key;  // a literal
  SpanValue value;
};

struct Span {
  struct Link {  // to a span of another trace
    TraceId trace;
    SpanId span;
  };
  TraceId trace;
  SpanId id;
  SpanId parent = {};  // zero: the first of its trace
  bool parent_is_remote = false;
  uint8_t flags = kSampledFlag;
  std::string trace_state = {};
  std::string name = {};
  SpanKind kind = SpanKind::internal;
  int64_t begin = 0;  // nanoseconds since 1970
  int64_t end = 0;
  std::vector<SpanAttribute> attributes = {};
  std::optional<Link> link = {};
  bool failed = false;

  Span& set(std::string_view key, SpanValue value) {
    attributes.push_back({key, std::move(value)});
    return *this;
  }
  Span& set_text(std::string_view key, std::string_view text) { return set(key, std::string(text)); }
};

// What became of spans, since the start.
struct SpanCounts {
  uint64_t exported = 0;  // the collector has taken them
  uint64_t dropped = 0;   // there was no room to keep them
  uint64_t failed = 0;    // the collector refused them, or did not answer in time
};

// Where ended spans go. Thread-safe; add() waits for nothing but a short lock, whatever the collector does.
class SpanSink {
 public:
  virtual ~SpanSink() = default;
  virtual void add(std::vector<Span> spans) = 0;
  virtual SpanCounts counts() const = 0;
};

}  // namespace inferneo
