// What stands before a regular expression is never wrong about it; the bounds hold.
#include "routing/regex.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "routing/regex_set.h"
#include "routing/text_match.h"

namespace inferneo {
namespace {

std::shared_ptr<const RoutingRegex> compile(const std::string& pattern, const std::string& flags = {}) {
  RoutingRegex::Fault fault;
  auto regex = RoutingRegex::compile(pattern, flags, fault);
  EXPECT_TRUE(regex) << pattern << ": " << fault.message;
  return regex;
}

using Atoms = std::vector<std::string>;

TEST(RoutingRegex, KnowsWhatItCannotDoWithout) {
  EXPECT_EQ(compile("^def[ab]")->atoms(), (Atoms{"defa", "defb"}));
  EXPECT_EQ(compile("Invoice")->atoms(), Atoms{"invoice"});
  // Of several that have to be there, the longest; of alternatives, each.
  EXPECT_EQ(compile("\\bterm12\\s+(is|was)\\b")->atoms(), Atoms{"term12"});
  EXPECT_EQ(compile("the .* invoice")->atoms(), Atoms{" invoice"});
  EXPECT_EQ(compile("red|green")->atoms(), (Atoms{"red", "green"}));
  EXPECT_EQ(compile("(red|green) of paper")->atoms().size(), 1U + 1U);  // "red of paper", "green of paper"
  EXPECT_EQ(compile("[0-9]+")->atoms(), Atoms{});
  EXPECT_EQ(compile("a|(invoice)?")->atoms(), Atoms{});
  // In either case there are the long s and the Kelvin sign, which guard no text without them.
  const Atoms either = compile("class", "i")->atoms();
  EXPECT_FALSE(either.empty());
  for (const std::string& atom : either) EXPECT_EQ(lower_ascii(atom), atom);
  EXPECT_EQ(compile("gr\xC3\xB6\xC3\x9F"
                    "e zwei")
                ->atoms(),
            Atoms{"e zwei"});
  EXPECT_EQ(compile("\xC4\xB0xyz")->atoms(), Atoms{"xyz"});          // the dotted I is its own lower case here
  EXPECT_EQ(compile("\xD0\xBA\xD0\xBE\xD0\xB4")->atoms(), Atoms{});  // no ASCII in it
}

// All letters beyond ASCII that a folded letter of ASCII takes are in kUnfoldedLetters.
TEST(RoutingRegex, OnlyTheUnfoldedLettersFoldIntoAscii) {
  const auto regex = compile("^[a-z0-9]$", "i");
  std::vector<std::string> folded;
  for (uint32_t c = 0x80; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c <= 0xDFFF) continue;
    std::string text;
    if (c < 0x800) {
      text = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 0x3F))};
    } else if (c < 0x10000) {
      text = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 0x3F)),
              static_cast<char>(0x80 | (c & 0x3F))};
    } else {
      text = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 0x3F)),
              static_cast<char>(0x80 | (c >> 6 & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
    }
    if (regex->matches(text)) folded.push_back(text);
  }
  std::vector<std::string> expected(std::begin(kUnfoldedLetters), std::end(kUnfoldedLetters));
  std::sort(expected.begin(), expected.end());
  std::sort(folded.begin(), folded.end());
  EXPECT_EQ(folded, expected);
}

std::string random_pattern(std::mt19937_64& random, int depth) {
  static const std::vector<std::string> kAtoms = {
      "ab", "k",   "s",        "class",        "K",        "[a-c]",     "[^a]", ".",    "\\d", "\\w",
      "x",  "\\b", "\xC3\xA9", "\xE2\x84\xAA", "\xC5\xBF", "\xC4\xB0x", "sk",   "[ks]", "^",   "$"};
  const auto below = [&](size_t n) { return random() % n; };
  if (depth == 0) return kAtoms[below(kAtoms.size())];
  const auto inner = [&] { return random_pattern(random, depth - 1); };
  switch (below(5)) {
    case 0:
      return inner() + "|" + inner();
    case 1: {
      static const std::vector<std::string> kRepeats = {"*", "+", "?", "{2}", "{0,2}"};
      return "(?:" + inner() + ")" + kRepeats[below(kRepeats.size())];
    }
    case 2:
      return "(" + inner() + ")";
    default:
      return inner() + inner();
  }
}

std::string random_text(std::mt19937_64& random) {
  static const std::vector<std::string> kPieces = {
      "ab",           "k",         "s",        "CLASS", "class", "x",   "1", " ", "\n", "\xC3\xA9", "\xC3\x89",
      "\xE2\x84\xAA", "\xC4\xB0x", "\xC5\xBF", "S",     "K",     "\xFF"};
  std::string text;
  for (size_t i = random() % 10; i > 0; --i) text += kPieces[random() % kPieces.size()];
  return text;
}

// The law that the fast way rests on.
TEST(RoutingRegex, MatchesNoTextWithoutItsAtoms) {
  std::mt19937_64 random(11);
  int guarded = 0;
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    RoutingRegex::Fault fault;
    const std::string pattern = random_pattern(random, 1 + static_cast<int>(random() % 4));
    const auto regex = RoutingRegex::compile(pattern, random() % 2 == 0 ? "i" : "", fault);
    if (!regex || regex->atoms().empty()) continue;
    ++guarded;
    for (int i = 0; i < 20; ++i) {
      const std::string text = random_text(random);
      bool may_match = false;
      for (const std::string& atom : regex->atoms()) may_match = may_match || contains(text, atom, true);
      for (const std::string_view letter : kUnfoldedLetters) may_match = may_match || contains(text, letter, false);
      if (may_match) continue;
      ++refused;
      ASSERT_FALSE(regex->matches(text)) << regex->pattern() << " in '" << text << "'";
    }
  }
  EXPECT_GT(guarded, 500);
  EXPECT_GT(refused, 5000);
}

TEST(RoutingRegex, WhatRepeatsWidelyIsMatchedAlone) {
  for (const char* pattern :
       {"a.*b", "a.+", "a.{3,}", "[^x]*y", "\\D+1", "\\w{10}", "[a-z]{10}", "(a.)*", "[^]a]+b", "[[:^alpha:].]{2}"}) {
    EXPECT_FALSE(compile(pattern)->joins_well()) << pattern;
  }
  for (const char* pattern :
       {"ab", "a.b", "\\s+a", "\\w+", "[a-z]+", "\\.*", "[.*]", "a{3}", "[\\]^]*", "(ab)+", "x?"}) {
    EXPECT_TRUE(compile(pattern)->joins_well()) << pattern;
  }
}

TEST(RoutingRegex, NamesWhatIsWrong) {
  RoutingRegex::Fault fault;
  EXPECT_FALSE(RoutingRegex::compile("a[z-a]", "", fault));
  EXPECT_EQ(fault.part, "z-a");
  EXPECT_FALSE(RoutingRegex::compile("a)(b", "i", fault));  // that the flags' group would mend
  EXPECT_FALSE(RoutingRegex::compile("(a|b){1000}(c|d){1000}", "", fault));
  EXPECT_FALSE(fault.message.empty());
}

TEST(RegexSet, SaysTheSameAsEachByItself) {
  std::mt19937_64 random(5);
  std::vector<std::shared_ptr<const RoutingRegex>> regexes;
  std::vector<const RoutingRegex*> pointers;
  while (regexes.size() < 40) {
    RoutingRegex::Fault fault;
    auto regex = RoutingRegex::compile(random_pattern(random, 3), "", fault);
    if (!regex) continue;
    pointers.push_back(regex.get());
    regexes.push_back(std::move(regex));
  }
  const auto set = RegexSet::build(pointers);
  ASSERT_TRUE(set);
  for (int i = 0; i < 300; ++i) {
    const std::string text = random_text(random);
    std::vector<int> hits;
    ASSERT_TRUE(set->match(text, hits));
    std::vector<bool> hit(pointers.size());
    for (const int index : hits) hit[static_cast<size_t>(index)] = true;
    for (size_t k = 0; k < pointers.size(); ++k)
      ASSERT_EQ(hit[k], pointers[k]->matches(text)) << pointers[k]->pattern();
  }
}

TEST(RegexSet, ThatDoesNotFitIsNotBuiltOrSaysSo) {
  std::vector<std::shared_ptr<const RoutingRegex>> regexes;
  std::vector<const RoutingRegex*> pointers;
  for (int i = 0; i < 50; ++i) {
    regexes.push_back(compile("x" + std::to_string(i) + "[a-q]{30}y"));
    pointers.push_back(regexes.back().get());
  }
  EXPECT_FALSE(RegexSet::build(pointers, 10'000));
  const std::string text = "x12 x7" + std::string(30, 'b') + "y x13";
  bool built = false;
  for (size_t memory = 20'000; memory < 1'000'000; memory += 20'000) {
    const auto set = RegexSet::build(pointers, memory);
    std::vector<int> hits;
    if (!set || !set->match(text, hits)) continue;
    built = true;
    EXPECT_EQ(hits, std::vector<int>{7}) << memory;
  }
  EXPECT_TRUE(built);
}

}  // namespace
}  // namespace inferneo
