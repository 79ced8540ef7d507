// The commands about registered models against a server that follows a script: what is asked, what is printed, how it
// ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>

#include "program.h"
#include "support/scripted_hub.h"

namespace inferneo {
namespace {

using inferneo::testing::ScriptedHub;
using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;
using Reply = ScriptedHub::Reply;

const std::string kReady =
    R"({"id":"story:1","state":"ready","active":true,"memory_bytes":432013312,"load_seconds":1.3,"leases":0})";

std::string operation(const std::string& rest) {
  return R"({"id":"op-1","kind":"load","model":"story:1",)" + rest + "}";
}

class ModelsServer : public ::testing::Test {
 protected:
  ModelsServer() {
    server_.set_script([this](const auto& request, Reply& reply) {
      const std::string asked = request.method + " " + request.target;
      const std::lock_guard lock(mutex_);
      // Several replies: one after the other, the last one again and again.
      auto& replies = replies_[asked];
      if (replies.empty()) {
        reply = {.status = 404, .body = R"({"error":{"message":"There is no such route."}})"};
        return;
      }
      reply = replies.front();
      if (replies.size() > 1) replies.erase(replies.begin());
    });
  }
  void on(const std::string& asked, std::vector<Reply> replies) {
    const std::lock_guard lock(mutex_);
    replies_[asked] = std::move(replies);
  }
  Outcome ask(const std::string& arguments, const std::string& environment = "") {
    return run(arguments, "INFERNEO_URL=" + server_.endpoint() + " INFERNEO_ADMIN_KEY=planted-secret " + environment);
  }
  std::string done(const std::string& arguments) {
    const Outcome outcome = ask(arguments);
    EXPECT_EQ(outcome.code, 0) << arguments << ": " << outcome.text;
    EXPECT_THAT(outcome.text, Not(HasSubstr("planted-secret")));
    return outcome.text;
  }
  std::string failed(const std::string& arguments, int code = 1) {
    const Outcome outcome = ask(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << ": " << outcome.text;
    EXPECT_THAT(outcome.text, AllOf(HasSubstr("inferneo: "), Not(HasSubstr("planted-secret"))));
    return outcome.text;
  }
  Json body_of(const std::string& method) {
    for (const auto& request : server_.requests()) {
      if (request.method == method) return Json::parse(request.body);
    }
    return {};
  }

  std::mutex mutex_;
  std::map<std::string, std::vector<Reply>> replies_;  // before the server, whose threads use it
  ScriptedHub server_;
};

TEST_F(ModelsServer, ListsWhatTheServerHas) {
  const std::string list =
      R"({"object":"list","data":[)" + kReady +
      R"(,{"id":"bad:1","state":"failed","failure":{"code":"malformed","message":"no weights"}}],)" +
      R"("memory":{"budget_bytes":4294967296,"used_bytes":432013312}})";
  on("GET /admin/models", {{.body = list}});
  const std::string text = done("models");
  EXPECT_THAT(text, AllOf(ContainsRegex("\\* story:1 +- +- +ready +412 MiB +never +1.3 s +for ever\n"),
                          HasSubstr("    failed: no weights\n"), HasSubstr("412 MiB of 4.00 GiB in use")));
  EXPECT_EQ(done("models --json"), list + "\n");
  EXPECT_EQ(server_.requests()[0].header("authorization"), "Bearer planted-secret");
}

TEST_F(ModelsServer, FlagsWinOverTheEnvironment) {
  on("GET /admin/models", {{.body = R"({"data":[]})"}});
  const Outcome outcome = run("models --url " + server_.endpoint() + "/v1 --admin-key other",
                              "INFERNEO_URL=http://127.0.0.1:1 INFERNEO_ADMIN_KEY=planted-secret");
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_EQ(server_.requests()[0].header("authorization"), "Bearer other");
  EXPECT_THAT(outcome.text, Not(HasSubstr("unknown environment variable")));
}

TEST_F(ModelsServer, RegistersWithEverythingThatIsGiven) {
  on("POST /admin/models", {{.status = 201, .body = R"({"id":"chat:2"})"}});
  EXPECT_THAT(done("register chat:2 org/name --revision v2 --alias a --alias b/c --pin --keep-alive 2h --setting "
                   "dtype=f32 --metadata note=x=y --format onnx"),
              HasSubstr("registered chat:2 with the server at"));
  EXPECT_EQ(body_of("POST"), Json::parse(R"({"name":"chat","version":"2","source":"org/name","revision":"v2",
    "format":"onnx","aliases":["a","b/c"],"settings":{"dtype":"f32"},"metadata":{"note":"x=y"},"pinned":true,
    "keep_alive":7200})"));
}

TEST_F(ModelsServer, LocalDirectoriesAreSentAbsolute) {
  on("POST /admin/models", {{.status = 201, .body = R"({"id":"a:1"})"}});
  done("register a ./x/../model/");
  EXPECT_THAT(body_of("POST")["source"].get<std::string>(),
              AllOf(::testing::StartsWith("/"), ::testing::EndsWith("/model"), Not(HasSubstr(".."))));
}

TEST_F(ModelsServer, ShortChangesSayWhatTheyDid) {
  on("DELETE /admin/models/story:1?timeout=2.5",
     {{.body = R"({"id":"story:1","removed":true,"dropped_aliases":["a","b"]})"}});
  EXPECT_EQ(done("rm story:1 --timeout 2.5"), "removed story:1, and with it the aliases a, b\n");
  on("POST /admin/models/org/story/pin", {{.body = R"({"id":"org/story:1"})"}});
  EXPECT_THAT(done("pin org/story"), HasSubstr("pinned org/story:1"));
  on("POST /admin/models/story/unpin", {{.body = R"({"id":"story:1"})"}});
  EXPECT_THAT(done("unpin story"), HasSubstr("unpinned story:1"));
  on("PUT /admin/models/story/keep-alive", {{.body = R"({"id":"story:1"})"}});
  EXPECT_THAT(done("keep-alive story forever"), HasSubstr("story:1 stays in memory for ever"));
  EXPECT_EQ(body_of("PUT"), Json::object({{"keep_alive", -1}}));
  on("PUT /admin/aliases/tale", {{.body = R"({"alias":"tale","target":"story:1"})"}});
  EXPECT_THAT(done("alias tale story:1"), HasSubstr("tale means story:1"));
  on("DELETE /admin/aliases/tale", {{.body = "{}"}});
  EXPECT_THAT(done("unalias tale"), HasSubstr("removed the alias tale"));
}

TEST_F(ModelsServer, LoadWaitsForTheOperation) {
  on("POST /admin/models/story/load?wait=0.3", {{.status = 202, .body = operation(R"("state":"running")")}});
  on("GET /admin/operations/op-1",
     {{.body =
           operation(R"("state":"running","progress":{"stage":"reading weights","bytes_done":5,"bytes_total":10})")},
      {.body = operation(R"("state":"running","progress":{"stage":7,"bytes_done":"x"})")},
      {.body = operation(R"("state":"done","result":null)")}});
  on("GET /admin/models/story", {{.body = kReady}});
  EXPECT_EQ(done("load story"), "story:1 is ready: 412 MiB, loaded in 1.3 s\n");
  EXPECT_EQ(server_.count("GET", "/admin/operations/op-1"), 3U);
  on("GET /admin/operations/op-1", {{.body = operation(R"("state":"done","result":)" + kReady)}});
  EXPECT_EQ(done("load story"), "story:1 is ready: 412 MiB, loaded in 1.3 s\n");
  on("POST /admin/models/story/load?wait=0.3", {{.body = kReady}});
  EXPECT_EQ(done("load story"), "story:1 is ready: 412 MiB, loaded in 1.3 s\n");
}

TEST_F(ModelsServer, NoWaitLeavesTheOperationToTheServer) {
  on("POST /admin/models/story/load", {{.status = 202, .body = operation(R"("state":"running")")}});
  EXPECT_THAT(done("load story --no-wait"), HasSubstr("loading story goes on at the server (operation op-1)"));
  EXPECT_EQ(server_.requests().size(), 1U);
}

TEST_F(ModelsServer, AFailedOperationGivesItsReason) {
  on("POST /admin/models/story/load?wait=0.3", {{.status = 202, .body = operation(R"("state":"running")")}});
  on("GET /admin/operations/op-1",
     {{.body =
           operation(R"("state":"failed","error":{"code":"malformed","message":"model.safetensors: too short"})")}});
  EXPECT_EQ(failed("load story"), "inferneo: model.safetensors: too short\n");
  on("GET /admin/operations/op-1", {{.body = operation(R"("state":"failed","error":7)")}});
  EXPECT_THAT(failed("load story"), HasSubstr("gives no reason"));
}

TEST_F(ModelsServer, OperationsThatAreNoneEndTheWait) {
  on("POST /admin/models/story/load?wait=0.3", {{.status = 202, .body = R"({"state":"running"})"},
                                                {.status = 202, .body = R"({"id":"../x","state":"running"})"},
                                                {.status = 202, .body = operation(R"("state":"dancing")")},
                                                {.status = 202, .body = operation(R"("state":7)")},
                                                {.status = 202, .body = operation(R"("state":"running")")}});
  EXPECT_THAT(failed("load story"), HasSubstr("names none"));
  EXPECT_THAT(failed("load story"), HasSubstr("names none"));
  EXPECT_THAT(failed("load story"), HasSubstr("'dancing'"));
  failed("load story");
  EXPECT_THAT(failed("load story"), HasSubstr("cannot do that")) << "the operation is not known";
}

TEST_F(ModelsServer, ASignalLeavesTheOperationRunningAndSaysSo) {
  on("POST /admin/models/story/load?wait=0.3", {{.status = 202, .body = operation(R"("state":"running")")}});
  on("GET /admin/operations/op-1", {{.body = operation(R"("state":"running")")}});
  const Outcome outcome = ask("load story", "timeout --foreground --preserve-status -s TERM 1");
  EXPECT_EQ(outcome.code, 128 + SIGTERM) << outcome.text;
  EXPECT_THAT(outcome.text, HasSubstr("the server goes on loading story; 'inferneo models' shows what comes of it"));
}

TEST_F(ModelsServer, SwitchesAndUnloads) {
  const std::string name = R"({"name":"story","active":"2","previous":"1","policy":{"kind":"latest","versions":[]}})";
  on("PUT /admin/models/story/active-version", {{.body = name}});
  EXPECT_EQ(done("switch story 2"),
            "story now means version 2, before it was 1; back: inferneo switch story --rollback\n");
  EXPECT_EQ(body_of("PUT"), Json::object({{"version", "2"}}));
  on("PUT /admin/models/story/active-version", {{.status = 202, .body = operation(R"("state":"running")")}});
  on("GET /admin/operations/op-1", {{.body = operation(R"("state":"done","result":)" + name)}});
  EXPECT_THAT(done("switch story --rollback"), HasSubstr("story now means version 2"));
  on("POST /admin/models/story/unload?timeout=5&wait=0.3", {{.body = R"({"id":"story:1","state":"unloaded"})"}});
  EXPECT_EQ(done("unload story --timeout 5"), "story is out of memory\n");
}

TEST_F(ModelsServer, SleepsAndWakes) {
  const std::string asleep = R"({"id":"story:1","state":"sleeping","memory_bytes":0,"sleep_bytes":432013312})";
  on("POST /admin/models/story/sleep?timeout=5&wait=0.3", {{.body = asleep}});
  EXPECT_EQ(done("sleep story --timeout 5"), "story sleeps\n");
  on("GET /admin/models", {{.body = R"({"object":"list","data":[)" + asleep + "]}"}});
  EXPECT_THAT(done("models"), ContainsRegex("story:1 +- +- +sleeping +412 MiB"));
  on("POST /admin/models/story/wake-up?wait=0.3",
     {{.body = R"({"id":"story:1","state":"ready","memory_bytes":432013312})"}});
  EXPECT_EQ(done("wake-up story"), "story:1 is ready: 412 MiB\n");
  on("POST /admin/models/story/sleep?timeout=30&wait=0.3",
     {{.status = 501, .body = R"({"error":{"message":"story:1 computes on the CPU: unload it"}})"}});
  EXPECT_THAT(failed("sleep story"), HasSubstr("story:1 computes on the CPU: unload it"));
}

TEST_F(ModelsServer, VerifySaysWhichFilesChanged) {
  on("POST /admin/models/story/verify", {{.status = 202, .body = operation(R"("state":"running")")}});
  on("GET /admin/operations/op-1", {{.body = operation(R"("state":"done","result":{"files":[
      {"file":"config.json","bytes":512,"state":"ok"},{"file":"model.safetensors","bytes":1048576,"state":"changed"}]})")}});
  EXPECT_THAT(failed("verify story"), AllOf(ContainsRegex("ok +512 bytes  config.json\n"),
                                            ContainsRegex("changed +1.00 MiB  model.safetensors\n"),
                                            HasSubstr("1 of the files of story changed")));
  on("GET /admin/operations/op-1",
     {{.body = operation(R"("state":"done","result":{"files":[{"file":"a","bytes":1,"state":"ok"}]})")}});
  done("verify story");
}

TEST_F(ModelsServer, WhatTheServerCannotDoYetIsSaid) {
  EXPECT_THAT(failed("plan story"), HasSubstr("cannot do that: it has no /admin/plan; a newer one may"));
  on("POST /admin/models/story/verify", {{.status = 501, .body = R"({"error":{"message":"later"}})"}});
  EXPECT_THAT(failed("verify story"), HasSubstr("the server cannot do that: later"));
}

TEST_F(ModelsServer, PlansTellWhoWouldGoAndWhatFits) {
  const std::string models = R"("models":[
      {"id":"story:1","dtype":"int8","bytes":1048576,"context":128,"more_tokens":77,"load_seconds":0.5,"reason":null},
      {"id":"code:2","bytes":2097152,"context":128,"resident":true,"reason":null,"load_seconds":0.5}])";
  on("POST /admin/plan", {{.body = R"({"fits":true,"budget_bytes":4194304,"used_after_bytes":3145728,
                                       "evicted":["old:1"],)" +
                                   models + "}"}});
  EXPECT_THAT(
      done("plan story code:2 --context 128"),
      AllOf(ContainsRegex(
                "story:1 +1.00 MiB  in int8  with 128 tokens of cache  about 0.50? s to load  room for 77 more"),
            ContainsRegex("code:2 +2.00 MiB  with 128 tokens of cache  in memory\n"), HasSubstr("would go: old:1\n"),
            HasSubstr("fits: 3.00 MiB of 4.00 MiB would be in use")));
  EXPECT_EQ(Json::parse(server_.requests().back().body),
            Json::parse(R"({"models":[{"id":"story","context":128},{"id":"code:2","context":128}]})"));
  on("POST /admin/plan", {{.body = R"({"fits":false,"models":[{"id":"story:1","reason":"too large"},7]})"}});
  EXPECT_THAT(failed("plan story"), AllOf(HasSubstr("does not fit: too large"), HasSubstr("nobody would have to go")));
  on("POST /admin/plan", {{.body = R"({"fits":"yes"})"}});
  EXPECT_THAT(failed("plan story"), HasSubstr("does not fit")) << "what it does not say is no promise";
}

TEST_F(ModelsServer, HostileAnswersAreErrors) {
  const std::vector<Reply> replies = {
      {.body = ""},
      {.body = "<html>"},
      {.body = "[]"},
      {.body = R"({"data":7})"},
      {.body = R"({"data":[7]})"},
      {.body = R"({"data":[{"id":[],"state":"ready"}]})"},
      {.body = R"({"data":[{"id":"a:1","state":"ready","memory_bytes":-5}]})"},
      {.body = std::string(100'000, '[')},
      {.body = std::string(size_t{20} << 20, ' ')},
      {.body = "{}", .send = 1, .then = Reply::Then::reset},
      {.status = 500, .body = "\033[31mred"},
      {.status = 302, .headers = {{"Location", "http://127.0.0.1:1/"}}},
  };
  for (const Reply& reply : replies) {
    on("GET /admin/models", {reply});
    const std::string text = failed("models");
    EXPECT_LT(text.size(), 1000U);
    EXPECT_EQ(text.find('\033'), std::string::npos) << text;
  }
  on("GET /admin/models", {{.status = 401, .body = R"({"error":{"message":"A key is needed."}})"}});
  EXPECT_THAT(failed("models"), HasSubstr("A key is needed."));
  on("GET /admin/models", {{.status = 400, .body = R"({"error":{"message":"name: no"}})"}});
  EXPECT_EQ(failed("models", 2), "inferneo: name: no\n");
}

}  // namespace
}  // namespace inferneo
