// What a grammar foresees: that it is what the text goes on with, as the tokenizer writes it, that asking changes
// nothing, and that no grammar makes it long.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "fixtures.h"
#include "support/cpu_time.h"
#include "text/grammar.h"

namespace inferneo {
namespace {

constexpr int32_t kMost = 8;

constexpr const char* kAnimals = R"({"type": "array", "items": {"type": "object", "additionalProperties": false,
    "properties": {"name_of_the_animal": {"type": "string"}, "kind_of_animal": {"enum": ["elephant", "crocodile"]},
                   "is_friendly_to_people": {"type": "boolean"}, "number_of_legs": {"type": "integer"}},
    "required": ["name_of_the_animal", "kind_of_animal", "is_friendly_to_people", "number_of_legs"]}})";

class Foreseen : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    tokenizer_ = load_fixture(GetParam());
    for (const char* end : {"<|im_end|>", "<|eot_id|>", "</s>", "<eos>", "<|endoftext|>"}) {
      if (const auto id = tokenizer_->token_to_id(end)) eos_.push_back(*id);
    }
    ASSERT_FALSE(eos_.empty());
  }

  std::unique_ptr<GrammarMatcher> matcher(GrammarSpec::Kind kind, const std::string& text) {
    auto compiled = tokenizer_->compile_grammar({kind, text, {}}, tokenizer_->vocab_size(), eos_);
    EXPECT_TRUE(compiled.ok()) << (compiled.ok() ? "" : compiled.error().message);
    return compiled.ok() ? (*compiled)->new_matcher().value() : nullptr;
  }

  std::string bytes_of(std::span<const Token> tokens) const {
    std::string bytes;
    for (const Token token : tokens) bytes += tokenizer_->token_bytes(token);
    return bytes;
  }

  // As the tokenizer has it, but without a space that some put in front.
  std::vector<Token> tokens_of(const std::string& text) const {
    std::vector<Token> tokens = tokenizer_->encode("{" + text, false).value();
    while (!tokens.empty() && bytes_of(tokens) != text) {
      const std::string rest = bytes_of(std::span(tokens).subspan(1));
      if (rest.size() < text.size()) break;  // the brace is one with what follows
      tokens.erase(tokens.begin());
    }
    if (bytes_of(tokens) == text) return tokens;
    return tokenizer_->encode(text, false).value();
  }

  std::vector<uint32_t> mask_of(GrammarMatcher& matcher) const {
    std::vector<uint32_t> mask((static_cast<size_t>(tokenizer_->vocab_size()) + 31) / 32);
    EXPECT_TRUE(matcher.fill_mask(mask).ok());
    return mask;
  }

  Token any_of(const std::vector<uint32_t>& mask, std::mt19937& random) const {
    std::vector<Token> tokens;
    for (Token token = 0; token < tokenizer_->vocab_size(); ++token) {
      if ((mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1U) != 0) tokens.push_back(token);
    }
    return tokens.empty() ? Token{-1} : tokens[random() % tokens.size()];
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::vector<Token> eos_;
};

TEST_P(Foreseen, TokensAreThoseOfTheDocument) {
  const std::string compact =
      R"([{"name_of_the_animal": "Tim", "kind_of_animal": "crocodile", "is_friendly_to_people": false, )"
      R"("number_of_legs": 4}, {"name_of_the_animal": "Sue", "kind_of_animal": "elephant", )"
      R"("is_friendly_to_people": true, "number_of_legs": 12}])";
  const std::vector<Token> tokens = tokens_of(compact);
  ASSERT_EQ(bytes_of(tokens), compact);
  const auto walker = matcher(GrammarSpec::Kind::json_schema, kAnimals);
  size_t steps = 0;
  size_t inner = 0;
  size_t inner_right = 0;
  size_t unverified = 0;  // tokens that come without a step of their own
  for (size_t at = 0; at < tokens.size(); ++at) {
    const Foresight foresight = walker->foresee(kMost).value();
    ASSERT_LE(foresight.tokens.size(), static_cast<size_t>(kMost));
    const std::string rest = bytes_of(std::span(tokens).subspan(at));
    EXPECT_TRUE(rest.starts_with(bytes_of(foresight.tokens))) << bytes_of(foresight.tokens) << " before " << rest;
    const std::span<const Token> next = std::span(tokens).subspan(at);
    for (size_t i = 0; i < foresight.tokens.size() && i < next.size(); ++i) {
      const bool last = foresight.certainty.at(i) == Certainty::end;
      inner += last ? 0 : 1;
      inner_right += !last && foresight.tokens[i] == next[i] ? 1 : 0;
    }
    if (unverified == 0) {
      ++steps;
      unverified = static_cast<size_t>(std::ranges::mismatch(foresight.tokens, next).in1 - foresight.tokens.begin());
    } else {
      --unverified;
    }
    ASSERT_TRUE(walker->accept(tokens[at]).ok());
  }
  EXPECT_EQ(inner_right, inner);
  EXPECT_GT(inner, 500U);
  EXPECT_LT(steps, tokens.size() / 4);
}

// White space is guessed as it was written before, and no other.
TEST_P(Foreseen, WhiteSpaceIsThatOfTheTextSoFar) {
  const auto walker = matcher(GrammarSpec::Kind::json_schema, R"({"type": "object", "additionalProperties": false,
      "properties": {"first_name": {"type": "array", "items": {"type": "integer"}}, "second_name": {"const": 17},
      "third_name": {"const": 18}}, "required": ["first_name", "second_name", "third_name"]})");
  const std::vector<Token> tokens = tokens_of("{\"first_name\" : [1, 2 ],\n  \"second_name\"");
  for (const Token token : tokens) ASSERT_TRUE(walker->accept(token).ok());
  const Foresight foresight = walker->foresee(40).value();
  const std::string foreseen = bytes_of(foresight.tokens);
  EXPECT_EQ(foreseen, " : 17,\n  \"third_name\" : 18}")
      << "the colons as the first, the comma as that between the names";
  for (size_t i = 0; i < foresight.tokens.size(); ++i) {
    const std::string text_of = tokenizer_->token_bytes(foresight.tokens[i]);
    const bool is_letters = std::ranges::all_of(text_of, [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; });
    if (is_letters) {
      EXPECT_EQ(foresight.certainty[i], Certainty::text) << text_of;
    }
  }
  EXPECT_EQ(foresight.certainty.front(), Certainty::space);
  EXPECT_GE(std::ranges::count(foresight.certainty, Certainty::space), 4);
}

// Two matchers take the same tokens, one of them is asked at each place.
TEST_P(Foreseen, AskingChangesNothing) {
  std::mt19937 random(3);
  const std::pair<GrammarSpec::Kind, std::string> grammars[] = {
      {GrammarSpec::Kind::json_schema, kAnimals},
      {GrammarSpec::Kind::json_object, ""},
      {GrammarSpec::Kind::regex, "(the|a) (fox|frog)( and (the|a) (fox|frog)){0,3}\\."},
      {GrammarSpec::Kind::lark, "start: (name \" \")+ \"end\"\nname: \"Tim\" | \"Tom\" | /[x-z]{3,5}/"}};
  int num_foreseen = 0;
  for (const auto& [kind, text] : grammars) {
    for (int round = 0; round < 4; ++round) {
      const auto asked = matcher(kind, text);
      const auto plain = matcher(kind, text);
      for (int i = 0; i < 60 && !plain->is_finished(); ++i) {
        const Result<Foresight> foresight = asked->foresee(1 + i % kMost);
        ASSERT_TRUE(foresight.ok()) << foresight.error().message;
        ASSERT_LE(foresight->tokens.size(), 1 + i % kMost);
        num_foreseen += static_cast<int>(foresight->tokens.size());
        const std::vector<uint32_t> mask = mask_of(*plain);
        ASSERT_EQ(mask_of(*asked), mask);
        if (random() % 4 == 0 && i > 0) {
          const int back = 1 + static_cast<int>(random() % std::min(i, 3));
          const Status gone = plain->rollback(back);
          ASSERT_EQ(asked->rollback(back).ok(), gone.ok());
          ASSERT_TRUE(gone.ok());
          i -= back + 1;
          continue;
        }
        Token token = any_of(mask, random);
        // Mostly what is foreseen, so that it is walked into the middle of it.
        if (!foresight->tokens.empty() && random() % 3 > 0) token = foresight->tokens.front();
        ASSERT_GE(token, 0);
        const Status accepted = plain->accept(token);
        ASSERT_EQ(asked->accept(token).ok(), accepted.ok());
        if (!accepted.ok()) break;
        ASSERT_EQ(asked->is_finished(), plain->is_finished());
      }
    }
  }
  EXPECT_GT(num_foreseen, 100);
}

TEST_P(Foreseen, ATextWithoutChoiceIsWholeAndNothingFollowsItsEnd) {
  const auto walker = matcher(GrammarSpec::Kind::regex, "for ever and ever");
  const std::vector<Token> tokens = tokens_of("for ever and ever");
  ASSERT_EQ(bytes_of(tokens), "for ever and ever");
  ASSERT_TRUE(walker->accept(tokens[0]).ok());
  const Foresight foresight = walker->foresee(100).value();
  EXPECT_EQ(foresight.tokens, std::vector<Token>(tokens.begin() + 1, tokens.end()));
  EXPECT_EQ(foresight.certainty, std::vector<Certainty>(foresight.tokens.size(), Certainty::text));
  EXPECT_EQ(walker->foresee(2).value().tokens, std::vector<Token>(tokens.begin() + 1, tokens.begin() + 3));
  EXPECT_TRUE(walker->foresee(0).value().tokens.empty());
  for (size_t i = 1; i < tokens.size(); ++i) ASSERT_TRUE(walker->accept(tokens[i]).ok());
  EXPECT_TRUE(walker->foresee(100).value().tokens.empty());
  ASSERT_TRUE(walker->accept(eos_[0]).ok());
  EXPECT_TRUE(walker->foresee(100).value().tokens.empty());
}

// From each place within the text, in whatever tokens it is written; those of half a character as well.
TEST_P(Foreseen, CharactersOfSeveralBytesAreWholeOrLeftOut) {
  const std::string text = "\u00e4\u00f6\u00fc \u20ac\u20ac \U0001F98A\U0001F98A Stra\u00dfe \u4f60\u597d";
  std::mt19937 random(11);
  int num_foreseen = 0;
  for (int round = 0; round < 20; ++round) {
    const auto walker = matcher(GrammarSpec::Kind::regex, text);
    std::string written;
    while (written.size() < text.size()) {
      const auto most = static_cast<int32_t>(1 + random() % 12);
      const Foresight foresight = walker->foresee(most).value();
      const std::string foreseen = bytes_of(foresight.tokens);
      num_foreseen += static_cast<int>(foresight.tokens.size());
      ASSERT_TRUE(text.substr(written.size()).starts_with(foreseen)) << written << "|" << foreseen;
      const Token token = any_of(mask_of(*walker), random);
      if (token < 0 || std::ranges::find(eos_, token) != eos_.end()) break;
      ASSERT_TRUE(walker->accept(token).ok());
      written += tokenizer_->token_bytes(token);
      ASSERT_TRUE(text.starts_with(written));
    }
  }
  EXPECT_GT(num_foreseen, 20);
}

INSTANTIATE_TEST_SUITE_P(Families, Foreseen, testing::Values("gpt2", "llama3", "qwen2", "llama2", "mistral", "gemma"),
                         [](const auto& family) { return family.param; });

class ForeseenLimits : public testing::Test {
 protected:
  std::unique_ptr<GrammarMatcher> matcher(const std::string& lark) const {
    auto compiled = tokenizer_->compile_grammar({GrammarSpec::Kind::lark, lark, {}}, tokenizer_->vocab_size(), eos_);
    EXPECT_TRUE(compiled.ok()) << (compiled.ok() ? "" : compiled.error().message);
    return compiled.ok() ? (*compiled)->new_matcher().value() : nullptr;
  }

  std::shared_ptr<const Tokenizer> tokenizer_ = load_fixture("qwen2");
  std::vector<Token> eos_{*tokenizer_->token_to_id("<|im_end|>")};
};

// Megabytes without a choice: what is asked for is all that is followed.
TEST_F(ForeseenLimits, AHugeTextTakesNoLongerThanItsBeginning) {
  std::string line;
  for (int i = 0; i < 20; ++i) line += "all work and no play. ";
  const auto walker = matcher("start: line{1000,20000} \"end\"\nline: \"" + line + "\"");
  ASSERT_NE(walker, nullptr);
  Foresight foresight;
  double fastest = 1.0;
  for (int i = 0; i < 5; ++i) {
    fastest = std::min(fastest, cpu_seconds([&] { foresight = walker->foresee(15).value(); }));
  }
  EXPECT_EQ(foresight.tokens.size(), 15U);
  EXPECT_LT(fastest, 0.005 * kSlowdown);
  std::vector<Token> written;
  for (int i = 0; i < 400; ++i) {  // from line to line
    foresight = walker->foresee(15).value();
    ASSERT_FALSE(foresight.tokens.empty());
    for (const Token token : foresight.tokens) ASSERT_TRUE(walker->accept(token).ok());
    written.insert(written.end(), foresight.tokens.begin(), foresight.tokens.end());
  }
  std::string expected;
  while (expected.size() < 200000) expected += line;
  const std::string text = tokenizer_->decode(written, false).value();
  EXPECT_GT(text.size(), 3000U);
  EXPECT_TRUE(expected.starts_with(text));
}

// One text in very many ways, so that each of its bytes is work: it is followed as far as little work goes.
TEST_F(ForeseenLimits, AnAmbiguousGrammarTakesNoLonger) {
  std::string lark = "start: word{200} \"!\"\nword: \"x\"";
  for (int i = 0; i < 300; ++i) lark += " | way" + std::to_string(i);
  for (int i = 0; i < 300; ++i) lark += "\nway" + std::to_string(i) + ": \"x\"";
  const auto walker = matcher(lark);
  ASSERT_NE(walker, nullptr);
  Foresight foresight;
  double fastest = 1.0;
  for (int i = 0; i < 5; ++i) {
    fastest = std::min(fastest, cpu_seconds([&] { foresight = walker->foresee(15).value(); }));
  }
  EXPECT_LT(fastest, 0.01 * kSlowdown);  // without a bound it would be a tenth of a second
  const std::string text = tokenizer_->decode(foresight.tokens, false).value();
  EXPECT_EQ(text, std::string(text.size(), 'x'));
}

// They stand for no text, and what a user's grammar says in text is none of them.
TEST_F(ForeseenLimits, SpecialTokensAreNotForeseen) {
  const auto walker = matcher("start: \"call \" <|im_start|> \"the one and only\"");
  ASSERT_NE(walker, nullptr);
  const std::vector<Token> call = walker->foresee(8).value().tokens;
  EXPECT_EQ(tokenizer_->decode(call, false).value(), "call ");
  for (const Token token : call) ASSERT_TRUE(walker->accept(token).ok());
  EXPECT_TRUE(walker->foresee(8).value().tokens.empty());
  ASSERT_TRUE(walker->accept(*tokenizer_->token_to_id("<|im_start|>")).ok());
  EXPECT_EQ(walker->foresee(20).value().tokens, tokenizer_->encode("the one and only", false).value());

  const auto text = matcher("start: \"say <|im_start|> aloud\"");
  ASSERT_NE(text, nullptr);
  const std::vector<Token> said = text->foresee(40).value().tokens;
  EXPECT_EQ(said, tokenizer_->encode("say <|im_start|> aloud", false).value());
  for (const Token token : said) EXPECT_FALSE(tokenizer_->is_special(token));
}

// A tokenizer that lowers letters and cuts at spaces writes other text than it is given: then the grammar's own bytes
// decide, as far as there are tokens for them.
TEST_F(ForeseenLimits, WhatTheTokenizerWritesOtherwiseIsNotForeseenWrongly) {
  const auto bert = load_fixture("bert");
  const std::vector<Token> end = {*bert->token_to_id("[SEP]")};
  std::mt19937 random(1);
  int num_foreseen = 0;
  for (const std::string text : {"the Cat", "the cat and the dog", "the \U0001F98A"}) {
    const auto compiled = bert->compile_grammar({GrammarSpec::Kind::regex, text, {}}, bert->vocab_size(), end);
    ASSERT_TRUE(compiled.ok()) << compiled.error().message;
    for (int round = 0; round < 20; ++round) {
      const auto walker = (*compiled)->new_matcher().value();
      std::string written;
      for (;;) {
        const Result<Foresight> foresight = walker->foresee(8);
        ASSERT_TRUE(foresight.ok());
        std::string foreseen = written;
        for (const Token token : foresight->tokens) foreseen += bert->token_bytes(token);
        EXPECT_TRUE(text.starts_with(foreseen)) << written << "|" << foreseen;
        num_foreseen += static_cast<int>(foresight->tokens.size());
        std::vector<uint32_t> mask((static_cast<size_t>(bert->vocab_size()) + 31) / 32);
        if (!walker->fill_mask(mask).ok()) break;
        std::vector<Token> tokens;
        for (Token token = 0; token < bert->vocab_size(); ++token) {
          if ((mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1U) != 0) tokens.push_back(token);
        }
        if (tokens.empty() || tokens[0] == end[0]) break;
        const Token token = tokens[random() % tokens.size()];
        ASSERT_TRUE(walker->accept(token).ok());
        written += bert->token_bytes(token);
      }
    }
  }
  EXPECT_GT(num_foreseen, 10);
}

}  // namespace
}  // namespace inferneo
