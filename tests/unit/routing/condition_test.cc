// What each field and operator means, and how conditions join.
#include <fstream>
#include <string>
#include <vector>

#include "routing/language.h"
#include "routing_fixture.h"

namespace inferneo {
namespace {

bool holds(std::string_view condition, const RequestFacts& facts) { return must_parse(condition).matches(facts); }
bool holds_for(std::string_view condition, std::string_view prompt) { return holds(condition, prompt_facts(prompt)); }

TEST(Condition, ContainsTakesAListOfTexts) {
  const std::string_view condition = "prompt contains 'code' or 'function' or 'class'";
  EXPECT_TRUE(holds_for(condition, "write code"));
  EXPECT_TRUE(holds_for(condition, "a function"));
  EXPECT_TRUE(holds_for(condition, "first class"));
  EXPECT_FALSE(holds_for(condition, "a story"));
  EXPECT_FALSE(holds_for(condition, "CODE"));
  EXPECT_FALSE(holds_for("prompt not contains 'code' or 'class'", "a class"));
  EXPECT_TRUE(holds_for("prompt not contains 'code' or 'class'", "a story"));
}

TEST(Condition, VariantsWithoutRegardToCase) {
  EXPECT_TRUE(holds_for("prompt icontains 'CoDe'", "some cOdE"));
  EXPECT_TRUE(holds_for("prompt istarts with 'Dear'", "DEAR all"));
  EXPECT_TRUE(holds_for("prompt iends with 'please'", "more PLEASE"));
  EXPECT_TRUE(holds_for("prompt iequals 'yes'", "YES"));
  EXPECT_TRUE(holds_for("prompt iin ('yes', 'no')", "No"));
  EXPECT_FALSE(holds_for("prompt starts with 'Dear'", "DEAR all"));
  EXPECT_FALSE(holds_for("prompt in ('yes', 'no')", "No"));
  EXPECT_TRUE(holds_for("PROMPT IContains 'x' AND NOT False", "X"));  // the words of the language, too
}

TEST(Condition, BeginningsAndEnds) {
  EXPECT_TRUE(holds_for("prompt starts with 'a' or 'b'", "bcd"));
  EXPECT_FALSE(holds_for("prompt starts with 'cd'", "bcd"));
  EXPECT_TRUE(holds_for("prompt ends with 'cd'", "bcd"));
  EXPECT_FALSE(holds_for("prompt ends with 'abcd'", "bcd"));
  EXPECT_TRUE(holds_for("prompt not ends with 'b'", "bcd"));
}

TEST(Condition, RegularExpressions) {
  EXPECT_TRUE(holds_for("prompt matches /^def\\s/", "def f"));
  EXPECT_FALSE(holds_for("prompt matches /^def\\s/", "\ndef f"));
  EXPECT_TRUE(holds_for("prompt matches /^def\\s/m", "\ndef f"));
  EXPECT_FALSE(holds_for("prompt matches /^def\\s/", "DEF f"));
  EXPECT_TRUE(holds_for("prompt matches /^def\\s/i", "DEF f"));
  EXPECT_FALSE(holds_for("prompt matches /a.b/", "a\nb"));
  EXPECT_TRUE(holds_for("prompt matches /A.b/is", "a\nB"));
  EXPECT_TRUE(holds_for("prompt matches /usr\\/bin/ or /etc/", "in /usr/bin"));
  EXPECT_TRUE(holds_for("prompt not matches /\\d{3}/", "12 34"));
  EXPECT_TRUE(holds_for("prompt matches /^.{2}$/", "\xC3\xA9\xC3\xA8"));  // a dot is a character
  EXPECT_FALSE(holds_for("model matches /^gpt-/", ""));
}

TEST(Condition, TextsAndTheirEscapes) {
  EXPECT_TRUE(holds_for(R"(prompt == "it's")", "it's"));
  EXPECT_TRUE(holds_for(R"(prompt == 'it\'s')", "it's"));
  EXPECT_TRUE(holds_for(R"(prompt == 'a\nb\tc\\')", "a\nb\tc\\"));
  EXPECT_TRUE(holds_for("prompt contains 'gr\xC3\xBC\xC3\x9F'",
                        "viele gr\xC3\xBC\xC3\x9F"
                        "e"));
}

TEST(Condition, ModelAndUser) {
  RequestFacts facts{.model = "auto", .user = "b"};
  EXPECT_TRUE(holds("model == 'auto'", facts));
  EXPECT_TRUE(holds("model == 'x' or 'auto'", facts));
  EXPECT_FALSE(holds("model != 'auto'", facts));
  EXPECT_TRUE(holds("user in ('a', 'b')", facts));
  EXPECT_FALSE(holds("user not in ('a', 'b')", facts));
  EXPECT_TRUE(holds("user == ''", RequestFacts{}));
}

TEST(Condition, HeadersByNameInAnyCaseAndEmptyWhenAbsent) {
  FakeView view;
  view.headers["x-tier"] = "gold";
  RequestFacts facts{.view = &view};
  EXPECT_TRUE(holds("header['x-tier'] == 'gold'", facts));
  EXPECT_TRUE(holds("header['X-Tier'] == 'gold'", facts));
  EXPECT_TRUE(holds("header['x-tier'] contains 'ol' and header['x-tier'] matches /^g/", facts));
  EXPECT_TRUE(holds("header['x-other'] == ''", facts));
  EXPECT_FALSE(holds("header['x-other'] contains 'a'", facts));
  EXPECT_TRUE(holds("header['x-tier'] == ''", RequestFacts{}));  // no view at all
}

TEST(Condition, NumbersCompare) {
  RequestFacts facts{.turns = 4, .max_tokens = 64};
  EXPECT_TRUE(holds("turns == 4 and turns >= 4 and turns <= 4 and not turns > 4 and not turns < 4", facts));
  EXPECT_TRUE(holds("turns > 3 and turns < 5 and turns != 3 and turns > 3.5 and turns > -1", facts));
  EXPECT_FALSE(holds("turns != 4", facts));
  EXPECT_TRUE(holds("turns between 4 and 6 and turns between 1 and 4 and turns not between 5 and 6", facts));
  EXPECT_TRUE(holds("turns in (1, 4) and turns == 3 or 4 and turns not in (3, 5)", facts));
  EXPECT_FALSE(holds("turns not in (9, 4, 1)", facts));
  EXPECT_TRUE(holds("max_tokens < 65", facts));
  EXPECT_FALSE(holds("max_tokens < 64", facts));
}

TEST(Condition, WhatARequestDoesNotSayComparesWithNothing) {
  const RequestFacts facts;
  for (const char* test : {"max_tokens < 64", "max_tokens >= 0", "max_tokens != 3", "max_tokens not in (3)",
                           "prompt_tokens >= 0", "load('m') >= 0", "load('m') < 1", "loaded('m')"}) {
    EXPECT_FALSE(holds(test, facts)) << test;
  }
  EXPECT_TRUE(holds("not max_tokens < 64", facts));
}

TEST(Condition, LengthCountsCharacters) {
  EXPECT_TRUE(holds_for("prompt_length == 4", "gr\xC3\xBC\xC3\x9F"));
  EXPECT_TRUE(holds_for("prompt_length == 1", "\xF0\x9F\x98\x80"));
  EXPECT_TRUE(holds_for("prompt_length == 0", ""));
  EXPECT_TRUE(holds_for("prompt_length > 1000", std::string(1001, 'a')));
  EXPECT_FALSE(holds_for("prompt_length > 1000", std::string(1000, 'a')));
}

TEST(Condition, WhatTheViewKnows) {
  FakeView view;
  view.tokens = 2001;
  view.loads["code-llama"] = 0.5;
  view.in_memory = {"code-llama"};
  const RequestFacts facts{.view = &view};
  EXPECT_TRUE(holds("prompt_tokens > 2000", facts));
  EXPECT_TRUE(holds("load('code-llama') < 0.8", facts));
  EXPECT_FALSE(holds("load('code-llama') < 0.5", facts));
  EXPECT_TRUE(holds("loaded('code-llama')", facts));
  EXPECT_TRUE(holds("loaded('code-llama') == true", facts));
  EXPECT_FALSE(holds("loaded('other')", facts));
  view.asked = 0;
  EXPECT_TRUE(holds("prompt == '' or prompt_tokens > 1", facts));
  EXPECT_EQ(view.asked, 0);  // nobody asked for the tokens
}

TEST(Condition, Flags) {
  const RequestFacts facts{.has_tools = true, .stream = false};
  EXPECT_TRUE(holds("has_tools and not stream", facts));
  EXPECT_TRUE(holds("has_tools == true and stream == false and stream != true", facts));
  EXPECT_FALSE(holds("has_tools == false", facts));
  EXPECT_TRUE(holds("true", facts));
  EXPECT_FALSE(holds("false", facts));
}

TEST(Condition, TimesOfDay) {
  const auto at = [](std::string_view condition, int minute) {
    FakeView view;
    view.minute = minute;
    return holds(condition, RequestFacts{.view = &view});
  };
  const std::string_view night = "time between '22:00' and '06:00'";
  EXPECT_TRUE(at(night, 22 * 60));
  EXPECT_TRUE(at(night, 24 * 60 - 1));
  EXPECT_TRUE(at(night, 0));
  EXPECT_TRUE(at(night, 6 * 60 - 1));
  EXPECT_FALSE(at(night, 6 * 60));
  EXPECT_FALSE(at(night, 22 * 60 - 1));
  const std::string_view day = "time between '08:30' and '17:00'";
  EXPECT_FALSE(at(day, 8 * 60 + 29));
  EXPECT_TRUE(at(day, 8 * 60 + 30));
  EXPECT_FALSE(at(day, 17 * 60));
  EXPECT_TRUE(at("time not between '08:30' and '17:00'", 17 * 60));
  EXPECT_TRUE(at("time between '22:00' and '24:00'", 24 * 60 - 1));
  EXPECT_FALSE(at("time between '22:00' and '24:00'", 0));
  EXPECT_FALSE(at("time between '22:00' and '00:00'", 0));
  EXPECT_TRUE(at("time < '09:00' and time >= '08:00'", 8 * 60));
  EXPECT_FALSE(at("time < '09:00'", 9 * 60));
}

TEST(Condition, AConversationIsEachOfItsMessages) {
  const std::string_view messages[] = {"an invoice", "for whom", "Bob"};
  const RequestFacts facts{.prompt = "Bob", .conversation = messages};
  EXPECT_TRUE(holds("conversation contains 'invoice' and conversation contains 'Bob'", facts));
  EXPECT_FALSE(holds("conversation contains 'invoicefor'", facts));
  EXPECT_FALSE(holds("prompt contains 'invoice'", facts));
  EXPECT_TRUE(holds("conversation icontains 'INVOICE' and conversation matches /^for/", facts));
  EXPECT_FALSE(holds("conversation contains 'a'", RequestFacts{.prompt = "a"}));
}

TEST(Condition, NotBindsTightestThenAndThenOr) {
  const auto value = [](std::string_view condition) { return holds(condition, RequestFacts{}); };
  EXPECT_TRUE(value("true or true and false"));
  EXPECT_FALSE(value("(true or true) and false"));
  EXPECT_TRUE(value("not false and true"));
  EXPECT_FALSE(value("not (false or true)"));
  EXPECT_TRUE(value("not not true"));
  EXPECT_TRUE(value("false and false or true"));
  // A list of values belongs to its operator, so the `and` is of the whole.
  EXPECT_FALSE(holds_for("prompt contains 'a' or 'b' and false", "a"));
  EXPECT_TRUE(holds_for("prompt contains 'a' or prompt contains 'b' and false", "a"));
}

TEST(Condition, TheFirstFalsePart) {
  const Condition condition = must_parse("prompt contains 'a' and (turns > 4 or stream) and not has_tools");
  const auto part = [&](const RequestFacts& facts) {
    const ConditionNode* node = condition.first_false(facts);
    return node == nullptr ? std::string("-") : std::string(condition.text_of(*node));
  };
  EXPECT_EQ(part({.prompt = "b"}), "prompt contains 'a'");
  EXPECT_EQ(part({.prompt = "a"}), "(turns > 4 or stream)");
  EXPECT_EQ(part({.prompt = "a", .turns = 5, .has_tools = true}), "not has_tools");
  EXPECT_EQ(part({.prompt = "a", .turns = 5}), "-");
}

TEST(Language, FencesThenShebangsThenLineStarts) {
  EXPECT_EQ(detect_language("fix this\n```py\nx = 1\n```"), "python");
  EXPECT_EQ(detect_language("~~~ C++\nint x;\n~~~"), "cpp");
  EXPECT_EQ(detect_language("```Rust,ignore\n```"), "rust");
  EXPECT_EQ(detect_language("```\n#!/usr/bin/env python3\n"), "python");
  EXPECT_EQ(detect_language("#!/bin/sh\nls"), "bash");
  EXPECT_EQ(detect_language("#!/bin/sh\n```go\n"), "go");
  EXPECT_EQ(detect_language("why?\n  def f(x):\n    return x"), "python");
  EXPECT_EQ(detect_language("#include <iostream>\r\nint main"), "cpp");
  EXPECT_EQ(detect_language("from os.path import join"), "python");
  EXPECT_EQ(detect_language("SELECT a FROM b"), "sql");
  EXPECT_EQ(detect_language("const fs = require('fs')"), "javascript");
  for (const char* prose : {"", "tell me a story", "I need a class for my function", "from here we import tea",
                            "select the best", "```\nx\n```", "```poem\n", "a #!/bin/sh within", "def"}) {
    EXPECT_EQ(detect_language(prose), "") << prose;
  }
}

TEST(Language, InConditions) {
  EXPECT_TRUE(holds_for("language == 'python'", "```py\n"));
  EXPECT_TRUE(holds_for("language == 'PY'", "```python3\n"));
  EXPECT_TRUE(holds_for("language in ('c', 'c++')", "```cpp\n"));
  EXPECT_TRUE(holds_for("language != 'python'", "hello"));
  EXPECT_TRUE(holds_for("language == ''", "hello"));
}

TEST(Fields, EachHasAnExampleThatIsACondition) {
  ASSERT_EQ(routing_fields().size(), kNumFields);
  for (const FieldInfo& info : routing_fields()) {
    EXPECT_EQ(&field_info(info.field), &info);
    EXPECT_TRUE(Condition::parse(info.example).ok()) << info.example;
    EXPECT_NE(info.example.find(info.name), std::string_view::npos);
  }
}

TEST(Fields, TheManualHasEachAsItIs) {
  std::ifstream file(std::string(INFERNEO_SOURCE_DIR) + "/docs/routing.md");
  std::string line;
  std::vector<std::string> lines;
  while (std::getline(file, line)) lines.push_back(line);
  for (const FieldInfo& info : routing_fields()) {
    const auto row = std::find_if(lines.begin(), lines.end(), [&](const std::string& text) {
      return text.starts_with("| `" + std::string(info.name)) &&
             text.find("`" + std::string(info.example) + "`") != std::string::npos;
    });
    ASSERT_NE(row, lines.end()) << info.name;
    EXPECT_NE(row->find(info.help), std::string::npos) << info.name;
    EXPECT_NE(row->find(" " + std::string(field_type_name(info.type)) + " "), std::string::npos) << info.name;
  }
}

TEST(Fields, TheManualsExamplesAreConditions) {
  std::ifstream file(std::string(INFERNEO_SOURCE_DIR) + "/docs/routing.md");
  std::string line;
  int examples = 0;
  const auto check = [&](const std::string& begin, const std::string& end) {
    const size_t from = line.find(begin);
    if (from == std::string::npos) return;
    const size_t to = line.find(end, from + begin.size());
    ASSERT_NE(to, std::string::npos) << line;
    const std::string condition = line.substr(from + begin.size(), to - from - begin.size());
    EXPECT_TRUE(Condition::parse(condition).ok()) << condition;
    ++examples;
  };
  while (std::getline(file, line)) {
    check("    condition: \"", "\"");
    // The last column of fields and operators.
    const size_t column = line.rfind("| `", line.find_last_not_of(" |"));
    if (column != std::string::npos && (line.find(" text") < column || line.find(" number") < column)) {
      line = line.substr(column);
      check("| `", "` ");
    }
  }
  EXPECT_GE(examples, 20);
}

}  // namespace
}  // namespace inferneo
