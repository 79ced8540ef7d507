// Guesses under real grammars on real models: whatever schema, regular expression or choice, greedy or sampled, the
// tokens are those of plain decoding, with guesses from the text and from a draft model, alone and in company.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "inferneo/engine.h"

namespace inferneo {
namespace {

EngineConfig config_of(bool speculates, bool with_draft) {
  const std::string models = INFERNEO_SOURCE_DIR "/models/";
  EngineConfig config;
  config.model = {models + "inferneo-story"};
  config.enable_speculative_decoding = speculates;
  config.num_speculative_tokens = 6;
  if (with_draft) config.draft_model = models + "inferneo-story-draft";
  config.deterministic = true;  // a row's sums do not depend on how many rows there are
  config.max_memory_gb = 1.0;
  config.packed_cache_gb = 0.0;
  config.registry = "memory";
  config.quiet = true;
  return config;
}

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int below(int count) { return static_cast<int>(engine_() % static_cast<uint32_t>(count)); }
  template <typename T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[below(static_cast<int>(values.size()))];
  }

 private:
  std::mt19937 engine_;
};

std::string random_schema(Random& random, int depth) {
  switch (random.below(depth > 0 ? 8 : 6)) {
    case 0:
      return R"({"type": "integer"})";
    case 1:
      return R"({"type": "boolean"})";
    case 2:
      return R"({"enum": ["red", "green", "blue", 7, null]})";
    case 3:
      return fmt::format(R"({{"type": "string", "maxLength": {}}})", 1 + random.below(12));
    case 4:
      return fmt::format(R"({{"type": "string", "pattern": "^{}$"}})",
                         random.pick({"[a-z]{2,5}", "(ab|ba)+x", "\\\\d\\\\d:\\\\d\\\\d"}));
    case 5:
      return R"({"anyOf": [{"type": "null"}, {"type": "number"}]})";
    case 6:
      return fmt::format(R"({{"type": "array", "minItems": {}, "maxItems": 5, "items": {}}})", random.below(4),
                         random_schema(random, depth - 1));
    default:
      break;
  }
  std::string fields;
  std::string names;
  for (int i = 1 + random.below(4); i > 0; --i) {
    const std::string name =
        fmt::format("{}_{}", random.pick({"name", "age", "the little fox", "name_of_the_little_fox"}), i);
    fields += fmt::format(R"({}"{}": {})", fields.empty() ? "" : ", ", name, random_schema(random, depth - 1));
    if (random.below(3) > 0) names += fmt::format(R"({}"{}")", names.empty() ? "" : ", ", name);
  }
  return fmt::format(R"({{"type": "object", "additionalProperties": {}, "properties": {{{}}}, "required": [{}]}})",
                     random.pick({"false", R"({"type": "integer"})"}), fields, names);
}

std::string random_regex(Random& random) {
  std::string regex;
  for (int i = 1 + random.below(4); i > 0; --i) {
    regex += random.pick({"(Once upon a time|One day)", "[a-z ]{1,20}", "(the|a) (fox|dog|cat)[.!]", "\\d{1,3}",
                          "(Tim|Sue|Tom)( and (Tim|Sue))*", "(ha){2,6}", "[^x]{3}"});
  }
  return regex;
}

GrammarSpec random_grammar(Random& random) {
  GrammarSpec grammar;
  switch (random.below(5)) {
    case 0:
      return {GrammarSpec::Kind::regex, random_regex(random), {}};
    case 1:
      return {GrammarSpec::Kind::choice, {}, {"Tim and Sue", "Tim and Sue went to the park", "the little fox", "no"}};
    case 2:
      return {GrammarSpec::Kind::json_object, {}, {}};
    default:
      return {GrammarSpec::Kind::json_schema, random_schema(random, 3), {}};
  }
}

struct Asked {
  std::string prompt;
  SamplingParams sampling;
};

std::vector<Asked> random_requests(int count) {
  std::vector<Asked> asked;
  for (int i = 0; i < count; ++i) {
    Random random(static_cast<uint32_t>(i) + 1);
    Asked one;
    one.prompt = random.pick({"Once upon a time there was a little fox. The fox said: ",
                              R"({"name_1": "Tim", "age_1": 7, "name_2": "Sue"} {"name_1": "Tom", "age_1": 8)",
                              "One day Tim and Sue went to the park. Tim and Sue went to the park. "});
    one.sampling.grammar = random_grammar(random);
    one.sampling.temperature = random.pick({0.0F, 0.0F, 0.7F, 1.0F});
    one.sampling.seed = static_cast<uint64_t>(i);
    one.sampling.max_tokens = 48;
    if (random.below(4) == 0) one.sampling.frequency_penalty = 0.3F;
    asked.push_back(std::move(one));
  }
  return asked;
}

struct Answers {
  std::vector<std::vector<Token>> tokens;
  int64_t accepted = 0;
};

void answer(InferneoEngine& engine, const std::vector<Asked>& asked, size_t at_once, Answers& answers) {
  for (size_t first = 0; first < asked.size(); first += at_once) {
    std::vector<std::future<Result<GenerationResult>>> futures;
    for (size_t i = first; i < std::min(asked.size(), first + at_once); ++i) {
      futures.push_back(engine.generate(asked[i].prompt, asked[i].sampling));
    }
    for (size_t i = 0; i < futures.size(); ++i) {
      Result<GenerationResult> result = futures[i].get();
      ASSERT_TRUE(result.ok()) << result.error().message << ": " << asked[first + i].sampling.grammar.text;
      answers.tokens.push_back(std::move(result->samples[0].tokens));
      answers.accepted += result->accepted_tokens;
    }
  }
}

TEST(GuessedGrammars, GiveTheTokensOfPlainDecoding) {
  const std::vector<Asked> asked = random_requests(240);
  InferneoEngine plain(config_of(false, false));
  ASSERT_TRUE(plain.start().ok());
  Answers expected;
  answer(plain, asked, 1, expected);
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(expected.accepted, 0);
  plain.stop();
  for (const bool with_draft : {false, true}) {
    SCOPED_TRACE(with_draft ? "draft model" : "lookup");
    InferneoEngine guessing(config_of(true, with_draft));
    ASSERT_TRUE(guessing.start().ok());
    for (const size_t at_once : {size_t{1}, size_t{8}}) {
      Answers answers;
      answer(guessing, asked, at_once, answers);
      ASSERT_FALSE(HasFatalFailure());
      ASSERT_EQ(answers.tokens.size(), expected.tokens.size());
      for (size_t i = 0; i < asked.size(); ++i) {
        EXPECT_EQ(answers.tokens[i], expected.tokens[i]) << "request " << i << ": " << asked[i].sampling.grammar.text;
      }
      EXPECT_GT(answers.accepted, 0);  // how many depends on what steps took
    }
  }
}

}  // namespace
}  // namespace inferneo
