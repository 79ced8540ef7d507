// /admin/shadow over HTTP: the verbs, the objects, and what is refused.
#include "admin_fixture.h"
#include "server/admin/shadow_routes.h"
#include "serving/manager_models.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

class AdminShadow : public AdminFixture {
 protected:
  void SetUp() override {
    manager_ =
        std::make_unique<ManagerCore>(std::make_unique<ScriptedModels>(script_, ledger_, host_), ledger_, clock_);
    service_ = std::make_shared<EngineService>(EngineServiceConfig{}, *manager_, ledger_, clock_);
    service_->open();
    models_ = std::make_unique<ManagerModels>(*manager_, ManagerModels::Limits{});
    book_ = std::make_unique<ShadowBook>(Shadow::Host{*service_, *models_, clock_});
    ServerConfig config;
    config.port = 0;
    config.io_threads = 2;
    server_ = std::make_unique<Server>(config, service_, metrics_catalogue(), shadow_routes(*book_));
    const Result<uint16_t> port = server_->start();
    ASSERT_TRUE(port.ok()) << port.error().message;
    port_ = *port;
    for (const char* name : {"story", "draft"}) {
      ASSERT_TRUE(manager_->register_model({.name = name, .path = "files"}).ok());
    }
  }
  void TearDown() override {
    stop_server();
    book_.reset();
    models_.reset();
    AdminFixture::TearDown();
  }

  std::unique_ptr<ManagerModels> models_;
  std::unique_ptr<ShadowBook> book_;
};

TEST_F(AdminShadow, IsMadeShownChangedAndRemoved) {
  const Answer made = ask("POST", "/admin/shadow",
                          R"({"name":"next","model":"story","shadow_model":"draft","share":0.25,"keep_texts":true})");
  ASSERT_EQ(made.status, 201) << made.body;
  EXPECT_EQ(made.body["object"], "shadow");
  EXPECT_EQ(made.body["share"], 0.25);
  EXPECT_EQ(made.body["source"], "api");
  EXPECT_EQ(made.body["max_tokens_per_minute"], 0);
  EXPECT_EQ(made.body["copies"]["sent"], 0);
  EXPECT_TRUE(made.body["differences"]["first_difference"].is_null());
  EXPECT_TRUE(made.body["differences"]["computing"]["end_to_end"]["ratio"].is_null());

  EXPECT_EQ(ask("GET", "/admin/shadow/next").body, made.body);
  const Answer list = ask("GET", "/admin/shadow");
  EXPECT_EQ(list.body["object"], "list");
  ASSERT_EQ(list.body["data"].size(), 1U);
  EXPECT_EQ(list.body["data"][0], made.body);

  const Answer changed =
      ask("PUT", "/admin/shadow/next", R"({"shadow_model":"draft","max_tokens_per_minute":100,"enabled":false})");
  ASSERT_EQ(changed.status, 200) << changed.body;
  EXPECT_EQ(changed.body["model"], "");
  EXPECT_EQ(changed.body["share"], 1.0) << "all fields anew";
  EXPECT_EQ(changed.body["max_tokens_per_minute"], 100);
  EXPECT_EQ(changed.body["enabled"], false);

  const Answer removed = ask("DELETE", "/admin/shadow/next");
  EXPECT_EQ(removed.body, Json::parse(R"({"name":"next","removed":true})"));
  EXPECT_EQ(ask("GET", "/admin/shadow/next").status, 404);
  EXPECT_EQ(ask("GET", "/admin/shadow").body["data"].size(), 0U);
}

TEST_F(AdminShadow, ResultsAreTheLastPairsTheNewestFirst) {
  ASSERT_EQ(ask("POST", "/admin/shadow", R"({"name":"s","shadow_model":"draft","keep_texts":true})").status, 201);
  const auto results = std::const_pointer_cast<ShadowResults>(book_->find("s")->results);
  for (int i = 1; i <= 3; ++i) {
    ShadowPair pair;
    pair.request_id = "r" + std::to_string(i);
    pair.time = 1'700'000'000 + i;
    pair.original.model = "story";
    pair.original.finish = "stop";
    pair.original.completion_tokens = 4;
    pair.original.text = "abcd";
    pair.copy.model = "draft";
    pair.copy.finish = "length";
    pair.copy.completion_tokens = 8;
    pair.copy.computing = {0.5, {}, 1.5};
    pair.first_difference = i;
    results->differences.add(pair);
    ++results->counts.completed;
    results->pairs.push_back(pair);
  }
  const Answer two = ask("GET", "/admin/shadow/s/results?limit=2");
  ASSERT_EQ(two.status, 200) << two.body;
  ASSERT_EQ(two.body["data"].size(), 2U);
  const Json& newest = two.body["data"][0];
  EXPECT_EQ(newest["object"], "shadow_result");
  EXPECT_EQ(newest["request_id"], "r3");
  EXPECT_EQ(newest["original"]["text"], "abcd");
  EXPECT_EQ(newest["copy"]["finish_reason"], "length");
  EXPECT_EQ(newest["copy"]["computing"]["end_to_end"], 1.5);
  EXPECT_TRUE(newest["copy"]["computing"]["inter_token"].is_null());
  EXPECT_EQ(newest["first_difference"], 3);
  const Json shown = ask("GET", "/admin/shadow/s").body;
  EXPECT_EQ(shown["differences"]["pairs"], 3);
  EXPECT_EQ(shown["differences"]["first_difference"]["mean"], 2.0);
  EXPECT_EQ(shown["differences"]["completion_tokens"]["original"]["count"], 3);
  EXPECT_EQ(ask("GET", "/admin/shadow/s/results").body["data"].size(), 3U);
  EXPECT_EQ(ask("GET", "/admin/shadow/s/results?limit=0").param(), "limit");
  EXPECT_EQ(ask("GET", "/admin/shadow/none/results").status, 404);
}

TEST_F(AdminShadow, WhatCannotBeIsRefusedWithItsField) {
  const auto refused = [&](const std::string& body) { return ask("POST", "/admin/shadow", body); };
  EXPECT_EQ(refused(R"({"shadow_model":"draft"})").param(), "name");
  EXPECT_EQ(refused(R"({"name":"s"})").param(), "shadow_model");
  EXPECT_EQ(refused(R"({"name":"s","shadow_model":"nobody"})").status, 404);
  EXPECT_EQ(refused(R"({"name":"s","shadow_model":"draft","share":0})").param(), "share");
  EXPECT_EQ(refused(R"({"name":"s","shadow_model":"draft","share":"1"})").param(), "share");
  EXPECT_EQ(refused(R"({"name":"s","shadow_model":"draft","max_queue":-1})").param(), "max_queue");
  EXPECT_THAT(refused(R"({"name":"s","shadow_modle":"draft"})").message(), HasSubstr("shadow_model"));
  EXPECT_EQ(refused("[]").status, 400);
  ASSERT_EQ(refused(R"({"name":"s","shadow_model":"draft"})").status, 201);
  EXPECT_EQ(refused(R"({"name":"s","shadow_model":"draft"})").status, 409);
  EXPECT_EQ(ask("PUT", "/admin/shadow/s", R"({"name":"t","shadow_model":"draft"})").param(), "name");
  EXPECT_EQ(ask("PUT", "/admin/shadow/none", R"({"shadow_model":"draft"})").status, 404);
  EXPECT_EQ(ask("DELETE", "/admin/shadow/none").status, 404);
}

TEST_F(AdminShadow, TheConfigurationFilesAreReadOnly) {
  ASSERT_TRUE(book_->begin({{.name = "file", .shadow_model = "draft"}}).ok());
  EXPECT_EQ(ask("GET", "/admin/shadow/file").body["source"], "config");
  EXPECT_EQ(ask("DELETE", "/admin/shadow/file").status, 409);
  EXPECT_EQ(ask("PUT", "/admin/shadow/file", R"({"shadow_model":"draft"})").status, 409);
}

}  // namespace
}  // namespace inferneo
