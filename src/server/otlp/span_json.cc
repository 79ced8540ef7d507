#include "server/otlp/span_json.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "server/json.h"
#include "server/json_writer.h"

namespace inferneo {
namespace {

constexpr int64_t kStatusError = 2;       // Status.StatusCode
constexpr uint32_t kKnowsRemote = 0x100;  // SpanFlags: whether the parent is another process's is said, and it is
constexpr uint32_t kIsRemote = 0x200;

struct ValueWriter {
  JsonWriter& json;
  void operator()(bool value) const { json.begin_object().field("boolValue", value).end_object(); }
  void operator()(int64_t value) const { json.begin_object().field("intValue", std::to_string(value)).end_object(); }
  void operator()(double value) const { json.begin_object().key("doubleValue").number(value).end_object(); }
  void operator()(const std::string& value) const { json.begin_object().field("stringValue", value).end_object(); }
  void operator()(const std::vector<std::string>& values) const {
    json.begin_object().key("arrayValue").begin_object().key("values").begin_array();
    for (const std::string& value : values) (*this)(value);
    json.end_array().end_object().end_object();
  }
};

void write_attribute(JsonWriter& json, std::string_view key, const SpanValue& value) {
  json.begin_object().field("key", key).key("value");
  std::visit(ValueWriter{json}, value);
  json.end_object();
}

uint32_t flags_of(const Span& span) { return span.flags | kKnowsRemote | (span.parent_is_remote ? kIsRemote : 0U); }

void write_span(JsonWriter& json, const Span& span) {
  json.begin_object().field("traceId", span.trace.hex()).field("spanId", span.id.hex());
  if (!span.parent.is_zero()) json.field("parentSpanId", span.parent.hex());
  if (!span.trace_state.empty()) json.field("traceState", span.trace_state);
  json.field("flags", flags_of(span)).field("name", span.name).field("kind", static_cast<int64_t>(span.kind));
  // 64 bits are text in protobuf's JSON.
  json.field("startTimeUnixNano", std::to_string(span.begin)).field("endTimeUnixNano", std::to_string(span.end));
  json.key("attributes").begin_array();
  for (const SpanAttribute& attribute : span.attributes) write_attribute(json, attribute.key, attribute.value);
  json.end_array();
  if (span.link) {
    json.key("links").begin_array().begin_object();
    json.field("traceId", span.link->trace.hex()).field("spanId", span.link->span.hex()).end_object().end_array();
  }
  json.key("status").begin_object();
  if (span.failed) json.field("code", kStatusError);
  json.end_object().end_object();
}

}  // namespace

std::string spans_json(std::span<const Span> spans, const TraceResource& resource) {
  JsonWriter json;
  json.begin_object().key("resourceSpans").begin_array().begin_object();
  json.key("resource").begin_object().key("attributes").begin_array();
  write_attribute(json, "service.name", resource.service);
  write_attribute(json, "service.version", std::string(INFERNEO_VERSION));
  write_attribute(json, "service.instance.id", resource.instance);
  json.end_array().end_object();
  json.key("scopeSpans").begin_array().begin_object();
  json.key("scope").begin_object().field("name", "inferneo").field("version", INFERNEO_VERSION).end_object();
  json.key("spans").begin_array();
  for (const Span& span : spans) write_span(json, span);
  json.end_array().end_object().end_array().end_object().end_array().end_object();
  return json.take();
}

uint64_t rejected_spans(std::string_view answer) {
  const Result<Json> json = parse_json_object(answer);
  if (!json.ok()) return 0;
  const auto part = json->find("partialSuccess");
  if (part == json->end() || !part->is_object()) return 0;
  const auto count = part->find("rejectedSpans");
  if (count == part->end()) return 0;
  if (count->is_number_unsigned()) return count->get<uint64_t>();
  uint64_t value = 0;
  if (count->is_string()) {
    const auto& text = count->get_ref<const std::string&>();
    std::from_chars(text.data(), text.data() + text.size(), value);
  }
  return value;
}

}  // namespace inferneo
