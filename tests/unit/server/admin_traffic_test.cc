// What operators do to rules and A/B tests over HTTP, and how each mistake is answered.
#include <tuple>

#include "admin_fixture.h"
#include "server/admin/traffic_definition.h"
#include "server/admin/traffic_routes.h"
#include "serving/manager_models.h"
#include "serving/routed_service.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AdminTraffic : public AdminFixture {
 protected:
  void SetUp() override {
    start();
    for (const char* const name : {"story", "code", "large"}) add(name);
  }
  std::vector<Route> more_routes() override {
    models_ = std::make_unique<ManagerModels>(*manager_, ManagerModels::Limits{});
    traffic_ = std::make_unique<Traffic>(*models_, clock_);
    shadows_ = std::make_unique<ShadowBook>(Shadow::Host{*service_, *models_, clock_});
    routed_ = std::make_shared<RoutedService>(
        RoutedService::Context{*service_, *traffic_, *models_, *shadows_, clock_, feedback_});
    return traffic_routes({*traffic_, clock_, routed_.get(), manager_.get()});
  }
  std::shared_ptr<InferenceService> served() override { return routed_; }
  std::vector<std::string> names(const char* path) const {
    std::vector<std::string> names;
    const Answer list = ask("GET", path);
    for (const Json& entry : list.body["data"]) names.push_back(entry["name"]);
    return names;
  }
  Answer add_rule(const std::string& body) const { return ask("POST", "/admin/routing-rules", body); }
  Answer add_test(const std::string& body) const { return ask("POST", "/admin/ab-tests", body); }

  FeedbackBook feedback_;
  std::unique_ptr<ManagerModels> models_;
  std::unique_ptr<Traffic> traffic_;
  std::unique_ptr<ShadowBook> shadows_;
  std::shared_ptr<RoutedService> routed_;
};

TEST_F(AdminTraffic, ARuleIsShownAsItIsKept) {
  const Answer added = add_rule(R"({"name":"team/code","condition":"prompt contains 'def '","model_name":"code",
      "priority":10})");
  ASSERT_EQ(added.status, 201) << added.body;
  Json rule = added.body;
  EXPECT_GT(rule["created"], 1'700'000'000);
  rule.erase("created");
  EXPECT_EQ(rule, Json::parse(R"({"object":"routing_rule","name":"team/code","condition":"prompt contains 'def '",
      "model_name":"code","priority":10,"applies_to":"routed","enabled":true,"source":"api","hits":0})"));
  EXPECT_EQ(ask("GET", "/admin/routing-rules/team/code").body, added.body);
  EXPECT_EQ(add_rule(R"({"name":"no","condition":"true","refusal":{"status":451,"message":"not here"},"priority":20})")
                .status,
            201);
  EXPECT_EQ(add_rule(R"({"name":"chain","condition":"stream","models":["large","code"],"enabled":false})").status, 201);
  EXPECT_THAT(names("/admin/routing-rules"), ElementsAre("no", "team/code", "chain"));
  const Answer put =
      ask("PUT", "/admin/routing-rules/no", R"({"condition":"prompt contains 'x'","model_name":"large"})");
  EXPECT_EQ(put.status, 200) << put.body;
  EXPECT_EQ(put.body["model_name"], "large");
  EXPECT_EQ(put.body["priority"], 0) << "what is absent is as in a new rule";
  EXPECT_EQ(put.body.contains("refusal"), false);
  EXPECT_EQ(ask("DELETE", "/admin/routing-rules/chain").body, Json::parse(R"({"name":"chain","removed":true})"));
  EXPECT_EQ(ask("DELETE", "/admin/routing-rules/chain").status, 404);
  EXPECT_EQ(ask("PUT", "/admin/routing-rules/chain", R"({"condition":"true","model_name":"large"})").status, 404);
  EXPECT_THAT(names("/admin/routing-rules"), ElementsAre("team/code", "no"));
}

TEST_F(AdminTraffic, EveryMistakeInARuleIsNamed) {
  struct BadRule {
    const char* body;
    int status;
    const char* param;
    const char* says;
  };
  for (const BadRule& bad : {
           BadRule{R"({"name":"r","condition":"prompt contans 'x'","model_name":"code"})", 400, "condition", "^^^^^^^"},
           BadRule{R"({"name":"r","condition":"true","model_name":"cod"})", 404, "", "did you mean 'code'?"},
           BadRule{R"({"name":"r","condition":"true"})", 400, "", ""},
           BadRule{R"({"name":"r","condition":"true","model_name":"code","ab_test":"t"})", 400, "", ""},
           BadRule{R"({"name":"r","condition":"true","modelname":"code"})", 400, "modelname",
                   "did you mean 'model_name'?"},
           BadRule{R"({"name":"r","condition":1,"model_name":"code"})", 400, "condition", "must be a string"},
           BadRule{R"({"name":"r","condition":"true","model_name":"code","priority":1e10})", 400, "priority",
                   "integer"},
           BadRule{R"({"name":"r","condition":"true","models":["code",7]})", 400, "models[1]", "must be a string"},
           BadRule{R"({"name":"r","condition":"true","refusal":{"statsu":400}})", 400, "refusal.statsu",
                   "did you mean 'status'?"},
           BadRule{R"({"name":"r","condition":"true","refusal":{"status":200}})", 400, "", ""},
           BadRule{R"({"name":"r","condition":"true","model_name":"code","applies_to":"some"})", 400, "applies_to",
                   "routed or all"},
           BadRule{R"({"condition":"true","model_name":"code"})", 400, "", ""},
           BadRule{R"([])", 400, "", ""},
           BadRule{R"({)", 400, "", ""},
       }) {
    const Answer refused = add_rule(bad.body);
    EXPECT_EQ(refused.status, bad.status) << bad.body << refused.body;
    if (*bad.param != 0) {
      EXPECT_EQ(refused.param(), bad.param) << bad.body;
    }
    EXPECT_THAT(refused.message(), HasSubstr(bad.says)) << bad.body;
  }
  EXPECT_TRUE(names("/admin/routing-rules").empty());
  ASSERT_EQ(add_rule(R"({"name":"r","condition":"true","model_name":"code"})").status, 201);
  EXPECT_EQ(add_rule(R"({"name":"r","condition":"true","model_name":"code"})").status, 409);
  EXPECT_EQ(ask("PUT", "/admin/routing-rules/r", R"({"name":"s","condition":"true","model_name":"code"})").param(),
            "name");
}

TEST_F(AdminTraffic, OptionsAreReplacedAsAWhole) {
  const Answer first = ask("GET", "/admin/routing");
  EXPECT_EQ(first.body, Json::parse(R"({"object":"routing_options","strategy":"default","default_model":"",
      "candidates":[],"spill_over_at":0,"fallbacks":{},"routed_names":[],"source":"api"})"));
  const Answer put = ask("PUT", "/admin/routing", R"({"strategy":"weighted",
      "candidates":["story",{"model":"large","weight":0.25}],"fallbacks":{"large":["story","code"]},
      "spill_over_at":8,"routed_names":["smart"]})");
  ASSERT_EQ(put.status, 200) << put.body;
  EXPECT_EQ(put.body["candidates"], Json::parse(R"([{"model":"story","weight":1},{"model":"large","weight":0.25}])"));
  EXPECT_EQ(ask("GET", "/admin/routing").body, put.body);
  EXPECT_EQ(ask("PUT", "/admin/routing", R"({"default_model":"nobody"})").status, 404);
  EXPECT_EQ(ask("PUT", "/admin/routing", R"({"fallbacks":{"large":["large"]}})").status, 409) << "leads back";
  EXPECT_EQ(ask("PUT", "/admin/routing", R"({"strategy":"best"})").param(), "strategy");
  EXPECT_EQ(ask("GET", "/admin/routing").body, put.body);
  EXPECT_EQ(ask("PUT", "/admin/routing", "{}").body["strategy"], "default");
}

TEST_F(AdminTraffic, ATestLivesItsLife) {
  const Answer added = add_test(R"({"name":"comparison","model_a":"story","model_b":"code","traffic_split":0.25,
      "guardrails":{"max_error_rate":0.2},"ramp":[{"after_seconds":0,"share":0.25}],"start":false})");
  ASSERT_EQ(added.status, 201) << added.body;
  EXPECT_EQ(added.body["state"], "draft");
  EXPECT_EQ(added.body["arms"][1]["model"], "code");
  EXPECT_EQ(added.body["guardrails"]["max_error_rate"], 0.2);
  EXPECT_EQ(added.body["results"]["metrics"][0]["decision"], "too_early");
  EXPECT_EQ(added.body["results"]["arms"][0]["error_rate"], nullptr);
  EXPECT_FALSE(ask("GET", "/admin/ab-tests").body["data"][0].contains("results"));
  const auto act = [&](const char* action, const char* body = "") {
    return ask("POST", std::string("/admin/ab-tests/comparison/") + action, body);
  };
  EXPECT_EQ(act("pause").status, 409);
  EXPECT_EQ(act("start").body["state"], "running");
  EXPECT_EQ(act("start").status, 409);
  EXPECT_EQ(act("pause").body["state"], "paused");
  EXPECT_EQ(act("start").body["state"], "running");
  EXPECT_EQ(add_rule(R"({"name":"to-test","condition":"stream","ab_test":"comparison"})").status, 201);
  EXPECT_EQ(ask("DELETE", "/admin/ab-tests/comparison").status, 409) << "a rule leads to it";
  EXPECT_EQ(act("promote").param(), "arm");
  EXPECT_EQ(act("promote", R"({"arm":"Z"})").status, 404);
  EXPECT_EQ(act("promote", R"({"arm":"B"})").body["promoted"], "B");
  EXPECT_EQ(act("stop").status, 409);
  EXPECT_EQ(act("restart").status, 405) << "no such action";
  EXPECT_EQ(ask("DELETE", "/admin/routing-rules/to-test").status, 200);
  EXPECT_EQ(ask("DELETE", "/admin/ab-tests/comparison").status, 200);
  EXPECT_EQ(act("start").status, 404);
}

TEST_F(AdminTraffic, EveryMistakeInATestIsNamed) {
  struct BadTest {
    const char* body;
    int status;
    const char* param;
  };
  for (const BadTest& bad : {
           BadTest{R"({"name":"t","model_a":"story","model_b":"nobody"})", 404, "arms"},
           BadTest{R"({"name":"t","model_a":"story","model_b":"code","traffic_split":1.5})", 400, "traffic_split"},
           BadTest{R"({"name":"t","arms":[{"model":"story"},{"model":"code","sampling":{"top_k":"1"}}]})", 400,
                   "arms[1].sampling.top_k"},
           BadTest{R"({"name":"t","arms":[{"model":"story"},{"model":"code","smapling":{}}]})", 400,
                   "arms[1].smapling"},
           BadTest{R"({"name":"t","model_a":"story","model_b":"code","primary_metric":"joy"})", 400, "primary_metric"},
           BadTest{R"({"name":"t","model_a":"story","model_b":"code","sticky_by":"hair"})", 400, "sticky_by"},
           BadTest{R"({"name":"t","model_a":"story","model_b":"code","start":"yes"})", 400, "start"},
           BadTest{R"({"name":"t","model_a":"story","model_b":"code","ramp":{"a":1}})", 400, "ramp"},
       }) {
    const Answer refused = add_test(bad.body);
    EXPECT_EQ(refused.status, bad.status) << bad.body << refused.body;
    EXPECT_EQ(refused.param(), bad.param) << bad.body;
  }
  EXPECT_TRUE(names("/admin/ab-tests").empty());
}

TEST_F(AdminTraffic, ExplainsWithoutDoing) {
  ASSERT_EQ(add_rule(R"({"name":"code","condition":"prompt contains 'def '","model_name":"code"})").status, 201);
  ASSERT_EQ(add_rule(R"({"name":"gold","condition":"header['x-tier'] == 'gold'","model_name":"large"})").status, 201);
  ASSERT_EQ(add_test(R"({"name":"t","model_a":"story","model_b":"large"})").status, 201);
  const Answer code = ask("POST", "/admin/explain", R"({"prompt":"def f():"})");
  ASSERT_EQ(code.status, 200) << code.body;
  EXPECT_EQ(code.body["route"], "rule=code; model=code");
  EXPECT_EQ(code.body["rules"], Json::parse(R"([{"name":"code","matched":true,"outcome":"matched","why":null}])"));
  EXPECT_EQ(code.body["loading"]["model"], "code:1");
  EXPECT_EQ(code.body["loading"]["fits"], true);
  const Answer gold = ask("POST", "/admin/explain", R"({"messages":[{"role":"user","content":"hi"}],
      "headers":{"X-Tier":"gold"}})");
  EXPECT_EQ(gold.body["rule"], "gold");
  EXPECT_THAT(gold.body["rules"][0]["why"].get<std::string>(), HasSubstr("prompt contains 'def '"));
  const Answer test = ask("POST", "/admin/explain", R"({"prompt":"hi","model":"story","user":"u","arm":"B"})");
  EXPECT_EQ(test.body["test"], "t");
  EXPECT_EQ(test.body["arm"], "B");
  EXPECT_EQ(test.body["model"], "large");
  EXPECT_EQ(state_of("code:1"), "unloaded");
  EXPECT_EQ(ask("GET", "/admin/routing-rules/code").body["hits"], 0);
  EXPECT_EQ(ask("POST", "/admin/explain", R"({"prompt":"a","messages":[]})").param(), "messages");
  EXPECT_EQ(ask("POST", "/admin/explain", R"({"promt":"a"})").param(), "promt");
}

TEST_F(AdminTraffic, FeedbackCountsOnceInTheTestOfItsAnswer) {
  ASSERT_EQ(add_test(R"({"name":"t","model_a":"story","model_b":"large"})").status, 201);
  feedback_.note("req-1", traffic_->route({.prompt = "x", .model = "story"}, {.user = "u", .forced_arm = "B"}));
  feedback_.note("req-2", {});
  const auto rate = [&](const std::string& body) { return ask("POST", "/v1/feedback", body); };
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-1","score":0.75})").body,
            Json::parse(R"({"object":"feedback","id":"chatcmpl-req-1","recorded":true,"test":"t","arm":"B"})"));
  EXPECT_EQ(rate(R"({"id":"cmpl-req-2","rating":"down"})").body["recorded"], false);
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-1","score":1})").status, 409);
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-3","score":1})").status, 404);
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-1","score":1.5})").param(), "score");
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-1"})").param(), "score");
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-1","score":1,"rating":"up"})").param(), "score");
  EXPECT_EQ(rate(R"({"id":"chatcmpl-req-1","rating":"left"})").param(), "rating");
  EXPECT_EQ(rate(R"({"score":1})").param(), "id");
  const Answer test = ask("GET", "/admin/ab-tests/t");
  EXPECT_EQ(test.body["results"]["arms"][1]["feedback"], Json::parse(R"({"count":1,"mean":0.75})"));
}

TEST_F(AdminTraffic, AnArmMayHavePromptsAndAnEngineOfItsOwn) {
  const char* const arms = R"("arms":[{"model":"story"},{"model":"story","prompt_template":"{{ messages }}",
      "system_prompt":"Be brief.","settings":{"max_num_seqs":4,"enable_prefix_caching":false}}])";
  const Answer added = add_test(std::string(R"({"name":"own",)") + arms + "}");
  ASSERT_EQ(added.status, 201) << added.body;
  EXPECT_EQ(added.body["arms"][1]["prompt_template"], "{{ messages }}");
  EXPECT_EQ(added.body["arms"][1]["settings"], Json::parse(R"({"enable_prefix_caching":"false","max_num_seqs":"4"})"));
  const Answer explained = ask("POST", "/admin/explain", R"({"prompt":"x","model":"story","arm":"B"})");
  EXPECT_EQ(explained.body["model"], "story~own~B");
  EXPECT_EQ(explained.body["arm_definition"]["system_prompt"], "Be brief.");
  EXPECT_EQ(explained.body["loading"]["model"], "story:1~own~B");
  EXPECT_TRUE(ask("POST", "/admin/explain", R"({"prompt":"x","model":"code"})").body["arm_definition"].is_null());
  // Shown to the operator, as what it is; no model of the API's clients.
  const Answer engine = ask("GET", "/admin/models/story~own~B");
  EXPECT_EQ(engine.body["id"], "story:1~own~B");
  EXPECT_EQ(engine.body["variant_of"], "story:1");
  EXPECT_EQ(engine.body["settings"]["max_num_seqs"], "4");
  EXPECT_TRUE(ask("GET", "/admin/models/story").body["variant_of"].is_null());
  EXPECT_EQ(ask("GET", "/v1/models").body.dump().find('~'), std::string::npos);
  EXPECT_EQ(ask("POST", "/admin/models/story~own~B/load?wait").body["state"], "ready");
  for (const auto& [method, path, body] :
       {std::tuple("DELETE", "/admin/models/story~own~B", ""), std::tuple("POST", "/admin/models/story~own~B/pin", ""),
        std::tuple("PATCH", "/admin/models/story~own~B", R"({"pinned":true})")}) {
    const Answer refused = ask(method, path, body);
    EXPECT_EQ(refused.status, 409) << method << path << refused.body;
    EXPECT_THAT(refused.message(), HasSubstr("arm of an A/B test"));
  }
  EXPECT_EQ(ask("DELETE", "/admin/ab-tests/own").status, 200);
  EXPECT_EQ(ask("GET", "/admin/models/story~own~B").status, 404);
  EXPECT_TRUE(eventually([&] { return ledger_.used() == 0; })) << "and it has left the memory";
}

TEST_F(AdminTraffic, WhatIsWrongWithAnArmIsNamed) {
  struct BadArm {
    const char* arm;
    const char* param;
    const char* says;
  };
  for (const BadArm& bad : {
           BadArm{R"({"model":"story","prompt_template":"a\nb {% if"})", "prompt_template", "line 2"},
           BadArm{R"({"model":"story","prompt_template":7})", "arms[1].prompt_template", "must be a string"},
           BadArm{R"({"model":"story","settings":{"zebra":1}})", "settings", "'zebra' is no setting"},
           BadArm{R"({"model":"story","settings":{"x":{}}})", "arms[1].settings.x", "must be a string"},
           BadArm{R"({"model":"story","settings":[]})", "arms[1].settings", "must be an object"},
       }) {
    const Answer refused = add_test(std::string(R"({"name":"t","arms":[{"model":"story"},)") + bad.arm + "]}");
    EXPECT_EQ(refused.status, 400) << bad.arm << refused.body;
    EXPECT_EQ(refused.param(), bad.param) << refused.body;
    EXPECT_THAT(refused.message(), HasSubstr(bad.says));
  }
  EXPECT_TRUE(names("/admin/ab-tests").empty());
}

// What is written can be read: of every field, with a value that is not a new object's.
TEST(TrafficDefinition, IsReadAsItWasWritten) {
  const RoutingRule rule{.name = "r",
                         .condition = "prompt contains 'a\\'b\n\u00e9'",
                         .priority = -3,
                         .models = {"a", "b"},
                         .refusal = RoutingRefusal{451, "no"},
                         .applies_to = RoutingScope::all,
                         .enabled = false};
  EXPECT_EQ(*parse_rule(rule_text(rule)), rule);
  RoutingConfig routing{{RoutingStrategy::weighted, "d", {{"a", 0.1}, {"b", 3.0}}, 7, {{"a", {"b", "c"}}}}, {"x", "y"}};
  EXPECT_EQ(*parse_routing(routing_text(routing)), routing);
  ABTestConfig test{.name = "t", .model_a = "a", .model_b = "b", .traffic_split = 0.3};
  test.arms = {{.name = "A",
                .model = "a",
                .version = "2",
                .weight = 0.7,
                .sampling = {.temperature = 0.7F, .top_k = 3},
                .prompt_template = "p",
                .system_prompt = "q",
                .settings = {{"k", "v"}},
                .prompt_price = 0.1,
                .completion_price = 0.2},
               {.model = "b",
                .sampling = {.top_p = 0.9F,
                             .min_p = 0.1F,
                             .repetition_penalty = 1.1F,
                             .presence_penalty = 0.5F,
                             .frequency_penalty = -0.5F,
                             .max_tokens = 7}}};
  test.sticky_by = ABTestKey::session;
  test.salt = "s";
  test.ramp = {{0.0, 0.1}, {60.5, 0.3}};
  test.guardrails = {0.05, 1.5, 40};
  test.primary_metric = ABTestMetric::feedback;
  test.false_alarm_rate = 0.01;
  test.minimum_effect = 0.2;
  test.minimum_difference = 0.03;
  test.minimum_samples = 50;
  EXPECT_EQ(*parse_test(test_text(test)), test);
  const ShadowConfig shadow{"n", "m", "s", 0.25, "salt", 7, 8, 9, true, true, false};
  EXPECT_EQ(*parse_shadow(shadow_text(shadow)), shadow);
  const ExperimentProgress progress{
      ExperimentState::promoted, std::chrono::nanoseconds(1234567890123456789), 1, {"", "w"}};
  EXPECT_EQ(*parse_progress(progress_text(progress)), progress);
}

}  // namespace
}  // namespace inferneo
