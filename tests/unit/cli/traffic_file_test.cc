// The commands about rules and A/B tests while no server runs: on the registry's file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "program.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using Json = nlohmann::json;

const std::string kBundled = std::string(INFERNEO_SOURCE_DIR) + "/models";

class TrafficFile : public ::testing::Test {
 protected:
  void SetUp() override {
    done("register story " + kBundled + "/inferneo-story");
    done("register code " + kBundled + "/inferneo-code");
  }
  Outcome command(const std::string& arguments) {
    return run(arguments, "INFERNEO_HOME='" + tree_.root() + "' INFERNEO_MODEL_ROOTS='" + kBundled + "' HOME='" +
                              tree_.root() + "'");
  }
  std::string done(const std::string& arguments) {
    const Outcome outcome = command(arguments);
    EXPECT_EQ(outcome.code, 0) << arguments << ": " << outcome.text;
    return outcome.text;
  }
  std::string refused(const std::string& arguments, int code) {
    const Outcome outcome = command(arguments);
    EXPECT_EQ(outcome.code, code) << arguments << ": " << outcome.text;
    EXPECT_THAT(outcome.text, HasSubstr("inferneo: ")) << arguments;
    return outcome.text;
  }

  testing::TempTree tree_;
};

TEST(TrafficLook, MakesNoFile) {
  const testing::TempTree tree;
  for (const char* const look : {"route", "ab", "route options"}) {
    const Outcome outcome = run(look, "INFERNEO_HOME='" + tree.root() + "' HOME='" + tree.root() + "'");
    EXPECT_EQ(outcome.code, 0) << outcome.text;
  }
  EXPECT_FALSE(std::filesystem::exists(tree.path("registry.db")));
}

TEST_F(TrafficFile, ARuleFromItsAdditionToItsEnd) {
  EXPECT_THAT(done("route"), HasSubstr("no routing rule"));
  EXPECT_THAT(done("route add code \"prompt contains 'def '\" code --priority 10"),
              AllOf(HasSubstr("goes to     code"), HasSubstr("priority    10")));
  done("route add night \"time between '22:00' and '06:00'\" story --fallback code --all");
  done("route add no \"prompt contains 'key'\" --refuse 'no keys here' --status 400 --priority 99");
  EXPECT_THAT(done("route"), ContainsRegex("no +99 +refused 400 .*\n.*code +10 +code .*\n.*night +0 +story > code"));
  EXPECT_THAT(done("route off code"), HasSubstr("is off"));
  EXPECT_THAT(done("route"), HasSubstr("code (off)"));
  EXPECT_EQ(Json::parse(done("route show code --json"))["enabled"], false);
  done("route on code");
  done("route rm night");
  EXPECT_EQ(Json::parse(done("route --json"))["data"].size(), 2U);
  EXPECT_THAT(done("route options"), HasSubstr("where no rule matches: default"));
}

TEST_F(TrafficFile, ATestFromItsAdditionToItsEnd) {
  EXPECT_THAT(done("ab"), HasSubstr("no A/B test"));
  EXPECT_THAT(done("ab add comparison story code --split 0.3 --sticky-by session --max-error-rate 0.1 --draft"),
              AllOf(HasSubstr("comparison: draft"), HasSubstr("sticky by session")));
  EXPECT_THAT(done("ab start comparison"), ContainsRegex("B +code +30 %"));
  EXPECT_THAT(done("ab"), ContainsRegex("comparison +running +A story 70 %, B code 30 %"));
  EXPECT_THAT(done("ab promote comparison B"), HasSubstr("arm B gets everything"));
  EXPECT_THAT(refused("ab stop comparison", 1), HasSubstr("comparison"));
  done("ab rm comparison");
  EXPECT_THAT(done("ab"), HasSubstr("no A/B test"));
}

TEST_F(TrafficFile, MistakesAreNamed) {
  EXPECT_THAT(refused("route add r \"prompt contans 'x'\" code", 2), HasSubstr("^^^^^^^"));
  EXPECT_THAT(refused("route add r true cod", 1), HasSubstr("'cod'"));
  EXPECT_THAT(refused("route add r true", 2), HasSubstr("--refuse"));
  EXPECT_THAT(refused("route add r true code --test t", 2), HasSubstr("one of them alone"));
  EXPECT_THAT(refused("route add r true code --priority high", 2), HasSubstr("whole number"));
  EXPECT_THAT(refused("route add r", 2), HasSubstr("usage"));
  EXPECT_THAT(refused("route rm nobody", 1), HasSubstr("no routing rule 'nobody'"));
  EXPECT_THAT(refused("route paint", 2), HasSubstr("explain"));
  EXPECT_THAT(refused("route explain hello", 1), HasSubstr("running server"));
  EXPECT_THAT(refused("ab add t story nobody", 1), HasSubstr("'nobody'"));
  EXPECT_THAT(refused("ab add t story code --split much", 2), HasSubstr("expected a number"));
  EXPECT_THAT(refused("ab add t story code --split 2", 2), HasSubstr("traffic_split"));
  EXPECT_THAT(refused("ab promote t", 2), HasSubstr("usage"));
}

TEST_F(TrafficFile, ArmBMayHavePromptsAndSettingsOfItsOwn) {
  tree_.write("chat.jinja", "{{ messages }}");
  EXPECT_THAT(done("ab add own story story --split 0.25 --chat-template " + tree_.path("chat.jinja") +
                   " --system-prompt 'Be brief.' --setting max_num_seqs=4"),
              HasSubstr("arm B has a prompt template, a system prompt, max_num_seqs = 4"));
  const Json shown = Json::parse(done("ab show own --json"));
  EXPECT_EQ(shown["arms"][1]["share"], 0.25);
  EXPECT_EQ(shown["arms"][1]["prompt_template"], "{{ messages }}");
  EXPECT_EQ(shown["arms"][1]["settings"], Json::object({{"max_num_seqs", "4"}}));
  EXPECT_THAT(refused("ab add bad story story --setting port=1", 2), HasSubstr("'port' is no setting of a model"));
  EXPECT_THAT(refused("ab add same story story", 2), HasSubstr("are the same"));
}

}  // namespace
}  // namespace inferneo
