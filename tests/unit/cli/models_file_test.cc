// The commands about registered models while no server runs: on the registry's file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "manager/registry.h"
#include "program.h"
#include "support/scripted_hub.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

const std::string kModels = std::string(INFERNEO_SOURCE_DIR) + "/models";

class ModelsFile : public ::testing::Test {
 protected:
  Outcome models(const std::string& arguments) { return run(arguments, environment()); }
  std::string environment() const {
    return "INFERNEO_HOME='" + tree_.root() + "' INFERNEO_MODEL_ROOTS='" + kModels + "' HOME='" + tree_.root() + "'";
  }
  std::string done(const std::string& arguments) {
    const Outcome outcome = models(arguments);
    EXPECT_EQ(outcome.code, 0) << arguments << ": " << outcome.text;
    return outcome.text;
  }
  std::string refused(const std::string& arguments, int code) {
    const Outcome outcome = models(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << ": " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("inferneo: ")) << arguments;
    return outcome.text;
  }
  Json list() { return Json::parse(done("models --json"))["data"]; }
  std::string registry() const { return tree_.path("registry.db"); }

  testing::TempTree tree_;
};

TEST_F(ModelsFile, LookingMakesNoFile) {
  EXPECT_THAT(done("models"), HasSubstr("no model is registered"));
  EXPECT_EQ(done("models --json"), "{\"object\":\"list\",\"data\":[]}\n");
  EXPECT_FALSE(std::filesystem::exists(registry()));
}

TEST_F(ModelsFile, FromRegisteringToRemoving) {
  EXPECT_THAT(done("register story " + kModels + "/inferneo-story"), HasSubstr("registered story:1 with the registry"));
  EXPECT_THAT(done("register story:2 " + kModels +
                   "/inferneo-story-draft --alias tale --alias saga --pin --keep-alive 10m --setting max_model_len=64 "
                   "--metadata owner=me --format huggingface"),
              HasSubstr("registered story:2"));
  const Json models = list();
  ASSERT_EQ(models.size(), 2U);
  EXPECT_EQ(models[0]["id"], "story:1");
  EXPECT_EQ(models[0]["active"], false);
  EXPECT_EQ(models[0]["state"], "unloaded");
  EXPECT_EQ(models[1]["active"], true) << "the latest";
  EXPECT_EQ(models[1]["pinned"], true);
  EXPECT_EQ(models[1]["keep_alive"], 600);
  EXPECT_EQ(models[1]["settings"], Json::object({{"max_model_len", "64"}}));
  EXPECT_EQ(models[1]["metadata"], Json::object({{"owner", "me"}}));
  EXPECT_EQ(models[1]["format"], "huggingface");
  EXPECT_EQ(models[1]["aliases"], Json::array({"saga", "tale"}));
  EXPECT_EQ(models[1]["origin"], "api");

  const std::string table = done("models --verbose");
  EXPECT_THAT(table, AllOf(ContainsRegex("\n  story:1 +- +- +unloaded +- +never +- +-\n"),
                           ContainsRegex("\n\\* story:2 +huggingface +- +unloaded, pinned"),
                           HasSubstr("aliases: saga, tale"), HasSubstr("no server runs on it")));

  EXPECT_THAT(done("switch story 1"), HasSubstr("story now means version 1"));
  EXPECT_THAT(refused("rm story:1", 1), HasSubstr("active version"));
  EXPECT_THAT(done("switch story 2"), HasSubstr("story now means version 2, before it was 1"));
  EXPECT_THAT(done("switch story --rollback"), HasSubstr("story now means version 1"));
  EXPECT_THAT(done("switch story --latest"), HasSubstr("story now means version 2"));
  EXPECT_THAT(done("unpin tale"), HasSubstr("unpinned story:2"));
  EXPECT_THAT(done("pin story:1"), HasSubstr("pinned story:1"));
  EXPECT_THAT(done("keep-alive story:1 forever"), HasSubstr("for ever"));
  EXPECT_EQ(list()[0]["keep_alive"], -1);
  EXPECT_THAT(done("keep-alive story:1 default"), HasSubstr("as long as the server's"));
  EXPECT_EQ(list()[0]["keep_alive"], nullptr);
  EXPECT_THAT(done("alias stable story:1"), HasSubstr("stable means story:1"));
  EXPECT_THAT(done("unalias saga"), HasSubstr("removed the alias saga"));
  EXPECT_THAT(refused("unalias saga", 1), HasSubstr("saga"));
  EXPECT_THAT(done("rm stable"), HasSubstr("removed story:1, and with it the alias stable"));
  EXPECT_EQ(Json::parse(done("rm story --json"))["dropped_aliases"], Json::array({"tale"}));
  EXPECT_EQ(list().size(), 0U);
}

TEST_F(ModelsFile, WhatAServerWouldRefuseIsRefusedHere) {
  EXPECT_THAT(refused("register a " + tree_.directory("elsewhere"), 1), HasSubstr("roots"));
  EXPECT_THAT(refused("register a " + kModels + "/../models/inferneo-story/../../..", 1), HasSubstr("roots"));
  EXPECT_THAT(refused("register a org/name --setting max_model_lne=5", 2), HasSubstr("did you mean 'max_model_len'?"));
  EXPECT_THAT(refused("register a org/name --setting max_model_len=none", 2), HasSubstr("max_model_len"));
  EXPECT_THAT(refused("register a org/name --setting port=1", 2), HasSubstr("no setting of a model"));
  EXPECT_THAT(refused("register a org/name --setting chat_template=/etc/passwd", 2), HasSubstr("chat_template"));
  EXPECT_EQ(list().size(), 0U);
  done("register a org/name");  // may be downloaded later
  EXPECT_THAT(refused("register a org/name", 1), HasSubstr("a:1"));
  EXPECT_THAT(refused("register b org/name --alias a", 1), HasSubstr("'a'"));
  EXPECT_EQ(list().size(), 1U) << "the alias that is taken kept the model out too";
}

TEST_F(ModelsFile, PathsAreKeptAbsoluteAndHubIdsAsTheyAre) {
  done("register story " + kModels + "/./inferneo-story/");
  done("register hub org/name --revision v2");
  EXPECT_EQ(list()[0]["source"], kModels + "/inferneo-story");
  EXPECT_EQ(list()[1]["source"], "org/name");
  EXPECT_EQ(list()[1]["revision"], "v2");
}

TEST_F(ModelsFile, MistakesEndWithTwoAndSayWhy) {
  const std::pair<const char*, const char*> cases[] = {
      {"register", "usage: inferneo register NAME"},
      {"register a", "usage: inferneo register NAME"},
      {"register a b c", "do not know what to do with 'c'"},
      {"register 'a b' org/name", "cannot be a model's name"},
      {"register a:b:c org/name", "cannot be a version"},
      {"register a org/name --keep-alive soon", "--keep-alive: expected a time such as"},
      {"register a org/name --setting x", "--setting: expected NAME=VALUE"},
      {"register a org/name --metadata =x", "--metadata: expected NAME=VALUE"},
      {"register a org/name --setting dtype=f32 --setting dtype=bf16", "given twice"},
      {"register a org/name --format gguf", "--format: expected huggingface, onnx or tensorrt"},
      {"register a org/name --alias '../x'", "cannot be a model's name"},
      {"register a ''", "source"},
      {"rm", "usage: inferneo rm ID"},
      {"rm a --timeout soon", "--timeout: expected seconds"},
      {"load", "usage: inferneo load ID"},
      {"unload", "usage: inferneo unload ID"},
      {"sleep", "usage: inferneo sleep ID"},
      {"wake-up", "usage: inferneo wake-up ID"},
      {"pin", "usage: inferneo pin ID"},
      {"alias a", "usage: inferneo alias NAME TARGET"},
      {"unalias", "usage: inferneo unalias NAME"},
      {"keep-alive a", "usage: inferneo keep-alive ID TIME"},
      {"keep-alive a x", "expected a time such as"},
      {"switch", "to which version?"},
      {"switch a", "to which version?"},
      {"switch a 1 --latest", "give one of"},
      {"switch a --latest --rollback", "give one of"},
      {"switch a 'x y'", "cannot be a version"},
      {"plan", "usage: inferneo plan ID..."},
      {"plan a --context many", "--context"},
      {"models extra", "do not know what to do with 'extra'"},
      {"models --url ftp://x", "--url: expected an address"},
      {"models --zebra", "unknown flag"},
      {"models --registry memory", "there is no registry file"},
      {"modles", "did you mean 'models'?"},
  };
  for (const auto& [line, why] : cases) EXPECT_THAT(refused(line, 2), HasSubstr(why)) << line;
  EXPECT_FALSE(std::filesystem::exists(registry()));
}

TEST_F(ModelsFile, WhatTakesAServerSaysSo) {
  done("register a org/name");
  for (const char* line : {"load a", "unload a", "sleep a", "wake-up a", "verify a", "plan a"}) {
    EXPECT_THAT(refused(line, 1), AllOf(HasSubstr("takes a running server"), HasSubstr("inferneo serve"))) << line;
  }
}

TEST_F(ModelsFile, WhatIsUnknownIsNamed) {
  done("register story org/name");
  EXPECT_THAT(refused("rm stroy", 1), HasSubstr("did you mean 'story'?"));
  EXPECT_THAT(refused("pin story:2", 1), HasSubstr("story:1"));
  EXPECT_THAT(refused("switch story 2", 1), HasSubstr("2"));
  EXPECT_THAT(refused("switch story --rollback", 1), HasSubstr("no earlier active version"));
  EXPECT_THAT(refused("alias x unknown", 1), HasSubstr("unknown"));
  EXPECT_EQ(refused("rm \"$(printf 'a\\033[31mb')\"", 1).find('\033'), std::string::npos);
}

TEST_F(ModelsFile, AProcessThatHoldsTheRegistryIsAskedOrNamed) {
  done("register a org/name");
  auto held = Registry::open(registry());
  ASSERT_TRUE(held.ok()) << held.error().message;
  const std::string pid = "process " + std::to_string(::getpid());
  for (const char* line : {"models", "rm a", "load a"}) {
    EXPECT_THAT(refused(line, 1), AllOf(HasSubstr(pid), HasSubstr(registry()), HasSubstr("no server address yet")));
  }

  inferneo::testing::ScriptedHub server;
  server.set_script([](const auto&, auto& reply) { reply = {.body = R"({"object":"list","data":[]})"}; });
  ASSERT_TRUE((*held)->set_server_address(server.endpoint()).ok());
  EXPECT_THAT(done("models"), HasSubstr("the server at " + server.endpoint()));
  EXPECT_EQ(server.count("GET", "/admin/models"), 1U);
  const std::string port = server.endpoint().substr(server.endpoint().rfind(':'));
  ASSERT_TRUE((*held)->set_server_address("http://0.0.0.0" + port).ok());
  EXPECT_THAT(done("models"), HasSubstr("the server at http://127.0.0.1" + port));

  ASSERT_TRUE((*held)->set_server_address("http://127.0.0.1:1").ok());
  EXPECT_THAT(refused("models", 1), AllOf(HasSubstr("no server answers at http://127.0.0.1:1"), HasSubstr(pid)));
  held->reset();
  EXPECT_THAT(done("models"), HasSubstr("a:1"));
}

TEST_F(ModelsFile, ADamagedRegistryIsNoReasonToCrash) {
  tree_.write("registry.db", "not a database, but long enough to be looked at as one");
  for (const char* line : {"models", "register a org/name", "rm a"}) {
    EXPECT_THAT(refused(line, 1), HasSubstr("registry")) << line;
  }
}

TEST_F(ModelsFile, SettingsAndNotesAreShownAndChanged) {
  done("register story " + kModels + "/inferneo-story --setting max_model_len=64 --metadata owner=me");
  EXPECT_THAT(done("set story"),
              AllOf(HasSubstr("story:1\n"), HasSubstr("max_model_len = 64"), HasSubstr("owner = me")));
  EXPECT_THAT(done("set story max_num_seqs=4 --unset max_model_len --metadata team=x --unset-metadata owner"),
              AllOf(HasSubstr("max_num_seqs = 4"), HasSubstr("team = x"), Not(HasSubstr("max_model_len")),
                    Not(HasSubstr("owner"))));
  EXPECT_EQ(list()[0]["settings"], Json::object({{"max_num_seqs", "4"}}));
  EXPECT_THAT(refused("set story port=1", 2), HasSubstr("'port' is no setting of a model"));
  EXPECT_THAT(refused("set story max_num_seqs", 2), HasSubstr("NAME=VALUE"));
  EXPECT_THAT(refused("set story x=1 --unset x", 2), HasSubstr("is set as well"));
  EXPECT_THAT(refused("set tale x=1", 1), HasSubstr("does not exist"));
  EXPECT_THAT(refused("set", 2), HasSubstr("set"));
  EXPECT_EQ(list()[0]["settings"], Json::object({{"max_num_seqs", "4"}}));
}

TEST_F(ModelsFile, ATemplateIsReadFromItsFile) {
  tree_.write("chat.jinja", "{% for m in messages %}\n{{ m.content }}{% endfor %}");
  tree_.write("broken.jinja", "a\n{% for m in messages %}");
  done("register story " + kModels + "/inferneo-story --chat-template " + tree_.path("chat.jinja"));
  EXPECT_EQ(list()[0]["settings"]["chat_template"], "{% for m in messages %}\n{{ m.content }}{% endfor %}");
  EXPECT_THAT(done("set story"), HasSubstr("chat_template = {% for m in messages %} ... ("));
  EXPECT_THAT(refused("set story --chat-template " + tree_.path("broken.jinja"), 2), HasSubstr("line 2"));
  EXPECT_THAT(refused("set story --chat-template " + tree_.path("none.jinja"), 1), HasSubstr("none.jinja"));
  EXPECT_THAT(refused("set story chat_template=" + tree_.path("chat.jinja"), 2), HasSubstr("--chat-template FILE"));
  EXPECT_THAT(done("set story --unset chat_template"), HasSubstr("no settings of its own"));
}

}  // namespace
}  // namespace inferneo
