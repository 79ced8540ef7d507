// What is no condition, where the error points, and that everything is bounded.
#include <string>

#include "routing_fixture.h"

namespace inferneo {
namespace {

struct Mistake {
  const char* text;
  size_t begin;  // bytes
  size_t end;
  const char* message;  // a part of the first line
};

class ConditionErrors : public testing::TestWithParam<Mistake> {};

TEST_P(ConditionErrors, PointAtThePlaceAndSayTheWayOut) {
  const Mistake& mistake = GetParam();
  ConditionFault fault;
  const auto condition = Condition::parse(mistake.text, &fault);
  ASSERT_FALSE(condition.ok()) << mistake.text;
  const std::string& message = condition.error().message;
  EXPECT_EQ(condition.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(condition.error().param, "condition");
  EXPECT_NE(message.find(mistake.message), std::string::npos) << message;
  EXPECT_EQ(fault.begin, mistake.begin) << message;
  EXPECT_EQ(fault.end, mistake.end) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Syntax, ConditionErrors,
    testing::Values(
        Mistake{"", 0, 0, "an empty condition at character 1, write `true`"},
        Mistake{"prompt contains", 15, 15, "expected a value after 'contains', found the end"},
        Mistake{"prompt contains code", 16, 20, "texts stand in quotes: 'code'"},
        Mistake{"prompt contains 'a", 16, 17, "a text that does not end at character 17, close it with '"},
        Mistake{"prompt contains 'a\\q'", 18, 20, "unknown escape"},
        Mistake{"prompt matches /a", 15, 16, "a regular expression that does not end"},
        Mistake{"prompt matches /a/x", 18, 19, "unknown flag"},
        Mistake{"prompt starts 'a'", 14, 17, "expected 'with' after 'starts'"},
        Mistake{"turns = 4", 6, 7, "write '=='"}, Mistake{"stream && has_tools", 7, 9, "write 'and'"},
        Mistake{"!stream", 0, 1, "write 'not'"}, Mistake{"turns > 4 turns < 9", 10, 15, "joined by `and` and `or`"},
        Mistake{"stream adn has_tools", 7, 10, "did you mean 'and'?"}, Mistake{"stream)", 6, 7, "closes nothing"},
        Mistake{"(stream", 0, 1, "'(' is never closed"}, Mistake{"(stream has_tools)", 8, 17, "after a condition"},
        Mistake{"stream and", 10, 10, "expected a field, found the end"},
        Mistake{"and stream", 0, 3, "expected a field, found 'and'"},
        Mistake{"prompt contains 'a' and 'b'", 24, 27, "repeat the field"},
        Mistake{"model != 'a' or 'b'", 16, 19, "write not in ('a', 'b')"},
        Mistake{"turns > 4 or 5", 13, 14, "a value is no condition"}, Mistake{"user in 'a'", 8, 11, "expected '('"},
        Mistake{"user in ()", 9, 10, "expected a value after 'in'"},
        Mistake{"user in ('a' 'b')", 13, 16, "expected ',' or ')'"},
        Mistake{"turns between 1, 2", 15, 16, "expected 'and'"}, Mistake{"turns not > 4", 10, 11, "before the field"},
        Mistake{"header[x] == 'a'", 7, 8, "write header['x-tier']"},
        Mistake{"header['x' == 'a'", 11, 13, "expected ']'"}, Mistake{"turns > 1e5", 8, 11, "not a number"},
        Mistake{"turns > 10k", 8, 11, "not a number"},
        Mistake{"prompt contains \xE2\x80\x98"
                "a\xE2\x80\x99",
                16, 19, "plain quotes"},
        Mistake{"turns > \xFF", 8, 9, "no UTF-8"}, Mistake{"turns # 4", 6, 7, "means nothing"}));

INSTANTIATE_TEST_SUITE_P(
    Types, ConditionErrors,
    testing::Values(
        Mistake{"promt contains 'a'", 0, 5, "unknown field 'promt' at character 1, did you mean 'prompt'?"},
        Mistake{"stream and zzz > 4", 11, 14, "there are prompt, conversation"},
        Mistake{"prompt", 0, 6, "no condition by itself"}, Mistake{"turns", 0, 5, "is a number"},
        Mistake{"prompt > 4", 7, 8, "'>' does not go with 'prompt'"}, Mistake{"turns contains 'a'", 6, 14, "a number"},
        Mistake{"conversation starts with 'a'", 13, 24, "'starts with' does not go with"},
        Mistake{"conversation == 'a'", 13, 15, "does not go"}, Mistake{"stream contains 'a'", 7, 15, "is a flag"},
        Mistake{"stream == 'yes'", 10, 15, "true or false"}, Mistake{"prompt contains 4", 16, 17, "with texts"},
        Mistake{"prompt == true", 10, 14, "with texts"}, Mistake{"turns > 'a'", 8, 11, "with numbers"},
        Mistake{"prompt contains /a/", 16, 19, "prompt matches /.../"},
        Mistake{"prompt matches 'a'", 15, 18, "between slashes"},
        Mistake{"prompt contains ''", 16, 18, "every text contains the empty one"},
        Mistake{"prompt matches /a(b/", 16, 19, "missing )"}, Mistake{"prompt matches /ab[z-a]/", 19, 22, "z-a"},
        Mistake{"prompt matches /a)(b/i", 16, 20, "unexpected )"},
        Mistake{"prompt matches /(a{999}){999}/", 18, 23, "bad regular expression"},
        Mistake{"prompt matches /\\pL{200}x{500}/", 15, 31, "bad regular expression"},
        Mistake{"prompt[‘a’] == 'x'", 7, 10, "plain quotes"}, Mistake{"prompt['a'] == 'x'", 0, 6, "takes no brackets"},
        Mistake{"header == 'x'", 0, 6, "write header['x-tier']"}, Mistake{"load > 4", 0, 4, "write load('code-llama')"},
        Mistake{"header('a') == 'x'", 0, 6, "needs a name in brackets"},
        Mistake{"load('') > 4", 5, 7, "1 to 256 bytes"}, Mistake{"time > 4", 7, 8, "'08:30'"},
        Mistake{"time > '8:30'", 7, 13, "not a time of day"}, Mistake{"time > '24:01'", 7, 14, "not a time of day"},
        Mistake{"time between '08:00' and '08:00'", 25, 32, "no time is between"},
        Mistake{"turns between 5 and 4", 14, 15, "the smaller one first"},
        Mistake{"language == 'pyton'", 12, 19, "did you mean 'python'?"},
        Mistake{"language contains 'py'", 9, 17, "does not go with 'language'"},
        Mistake{"turns iequals 4", 6, 13, "does not go"}));

TEST(ConditionErrors, ShowACaretBelowThePlace) {
  EXPECT_EQ(Condition::parse("stream and promt contains 'a'").error().message,
            "unknown field 'promt' at character 12, did you mean 'prompt'?\n"
            "  stream and promt contains 'a'\n"
            "             ^^^^^");
  // Characters, not bytes; and only the line at fault.
  EXPECT_EQ(Condition::parse("prompt contains '\xC3\xA4\xC3\xB6'\n and '\xC3\xBC' contains promt").error().message,
            "a value is no condition at character 27, repeat the field: prompt contains 'a' and prompt contains 'b'\n"
            "   and '\xC3\xBC' contains promt\n"
            "       ^^^");
}

TEST(ConditionErrors, OfALongTextShowAWindow) {
  const std::string text =
      "prompt contains '" + std::string(3000, 'a') + "' and promt contains '" + std::string(3000, 'b') + "'";
  const auto condition = Condition::parse(text);
  ASSERT_FALSE(condition.ok());
  EXPECT_LT(condition.error().message.size(), 400U);
  EXPECT_NE(condition.error().message.find("at character 3024"), std::string::npos) << condition.error().message;
}

TEST(ConditionBounds, TextDepthAndValues) {
  const auto fails = [](const std::string& text, std::string_view why) {
    const auto condition = Condition::parse(text);
    return !condition.ok() && condition.error().message.find(why) != std::string::npos;
  };
  const auto nested = [](int depth) {
    return std::string(static_cast<size_t>(depth), '(') + "stream" + std::string(static_cast<size_t>(depth), ')');
  };
  EXPECT_TRUE(Condition::parse(nested(32)).ok());
  EXPECT_TRUE(fails(nested(33), "nested deeper than 32"));
  EXPECT_TRUE(fails(std::string(5000, '('), "nested deeper"));
  std::string negations;
  for (int i = 0; i < 1000; ++i) negations += "not ";
  EXPECT_TRUE(fails(negations + "stream", "nested deeper"));

  std::string values = "turns in (0";
  for (int i = 1; i < 256; ++i) values += ",1";
  EXPECT_TRUE(Condition::parse(values + ")").ok());
  EXPECT_TRUE(fails(values + ",1)", "more than 256 values"));
  std::string flags = "stream";
  for (int i = 1; i < 256; ++i) flags += " or stream";
  EXPECT_TRUE(Condition::parse(flags).ok());
  EXPECT_TRUE(fails(flags + " or stream", "more than 256 values"));

  const std::string frame = "prompt contains ''";
  EXPECT_TRUE(Condition::parse("prompt contains '" + std::string(kMaxConditionBytes - frame.size(), 'a') + "'").ok());
  EXPECT_TRUE(fails("prompt contains '" + std::string(kMaxConditionBytes, 'a') + "'", "more than 8192 bytes"));
}

TEST(ConditionBounds, ProgramsOfRegularExpressions) {
  EXPECT_TRUE(Condition::parse("prompt matches /(a|b){500}/").ok());
  EXPECT_FALSE(Condition::parse("prompt matches /(a|b){1000}(c|d){1000}/").ok());
  EXPECT_FALSE(Condition::parse("prompt matches /((a{100}){100}){100}/").ok());
  EXPECT_FALSE(Condition::parse("prompt matches /a{1001}/").ok());
}

}  // namespace
}  // namespace inferneo
