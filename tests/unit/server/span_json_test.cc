// Spans as OTLP's JSON: the facts of its specification, one by one.
#include "server/otlp/span_json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/otlp/collector.h"

namespace inferneo {
namespace {

using nlohmann::json;

Span sample_span() {
  Span span;
  for (size_t i = 0; i < 16; ++i) span.trace.bytes[i] = static_cast<uint8_t>(0xa0 + i);
  for (size_t i = 0; i < 8; ++i) span.id.bytes[i] = static_cast<uint8_t>(i + 1);
  span.name = "chat story";
  span.begin = 1'700'000'000'123'456'789;
  span.end = 1'700'000'001'123'456'789;
  return span;
}

json encoded(const Span& span) {
  const json all = json::parse(spans_json({&span, 1}, {"svc", "one"}));
  return all.at("resourceSpans").at(0).at("scopeSpans").at(0).at("spans").at(0);
}

TEST(SpanJson, AnExportRequestNamesWhoSends) {
  const Span span = sample_span();
  const json all = json::parse(spans_json({&span, 1}, {"svc", "one"}));
  ASSERT_EQ(all.size(), 1U);
  const json& one = all.at("resourceSpans").at(0);
  const json& attributes = one.at("resource").at("attributes");
  EXPECT_EQ(attributes.at(0), (json{{"key", "service.name"}, {"value", {{"stringValue", "svc"}}}}));
  EXPECT_EQ(attributes.at(2), (json{{"key", "service.instance.id"}, {"value", {{"stringValue", "one"}}}}));
  EXPECT_EQ(one.at("scopeSpans").at(0).at("scope").at("name"), "inferneo");
}

TEST(SpanJson, IdsAreHexadecimalAndTimesAreText) {
  const json span = encoded(sample_span());
  EXPECT_EQ(span.at("traceId"), "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf");
  EXPECT_EQ(span.at("spanId"), "0102030405060708");
  EXPECT_FALSE(span.contains("parentSpanId"));
  EXPECT_FALSE(span.contains("traceState"));
  EXPECT_FALSE(span.contains("links"));
  EXPECT_EQ(span.at("startTimeUnixNano"), "1700000000123456789");
  EXPECT_EQ(span.at("endTimeUnixNano"), "1700000001123456789");
}

TEST(SpanJson, EnumsAreNumbers) {
  Span span = sample_span();
  EXPECT_EQ(encoded(span).at("kind"), 1);
  EXPECT_EQ(encoded(span).at("status"), json::object());
  EXPECT_EQ(encoded(span).at("flags"), 0x101);
  span.kind = SpanKind::server;
  span.failed = true;
  span.parent.bytes[7] = 9;
  span.parent_is_remote = true;
  span.trace_state = "a=1";
  const json other = encoded(span);
  EXPECT_EQ(other.at("kind"), 2);
  EXPECT_EQ(other.at("status"), (json{{"code", 2}}));
  EXPECT_EQ(other.at("parentSpanId"), "0000000000000009");
  EXPECT_EQ(other.at("traceState"), "a=1");
  EXPECT_EQ(other.at("flags"), 0x301);
}

TEST(SpanJson, EveryKindOfValueHasItsOwnField) {
  Span span = sample_span();
  span.set("b", true).set("i", int64_t{-9'007'199'254'740'993}).set("d", 0.25).set_text("s", "x\"\\\xff\n");
  span.set("l", std::vector<std::string>{"stop", "length"}).set("e", std::vector<std::string>{});
  const json attributes = encoded(span).at("attributes");
  EXPECT_EQ(attributes.at(0), (json{{"key", "b"}, {"value", {{"boolValue", true}}}}));
  EXPECT_EQ(attributes.at(1), (json{{"key", "i"}, {"value", {{"intValue", "-9007199254740993"}}}})) << "64 bits: text";
  EXPECT_EQ(attributes.at(2), (json{{"key", "d"}, {"value", {{"doubleValue", 0.25}}}}));
  EXPECT_EQ(attributes.at(3).at("value").at("stringValue"), "x\"\\\xef\xbf\xbd\n") << "always UTF-8";
  EXPECT_EQ(attributes.at(4).at("value").at("arrayValue").at("values").at(1), (json{{"stringValue", "length"}}));
  EXPECT_EQ(attributes.at(5).at("value").at("arrayValue").at("values"), json::array());
}

TEST(SpanJson, ALinkNamesTheOtherSpan) {
  Span span = sample_span();
  span.link = Span::Link{span.trace, span.id};
  EXPECT_EQ(encoded(span).at("links").at(0),
            (json{{"traceId", "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"}, {"spanId", "0102030405060708"}}));
}

TEST(SpanJson, ACollectorMayRefuseSome) {
  EXPECT_EQ(rejected_spans(R"({"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}})"), 3U);
  EXPECT_EQ(rejected_spans(R"({"partialSuccess":{"rejectedSpans":4}})"), 4U);
  for (const char* text :
       {"", "{}", "[]", "no JSON", R"({"partialSuccess":null})", R"({"partialSuccess":{}})",
        R"({"partialSuccess":{"rejectedSpans":-1}})", R"({"partialSuccess":{"rejectedSpans":"x"}})"}) {
    EXPECT_EQ(rejected_spans(text), 0U) << text;
  }
}

TEST(CollectorAddress, ABaseGetsThePathAndAWholeAddressStays) {
  EngineConfig config;
  EXPECT_FALSE(collector_of(config)->has_value()) << "off by default";
  config.otlp_endpoint = "http://collector:4318";
  EXPECT_EQ((*collector_of(config))->url, "http://collector:4318/v1/traces");
  config.otlp_endpoint = "https://collector/otlp/";
  EXPECT_EQ((*collector_of(config))->url, "https://collector/otlp/v1/traces");
  config.otlp_traces_endpoint = "http://other:4318/api/spans";
  EXPECT_EQ((*collector_of(config))->url, "http://other:4318/api/spans");
  for (const char* bad : {"collector:4318", "ftp://collector", "http://user:secret@collector", "http://"}) {
    config.otlp_traces_endpoint = bad;
    const auto collector = collector_of(config);
    ASSERT_FALSE(collector.ok()) << bad;
    EXPECT_EQ(collector.error().param, "otlp_traces_endpoint");
    EXPECT_EQ(collector.error().message.find("secret"), std::string::npos);
  }
}

TEST(CollectorAddress, HeadersAreDecoded) {
  EngineConfig config;
  config.otlp_endpoint = "http://collector:4318";
  config.otlp_headers = {"authorization=Bearer%20secret", "x-scope=a=b"};
  EXPECT_EQ((*collector_of(config))->fields,
            (std::vector<std::string>{"authorization: Bearer secret", "x-scope: a=b"}));
  for (const char* bad : {"secret", "=secret", "a=secret%0d%0ab: c", "a=secret%", "a=secret%00"}) {
    config.otlp_headers = {bad};
    const auto collector = collector_of(config);
    ASSERT_FALSE(collector.ok()) << bad;
    EXPECT_EQ(collector.error().message.find("secret"), std::string::npos);
  }
}

}  // namespace
}  // namespace inferneo
