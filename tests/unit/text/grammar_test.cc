// Grammars: what a mask allows is what the grammar allows, and the end of sequence exactly where it may end.
#include "text/grammar.h"

#include <gtest/gtest.h>

#include <random>

#include "fixtures.h"
#include "support/cpu_time.h"

namespace inferneo {
namespace {

using Json = nlohmann::ordered_json;

GrammarSpec spec(GrammarSpec::Kind kind, const std::string& text) { return {kind, text, {}}; }

bool allowed(const std::vector<uint32_t>& mask, Token token) {
  return ((mask[static_cast<size_t>(token) / 32] >> (token % 32)) & 1U) != 0;
}

class Grammar : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    tokenizer_ = load_fixture(GetParam());
    width_ = tokenizer_->vocab_size() + 37;  // a padded row of logits
    const char* ends[] = {"<|im_end|>", "<|eot_id|>", "</s>", "<eos>", "[SEP]"};
    for (const char* end : ends) {
      if (auto id = tokenizer_->token_to_id(end)) eos_.push_back(*id);
    }
    if (auto id = tokenizer_->token_to_id("<|endoftext|>")) eos_.push_back(*id);
    ASSERT_FALSE(eos_.empty());
  }

  std::unique_ptr<GrammarMatcher> matcher(const GrammarSpec& grammar) {
    auto compiled = tokenizer_->compile_grammar(grammar, width_, eos_);
    EXPECT_TRUE(compiled.ok()) << (compiled.ok() ? "" : compiled.error().message);
    if (!compiled.ok()) return nullptr;
    return (*compiled)->new_matcher().value();
  }

  std::vector<uint32_t> mask_of(GrammarMatcher& matcher) const {
    std::vector<uint32_t> mask((static_cast<size_t>(width_) + 31) / 32, 0xFFFFFFFF);
    const Status status = matcher.fill_mask(mask);
    EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
    return mask;
  }

  std::vector<Token> tokens_of(const std::vector<uint32_t>& mask) const {
    std::vector<Token> tokens;
    for (Token token = 0; token < width_; ++token) {
      if (allowed(mask, token)) tokens.push_back(token);
    }
    return tokens;
  }

  // A random walk through the masks; the text it makes, or nothing if it did not end within `limit` tokens.
  std::optional<std::string> sample(const GrammarSpec& grammar, uint32_t seed, int limit) {
    auto walker = matcher(grammar);
    if (walker == nullptr) return std::nullopt;
    std::mt19937 rng(seed);
    std::string text;
    for (int step = 0; step < limit; ++step) {
      const auto mask = mask_of(*walker);
      const auto tokens = tokens_of(mask);
      if (tokens.empty()) {
        ADD_FAILURE() << "dead end after " << text;
        return std::nullopt;
      }
      const bool may_end = allowed(mask, eos_[0]);
      const Token token = may_end && step > 3 ? eos_[0] : tokens[rng() % tokens.size()];
      const Status status = walker->accept(token);
      EXPECT_TRUE(status.ok()) << (status.ok() ? "" : status.error().message);
      if (std::find(eos_.begin(), eos_.end(), token) != eos_.end()) {
        EXPECT_TRUE(walker->is_finished());
        return text;
      }
      EXPECT_LT(token, tokenizer_->vocab_size());
      text += tokenizer_->token_bytes(token);
    }
    return std::nullopt;
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  int32_t width_ = 0;
  std::vector<Token> eos_;
};

TEST_P(Grammar, RandomWalksThroughASchemaAreDocumentsOfIt) {
  const auto grammar = spec(GrammarSpec::Kind::json_schema, R"({"type": "object", "additionalProperties": false,
      "properties": {"ok": {"type": "boolean"}, "n": {"type": "integer", "minimum": 0, "maximum": 99},
                     "kind": {"enum": ["cat", "dog"]}}, "required": ["ok", "n", "kind"]})");
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const auto text = sample(grammar, seed, 700);  // white space between the parts is bounded: every walk ends
    ASSERT_TRUE(text) << seed;
    const auto document = nlohmann::json::parse(*text, nullptr, false);
    ASSERT_FALSE(document.is_discarded()) << *text;
    EXPECT_TRUE(document["ok"].is_boolean());
    EXPECT_LE(document["n"].get<int>(), 99);
    EXPECT_TRUE(document["kind"] == "cat" || document["kind"] == "dog");
  }
}

TEST_P(Grammar, ChoiceMasksExactlyThePrefixesOfTheChoices) {
  GrammarSpec grammar{GrammarSpec::Kind::choice, "", {"red", "reddish", "green \"x\"\n"}};
  for (uint32_t seed = 0; seed < 8; ++seed) {
    const auto text = sample(grammar, seed, 60);
    ASSERT_TRUE(text.has_value());
    EXPECT_NE(std::find(grammar.choices.begin(), grammar.choices.end(), *text), grammar.choices.end()) << *text;
  }
}

TEST_P(Grammar, EndOfSequenceIsAllowedExactlyWhereTheGrammarMayEnd) {
  const auto walker = matcher(spec(GrammarSpec::Kind::regex, "[0-9]{2,3}"));
  const auto digit = [&](const std::vector<uint32_t>& mask) {
    for (Token token : tokens_of(mask)) {
      if (tokenizer_->token_bytes(token).size() == 1) return token;
    }
    return Token{-1};
  };
  for (int count = 0; count <= 3; ++count) {
    const auto mask = mask_of(*walker);
    for (Token end : eos_) EXPECT_EQ(allowed(mask, end), count >= 2) << count;
    for (Token token : tokens_of(mask)) {
      if (std::find(eos_.begin(), eos_.end(), token) != eos_.end()) continue;
      for (char c : tokenizer_->token_bytes(token)) EXPECT_TRUE(c >= '0' && c <= '9');
    }
    if (count == 3) break;
    const Token next = digit(mask);
    if (next < 0) GTEST_SKIP() << "no token of one digit";
    ASSERT_TRUE(walker->accept(next).ok());
  }
  EXPECT_TRUE(walker->is_finished());
  ASSERT_TRUE(walker->accept(eos_.back()).ok());
  EXPECT_FALSE(walker->accept(eos_[0]).ok());
}

TEST_P(Grammar, RollbackRestoresTheMasks) {
  const auto walker = matcher(spec(GrammarSpec::Kind::json_object, ""));
  std::mt19937 rng(7);
  std::vector<std::vector<uint32_t>> masks;
  int accepted = 0;
  for (; accepted < 12; ++accepted) {
    masks.push_back(mask_of(*walker));
    const auto tokens = tokens_of(masks.back());
    ASSERT_FALSE(tokens.empty());
    const Token token = tokens[rng() % tokens.size()];
    ASSERT_TRUE(walker->accept(token).ok());
    if (walker->is_finished()) {
      ++accepted;
      break;
    }
  }
  for (int back = accepted; back > 0; back -= 2) {
    const int count = std::min(back, 2);
    ASSERT_TRUE(walker->rollback(count).ok());
    EXPECT_EQ(mask_of(*walker), masks[static_cast<size_t>(back - count)]);
  }
  EXPECT_FALSE(walker->rollback(1).ok());
}

TEST_P(Grammar, RefusesTokensOutsideOfTheMask) {
  const auto walker = matcher(spec(GrammarSpec::Kind::regex, "abc"));
  const auto mask = mask_of(*walker);
  for (Token token = 0; token < width_ + 3; ++token) {
    if (token < width_ && allowed(mask, token)) continue;
    const Status status = walker->accept(token);
    ASSERT_FALSE(status.ok()) << token;
    EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
  }
  EXPECT_FALSE(walker->accept(-1).ok());
  EXPECT_EQ(mask_of(*walker), mask) << "a refused token changes nothing";
}

INSTANTIATE_TEST_SUITE_P(Families, Grammar, testing::Values("gpt2", "llama3", "qwen2", "llama2", "mistral", "gemma"),
                         [](const auto& family) { return family.param; });

class GrammarLimits : public testing::Test {
 protected:
  std::shared_ptr<const Tokenizer> tokenizer_ = load_fixture("qwen2");
  std::vector<Token> eos_{*tokenizer_->token_to_id("<|im_end|>")};

  void refuse(const GrammarSpec& grammar, const std::string& what) {
    Result<std::shared_ptr<const GrammarCompiled>> compiled = Error{};
    const double took =
        cpu_seconds([&] { compiled = tokenizer_->compile_grammar(grammar, tokenizer_->vocab_size(), eos_); });
    EXPECT_FALSE(compiled.ok()) << what;
    if (!compiled.ok()) {
      EXPECT_EQ(compiled.error().code, ErrorCode::invalid_argument) << what;
      EXPECT_FALSE(compiled.error().message.empty());
    }
    EXPECT_LT(took, 0.5 * kSlowdown) << what;
  }
};

TEST_F(GrammarLimits, BadOnesAreInvalidArguments) {
  using Kind = GrammarSpec::Kind;
  ASSERT_TRUE(tokenizer_->compile_grammar(spec(Kind::regex, "a"), tokenizer_->vocab_size(), eos_).ok());  // warm
  refuse(spec(Kind::none, ""), "none");
  refuse(spec(Kind::json_schema, "{"), "not JSON");
  refuse(spec(Kind::json_schema, R"({"type": "no such type"})"), "unknown type");
  refuse(spec(Kind::json_schema, "\xff"), "not UTF-8");
  refuse(spec(Kind::regex, "a("), "unbalanced");
  refuse(spec(Kind::lark, "start: nothing"), "undefined rule");
  refuse(spec(Kind::lark, ""), "empty");
  refuse(GrammarSpec{Kind::choice, "", {}}, "no choices");
}

TEST_F(GrammarLimits, BombsAreRefusedInTime) {
  using Kind = GrammarSpec::Kind;
  ASSERT_TRUE(tokenizer_->compile_grammar(spec(Kind::regex, "a"), tokenizer_->vocab_size(), eos_).ok());
  refuse(spec(Kind::regex, std::string(1 << 20, 'a')), "a megabyte");
  refuse(spec(Kind::regex, std::string(50'000, '(') + "a" + std::string(50'000, ')')), "deep parentheses");
  refuse(spec(Kind::json_schema, std::string(5'000, '[')), "deep JSON");
  std::string nested = "1";
  for (int i = 0; i < 100; ++i) nested = R"({"type":"array","items":)" + nested + "}";
  refuse(spec(Kind::json_schema, nested), "deep schema");
  std::string wide = R"({"type":"object","properties":{)";
  for (int i = 0; i < 60'000; ++i) wide += (i ? ",\"" : "\"") + std::to_string(i) + "\":{}";
  refuse(spec(Kind::json_schema, wide + "}}"), "wide schema");
  refuse(spec(Kind::lark, "start: " + std::string(20'000, '(') + "\"a\"" + std::string(20'000, ')')), "deep lark");
  refuse(spec(Kind::json_schema, R"({"$ref":"#/$defs/a","$defs":{"a":{"allOf":[{"$ref":"#/$defs/a"}]}}})"), "a loop");
  refuse(GrammarSpec{Kind::choice, "", std::vector<std::string>(100'000, "a")}, "too many choices");
}

// Automata are built as they are walked: such a grammar may compile, if then no step is long.
TEST_F(GrammarLimits, LargeAutomataAreRefusedOrWalkedInBoundedSteps) {
  using Kind = GrammarSpec::Kind;
  const std::vector<GrammarSpec> bombs = {
      spec(Kind::regex, "((((a{0,100}){0,100}){0,100}){0,100}){0,100}b"),
      spec(Kind::regex, "(a|b)*c(a|b){3000}"),
      spec(Kind::regex, "(.*a){50}.*b(.*c){50}"),
      spec(Kind::json_schema, R"({"type":"string","pattern":"((x{1,1000}){1,1000}){1,1000}"})"),
      spec(Kind::lark, "start: a\na: a a | \"a\" | \"b\" | \"c\""),
  };
  for (const GrammarSpec& grammar : bombs) {
    Result<std::shared_ptr<const GrammarCompiled>> compiled = Error{};
    EXPECT_LT(cpu_seconds([&] { compiled = tokenizer_->compile_grammar(grammar, tokenizer_->vocab_size(), eos_); }),
              0.5 * kSlowdown)
        << grammar.text;
    if (!compiled.ok()) {
      EXPECT_EQ(compiled.error().code, ErrorCode::invalid_argument) << grammar.text;
      continue;
    }
    auto walker = (*compiled)->new_matcher().value();
    std::vector<uint32_t> mask((static_cast<size_t>(tokenizer_->vocab_size()) + 31) / 32);
    std::mt19937 rng(5);
    for (int step = 0; step < 30 && !walker->is_finished(); ++step) {
      Status filled;
      EXPECT_LT(cpu_seconds([&] { filled = walker->fill_mask(mask); }), 0.5 * kSlowdown)
          << grammar.text << " at " << step;
      if (!filled.ok()) break;  // too complex from here on: an error, which ends the request
      std::vector<Token> tokens;
      for (Token token = 0; token < tokenizer_->vocab_size(); ++token) {
        if (allowed(mask, token)) tokens.push_back(token);
      }
      ASSERT_FALSE(tokens.empty());
      if (!walker->accept(tokens[rng() % tokens.size()]).ok()) break;
    }
  }
}

TEST_F(GrammarLimits, AVocabularyThatCannotWriteTheGrammarIsToldSo) {
  const auto bert = load_fixture("bert");
  const std::vector<Token> end = {*bert->token_to_id("[SEP]")};
  const auto compiled = bert->compile_grammar(spec(GrammarSpec::Kind::regex, "\U0001F600"), bert->vocab_size(), end);
  ASSERT_FALSE(compiled.ok());
  EXPECT_EQ(compiled.error().code, ErrorCode::invalid_argument);
}

TEST_F(GrammarLimits, AMaskOfTheWrongWidthIsRefused) {
  auto compiled = tokenizer_->compile_grammar(spec(GrammarSpec::Kind::regex, "a"), tokenizer_->vocab_size(), eos_);
  auto walker = (*compiled)->new_matcher().value();
  std::vector<uint32_t> mask(1);
  EXPECT_FALSE(walker->fill_mask(mask).ok());
  EXPECT_FALSE(tokenizer_->compile_grammar(spec(GrammarSpec::Kind::regex, "a"), 5, eos_).ok());
}

TEST_F(GrammarLimits, LarkGrammarsWork) {
  auto compiled = tokenizer_->compile_grammar(
      spec(GrammarSpec::Kind::lark, "start: greeting \" \" /[a-z]+/\ngreeting: \"hi\" | \"hello\""),
      tokenizer_->vocab_size(), eos_);
  ASSERT_TRUE(compiled.ok()) << compiled.error().message;
  auto walker = (*compiled)->new_matcher().value();
  const auto tokens = tokenizer_->encode("hello you", false).value();
  for (Token token : tokens) ASSERT_TRUE(walker->accept(token).ok());
  std::vector<uint32_t> mask((static_cast<size_t>(tokenizer_->vocab_size()) + 31) / 32);
  ASSERT_TRUE(walker->fill_mask(mask).ok());
  EXPECT_TRUE(allowed(mask, eos_[0]));
}

}  // namespace
}  // namespace inferneo
