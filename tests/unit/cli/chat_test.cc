#include "cli/chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "fake_service.h"

namespace inferneo {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

class ChatTest : public ::testing::Test {
 protected:
  ChatTest() : terminal_(environment_, in_.read_end(), out_.write_end(), err_.write_end()) {}

  int converse(const std::string& input) {
    in_.put(input);
    in_.close_write();
    Chat chat(service_, context_, options_, true);
    LineReader reader(in_.read_end());
    return chat.converse(reader);
  }
  int answer_once(const std::string& prompt, bool uses_template = true) {
    return Chat(service_, context_, options_, uses_template).answer_once(prompt);
  }
  std::string messages(size_t request) { return std::get<ChatInput>(service_.requests.at(request).prompt).messages; }

  Environment environment_;
  Signals signals_;
  Pipe in_, out_, err_;
  Terminal terminal_;
  CommandContext context_{terminal_, signals_, environment_};
  ChatOptions options_;
  FakeService service_;
};

TEST_F(ChatTest, OneAnswerGoesToTheOutputAlone) {
  service_.replies = {{.pieces = {"Once", " upon", " a time"}}};
  EXPECT_EQ(answer_once("Tell \"me\""), kExitDone);
  EXPECT_EQ(out_.take_all(), "Once upon a time\n");
  EXPECT_EQ(err_.take_all(), "") << "no terminal: no statistics";
  EXPECT_EQ(messages(0), R"([{"content":"Tell \"me\"","role":"user"}])");
}

TEST_F(ChatTest, StatisticsOnWish) {
  options_.stats = true;
  service_.replies = {{.pieces = {"a", "b", "c"}}};
  EXPECT_EQ(answer_once("x"), kExitDone);
  EXPECT_THAT(err_.take_all(),
              ContainsRegex("first token 0\\.[0-9]+ s \\| 3 tokens, [0-9.]+ tokens/s \\| prompt 7 tokens"));
}

TEST_F(ChatTest, WithoutTemplateTheTextGoesOn) {
  service_.replies = {{.pieces = {" time"}}};
  EXPECT_EQ(answer_once("Once upon a", false), kExitDone);
  EXPECT_EQ(out_.take_all(), "Once upon a time\n");
  EXPECT_EQ(std::get<std::string>(service_.requests.at(0).prompt), "Once upon a");
}

TEST_F(ChatTest, ErrorsAreTheExitCode) {
  service_.replies = {{.error = make_error(ErrorCode::context_too_long, "the prompt is too long")}};
  EXPECT_EQ(answer_once("x"), kExitFailed);
  EXPECT_EQ(out_.take_all(), "");
  EXPECT_EQ(err_.take_all(), "inferneo: the prompt is too long\n");
}

TEST_F(ChatTest, HistoryGrowsAndFailuresLeaveNoTrace) {
  service_.replies = {{.pieces = {"one"}}, {.error = make_error(ErrorCode::queue_full, "busy")}, {.pieces = {"three"}}};
  EXPECT_EQ(converse("a\nb\nc\n"), kExitDone);
  ASSERT_EQ(service_.requests.size(), 3U);
  EXPECT_EQ(messages(2),
            R"([{"content":"a","role":"user"},{"content":"one","role":"assistant"},{"content":"c","role":"user"}])");
  EXPECT_EQ(out_.take_all(), "one\nthree\n");
}

TEST_F(ChatTest, SystemMessageAndClear) {
  EXPECT_EQ(converse("/system Be brief.\na\n/clear\nb\n/system\nc\n"), kExitDone);
  EXPECT_EQ(messages(0), R"([{"content":"Be brief.","role":"system"},{"content":"a","role":"user"}])");
  EXPECT_EQ(messages(1), R"([{"content":"Be brief.","role":"system"},{"content":"b","role":"user"}])");
  EXPECT_EQ(messages(2), R"([{"content":"c","role":"user"}])");
}

TEST_F(ChatTest, SettingsChangeTheNextRequest) {
  EXPECT_EQ(converse("a\n/set temperature 0.25\n/set max_tokens=9\n/set top_k lots\n/set temprature 1\nb\n/set\n"),
            kExitDone);
  ASSERT_EQ(service_.requests.size(), 2U);
  EXPECT_FALSE(service_.requests[0].explicit_sampling.temperature);
  EXPECT_TRUE(service_.requests[1].explicit_sampling.temperature);
  EXPECT_FLOAT_EQ(service_.requests[1].sampling.temperature, 0.25F);
  EXPECT_EQ(service_.requests[1].sampling.max_tokens, 9);
  EXPECT_FALSE(service_.requests[1].explicit_sampling.top_k);
  const std::string notes = err_.take_all();
  EXPECT_THAT(notes, HasSubstr("top_k: expected a whole number from 0, got 'lots'"));
  EXPECT_THAT(notes, HasSubstr("unknown setting 'temprature', did you mean 'temperature'?"));
  EXPECT_THAT(notes, HasSubstr("  temperature           0.25\n"));
  EXPECT_THAT(notes, HasSubstr("  top_p                 the model's\n"));
}

TEST_F(ChatTest, RetryAsksTheSameAgain) {
  service_.replies = {{.pieces = {"one"}}, {.pieces = {"two"}}, {.pieces = {"three"}}};
  EXPECT_EQ(converse("/retry\na\n/retry\nb\n"), kExitDone);
  ASSERT_EQ(service_.requests.size(), 3U);
  EXPECT_EQ(messages(1), messages(0));
  EXPECT_THAT(messages(2), HasSubstr(R"("two")"));
  EXPECT_THAT(messages(2), Not(HasSubstr(R"("one")")));
}

TEST_F(ChatTest, FailedRetryKeepsTheConversation) {
  service_.replies = {{.pieces = {"one"}}, {.error = make_error(ErrorCode::queue_full, "busy")}, {.pieces = {"two"}}};
  EXPECT_EQ(converse("a\n/retry\n/retry\n"), kExitDone);
  ASSERT_EQ(service_.requests.size(), 3U);
  EXPECT_EQ(messages(2), messages(0));
}

TEST_F(ChatTest, SlashCommandsThatAreNone) {
  EXPECT_EQ(converse("/cler\n//etc is a folder\n/quit\nnever\n"), kExitDone);
  EXPECT_THAT(err_.take_all(), HasSubstr("No command /cler, did you mean '/clear'?"));
  ASSERT_EQ(service_.requests.size(), 1U);
  EXPECT_THAT(messages(0), HasSubstr("\"/etc is a folder\""));
}

TEST_F(ChatTest, SeveralLinesMakeOneMessage) {
  EXPECT_EQ(converse("one\\\ntwo\n\"\"\"\nthree\n  four\n\"\"\"\n\n   \n"), kExitDone);
  ASSERT_EQ(service_.requests.size(), 2U) << "blank lines ask nothing";
  EXPECT_THAT(messages(0), HasSubstr(R"("one\ntwo")"));
  EXPECT_THAT(messages(1), HasSubstr(R"("three\n  four")"));
}

TEST_F(ChatTest, InterruptStopsTheAnswerAndTheChatGoesOn) {
  service_.replies = {{.pieces = {"on", " and"}, .endless = true}, {.pieces = {"done"}}};
  std::once_flag once;
  service_.on_first_delta = [&] { std::call_once(once, [] { ::kill(::getpid(), SIGINT); }); };
  EXPECT_EQ(converse("a\nb\n"), kExitDone);
  ASSERT_EQ(service_.requests.size(), 2U);
  EXPECT_THAT(messages(1), HasSubstr(R"("role":"assistant")")) << "what was said stays said";
  EXPECT_THAT(out_.take_all(), HasSubstr("done\n"));
  EXPECT_THAT(err_.take_all(), HasSubstr("(stopped)"));
}

TEST_F(ChatTest, InterruptedOneShotSaysSo) {
  service_.replies = {{.pieces = {"on", " and"}, .endless = true}};
  service_.on_first_delta = [] { ::kill(::getpid(), SIGTERM); };
  EXPECT_EQ(answer_once("x"), 128 + SIGTERM);
}

TEST_F(ChatTest, ReaderThatLeavesEndsTheAnswer) {
  service_.replies = {{.pieces = {"on"}, .endless = true}};
  out_.close_read();
  EXPECT_EQ(answer_once("x"), kExitDone);
}

TEST_F(ChatTest, BytesThatAreNoUtf8StillMakeValidJson) {
  EXPECT_EQ(converse("caf\xe9\n"), kExitDone);
  EXPECT_THAT(messages(0), HasSubstr("caf\xEF\xBF\xBD"));
}

}  // namespace
}  // namespace inferneo
