// The whole server with a bundled model and a collector: what becomes of a request as spans, and what never does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "app/application.h"
#include "base/log.h"
#include "raw_client.h"
#include "served_application.h"
#include "support/scripted_hub.h"

namespace inferneo {
namespace {

using nlohmann::json;

constexpr const char* kTrace = "0af7651916cd43dd8448eb211c80319c";
constexpr const char* kParent = "b7ad6b7169203331";

std::string traceparent(bool sampled = true) {
  return std::string("traceparent: 00-") + kTrace + "-" + kParent + (sampled ? "-01" : "-00");
}

struct Seen {  // a span as the collector got it
  std::string name;
  std::string trace;
  std::string id;
  std::string parent;
  json attributes = json::object();  // key -> value
  json span;

  bool failed() const { return span.at("status").value("code", 0) == 2; }
  int64_t begin() const { return std::stoll(span.at("startTimeUnixNano").get<std::string>()); }
  int64_t end() const { return std::stoll(span.at("endTimeUnixNano").get<std::string>()); }
};

json plain(const json& value) {
  if (value.contains("intValue")) return std::stoll(value.at("intValue").get<std::string>());
  if (!value.contains("arrayValue")) return *value.begin();
  json list = json::array();
  for (const json& one : value.at("arrayValue").at("values")) list.push_back(plain(one));
  return list;
}

Seen seen_of(const json& span) {
  Seen seen{
      span.at("name"), span.at("traceId"), span.at("spanId"), span.value("parentSpanId", ""), json::object(), span};
  for (const json& one : span.at("attributes"))
    seen.attributes[one.at("key").get<std::string>()] = plain(one.at("value"));
  return seen;
}

class TracingServer : public testing::ServedApplication {
 protected:
  TracingServer() {
    set_log_level(LogLevel::off);
    collector_.set_script([](const testing::ScriptedHub::Request&, testing::ScriptedHub::Reply& reply) {
      reply = {.status = 200, .body = "{}"};
    });
    config_.model = {bundled("inferneo-story-draft")};
    config_.served_model_name = {"story"};
    config_.max_memory_gb = 0.25;
    config_.num_threads = 1;
    config_.io_threads = 1;
    config_.port = 0;
    config_.registry = "memory";
    config_.api_key = {"key-of-the-api"};
    config_.otlp_endpoint = collector_.endpoint();
    config_.otlp_headers = {"authorization=Bearer%20key-of-the-collector"};
    config_.otlp_service_name = "tests";
  }
  static std::string bundled(const std::string& name) { return std::string(INFERNEO_SOURCE_DIR) + "/models/" + name; }

  std::string request(const std::string& path, const json& body, std::vector<std::string> headers = {}) const {
    headers.emplace_back("Authorization: Bearer key-of-the-api");
    return http_request("POST", path, body.dump(), headers);
  }
  std::optional<RawResponse> ask(const std::string& path, const json& body,
                                 const std::vector<std::string>& headers = {}) const {
    RawClient client(port_);
    if (!client.send(request(path, body, headers))) return std::nullopt;
    return client.read_response();
  }
  static json completion(const json& more = json::object()) {
    json body = {{"prompt", "Once upon a secret"}, {"max_tokens", 5}, {"ignore_eos", true}, {"temperature", 0}};
    body.update(more);
    return body;
  }
  // Ends the server and the application, which sends what there is, and gives it.
  std::vector<Seen> finish() {
    if (server_ != nullptr) {  // with its grace period
      server_->request_stop();
      server_->join();
      server_.reset();
    }
    stop();
    std::vector<Seen> spans;
    for (const auto& sent : collector_.requests()) {
      EXPECT_EQ(sent.header("authorization"), "Bearer key-of-the-collector");
      for (const char* word : {"secret", "key-of"}) EXPECT_EQ(sent.body.find(word), std::string::npos) << sent.body;
      const json body = json::parse(sent.body);
      for (const json& resource : body.at("resourceSpans")) {
        EXPECT_EQ(resource.at("resource").at("attributes").at(0).at("value").at("stringValue"), "tests");
        for (const json& span : resource.at("scopeSpans").at(0).at("spans")) spans.push_back(seen_of(span));
      }
    }
    check(spans);
    return spans;
  }
  // What holds of all spans: own ids, an end that is no earlier than the beginning, parents that exist.
  static void check(const std::vector<Seen>& spans) {
    std::set<std::string> ids{"", kParent};
    for (const Seen& span : spans) EXPECT_TRUE(ids.insert(span.id).second) << span.name;
    for (const Seen& span : spans) {
      EXPECT_TRUE(ids.contains(span.parent)) << span.name;
      EXPECT_LE(span.begin(), span.end()) << span.name;
    }
  }
  static std::vector<Seen> named(const std::vector<Seen>& spans, std::string_view name) {
    std::vector<Seen> found;
    for (const Seen& span : spans) {
      if (span.name == name) found.push_back(span);
    }
    return found;
  }
  static Seen only(const std::vector<Seen>& spans, std::string_view name) {
    const auto found = named(spans, name);
    EXPECT_EQ(found.size(), 1U) << name;
    return found.empty() ? Seen{std::string(name), "", "", "", json::object(), {{"status", json::object()}}} : found[0];
  }
  double spans_counted() const {
    double sum = 0.0;
    for (const MetricSample& sample : application_->service().metrics()) {
      if (sample.name == "inferneo:trace_spans") sum += std::get<double>(sample.value) + 1000.0;
    }
    return sum;
  }

  testing::ScriptedHub collector_;
};

TEST_F(TracingServer, ARequestWithAParentIsPartOfItsTrace) {
  start({.serves = true});
  const auto response = ask("/v1/completions", completion({{"user", "secret-user"}, {"seed", 7}}),
                            {traceparent(), "tracestate: rojo=1,congo=2", "x-request-id: my-request"});
  ASSERT_EQ(response->status, 200) << response->body;
  EXPECT_FALSE(response->headers.contains("traceparent"));
  EXPECT_GE(spans_counted(), 3000.0) << "exported, dropped, failed";
  const auto spans = finish();
  ASSERT_EQ(spans.size(), 6U) << "POST, text_completion, prepare, queue, prefill, decode";
  const Seen server = only(spans, "POST /v1/completions");
  EXPECT_EQ(server.parent, kParent);
  EXPECT_EQ(server.span.at("kind"), 2);
  EXPECT_EQ(server.span.at("flags"), 0x301);
  EXPECT_EQ(server.attributes, (json{{"http.request.method", "POST"},
                                     {"http.route", "/v1/completions"},
                                     {"url.path", "/v1/completions"},
                                     {"inferneo.request.id", "my-request"},
                                     {"http.response.status_code", 200}}));
  const Seen generation = only(spans, "text_completion story");
  EXPECT_EQ(generation.parent, server.id);
  const json& told = generation.attributes;
  const json usage = json::parse(response->body).at("usage");
  EXPECT_EQ(told.at("gen_ai.operation.name"), "text_completion");
  EXPECT_EQ(told.at("gen_ai.provider.name"), "inferneo");
  EXPECT_EQ(told.at("gen_ai.request.id"), "my-request");
  EXPECT_EQ(told.at("gen_ai.request.max_tokens"), 5);
  EXPECT_EQ(told.at("gen_ai.response.model"), "story");
  EXPECT_EQ(told.at("inferneo.model.id"), "story:1");
  EXPECT_EQ(told.at("gen_ai.usage.input_tokens"), usage.at("prompt_tokens"));
  EXPECT_EQ(told.at("gen_ai.usage.output_tokens"), 5);
  EXPECT_EQ(told.at("gen_ai.usage.completion_tokens"), 5);
  EXPECT_EQ(told.at("gen_ai.response.finish_reasons"), (json{"length"}));
  EXPECT_GE(told.at("gen_ai.latency.e2e").get<double>(), told.at("gen_ai.latency.time_to_first_token").get<double>());
  EXPECT_FALSE(told.contains("error.type"));
  int64_t last = generation.begin();
  for (const char* phase : {"prepare", "queue", "prefill", "decode"}) {
    const Seen span = only(spans, phase);
    EXPECT_EQ(span.parent, generation.id);
    EXPECT_GE(span.begin(), last) << phase;
    last = span.end();
  }
  EXPECT_LE(last, generation.end());
  for (const Seen& span : spans) {
    EXPECT_EQ(span.trace, kTrace);
    EXPECT_EQ(span.span.at("traceState"), "rojo=1,congo=2");
  }
}

TEST_F(TracingServer, AStreamedChatBeginsATraceOfItsOwn) {
  start({.serves = true});
  const auto response = ask("/v1/chat/completions",
                            {{"messages", {{{"role", "user"}, {"content", "a secret"}}}},
                             {"max_tokens", 4},
                             {"ignore_eos", true},
                             {"n", 2},
                             {"stream", true}},
                            {"traceparent: secret"});
  ASSERT_EQ(response->status, 200) << response->body;
  const auto spans = finish();
  const Seen server = only(spans, "POST /v1/chat/completions");
  EXPECT_EQ(server.parent, "");
  EXPECT_NE(server.trace, kTrace);
  EXPECT_FALSE(server.span.contains("traceState"));
  EXPECT_EQ(server.attributes.at("http.response.status_code"), 200);
  const Seen generation = only(spans, "chat story");
  EXPECT_EQ(generation.trace, server.trace);
  EXPECT_EQ(generation.attributes.at("gen_ai.request.n"), 2);
  EXPECT_EQ(generation.attributes.at("gen_ai.usage.output_tokens"), 8);
  EXPECT_EQ(generation.attributes.at("gen_ai.response.finish_reasons"), (json{"length", "length"}));
}

TEST_F(TracingServer, ErrorsSayOfWhatKindTheyWereAndNothingElse) {
  start({.serves = true});
  EXPECT_EQ(ask("/v1/completions", completion({{"temperature", "secret"}}))->status, 400);
  EXPECT_EQ(ask("/v1/completions", completion({{"model", "secret-model"}}))->status, 404);
  const auto spans = finish();
  const auto servers = named(spans, "POST /v1/completions");
  ASSERT_EQ(servers.size(), 2U);
  EXPECT_EQ(servers[0].attributes.at("http.response.status_code"), 400);
  EXPECT_EQ(servers[0].attributes.at("error.type"), "invalid_argument");
  EXPECT_FALSE(servers[0].failed()) << "the client's fault is no failure of the server";
  EXPECT_EQ(servers[1].attributes.at("http.response.status_code"), 404);
  const Seen generation = only(spans, "text_completion");
  EXPECT_EQ(generation.trace, servers[1].trace);
  EXPECT_EQ(generation.attributes.at("error.type"), "not_found");
  EXPECT_FALSE(generation.attributes.contains("gen_ai.request.model")) << "there is no such model";
  EXPECT_TRUE(generation.failed());
  EXPECT_EQ(spans.size(), 3U) << "it came no further";
}

TEST_F(TracingServer, WhoLeavesIsSeenToHaveLeft) {
  start({.serves = true});
  {
    RawClient client(port_);
    ASSERT_TRUE(
        client.send(request("/v1/completions", completion({{"max_tokens", 900}, {"stream", true}}), {traceparent()})));
    ASSERT_TRUE(client.read_until("data: "));
    client.close(true);
  }
  const auto aborted = [&] {
    for (const MetricSample& sample : application_->service().metrics()) {
      for (const auto& [key, value] : sample.labels) {
        if (sample.name == "vllm:request_success" && value == "abort" && std::get<double>(sample.value) > 0)
          return true;
      }
    }
    return false;
  };
  for (int i = 0; i < 10'000 && !aborted(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto spans = finish();
  const Seen server = only(spans, "POST /v1/completions");
  EXPECT_EQ(server.attributes.at("error.type"), "cancelled");
  EXPECT_EQ(server.attributes.at("http.response.status_code"), 200) << "which had gone out";
  EXPECT_FALSE(server.failed());
  const Seen generation = only(spans, "text_completion story");
  EXPECT_EQ(generation.attributes.at("gen_ai.response.finish_reasons"), (json{"abort"}));
  EXPECT_EQ(generation.attributes.at("error.type"), "cancelled");
  EXPECT_FALSE(generation.failed());
}

TEST_F(TracingServer, AnErrorWithinAStreamIsAFailureAfterA200) {
  config_.drain_timeout = 0.0;
  start({.serves = true});
  RawClient client(port_);
  ASSERT_TRUE(client.send(request("/v1/completions", completion({{"max_tokens", 900}, {"stream", true}}))));
  ASSERT_TRUE(client.read_until("data: "));
  const auto spans = finish();  // which ends the stream
  ASSERT_TRUE(client.read_until("[DONE]"));
  const Seen server = only(spans, "POST /v1/completions");
  EXPECT_EQ(server.attributes.at("http.response.status_code"), 200);
  EXPECT_EQ(server.attributes.at("error.type"), "unavailable");
  EXPECT_TRUE(server.failed());
}

TEST_F(TracingServer, RulesAreNamedAndRefusalsToo) {
  config_.models = {{.source = bundled("inferneo-story"), .name = "large"}};
  config_.routing_rules = {
      {.name = "to-large", .condition = "prompt contains 'upon'", .model_name = "large", .priority = 2},
      {.name = "no-thanks", .condition = "prompt contains 'nothing'", .refusal = RoutingRefusal{451, "no secret"}},
  };
  start({.serves = true});
  ASSERT_EQ(ask("/v1/completions", completion({{"model", "auto"}}), {traceparent()})->status, 200);
  ASSERT_EQ(ask("/v1/completions", completion({{"model", "auto"}, {"prompt", "nothing"}}))->status, 451);
  ASSERT_EQ(ask("/v1/completions", completion({{"model", "secret-name"}}))->status, 404);
  const auto spans = finish();
  const auto routes = named(spans, "route");
  ASSERT_EQ(routes.size(), 3U);
  EXPECT_EQ(routes[0].trace, kTrace);
  EXPECT_EQ(routes[0].attributes, (json{{"inferneo.route.rule", "to-large"}, {"inferneo.route.model", "large"}}));
  EXPECT_EQ(only(spans, "text_completion large").trace, kTrace);
  EXPECT_EQ(routes[1].attributes, (json{{"inferneo.route.rule", "no-thanks"}, {"inferneo.route.refused", 451}}));
  EXPECT_EQ(routes[2].attributes, json::object());
}

TEST_F(TracingServer, AColdStartIsAPhaseOfItsOwn) {
  config_.enable_lazy_loading = true;
  start({.serves = true});
  ASSERT_EQ(ask("/v1/completions", completion())->status, 200);
  ASSERT_EQ(ask("/v1/completions", completion())->status, 200);
  const auto spans = finish();
  const auto generations = named(spans, "text_completion story");
  ASSERT_EQ(generations.size(), 2U);
  const Seen load = only(spans, "load_model");
  EXPECT_EQ(load.parent, generations[0].id) << "the second found it there";
  EXPECT_LE(load.end(), only({named(spans, "prepare")[0]}, "prepare").begin());
}

TEST_F(TracingServer, ACopyIsATraceOfItsOwnWithALink) {
  config_.shadow = {{.name = "s", .shadow_model = "story"}};
  start({.serves = true});
  ASSERT_EQ(ask("/v1/completions", completion(), {traceparent(), "tracestate: a=1"})->status, 200);
  const auto completed = [&] {
    for (const MetricSample& sample : application_->service().metrics()) {
      for (const auto& [key, value] : sample.labels) {
        if (sample.name == "inferneo:shadow_copies" && value == "completed")
          return std::get<double>(sample.value) == 1.0;
      }
    }
    return false;
  };
  for (int i = 0; i < 10'000 && !completed(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto spans = finish();
  const auto generations = named(spans, "text_completion story");
  ASSERT_EQ(generations.size(), 2U);
  const Seen& copy = generations[0].trace == kTrace ? generations[1] : generations[0];
  EXPECT_NE(copy.trace, kTrace);
  EXPECT_EQ(copy.parent, "");
  EXPECT_EQ(copy.attributes.at("inferneo.shadow"), true);
  EXPECT_FALSE(copy.span.contains("traceState"));
  const json& link = copy.span.at("links").at(0);
  EXPECT_EQ(link.at("traceId"), kTrace);
  EXPECT_EQ(link.at("spanId"), only(spans, "POST /v1/completions").id);
  size_t phases = 0;
  for (const Seen& span : spans) phases += span.trace == copy.trace && span.parent == copy.id ? 1 : 0;
  EXPECT_GE(phases, 3U) << "queue, prefill, decode at least";
}

TEST_F(TracingServer, SeveralPromptsAreSeveralGenerationsOfOneRequest) {
  start({.serves = true});
  ASSERT_EQ(ask("/v1/completions", completion({{"prompt", {"one", "two"}}}))->status, 200);
  const auto spans = finish();
  const Seen server = only(spans, "POST /v1/completions");
  const auto generations = named(spans, "text_completion story");
  ASSERT_EQ(generations.size(), 2U);
  for (const Seen& generation : generations) EXPECT_EQ(generation.parent, server.id);
}

TEST_F(TracingServer, WhatIsNotSampledIsNotThere) {
  config_.trace_sample_ratio = 0.0;
  start({.serves = true});
  ASSERT_EQ(ask("/v1/completions", completion(), {traceparent(false)})->status, 200);
  ASSERT_EQ(ask("/v1/completions", completion())->status, 200);
  ASSERT_EQ(ask("/v1/completions", completion(), {traceparent(), traceparent()})->status, 200) << "twice is none";
  EXPECT_EQ(fetch(port_, "POST", "/v1/completions", "{}", {"Authorization: Bearer wrong", traceparent()})->status, 401);
  EXPECT_EQ(fetch(port_, "GET", "/v1/models", "", {"Authorization: Bearer key-of-the-api", traceparent()})->status,
            200);
  EXPECT_TRUE(finish().empty());
}

TEST_F(TracingServer, WithoutAnAddressThereIsNothing) {
  config_.otlp_endpoint.clear();
  start({.serves = true});
  EXPECT_EQ(application_->tracer(), nullptr);
  ASSERT_EQ(ask("/v1/completions", completion(), {traceparent()})->status, 200);
  EXPECT_EQ(spans_counted(), 0.0);
  EXPECT_TRUE(finish().empty());
}

TEST_F(TracingServer, ACollectorThatIsAwayIsNoRequestsConcern) {
  config_.otlp_endpoint = "http://127.0.0.1:1";
  start({.serves = true});
  for (int i = 0; i < 20; ++i) ASSERT_EQ(ask("/v1/completions", completion())->status, 200);
  EXPECT_TRUE(finish().empty());
}

}  // namespace
}  // namespace inferneo
