// What operators do to the registered models, and how each mistake is answered.
#include "admin_fixture.h"

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AdminModels : public AdminFixture {
 protected:
  void SetUp() override { start(); }
};

TEST_F(AdminModels, ARegisteredModelIsShownWithAllThatIsKnownOfIt) {
  const Answer added = ask("POST", "/admin/models", R"({"name":"org/story","version":"2024-05","source":"files",
      "revision":"main","format":"huggingface","aliases":["gpt-4"],"settings":{"max_model_len":512,"dtype":"auto"},
      "metadata":{"owner":"me"},"pinned":true,"keep_alive":"5m"})");
  ASSERT_EQ(added.status, 201) << added.body;
  const Answer shown = ask("GET", "/admin/models/org/story:2024-05");
  EXPECT_EQ(shown.status, 200);
  EXPECT_EQ(shown.body, added.body);
  Json model = shown.body;
  EXPECT_GT(model["created"], 1'700'000'000);
  model.erase("created");
  EXPECT_EQ(model, Json::parse(R"({"id":"org/story:2024-05","name":"org/story","version":"2024-05","active":true,
      "variant_of":null,"aliases":["gpt-4"],"source":"files","revision":"main","format":"huggingface","dtype":null,"kind":null,"origin":"api",
      "settings":{"dtype":"auto","max_model_len":"512"},"pending_settings":[],
      "metadata":{"owner":"me"},"pinned":true,"keep_alive":300,
      "last_used":null,"load_count":0,"state":"unloaded","removing":false,"failure":null,"memory_bytes":0,"sleep_bytes":0,"leases":0,
      "waiting":0,"queue_place":0,"progress":null,"idle_seconds":null,"keep_alive_left":null,"load_seconds":null,
      "wake_seconds":null,"sleeps":0,"wakes":0,"loads":0,"unloads":{"asked":0,"idle":0,"room":0,"failed":0}})"));
  EXPECT_EQ(ask("GET", "/admin/models/org/story").body, shown.body) << "by its name";
  EXPECT_EQ(ask("GET", "/admin/models/org%2Fstory").body, shown.body);
  EXPECT_EQ(ask("GET", "/admin/models/gpt-4").body, shown.body) << "by an alias";
  const Answer list = ask("GET", "/admin/models");
  EXPECT_EQ(list.body["object"], "list");
  EXPECT_EQ(list.body["data"], Json::array({shown.body}));
  EXPECT_EQ(list.body["memory"], Json::parse(R"({"budget_bytes":1000,"used_bytes":0})"));
}

TEST_F(AdminModels, NamesThatLookLikeActionsAreNamesWithAVersion) {
  add("org/load");
  EXPECT_EQ(ask("GET", "/admin/models/org/load:1").body["name"], "org/load");
  const Answer wrong = ask("GET", "/admin/models/org/load");
  EXPECT_EQ(wrong.status, 405);
  EXPECT_EQ(wrong.headers.at("allow"), "POST");
  EXPECT_EQ(ask("POST", "/admin/models/org/load/load?wait").body["state"], "ready");
  const Answer whole = ask("PUT", "/admin/models/org/load:1", "{}");
  EXPECT_EQ(whole.status, 405);
  EXPECT_EQ(whole.headers.at("allow"), "GET, HEAD, PATCH, DELETE");
  EXPECT_EQ(ask("DELETE", "/admin/models").headers.at("allow"), "GET, HEAD, POST");
}

struct BadBody {
  const char* body;
  const char* param;
  const char* says;
};

TEST_F(AdminModels, EveryMistakeInARegistrationIsNamed) {
  const std::vector<BadBody> bodies = {
      {"", "name", "required"},
      {"{}", "name", "required"},
      {"[1]", "", "must be a JSON object"},
      {R"({"name":"a","source":)", "source", "not valid JSON"},
      {R"({"name":"a"})", "source", "required"},
      {R"({"name":"a","source":"files","pined":true})", "pined", "did you mean 'pinned'?"},
      {R"({"name":"a","source":"files","sourc":1})", "sourc", "did you mean 'source'?"},
      {R"({"name":7,"source":"files"})", "name", "must be a string"},
      {R"({"name":"a b","source":"files"})", "name", "a b"},
      {R"({"name":"../a","source":"files"})", "name", ""},
      {R"({"name":"a","version":"x/y","source":"files"})", "version", "x/y"},
      {R"({"name":"a:1","version":"1","source":"files"})", "name", "a:1"},
      {R"({"name":"a","source":"files","format":"pickle"})", "format", "huggingface, onnx, tensorrt"},
      {R"({"name":"a","source":"files","aliases":"b"})", "aliases", "list"},
      {R"({"name":"a","source":"files","aliases":[7]})", "aliases", "string"},
      {R"({"name":"a","source":"files","settings":[]})", "settings", "object"},
      {R"({"name":"a","source":"files","settings":{"x":{}}})", "settings.x", "string"},
      {R"({"name":"a","source":"files","settings":{"zebra":1}})", "settings", "zebra"},
      {R"({"name":"a","source":"files","pinned":"yes"})", "pinned", "true or false"},
      {R"({"name":"a","source":"files","keep_alive":"soon"})", "keep_alive", "5m"},
  };
  for (const BadBody& bad : bodies) {
    const Answer answer = ask("POST", "/admin/models", bad.body);
    EXPECT_EQ(answer.status, 400) << bad.body;
    EXPECT_EQ(answer.param(), bad.param) << bad.body << answer.body;
    EXPECT_THAT(answer.message(), HasSubstr(bad.says)) << bad.body;
  }
  EXPECT_EQ(ask("POST", "/admin/models", "{}", {"Content-Type: text/plain"}).status, 415);
  EXPECT_EQ(ask("POST", "/admin/models", std::string(9 << 20, ' ')).status, 413);
  const std::string large =
      R"({"name":"large","source":"files","metadata":{"x":")" + std::string(100'000, 'x') + "\"}}";
  EXPECT_EQ(ask("POST", "/admin/models", large).status, 400) << "and is read on another thread";
  EXPECT_TRUE(ask("GET", "/admin/models").body["data"].empty());
}

TEST_F(AdminModels, UnknownOnesAreAnsweredWithTheNearest) {
  add("story");
  add("story", "files", "2");
  const std::vector<std::pair<const char*, const char*>> routes = {
      {"GET", "/admin/models/stroy"},        {"DELETE", "/admin/models/stroy"},
      {"POST", "/admin/models/stroy/load"},  {"POST", "/admin/models/stroy/unload"},
      {"POST", "/admin/models/stroy/pin"},   {"POST", "/admin/models/stroy/unpin"},
      {"POST", "/admin/models/stroy/sleep"}, {"POST", "/admin/models/stroy/wake-up"},
  };
  for (const auto& [method, path] : routes) {
    const Answer answer = ask(method, path);
    EXPECT_EQ(answer.status, 404) << method << path;
    EXPECT_THAT(answer.message(), HasSubstr("did you mean 'story'?")) << method << path;
  }
  EXPECT_EQ(ask("PUT", "/admin/models/stroy/keep-alive", R"({"keep_alive":1})").status, 404);
  EXPECT_EQ(ask("PUT", "/admin/models/stroy/active-version", R"({"version":"1"})").status, 404);
  EXPECT_EQ(ask("PUT", "/admin/models/stroy/policy", R"({"kind":"all"})").status, 404);
  EXPECT_THAT(ask("GET", "/admin/models/story:3").message(), HasSubstr("story:"));
  EXPECT_EQ(ask("GET", "/admin/nothing").status, 404);
  EXPECT_EQ(ask("GET", "/admin/operations/op-77").status, 404);
  EXPECT_EQ(ask("GET", "/admin/operations/x").status, 404);
}

TEST_F(AdminModels, WhatIsThereAlreadyIsAConflict) {
  add("a");
  const Answer again = ask("POST", "/admin/models", R"({"name":"a","source":"files"})");
  EXPECT_EQ(again.status, 409);
  EXPECT_EQ(again.body["error"]["code"], "already_exists");
  EXPECT_EQ(ask("PUT", "/admin/aliases/a", R"({"target":"a"})").status, 409) << "a name is no alias";
}

TEST_F(AdminModels, RemovingTellsWhichAliasesWent) {
  add("a");
  add("a", "files", "2");
  ASSERT_EQ(ask("PUT", "/admin/aliases/stable", R"({"target":"a:1"})").status, 200);
  ASSERT_EQ(ask("PUT", "/admin/models/a/active-version?wait", R"({"version":"2"})").status, 200);
  EXPECT_EQ(ask("DELETE", "/admin/models/a:2").status, 409) << "the active one of several";
  const Answer removed = ask("DELETE", "/admin/models/a:1?timeout=0.5");
  EXPECT_EQ(removed.status, 200) << removed.body;
  EXPECT_EQ(removed.body, Json::parse(R"({"id":"a:1","removed":true,"dropped_aliases":["stable"]})"));
  EXPECT_EQ(ask("GET", "/admin/models/a:1").status, 404);
  EXPECT_EQ(ask("GET", "/admin/models/stable").status, 404);
  EXPECT_EQ(ask("DELETE", "/admin/models/a:2?timeout=soon").param(), "timeout");
  EXPECT_EQ(ask("DELETE", "/admin/models/a:2?tiemout=1").param(), "tiemout");
  EXPECT_THAT(ask("DELETE", "/admin/models/a:2?tiemout=1").message(), HasSubstr("did you mean 'timeout'?"));
  EXPECT_EQ(ask("DELETE", "/admin/models/a:2").status, 200);
  EXPECT_TRUE(eventually([&] { return ask("GET", "/admin/models").body["data"].empty(); })) << "it was in memory";
}

TEST_F(AdminModels, WhatTheConfigurationBroughtIsReadOnly) {
  Registry::ConfigEntries entries;
  entries.models.push_back(*make_record({.name = "fixed", .path = "files"}));
  entries.models.back().origin = RecordOrigin::config;
  ASSERT_TRUE(manager_->register_config(entries).ok());
  EXPECT_EQ(ask("GET", "/admin/models/fixed").body["origin"], "config");
  EXPECT_EQ(ask("DELETE", "/admin/models/fixed").status, 409);
  EXPECT_EQ(ask("POST", "/admin/models/fixed/pin").body["pinned"], true);
}

TEST_F(AdminModels, PinsAndKeepAlive) {
  add("a");
  EXPECT_EQ(ask("POST", "/admin/models/a/pin").body["pinned"], true);
  EXPECT_EQ(ask("POST", "/admin/models/a/pin", "{}").body["pinned"], true);
  EXPECT_EQ(ask("POST", "/admin/models/a/unpin").body["pinned"], false);
  EXPECT_EQ(ask("POST", "/admin/models/a/pin", R"({"force":true})").param(), "force");
  EXPECT_EQ(ask("PUT", "/admin/models/a/keep-alive", R"({"keep_alive":90})").body["keep_alive"], 90);
  EXPECT_EQ(ask("PUT", "/admin/models/a/keep-alive", R"({"keep_alive":"1h30m"})").body["keep_alive"], 5400);
  EXPECT_EQ(ask("PUT", "/admin/models/a/keep-alive", R"({"keep_alive":-1})").body["keep_alive"], -1);
  EXPECT_EQ(ask("PUT", "/admin/models/a/keep-alive", R"({"keep_alive":null})").body["keep_alive"], nullptr);
  EXPECT_EQ(ask("PUT", "/admin/models/a/keep-alive", "{}").param(), "keep_alive");
  EXPECT_EQ(ask("PUT", "/admin/models/a/keep-alive", R"({"keep_alive":true})").param(), "keep_alive");
}

TEST_F(AdminModels, Aliases) {
  add("a");
  add("b");
  EXPECT_EQ(ask("PUT", "/admin/aliases/org/best", R"({"target":"a"})").body,
            Json::parse(R"({"alias":"org/best","target":"a"})"));
  EXPECT_EQ(ask("PUT", "/admin/aliases/org/best", R"({"target":"b:1"})").body["target"], "b:1") << "moved";
  EXPECT_EQ(ask("GET", "/admin/models/org/best").body["id"], "b:1");
  EXPECT_EQ(ask("PUT", "/admin/aliases/x", R"({"target":"nothing"})").status, 404);
  EXPECT_EQ(ask("PUT", "/admin/aliases/x", "{}").param(), "target");
  EXPECT_EQ(ask("DELETE", "/admin/aliases/org/best").status, 200);
  EXPECT_EQ(ask("DELETE", "/admin/aliases/org/best").status, 404);
}

TEST_F(AdminModels, Policies) {
  for (const char* version : {"1", "2", "3"}) add("a", "files", version);
  const Answer set = ask("PUT", "/admin/models/a/policy", R"({"kind":"specific","versions":["2","1"]})");
  EXPECT_EQ(set.status, 200) << set.body;
  EXPECT_EQ(set.body, Json::parse(R"({"name":"a","active":"2","previous":null,
                                      "policy":{"kind":"specific","versions":["1","2"]}})"));
  EXPECT_EQ(ask("POST", "/admin/models/a:3/load?wait").status, 409) << "not served";
  EXPECT_EQ(ask("PUT", "/admin/models/a/policy", R"({"kind":"some"})").param(), "kind");
  EXPECT_EQ(ask("PUT", "/admin/models/a/policy", R"({"kind":"specific"})").param(), "versions");
  EXPECT_EQ(ask("PUT", "/admin/models/a/policy", R"({"kind":"all","versions":["1"]})").param(), "versions");
  EXPECT_NE(ask("PUT", "/admin/models/a/policy", R"({"kind":"specific","versions":["9"]})").status, 200);
  EXPECT_EQ(ask("PUT", "/admin/models/a/policy", R"({"kind":"latest"})").body["active"], "3");
  EXPECT_EQ(ask("PUT", "/admin/models/a:1/policy", R"({"kind":"latest"})").status, 409) << "of the name, not a version";
}

TEST_F(AdminModels, TheOpenAiListFollows) {
  add("story");
  add("story", "files", "2");
  EXPECT_EQ(ask("GET", "/v1/models/story").body["version"], "2");
  EXPECT_EQ(ask("GET", "/v1/models/story:1").body["id"], "story:1");
  EXPECT_EQ(ask("GET", "/v1/models/story:1").body["state"], "unloaded");
  EXPECT_EQ(ask("GET", "/v1/models/stroy").status, 404);
  EXPECT_THAT(ask("GET", "/v1/models/stroy").message(), HasSubstr("did you mean 'story'?"));
  std::vector<std::string> ids;
  const Answer list = ask("GET", "/v1/models");
  for (const Json& model : list.body["data"]) ids.push_back(model["id"]);
  EXPECT_THAT(ids, ::testing::IsSupersetOf({"story", "story:1", "story:2"}));
}

class AdminKeys : public AdminFixture {};

TEST_F(AdminKeys, WhileTheServerStartsOperatorsMayLook) {
  opens_ = false;
  start();
  EXPECT_EQ(ask("GET", "/admin/models").status, 200);
  EXPECT_EQ(ask("POST", "/admin/models", R"({"name":"a","source":"files"})").status, 503);
  EXPECT_EQ(ask("GET", "/v1/models").status, 503);
}

TEST_F(AdminKeys, EachRouteAsksForTheAdminKey) {
  ServerConfig config;
  config.api_keys = {"api"};
  config.admin_keys = {"admin"};
  start(config);
  int admin_routes_seen = 0;
  for (const Route& route : server_->routes().routes()) {
    if (!route.path.starts_with("/admin")) continue;
    ++admin_routes_seen;
    EXPECT_EQ(route.policy, AuthPolicy::admin_key) << route.path;
    if (route.path == "/admin/events") continue;
    std::string path = route.path;
    if (const size_t at = path.find("{id}"); at != std::string::npos) path.replace(at, 4, "org/x");
    const std::string_view method = method_name(route.method);
    EXPECT_EQ(ask(method, path).status, 401) << path;
    EXPECT_EQ(ask(method, path, "", {"Authorization: Bearer api"}).status, 401) << path;
    EXPECT_NE(ask(method, path, "", {"Authorization: Bearer admin"}).status, 401) << path;
  }
  EXPECT_EQ(admin_routes_seen, 22);
}

TEST_F(AdminKeys, WithoutOneForeignPagesAreKeptOut) {
  ServerConfig config;
  config.host = "0.0.0.0";
  config.insecure = true;
  config.allowed_origins = {"*"};
  start(config);
  add("a");
  EXPECT_EQ(ask("POST", "/admin/models/a/pin", "", {"Origin: https://evil.example"}).status, 403);
  EXPECT_EQ(ask("POST", "/admin/models/a/pin", "", {"Origin: null"}).status, 403);
  EXPECT_EQ(ask("GET", "/admin/models", "", {"Host: evil.example"}).status, 403);
  EXPECT_EQ(ask("POST", "/admin/models/a/pin", "", {"Origin: http://localhost:5173"}).status, 200);
  EXPECT_EQ(ask("GET", "/v1/models", "", {"Host: evil.example"}).status, 200) << "the API's rules are its own";
}

TEST_F(AdminModels, AChangeIsAMergePatch) {
  ASSERT_EQ(ask("POST", "/admin/models", R"({"name":"a","source":"files","settings":{"dtype":"auto","block_size":16},
      "metadata":{"owner":"me","team":"x"}})")
                .status,
            201);
  const Answer changed = ask("PATCH", "/admin/models/a", R"({"settings":{"block_size":32,"dtype":null},
      "metadata":{"team":null,"note":"n"},"pinned":true,"keep_alive":"5m"})");
  ASSERT_EQ(changed.status, 200) << changed.body;
  EXPECT_EQ(changed.body["settings"], Json::parse(R"({"block_size":"32"})"));
  EXPECT_EQ(changed.body["metadata"], Json::parse(R"({"note":"n","owner":"me"})"));
  EXPECT_EQ(changed.body["pinned"], true);
  EXPECT_EQ(changed.body["keep_alive"], 300);
  EXPECT_TRUE(changed.body["pending_settings"].empty());
  EXPECT_EQ(ask("GET", "/admin/models/a").body, changed.body);
  EXPECT_TRUE(ask("PATCH", "/admin/models/a", R"({"keep_alive":null})").body["keep_alive"].is_null());
  ASSERT_EQ(ask("POST", "/admin/models/a/load?wait").body["state"], "ready");
  const Answer pending = ask("PATCH", "/admin/models/a", R"({"settings":{"block_size":64}})");
  EXPECT_EQ(pending.body["pending_settings"], Json::array({"block_size"})) << "its next load has it";
  EXPECT_EQ(pending.body["state"], "ready");
  ASSERT_EQ(ask("POST", "/admin/models/a/unload?wait").body["state"], "unloaded");
  ASSERT_EQ(ask("POST", "/admin/models/a/load?wait").body["state"], "ready");
  EXPECT_TRUE(ask("GET", "/admin/models/a").body["pending_settings"].empty());
}

TEST_F(AdminModels, AChangeIsMadeWholeOrNotAtAll) {
  add("a");
  const Answer before = ask("GET", "/admin/models/a");
  const std::vector<BadBody> bodies = {
      {"", "", "needs one of the fields"},
      {"{}", "", "needs one of the fields"},
      {R"({"sourc":"x"})", "sourc", "not a field"},
      {R"({"source":"x"})", "source", "not a field"},
      {R"({"settings":null})", "settings", "must be an object"},
      {R"({"settings":[]})", "settings", "object"},
      {R"({"settings":{"x":{}}})", "settings.x", "string"},
      {R"({"metadata":{"owner":"me"},"pinned":true,"settings":{"zebra":1}})", "settings", "zebra"},
      {R"({"metadata":{"owner":"me"},"pinned":"yes"})", "pinned", "true or false"},
      {R"({"metadata":{"owner":"me"},"keep_alive":"soon"})", "keep_alive", "5m"},
      {R"({"metadata":{"":"me"},"pinned":true})", "metadata", "empty key"},
  };
  for (const BadBody& bad : bodies) {
    const Answer answer = ask("PATCH", "/admin/models/a", bad.body);
    EXPECT_EQ(answer.status, 400) << bad.body << answer.body;
    EXPECT_EQ(answer.param(), bad.param) << bad.body << answer.body;
    EXPECT_THAT(answer.message(), HasSubstr(bad.says)) << bad.body;
  }
  EXPECT_EQ(ask("GET", "/admin/models/a").body, before.body);
  EXPECT_EQ(ask("PATCH", "/admin/models/b", R"({"pinned":true})").status, 404);
  Registry::ConfigEntries file;
  file.models = {{.id = {"c", "1"}, .source = "files", .origin = RecordOrigin::config}};
  ASSERT_TRUE(manager_->register_config(file).ok());
  EXPECT_EQ(ask("PATCH", "/admin/models/c", R"({"settings":{"block_size":32}})").status, 409);
  EXPECT_EQ(ask("PATCH", "/admin/models/c", R"({"metadata":{"x":"y"},"pinned":true})").status, 409);
  EXPECT_EQ(ask("GET", "/admin/models/c").body["pinned"], false);
  EXPECT_EQ(ask("PATCH", "/admin/models/c", R"({"pinned":true})").body["pinned"], true);
}

}  // namespace
}  // namespace inferneo
