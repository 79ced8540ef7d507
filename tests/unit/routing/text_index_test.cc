// However a question is answered (by a guard, alone, together with others), the answer is the expression's own.
#include "routing/text_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "routing/text_match.h"

namespace inferneo {
namespace {

std::shared_ptr<const RoutingRegex> compiled(const std::string& pattern, const std::string& flags) {
  RoutingRegex::Fault fault;
  auto regex = RoutingRegex::compile(pattern, flags, fault);
  EXPECT_TRUE(regex) << fault.message;
  return regex;
}

class TextIndexTest : public testing::Test {
 protected:
  // Twenty words, each of which guards expressions that go together and some that do not; and some without a guard.
  void SetUp() override {
    for (int i = 0; i < 20; ++i) {
      const std::string word = "word" + std::string(1, static_cast<char>('a' + i));
      const std::string digit = std::to_string(i % 10);
      add_regex(word + "\\s+" + digit, i % 3 == 0 ? "i" : "");
      add_regex("\\b" + word + "[xyz]?$", "m");
      add_regex(word + ".*" + digit, "");
      add_regex(digit + "[a-c]", "");
      add_regex("[" + digit + "x].*y", "");
      literals_.push_back({word, i % 2 == 0});
      numbers_.push_back(index_.add_literal(word, i % 2 == 0));
    }
    index_.build();
  }

  void add_regex(const std::string& pattern, const std::string& flags) {
    regexes_.push_back(compiled(pattern, flags));
    regex_numbers_.push_back(index_.add_regex(regexes_.back()));
  }

  std::string text(size_t words) {
    static const std::vector<std::string> kMore = {" ",   "\n", " 1", "  2",      "3a",      "4b5c",
                                                   "xyz", "x",  "y",  "\xC5\xBF", "\xC3\xA4"};
    std::string text;
    for (size_t i = 0; i < words; ++i) {
      if (random_() % 2 == 0) {
        text += random_() % 4 == 0 ? "WORD" : "word";
        text += static_cast<char>('a' + random_() % 21);
      } else {
        text += kMore[random_() % kMore.size()];
      }
    }
    return text;
  }

  struct Literal {
    std::string text;
    bool ignore_case;
  };
  TextIndex index_;
  std::vector<std::shared_ptr<const RoutingRegex>> regexes_;
  std::vector<uint32_t> regex_numbers_;
  std::vector<Literal> literals_;
  std::vector<uint32_t> numbers_;
  std::mt19937_64 random_{3};
};

TEST_F(TextIndexTest, AnswersInAnyOrderWhatIsTrue) {
  EXPECT_GT(index_.num_filtered(), 50U);
  EXPECT_LT(index_.num_filtered(), index_.num_regexes());
  std::vector<int> hits;
  int matches = 0;
  for (int round = 0; round < 1500; ++round) {
    std::vector<std::string> texts;
    for (size_t i = random_() % 4; i > 0; --i) texts.push_back(text(random_() % 40));
    const std::vector<std::string_view> passages(texts.begin(), texts.end());
    std::vector<uint64_t> words(index_.num_words(), 0);
    index_.scan(passages, words.data());
    const auto any = [&](const auto& holds) { return std::any_of(passages.begin(), passages.end(), holds); };
    for (int question = 0; question < 120; ++question) {
      const size_t i = random_() % regexes_.size();
      const bool truth = any([&](std::string_view passage) { return regexes_[i]->matches(passage); });
      ASSERT_EQ(index_.has_match(regex_numbers_[i], passages, words.data(), hits), truth)
          << "round " << round << ", question " << question << ": " << regexes_[i]->pattern();
      matches += truth ? 1 : 0;
      const size_t k = random_() % literals_.size();
      const bool there =
          any([&](std::string_view passage) { return contains(passage, literals_[k].text, literals_[k].ignore_case); });
      const size_t bit = index_.bit_of(numbers_[k]);
      ASSERT_EQ((words[bit / 64] >> (bit % 64) & 1) != 0, there) << literals_[k].text;
    }
  }
  EXPECT_GT(matches, 10'000);
}

TEST_F(TextIndexTest, TheSameQuestionHasTheSameNumber) {
  const size_t literals = index_.num_literals();
  EXPECT_EQ(index_.add_literal("WORDA", true), index_.add_literal("worda", true));
  EXPECT_EQ(index_.num_literals(), literals);
  EXPECT_NE(index_.add_literal("worda", false), index_.add_literal("worda", true));
  EXPECT_EQ(index_.add_regex(compiled("worda.*0", "")), regex_numbers_[2]);
  EXPECT_NE(index_.add_regex(compiled("worda.*0", "i")), regex_numbers_[2]);
}

}  // namespace
}  // namespace inferneo
