#include "cli/model_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::json;

constexpr int64_t kNow = 1'000'000;

std::vector<ModelView> three_models() {
  ModelView story;
  story.id = "story:2";
  story.state = "ready";
  story.format = "huggingface";
  story.dtype = "int8";
  story.active = story.pinned = true;
  story.memory_bytes = uint64_t{412} << 20;
  story.last_used = kNow - 200;
  story.load_seconds = 1.24;
  story.keep_alive_left = 241.7;
  ModelView old;
  old.id = "story:1";
  old.state = "unloaded";
  old.last_used = kNow - 7300;
  ModelView code;
  code.id = "company/code-model-with-a-long-name:2026-01-31";
  code.state = "failed";
  code.active = true;
  code.failure = "config.json: hidden_size: expected a whole number from 1 to 65536, got 0; see the model's files";
  return {story, old, code};
}

std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

TEST(ModelTable, ColumnsLineUpAndNumbersStandRight) {
  EXPECT_THAT(
      lines_of(model_table(three_models(), {.now = kNow})),
      ElementsAre("  ID                                              FORMAT       DTYPE  STATE           MEMORY  LAST "
                  "USED  LOAD TIME  "
                  "KEEP-ALIVE LEFT",
                  "* story:2                                         huggingface  int8   ready, pinned  412 MiB  3 "
                  "min ago      1.2 s  "
                  "          4 min",
                  "  story:1                                         -            -      unloaded             -  2 h "
                  "ago            -  "
                  "              -",
                  "* company/code-model-with-a-long-name:2026-01-31  -            -      failed               -  "
                  "never              -  "
                  "              -",
                  "    failed: config.json: hidden_size: expected a whole number from 1 to 65536, got 0; see "
                  "the model's files"));
}

TEST(ModelTable, NarrowScreensLoseColumnsThenTheMiddleOfNames) {
  for (int width = 40; width <= 140; ++width) {
    for (const std::string& line : lines_of(model_table(three_models(), {.width = width, .now = kNow}))) {
      EXPECT_LE(line.size(), static_cast<size_t>(width)) << line;
    }
  }
  const std::string at_80 = model_table(three_models(), {.width = 80, .now = kNow});
  EXPECT_THAT(at_80, AllOf(HasSubstr("STATE"), HasSubstr("code-model-with-a-long-name:2026-01-31"),
                           Not(HasSubstr("FORMAT")), Not(HasSubstr("LOAD TIME"))));
  const std::string at_40 = model_table(three_models(), {.width = 40, .now = kNow});
  EXPECT_THAT(at_40, AllOf(HasSubstr("STATE"), HasSubstr(".."), HasSubstr("26-01-31"), HasSubstr("story:2")));
  EXPECT_FALSE(model_table(three_models(), {.width = 1, .now = kNow}).empty());
}

TEST(ModelTable, SaysWhatKeepsAModelThere) {
  std::vector<ModelView> models = three_models();
  models.resize(1);
  models[0].keep_alive_left.reset();
  EXPECT_THAT(model_table(models, {.now = kNow}), HasSubstr("for ever"));
  models[0].leases = 2;
  EXPECT_THAT(model_table(models, {.now = kNow}), HasSubstr("in use"));
  models[0].state = "loading";
  models[0].bytes_done = 50;
  models[0].bytes_total = 200;
  EXPECT_THAT(model_table(models, {.now = kNow}), HasSubstr("loading 25 %"));
  models[0].removing = true;
  EXPECT_THAT(model_table(models, {.now = kNow}), HasSubstr("removing"));
}

TEST(ModelTable, VerboseNamesSourceAliasesAndSettings) {
  std::vector<ModelView> models = three_models();
  models[1].source = "org/name";
  models[1].revision = "v1";
  models[1].origin = "config";
  models[1].aliases = {"a", "b"};
  models[1].settings = {{"max_model_len", "64"}};
  models[1].keep_alive = -1;
  EXPECT_THAT(model_table(models, {.now = kNow, .verbose = true}),
              AllOf(HasSubstr("    source: org/name@v1\n"), HasSubstr("    aliases: a, b\n"),
                    HasSubstr("    settings: max_model_len=64\n"), HasSubstr("    keep-alive: for ever\n"),
                    HasSubstr("configuration file")));
}

TEST(ModelView, IsReadFromTheRoutesAnswer) {
  const Json model = Json::parse(R"({"id":"a:1","state":"loading","active":true,"aliases":["x"],"pinned":true,
    "keep_alive":null,"last_used":5,"memory_bytes":1048576,"leases":1,"queue_place":0,"failure":null,"format":null,"dtype":"bf16",
    "progress":{"stage":"reading weights","bytes_done":1,"bytes_total":4},"load_seconds":null,"keep_alive_left":2.5,
    "something_new":{"later":1}})");
  const auto view = view_of_model(model);
  ASSERT_TRUE(view.ok()) << view.error().message;
  EXPECT_EQ(view->id, "a:1");
  EXPECT_THAT(view->aliases, ElementsAre("x"));
  EXPECT_EQ(view->last_used, 5);
  EXPECT_EQ(view->keep_alive_left, 2.5);
  EXPECT_EQ(view->stage, "reading weights");
  EXPECT_EQ(view->bytes_total, 4U);
  EXPECT_TRUE(view->format.empty());
  EXPECT_EQ(view->dtype, "bf16");
}

TEST(ModelView, WrongTypesAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"state":"ready"})", "'id'"},
      {R"({"id":7,"state":"ready"})", "'id'"},
      {R"({"id":"a:1"})", "'state'"},
      {R"({"id":"a:1","state":"ready","memory_bytes":"x"})", "'memory_bytes'"},
      {R"({"id":"a:1","state":"ready","memory_bytes":-1})", "'memory_bytes'"},
      {R"({"id":"a:1","state":"ready","last_used":1e300})", "'last_used'"},
      {R"({"id":"a:1","state":"ready","last_used":1.5})", "'last_used'"},
      {R"({"id":"a:1","state":"ready","aliases":{}})", "'aliases'"},
      {R"({"id":"a:1","state":"ready","aliases":[1]})", "'aliases'"},
      {R"({"id":"a:1","state":"ready","settings":[]})", "'settings'"},
      {R"({"id":"a:1","state":"ready","pinned":"yes"})", "'pinned'"},
      {R"({"id":"a:1","state":"ready","failure":"x"})", "'failure'"},
      {R"({"id":"a:1","state":"ready","failure":{"message":[]}})", "'message'"},
      {R"({"id":"a:1","state":"ready","progress":[]})", "'progress'"},
  };
  for (const auto& [text, field] : cases) {
    const auto view = view_of_model(Json::parse(text));
    ASSERT_FALSE(view.ok()) << text;
    EXPECT_EQ(view.error().code, ErrorCode::malformed);
    EXPECT_THAT(view.error().message, HasSubstr(field)) << text;
  }
  for (const char* text : {"[]", "{}", R"({"data":{}})", R"({"data":[1]})", "7"}) {
    EXPECT_FALSE(views_of_list(Json::parse(text)).ok()) << text;
  }
}

TEST(ModelView, TextsCannotDriveATerminal) {
  const auto view = view_of_model(Json::parse(
      R"({"id":"a:1\u001b[31m\nb","state":"failed","failure":{"message":"one\ntwo\u0007"},"source":"\u009b31m"})"));
  ASSERT_TRUE(view.ok());
  const std::string text = model_table({*view}, {.now = kNow, .verbose = true});
  EXPECT_THAT(text, AllOf(HasSubstr("a:1[31m b"), HasSubstr("one two"), Not(HasSubstr("\033")), Not(HasSubstr("\a")),
                          Not(HasSubstr("\xC2\x9B"))));
}

TEST(MemoryLine, SaysWhatIsInUseOrNothing) {
  EXPECT_EQ(memory_line(Json::parse(R"({"memory":{"budget_bytes":2147483648,"used_bytes":1073741824}})")),
            "1.00 GiB of 2.00 GiB in use");
  for (const char* text : {"[]", "{}", R"({"memory":7})", R"({"memory":{"budget_bytes":"x"}})"}) {
    EXPECT_EQ(memory_line(Json::parse(text)), "") << text;
  }
}

}  // namespace
}  // namespace inferneo
