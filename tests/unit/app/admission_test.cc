// The whole server with a bundled model and two keys, of which one floods it: the other is served near its fair share,
// limits hold over HTTP, and what was charged is settled.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "app/application.h"
#include "app/tenants.h"
#include "raw_client.h"
#include "served_application.h"

namespace inferneo {
namespace {

constexpr TenantId kFlood = 1;
constexpr TenantId kLight = 2;

std::string completion(int max_tokens, bool stream = false) {
  return nlohmann::json{{"prompt", "Once upon a time"},
                        {"max_tokens", max_tokens},
                        {"ignore_eos", true},
                        {"stream", stream},
                        {"temperature", 0}}
      .dump();
}

class AdmissionServer : public testing::ServedApplication {
 protected:
  AdmissionServer() {
    config_.model = {std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft"};
    config_.served_model_name = {"story"};
    config_.max_memory_gb = 0.25;
    config_.num_threads = 1;
    config_.io_threads = 1;
    config_.port = 0;
    config_.metrics_public = true;
    config_.max_num_seqs = 2;
    config_.key_limits = {{.name = "flood", .key = "flood-key"}, {.name = "light", .key = "light-key"}};
  }
  std::optional<RawResponse> ask(const std::string& key, const std::string& body) const {
    return fetch(port_, "POST", "/v1/completions", body, {"Authorization: Bearer " + key});
  }
  double metric(const std::string& name, const std::string& label, const std::string& value) const {
    double sum = 0.0;
    for (const MetricSample& sample : application_->service().metrics()) {
      for (const auto& [key, text] : sample.labels) {
        if (sample.name == name && key == label && text == value) sum += std::get<double>(sample.value);
      }
    }
    return sum;
  }
  template <typename Condition>
  static bool eventually(Condition condition) {
    for (int i = 0; i < 20'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
};

TEST_F(AdmissionServer, AFloodOfOneKeyDoesNotKeepTheOtherWaiting) {
  start();
  constexpr int kRequests = 60;
  std::vector<RawClient> flood;
  for (int i = 0; i < kRequests; ++i) {
    flood.emplace_back(port_);
    ASSERT_TRUE(flood.back().send(
        http_request("POST", "/v1/completions", completion(192), {"Authorization: Bearer flood-key"})));
  }
  const auto waiting = [&] { return metric("vllm:num_requests_waiting", "model_name", "story"); };
  ASSERT_TRUE(eventually([&] { return waiting() > kRequests / 2.0; })) << "no flood";
  const auto ended = [&] { return metric("vllm:request_success", "finished_reason", "length"); };
  for (int i = 0; i < 5; ++i) {
    const double before = ended();
    const auto response = ask("light-key", completion(4));
    ASSERT_TRUE(response.has_value());
    ASSERT_EQ(response->status, 200) << response->body;
    // First come, first served would have ended them all before. A fair share is the next free one of two seats: two of
    // the flood at most end for it, and a few more while the answer is on its way.
    EXPECT_LE(ended() - before, 8.0) << "request " << i;
  }
  EXPECT_GT(waiting(), 5.0) << "the flood is not over yet";
  for (RawClient& client : flood) {
    const auto response = client.read_response();
    ASSERT_TRUE(response.has_value());
    EXPECT_EQ(response->status, 200);
  }
  EXPECT_EQ(metric("inferneo:tenant_requests", "tenant", "flood"), kRequests);
  EXPECT_EQ(metric("inferneo:tenant_requests", "tenant", "light"), 5.0);
  EXPECT_EQ(metric("inferneo:tenant_requests_running", "tenant", "flood"), 0.0);
}

TEST_F(AdmissionServer, TokensAreChargedWhenTheyAreKnownAndSettledAtTheEnd) {
  config_.tokens_per_minute = 100;
  config_.key_limits[0].tokens_per_minute = 1000;
  start();
  const auto first = ask("flood-key", completion(20));
  ASSERT_EQ(first->status, 200) << first->body;
  const auto usage = nlohmann::json::parse(first->body).at("usage");
  const int used = usage.at("total_tokens").get<int>();
  EXPECT_EQ(metric("inferneo:tenant_tokens", "tenant", "flood"), used);
  EXPECT_EQ(first->headers.at("x-ratelimit-limit-tokens"), "1000");
  const RateLimits left = application_->service().rate_limits(kFlood);
  EXPECT_GE(left.tokens->remaining, 1000 - used);
  // More than a minute's worth at once needs a full bucket; what follows waits for it.
  EXPECT_EQ(ask("light-key", completion(200))->status, 200);
  const auto refused = ask("light-key", completion(10));
  EXPECT_EQ(refused->status, 429) << refused->body;
  EXPECT_GT(std::stoi(refused->headers.at("retry-after")), 30);
  EXPECT_EQ(refused->headers.at("x-ratelimit-remaining-tokens"), "0");
  EXPECT_EQ(metric("inferneo:admission_refused", "tenant", "light"), 1.0);
  EXPECT_EQ(application_->service().rate_limits(kLight).tokens->limit, 100);
}

TEST(Tenants, AreNumberedAsTheServerNumbersKeys) {
  EngineConfig config;
  config.api_key = {"x", "y"};
  config.requests_per_minute = 60;
  config.max_concurrent_requests = 4;
  config.key_limits = {{.name = "team", .key = "z", .requests_per_minute = 0, .weight = 2.0}};
  const std::vector<TenantLimits> tenants = tenants_of(config);
  ASSERT_EQ(tenants.size(), 4U);
  EXPECT_EQ(tenants[0].name, "default");
  EXPECT_EQ(tenants[1].name, "key-1");
  EXPECT_EQ(tenants[2].name, "key-2");
  EXPECT_EQ(tenants[2].requests_per_minute, 60);
  EXPECT_EQ(tenants[3].name, "team");
  EXPECT_EQ(tenants[3].requests_per_minute, 0) << "an entry may lift what holds for every key";
  EXPECT_EQ(tenants[3].max_concurrent_requests, 4);
  EXPECT_DOUBLE_EQ(tenants[3].weight, 2.0);
  EXPECT_TRUE(server_queue_of(config).shared);
}

}  // namespace
}  // namespace inferneo
