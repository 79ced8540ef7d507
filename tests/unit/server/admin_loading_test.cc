// Loads, unloads and switches of version: what a client sees with and without a wait, and what goes on without it.
#include "admin_fixture.h"

namespace inferneo {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

class AdminLoading : public AdminFixture {};

TEST_F(AdminLoading, AWaitEndsWithTheModelOrWithTheOperation) {
  start();
  add("quick");
  add("late", "held");
  const Answer quick = ask("POST", "/admin/models/quick/load?wait=10");
  EXPECT_EQ(quick.status, 200) << quick.body;
  EXPECT_EQ(quick.body["state"], "ready");
  EXPECT_EQ(quick.body["memory_bytes"], kModelBytes);
  EXPECT_EQ(quick.body["leases"], 0);
  EXPECT_EQ(quick.body["loads"], 1);
  EXPECT_EQ(ask("POST", "/admin/models/quick/load").status, 200) << "it is there: nothing to wait for";

  const auto before = std::chrono::steady_clock::now();
  const Answer late = ask("POST", "/admin/models/late/load?wait=0.2");
  EXPECT_GE(std::chrono::steady_clock::now() - before, milliseconds(200));
  EXPECT_EQ(late.status, 202);
  EXPECT_EQ(late.body["kind"], "load");
  EXPECT_EQ(late.body["model"], "late:1");
  EXPECT_EQ(late.body["state"], "running");
  EXPECT_EQ(late.body["ended"], nullptr);
  EXPECT_EQ(operation(late)["progress"],
            Json::parse(R"({"stage":"reading weights","bytes_done":0,"bytes_total":100})"));
  EXPECT_EQ(ask("GET", "/admin/models/late").body["progress"]["stage"], "reading weights");
  const Answer second = ask("POST", "/admin/models/late/load");
  EXPECT_EQ(second.status, 202);
  EXPECT_NE(second.body["id"], late.body["id"]);
  script_.let_go();
  EXPECT_TRUE(ends(late, "done"));
  EXPECT_TRUE(ends(second, "done"));
  EXPECT_EQ(operation(late)["progress"], nullptr);
  EXPECT_GE(operation(late)["ended"], operation(late)["created"]);
  EXPECT_EQ(ask("GET", "/admin/models/late").body["loads"], 1) << "both waited for one load";
  EXPECT_EQ(ask("GET", "/admin/operations").body["data"].size(), 4U);
}

TEST_F(AdminLoading, AWaitWithoutANumberIsAsLongAsItTakes) {
  start();
  add("late", "held");
  RawClient client(port_);
  ASSERT_TRUE(client.send(http_request("POST", "/admin/models/late/load?wait")));
  ASSERT_TRUE(script_.has_begun(1));
  EXPECT_EQ(ask("GET", "/health").status, 200) << "no io thread waits";
  script_.let_go();
  const auto response = client.read_response();
  ASSERT_TRUE(response);
  EXPECT_EQ(response->status, 200) << response->body;
  for (const char* wait : {"-1", "x", "1e9", "nan", "1s", "%zz"}) {
    const Answer bad = ask("POST", std::string("/admin/models/late/load?wait=") + wait);
    EXPECT_EQ(bad.status, 400) << wait;
    EXPECT_EQ(bad.param(), "wait");
  }
  EXPECT_EQ(ask("POST", "/admin/models/late/load?wait=99999999").status, 200);
  EXPECT_EQ(ask("POST", "/admin/models/late/load?wiat=1").param(), "wiat");
}

TEST_F(AdminLoading, FailuresSayWhatTheLoaderSaid) {
  start();
  add("broken", "broken");
  add("huge", "huge");
  const Answer broken = ask("POST", "/admin/models/broken/load?wait");
  EXPECT_EQ(broken.status, 503);
  EXPECT_THAT(broken.message(), HasSubstr("the weights are cut short"));
  EXPECT_TRUE(broken.headers.contains("retry-after"));
  EXPECT_EQ(ask("GET", "/admin/models/broken").body["failure"],
            Json::parse(R"({"code":"malformed","message":"the weights are cut short"})"));
  const Answer huge = ask("POST", "/admin/models/huge/load?wait");
  EXPECT_EQ(huge.status, 507) << huge.body;
  EXPECT_THAT(huge.message(), HasSubstr("10000 bytes"));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ask("POST", "/admin/models/broken/load?wait").status, 503) << "an operator may try at once";
  }
  EXPECT_TRUE(script_.has_begun(4));
  const Answer later = ask("POST", "/admin/models/broken/load");
  EXPECT_TRUE(later.status == 202 || later.status == 503);
  const Json failed = ask("GET", "/admin/operations").body["data"][0];
  EXPECT_EQ(failed["state"], "failed");
  EXPECT_EQ(failed["error"]["code"], "unavailable");
}

TEST_F(AdminLoading, AClientThatLeavesEndsItsWaitAlone) {
  start();
  add("late", "held");
  {
    RawClient client(port_);
    ASSERT_TRUE(client.send(http_request("POST", "/admin/models/late/load?wait")));
    ASSERT_TRUE(script_.has_begun(1));
    client.close(true);
  }
  EXPECT_TRUE(eventually([&] { return server_->num_connections() == 0; }));
  script_.let_go();
  EXPECT_TRUE(becomes("late", "ready"));
  // The model is ready a moment before its operation is told so.
  EXPECT_TRUE(eventually([&] { return ask("GET", "/admin/operations").body["data"][0]["state"] == "done"; }));
}

TEST_F(AdminLoading, AModelIsUnloadedWhenItsLastUserIsDone) {
  start();
  add("a");
  const Answer absent = ask("POST", "/admin/models/a/unload?wait");
  EXPECT_EQ(absent.status, 200) << "it is not in memory";
  EXPECT_EQ(absent.body["state"], "unloaded");
  ASSERT_EQ(ask("POST", "/admin/models/a/load?wait").status, 200);
  ModelLease lease = *manager_->acquire_blocking("a");
  const Answer busy = ask("POST", "/admin/models/a/unload?timeout=30&wait=0.05");
  EXPECT_EQ(busy.status, 202) << busy.body;
  EXPECT_EQ(busy.body["kind"], "unload");
  EXPECT_EQ(state_of("a"), "draining");
  EXPECT_EQ(operation(busy)["state"], "running");
  lease.reset();
  EXPECT_TRUE(ends(busy, "done"));
  const Answer after = ask("GET", "/admin/models/a");
  EXPECT_EQ(after.body["state"], "unloaded");
  EXPECT_EQ(after.body["unloads"]["asked"], 1);
  EXPECT_EQ(after.body["memory_bytes"], 0);
  ASSERT_EQ(ask("POST", "/admin/models/a/load?wait").status, 200);
  EXPECT_EQ(ask("POST", "/admin/models/a/unload?wait=10").body["state"], "unloaded");
}

TEST_F(AdminLoading, AnUnloadEndsThoughTheModelIsWantedAgainAtOnce) {
  start();
  add("a");
  ModelLease lease = *manager_->acquire_blocking("a");
  const Answer busy = ask("POST", "/admin/models/a/unload");
  ASSERT_EQ(busy.status, 202);
  const Answer again = ask("POST", "/admin/models/a/load");
  ASSERT_EQ(again.status, 202) << "after the unload";
  lease.reset();
  EXPECT_TRUE(ends(again, "done"));
  EXPECT_TRUE(ends(busy, "done"));
  EXPECT_EQ(state_of("a"), "ready");
}

TEST_F(AdminLoading, AModelSleepsAndWakes) {
  start();
  add("a", "gpu");
  EXPECT_EQ(ask("POST", "/admin/models/a/sleep?wait").status, 409) << "it is not in memory";
  EXPECT_EQ(ask("POST", "/admin/models/a/wake-up?wait").status, 409) << "it would have to be loaded";
  ASSERT_EQ(ask("POST", "/admin/models/a/load?wait").status, 200);
  ModelLease lease = *manager_->acquire_blocking("a");
  const Answer busy = ask("POST", "/admin/models/a/sleep?timeout=30&wait=0.05");
  EXPECT_EQ(busy.status, 202) << busy.body;
  EXPECT_EQ(busy.body["kind"], "sleep");
  EXPECT_EQ(state_of("a"), "draining");
  lease.reset();
  EXPECT_TRUE(ends(busy, "done"));
  const Answer asleep = ask("POST", "/admin/models/a/sleep?wait");
  EXPECT_EQ(asleep.status, 200) << "it sleeps";
  EXPECT_EQ(asleep.body["state"], "sleeping");
  EXPECT_EQ(asleep.body["memory_bytes"], 0);
  EXPECT_EQ(asleep.body["sleep_bytes"], kModelBytes);
  EXPECT_EQ(asleep.body["sleeps"], 1);
  EXPECT_THAT(fetch(port_, "GET", "/metrics", "", {})->body,
              HasSubstr(R"(inferneo:model_state{model_name="a",engine="0",version="1",state="sleeping"} 1)"));
  const Answer awake = ask("POST", "/admin/models/a/wake-up?wait");
  EXPECT_EQ(awake.status, 200) << awake.body;
  EXPECT_EQ(awake.body["state"], "ready");
  EXPECT_EQ(awake.body["wakes"], 1);
  EXPECT_EQ(awake.body["loads"], 1);
  EXPECT_GT(awake.body["wake_seconds"], 0.0);
  EXPECT_EQ(ask("POST", "/admin/models/a/wake-up?wait").status, 200) << "it is awake";
  ASSERT_EQ(ask("POST", "/admin/models/a/sleep?wait").body["state"], "sleeping");
  EXPECT_EQ(ask("POST", "/admin/models/a/load?wait").body["state"], "ready") << "a load wakes it as well";
  ASSERT_EQ(ask("POST", "/admin/models/a/sleep?wait").body["state"], "sleeping");
  EXPECT_EQ(ask("POST", "/admin/models/a/unload?wait").body["state"], "unloaded");
}

TEST_F(AdminLoading, WhatCannotSleepSaysWhy) {
  start();
  add("cpu");
  add("gpu", "gpu");
  ASSERT_EQ(ask("POST", "/admin/models/cpu/load?wait").status, 200);
  const Answer cpu = ask("POST", "/admin/models/cpu/sleep?wait");
  EXPECT_EQ(cpu.status, 501) << cpu.body;
  EXPECT_THAT(cpu.message(), HasSubstr("cpu:1 computes on the CPU"));
  EXPECT_EQ(state_of("cpu"), "ready");
  EXPECT_EQ(ask("GET", "/admin/operations").body["data"][1]["state"], "failed");
  ASSERT_EQ(ask("POST", "/admin/models/gpu/load?wait").status, 200);
  script_.sleepless = true;
  const Answer unloaded = ask("POST", "/admin/models/gpu/sleep?wait");
  EXPECT_EQ(unloaded.status, 409);
  EXPECT_THAT(unloaded.message(), HasSubstr("was unloaded instead"));
  EXPECT_EQ(state_of("gpu"), "unloaded");
}

TEST_F(AdminLoading, RemovingWhatIsInUseWaitsForItsUsers) {
  start();
  add("a");
  ModelLease lease = *manager_->acquire_blocking("a");
  const Answer unloading = ask("POST", "/admin/models/a/unload");
  EXPECT_EQ(ask("DELETE", "/admin/models/a").status, 200);
  EXPECT_EQ(ask("GET", "/admin/models/a").status, 404);
  const Json list = ask("GET", "/admin/models").body["data"];
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0]["removing"], true);
  EXPECT_EQ(ask("POST", "/admin/models", R"({"name":"a","source":"files"})").status, 409) << "not before it is gone";
  lease.reset();
  EXPECT_TRUE(eventually([&] { return ask("GET", "/admin/models").body["data"].empty(); }));
  EXPECT_TRUE(ends(unloading, "done"));
}

TEST_F(AdminLoading, AVersionBecomesActiveOnceItIsLoaded) {
  start();
  add("a");
  ASSERT_EQ(ask("PUT", "/admin/models/a/active-version?wait", R"({"version":"1"})").status, 200);
  add("a", "held", "2");
  const Answer late = ask("PUT", "/admin/models/a/active-version", R"({"version":"2"})");
  EXPECT_EQ(late.status, 202);
  EXPECT_EQ(late.body["kind"], "switch");
  EXPECT_EQ(late.body["model"], "a");
  EXPECT_EQ(ask("GET", "/admin/models/a").body["version"], "1") << "until then";
  script_.let_go();
  EXPECT_TRUE(ends(late, "done"));
  const Json expected = Json::parse(R"({"name":"a","active":"2","previous":"1",
                                        "policy":{"kind":"latest","versions":[]}})");
  EXPECT_EQ(operation(late)["result"], expected);
  EXPECT_EQ(ask("GET", "/admin/models/a").body["version"], "2");
  const Answer back = ask("PUT", "/admin/models/a/active-version?wait", R"({"rollback":true})");
  EXPECT_EQ(back.status, 200) << back.body;
  EXPECT_EQ(back.body["active"], "1");
  EXPECT_EQ(back.body["previous"], "2");
  EXPECT_EQ(ask("PUT", "/admin/models/a/active-version", R"({"version":null})").body["active"], "2") << "the latest";
}

TEST_F(AdminLoading, ASwitchThatFailsChangesNothing) {
  start();
  add("a");
  EXPECT_EQ(ask("PUT", "/admin/models/a/active-version", R"({"rollback":true})").status, 409);
  ASSERT_EQ(ask("PUT", "/admin/models/a/active-version?wait", R"({"version":"1"})").status, 200);
  add("a", "broken", "2");
  const Answer failed = ask("PUT", "/admin/models/a/active-version?wait", R"({"version":"2"})");
  EXPECT_EQ(failed.status, 503);
  EXPECT_THAT(failed.message(), HasSubstr("'a' stays as it is"));
  EXPECT_THAT(failed.message(), HasSubstr("the weights are cut short"));
  EXPECT_EQ(ask("GET", "/admin/models/a").body["version"], "1");
  EXPECT_EQ(ask("PUT", "/admin/models/a/active-version", R"({"version":"7"})").status, 404);
  EXPECT_EQ(ask("PUT", "/admin/models/a/active-version", R"({"version":"/"})").param(), "version");
  EXPECT_EQ(ask("PUT", "/admin/models/a/active-version", "{}").param(), "version");
  EXPECT_EQ(ask("PUT", "/admin/models/a/active-version", R"({"version":"1","rollback":true})").param(), "rollback");
  ASSERT_EQ(ask("PUT", "/admin/aliases/b", R"({"target":"a"})").status, 200);
  EXPECT_EQ(ask("PUT", "/admin/models/b/active-version", R"({"version":"1"})").status, 409) << "an alias";
}

TEST_F(AdminLoading, TooManyOperationsAreRefused) {
  start();
  add("late", "held");
  for (size_t i = 0; i < OperationTable::kMaxRunning; ++i) {
    ASSERT_EQ(ask("POST", "/admin/models/late/load").status, 202);
  }
  const Answer refused = ask("POST", "/admin/models/late/load");
  EXPECT_EQ(refused.status, 429);
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  script_.let_go();
  EXPECT_TRUE(becomes("late", "ready"));
  // Operations end one after the other once the model is ready.
  EXPECT_TRUE(eventually([&] { return ask("POST", "/admin/models/late/load?wait").status == 200; }));
}

TEST_F(AdminLoading, AServerThatEndsWaitsForNoLoad) {
  start();
  add("late", "held");
  add("next");
  std::vector<RawClient> clients;
  for (const char* path : {"/admin/models/late/load?wait", "/admin/models/next/load?wait"}) {
    clients.emplace_back(port_);
    ASSERT_TRUE(clients.back().send(http_request("POST", path)));
    ASSERT_TRUE(script_.has_begun(1)) << "so that the other one is behind it";
  }
  clients.emplace_back(port_);
  ASSERT_TRUE(clients.back().send(http_request("PUT", "/admin/models/next/active-version?wait", R"({"version":"1"})")));
  ASSERT_TRUE(script_.has_begun(1));
  ASSERT_TRUE(eventually([&] { return ask("GET", "/admin/operations").body["data"].size() == 3; }));
  const auto before = std::chrono::steady_clock::now();
  server_->request_stop();
  server_->join();
  server_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(5));
  for (RawClient& client : clients) {
    const auto response = client.read_response();
    ASSERT_TRUE(response);
    EXPECT_EQ(response->status, 503) << response->body;
  }
  script_.let_go();  // the callbacks of both loads come after the end
}

TEST_F(AdminLoading, RequestsThatWaitAreToldForWhat) {
  ServerConfig config;
  config.limits.keep_alive_interval = milliseconds(20);
  start(config);
  add("first", "held");
  add("story", "held");
  ASSERT_EQ(ask("POST", "/admin/models/first/load").status, 202);
  ASSERT_TRUE(script_.has_begun(1));
  RawClient client(port_);
  ASSERT_TRUE(client.send(
      http_request("POST", "/v1/completions", R"({"model":"story","prompt":"x","stream":true,"keep_alive":"2m"})")));
  ASSERT_TRUE(client.read_until(": loading story:1, place 1")) << client.received();
  client.close(true);
  const Answer bad = ask("POST", "/v1/completions", R"({"model":"story","prompt":"x","keep_alive":"later"})");
  EXPECT_EQ(bad.status, 400);
  EXPECT_EQ(bad.param(), "keep_alive");
  const auto metrics = fetch(port_, "GET", "/metrics");
  ASSERT_TRUE(metrics);
  EXPECT_THAT(metrics->body, HasSubstr("inferneo:model_waiting{model_name=\"first\",engine=\"0\",version=\"1\"} 1"));
}

}  // namespace
}  // namespace inferneo
