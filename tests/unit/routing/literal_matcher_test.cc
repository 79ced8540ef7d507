// One pass over a text says the same as a search for each literal by itself.
#include "routing/literal_matcher.h"

#include <gtest/gtest.h>

#include <array>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "routing/text_match.h"

namespace inferneo {
namespace {

std::vector<bool> scan(const LiteralMatcher& matcher, size_t count, std::string_view text) {
  std::vector<uint64_t> words((count + 63) / 64 + 1, 0);
  words.back() = 0x5555;  // nothing is written beyond
  matcher.scan(text, words.data());
  EXPECT_EQ(words.back(), 0x5555U);
  std::vector<bool> seen(count);
  for (size_t i = 0; i < count; ++i) seen[i] = (words[i / 64] >> (i % 64) & 1) != 0;
  return seen;
}

std::vector<bool> scan(const std::vector<std::string>& literals, std::string_view text, bool ignore_case = false) {
  return scan(LiteralMatcher(literals, ignore_case), literals.size(), text);
}

using Bits = std::vector<bool>;

TEST(LiteralMatcher, FindsWhatOverlapsAndWhatLiesWithin) {
  EXPECT_EQ(scan({"he", "she", "his", "hers"}, "ushers"), (Bits{true, true, false, true}));
  EXPECT_EQ(scan({"a", "aa", "aaa", "aaaa"}, "aaa"), (Bits{true, true, true, false}));
  EXPECT_EQ(scan({"abcd", "bc", "c"}, "abce"), (Bits{false, true, true}));
  EXPECT_EQ(scan({"ab"}, ""), (Bits{false}));
  EXPECT_EQ(scan(std::vector<std::string>{}, "abc"), Bits{});
}

TEST(LiteralMatcher, FoldsTheCaseOfAscii) {
  EXPECT_EQ(scan({"code", "\xC3\xA4x"}, "CoDe \xC3\xA4X", true), (Bits{true, true}));
  EXPECT_EQ(scan({"\xC3\xA4"}, "\xC3\x84", true), (Bits{false}));
  EXPECT_EQ(scan({"code"}, "CoDe", false), (Bits{false}));
}

TEST(LiteralMatcher, TakesEveryByte) {
  std::vector<std::string> literals;
  std::string text;
  for (int c = 0; c < 256; ++c) {
    literals.emplace_back(2, static_cast<char>(c));
    if (c % 3 == 0) text += literals.back();
  }
  const Bits seen = scan(literals, text);
  for (size_t c = 0; c < 256; ++c) EXPECT_EQ(seen[c], c % 3 == 0) << c;
}

TEST(LiteralMatcher, BitsThatAreSetStay) {
  const std::vector<std::string> literals = {"ab", "b"};
  const LiteralMatcher matcher(literals, false);
  uint64_t seen = 0;
  matcher.scan("b", &seen);
  EXPECT_EQ(seen, 2U);
  matcher.scan("ab", &seen);
  EXPECT_EQ(seen, 3U);
}

// Alphabets of two or three letters make many overlaps; the budgets reach from one dense row to all.
TEST(LiteralMatcher, SaysTheSameAsASearchForEach) {
  std::mt19937_64 random(7);
  const auto below = [&](size_t n) { return random() % n; };
  const auto word = [&](size_t length, std::string_view letters) {
    std::string text;
    for (size_t i = 0; i < length; ++i) text += letters[below(letters.size())];
    return text;
  };
  for (int round = 0; round < 1200; ++round) {
    const std::string_view letters = std::vector<std::string_view>{"ab", "abC", "aAbB\xC3\xA4"}[below(3)];
    // Two matchers, of which one may be empty; texts long enough to be cut, and literals that lie across the cut.
    struct Side {
      bool ignore_case = false;
      std::vector<std::string> literals = {};
      LiteralMatcher matcher = {};
      std::vector<uint64_t> seen = {};
    };
    std::array<Side, 2> sides;
    for (Side& side : sides) {
      side.ignore_case = below(2) == 0;
      std::set<std::string> distinct;
      for (size_t i = below(40); i > 0; --i) {
        std::string literal = word(1 + below(7), letters);
        distinct.insert(side.ignore_case ? lower_ascii(literal) : literal);
      }
      side.literals.assign(distinct.begin(), distinct.end());
      const size_t dense_bytes = std::vector<size_t>{0, 64, 400, LiteralMatcher::kDenseBytes}[below(4)];
      side.matcher = LiteralMatcher(side.literals, side.ignore_case, dense_bytes);
      side.seen.assign(side.literals.size() / 64 + 1, 0);
    }
    const std::string text = word(below(60), letters);
    auto& [a, b] = sides;
    LiteralMatcher::scan(text, a.matcher, a.seen.data(), b.matcher, b.seen.data());
    for (const Side& side : sides) {
      const Bits alone = scan(side.matcher, side.literals.size(), text);
      for (size_t i = 0; i < side.literals.size(); ++i) {
        const bool truth = contains(text, side.literals[i], side.ignore_case);
        ASSERT_EQ(alone[i], truth) << "round " << round << ": '" << side.literals[i] << "' in '" << text << "'";
        ASSERT_EQ((side.seen[i / 64] >> (i % 64) & 1) != 0, truth) << "round " << round << ": two at once";
      }
    }
  }
}

TEST(LiteralMatcher, MemoryIsLinearBeyondTheBudget) {
  std::mt19937_64 random(1);
  std::vector<std::string> literals;
  for (int i = 0; i < 2000; ++i) {
    std::string literal;
    for (int k = 0; k < 200; ++k) literal += static_cast<char>(random());
    literals.push_back(literal);
  }
  const LiteralMatcher matcher(literals, false);
  EXPECT_GT(matcher.num_states(), size_t{350'000});
  EXPECT_LT(matcher.memory_bytes(), LiteralMatcher::kDenseBytes + matcher.num_states() * 48);
  std::string text = "xx";
  for (size_t i = 0; i < literals.size(); i += 100) text += literals[i];
  const Bits seen = scan(matcher, literals.size(), text);
  for (size_t i = 0; i < literals.size(); ++i) EXPECT_EQ(seen[i], i % 100 == 0) << i;
}

}  // namespace
}  // namespace inferneo
