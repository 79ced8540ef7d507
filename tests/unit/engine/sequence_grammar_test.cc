// Walks along guesses leave no trace: masks, refusals and the end are those of a matcher that has seen the output
// alone, whatever was walked, and whatever a walk breaks.
#include "engine/sequence_grammar.h"

#include <random>

#include "engine_fixture.h"
#include "scripted_grammar.h"

namespace inferneo {
namespace {

class GrammarWalks : public ::testing::TestWithParam<GrammarScript> {};

std::vector<uint32_t> mask_of(GrammarMatcher& matcher, int32_t vocab) {
  std::vector<uint32_t> mask((static_cast<size_t>(vocab) + 31) / 32);
  EXPECT_TRUE(matcher.fill_mask(mask).ok());
  return mask;
}

bool is_set(std::span<const uint32_t> mask, Token token) {
  return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1U) != 0;
}

// What the grammar takes and goes on behind.
int32_t num_taken(const GrammarScript& script, GrammarPlace place, std::span<const Token> drafts) {
  int32_t taken = 0;
  for (const Token token : drafts) {
    if (token == script.eos || !place.allows(script, token) || place.after(token).finished(script)) break;
    place = place.after(token);
    ++taken;
  }
  return taken;
}

TEST_P(GrammarWalks, LeaveNoTrace) {
  const GrammarScript script = GetParam();
  ManualClock clock;
  int walked = 0;
  int rounds = 0;
  for (uint32_t round = 0; round < 60; ++round) {
    std::mt19937 random(round);
    GrammarScript own = script;
    own.seed = round;
    own.foresees = [](int32_t count, int32_t most) {
      return foresight_of(std::vector<Token>(static_cast<size_t>(most), count));
    };
    const auto compiled = std::make_shared<ScriptedGrammar>(own);
    auto opened = SequenceGrammar::open(compiled, own.vocab_size, clock);
    ASSERT_TRUE(opened.ok());
    SequenceGrammar& grammar = **opened;
    std::unique_ptr<GrammarMatcher> plain = *compiled->new_matcher();
    GrammarPlace place = first_place(own);
    for (int i = 0; i < 40 && !plain->is_finished(); ++i, ++rounds) {
      const auto any = [&] { return static_cast<Token>(random() % static_cast<unsigned>(own.vocab_size)); };
      std::vector<Token> drafts;
      GrammarPlace ahead = place;
      for (unsigned d = random() % 6; d > 0; --d) {  // mostly what it takes
        Token token = any();
        while (random() % 8 != 0 && !ahead.allows(own, token)) token = (token + 1) % own.vocab_size;
        drafts.push_back(token);
        ahead = ahead.after(token);
      }
      if (random() % 3 == 0) {  // another walk before it
        const std::vector<Token> other = {any(), any(), any()};
        grammar.walk(other);
      }
      if (random() % 3 == 0) {
        const Foresight foresight = grammar.foresee(4);
        ASSERT_TRUE(foresight.tokens == std::vector<Token>(4, place.count) || !grammar.can_walk());
      }
      const Result<int32_t> filled = grammar.fill_masks(drafts);
      ASSERT_TRUE(filled.ok()) << filled.error().message;
      const int32_t expected = num_taken(own, place, drafts);
      ASSERT_TRUE(*filled == expected || (!grammar.can_walk() && *filled == 0)) << *filled << " of " << expected;
      walked += *filled;
      const std::vector<uint32_t> first = mask_of(*plain, own.vocab_size);
      ASSERT_TRUE(std::ranges::equal(grammar.masks(0), first));
      std::vector<uint32_t> masks;
      for (int32_t d = 0; d <= *filled; ++d) {
        const std::vector<uint32_t> mask = mask_of(*plain, own.vocab_size);
        masks.insert(masks.end(), mask.begin(), mask.end());
        if (d < *filled) {
          ASSERT_TRUE(plain->accept(drafts[static_cast<size_t>(d)]).ok());
        }
      }
      ASSERT_TRUE(std::ranges::equal(grammar.masks(*filled), masks));
      if (own.rolls_back) {
        ASSERT_TRUE(plain->rollback(*filled).ok());
      }
      // Some of the drafts become output, or something else does.
      const auto accepted = static_cast<int32_t>(random() % static_cast<unsigned>(*filled + 1));
      for (int32_t d = 0; d <= accepted && !plain->is_finished(); ++d) {
        Token token = any();
        if (d < accepted) token = drafts[static_cast<size_t>(d)];
        const std::vector<uint32_t> mask = mask_of(*plain, own.vocab_size);
        while (!is_set(mask, token)) token = (token + 1) % own.vocab_size;
        ASSERT_TRUE(plain->accept(token).ok());
        ASSERT_TRUE(grammar.accept(token).ok());
        place = place.after(token);
        ASSERT_EQ(grammar.is_finished(), plain->is_finished());
      }
    }
  }
  EXPECT_GT(rounds, 600);
  if (script.rolls_back && script.breaks_one == 0 && script.foreseeing_breaks_one == 0) {
    EXPECT_GT(walked, rounds / 3);
  }
}

INSTANTIATE_TEST_SUITE_P(SequenceGrammar, GrammarWalks,
                         ::testing::Values(GrammarScript{.vocab_size = 40, .finishes_one = 30},
                                           GrammarScript{.vocab_size = 64, .percent = 5, .finishes_one = 60},
                                           GrammarScript{.vocab_size = 33, .finishes_one = 40, .breaks_one = 5},
                                           GrammarScript{.vocab_size = 48, .foreseeing_breaks_one = 9}));

// Nothing can be guessed where a matcher cannot go back, and nothing else is lost.
TEST(SequenceGrammar, AMatcherThatCannotGoBackIsMadeAnewAndLeftAlone) {
  ManualClock clock;
  const GrammarScript script{.vocab_size = 40, .rolls_back = false};
  const auto compiled = std::make_shared<ScriptedGrammar>(script);
  const auto opened = SequenceGrammar::open(compiled, 40, clock);
  ASSERT_TRUE(opened.ok());
  SequenceGrammar& grammar = **opened;
  GrammarPlace place = first_place(script);
  const auto allowed = [&](const GrammarPlace& at, Token from) {
    while (from == script.eos || !at.allows(script, from)) from = (from + 1) % 40;
    return from;
  };
  const Token first = allowed(place, 7);
  const Token second = allowed(place.after(first), 9);
  const std::vector<Token> drafts = {first, second};
  const Result<int32_t> filled = grammar.fill_masks(drafts);
  ASSERT_TRUE(filled.ok());
  EXPECT_EQ(*filled, 2);
  EXPECT_TRUE(grammar.can_walk()) << "it need not go back yet";
  const std::vector<Token> others = {allowed(place, first + 1)};
  ASSERT_NE(others[0], first);
  const Result<int32_t> again = grammar.fill_masks(others);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, 0);
  EXPECT_FALSE(grammar.can_walk());
  EXPECT_EQ(grammar.walk(drafts), 0);
  const std::unique_ptr<GrammarMatcher> plain = *compiled->new_matcher();
  for (Token token = 3; token < 30; ++token) {
    ASSERT_TRUE(grammar.fill_masks({}).ok());
    ASSERT_TRUE(std::ranges::equal(grammar.masks(0), mask_of(*plain, 40)));
    const Token next = allowed(place, token);
    ASSERT_TRUE(grammar.accept(next).ok());
    ASSERT_TRUE(plain->accept(next).ok());
    place = place.after(next);
  }
}

}  // namespace
}  // namespace inferneo
