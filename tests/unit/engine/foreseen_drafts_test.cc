// Drafts that a grammar foresees: that they never change the output, whatever it says, that they save steps where it is
// right and stop where it is not, alone, and with looked-up drafts or a draft model behind them.
#include <fstream>
#include <random>
#include <sstream>

#include "base/split_mix.h"
#include "engine_fixture.h"
#include "scripted_grammar.h"
#include "text/tokenizer.h"

namespace inferneo {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr int32_t kRecord = 12;  // tokens: those of a key, and behind it two that nobody knows
constexpr int32_t kKey = 10;

// No token but by chance stands where it stood before.
Token unpredictable(int32_t index) {
  return 20 + static_cast<Token>(split_mix(static_cast<uint64_t>(index) + 7) % 220);
}

// The rest of the key, of which the last token is written together with what follows where `merges`.
Foresight rest_of_key(int32_t index, int32_t most, bool merges) {
  std::vector<Token> tokens;
  const int32_t left = std::max(0, kKey - index % kRecord);
  for (int32_t i = 0; i < std::min(left, most); ++i) tokens.push_back(unpredictable(index + i));
  const bool has_end = left > 0 && left <= most;
  if (has_end && merges) tokens.back() = 5;
  return foresight_of(std::move(tokens), has_end ? Certainty::end : Certainty::text);
}

HarnessOptions options_of(int32_t max_draft = 15) {
  HarnessOptions options;
  options.capacity = {400};
  options.context_limit = 3000;
  options.speculation.max_draft = max_draft;
  options.script.next_token = [](const ScriptedToken& token) { return unpredictable(token.output_index); };
  options.script.step_cost = milliseconds(10);
  options.script.token_cost = microseconds(200);
  options.script.check_contract = false;  // of long outputs nobody compares each token with its place in the cache
  return options;
}

struct Answer {
  std::vector<Token> tokens;
  uint64_t steps = 0;
  double seconds = 0.0;
  SpeculationStats stats;
  RequestStats request;
};

Answer answer_of(
    const HarnessOptions& options, const GrammarScript& script, int32_t num_tokens,
    const std::function<void(Request&)>& edit = [](Request&) {}) {
  Harness h(options);
  Request request;
  request.prompt = iota_prompt(12);
  request.sampling.max_tokens = num_tokens;
  request.grammar = std::make_shared<ScriptedGrammar>(script);
  edit(request);
  const auto sink = h.add(std::move(request));
  const TimePoint began = h.clock.now();
  h.run(100000);
  Answer result;
  result.tokens = sink->tokens.at(0);
  result.steps = h.runner->num_steps();
  result.seconds = to_seconds(h.clock.now() - began);
  EngineStats stats;
  h.loop->fill_stats(stats);
  result.stats = stats.speculation;
  result.request = sink->outcome.stats;
  return result;
}

Answer plain_answer(HarnessOptions options, const GrammarScript& script, int32_t num_tokens) {
  options.speculation.max_draft = 0;
  options.draft.reset();
  return answer_of(options, script, num_tokens);
}

GrammarScript keys(bool merges) {
  GrammarScript script{.percent = 100};
  script.foresees = [merges](int32_t count, int32_t most) { return rest_of_key(count, most, merges); };
  return script;
}

TEST(ForeseenDrafts, OfAKeyOneStepIsLeft) {
  const GrammarScript script = keys(false);
  const Answer guessed = answer_of(options_of(), script, 600);
  EXPECT_EQ(guessed.tokens, plain_answer(options_of(), script, 600).tokens);
  EXPECT_LT(guessed.steps, 600U / 4);  // of twelve tokens, of which ten are known: a step for each of three
  const SpeculationStats::Source& grammar = guessed.stats.of(DraftSource::grammar);
  EXPECT_GT(grammar.accepted_tokens, 440U);
  EXPECT_EQ(grammar.accepted_tokens, static_cast<uint64_t>(guessed.request.accepted_tokens) -
                                         guessed.stats.of(DraftSource::lookup).accepted_tokens);
  EXPECT_GT(grammar.accepted_tokens * 100, grammar.draft_tokens * 98);
  EXPECT_EQ(guessed.stats.of(DraftSource::draft_model).draft_tokens, 0U);
}

// Whether the last token before a choice is one by itself is learnt apart from the others, which it does not spoil.
TEST(ForeseenDrafts, TheLastTokenBeforeAChoiceIsGuessedWhereItIsUsuallyRight) {
  const GrammarScript script = keys(true);
  const Answer guessed = answer_of(options_of(), script, 2400);
  EXPECT_EQ(guessed.tokens, plain_answer(options_of(), script, 2400).tokens);
  EXPECT_LT(guessed.steps, 2400U / 3 + 40);
  const SpeculationStats::Source& grammar = guessed.stats.of(DraftSource::grammar);
  const uint64_t wrong = grammar.draft_tokens - grammar.accepted_tokens;
  EXPECT_GT(grammar.accepted_tokens, 200U * 7);
  EXPECT_LT(wrong, 60U) << "once in two hundred keys";
}

TEST(ForeseenDrafts, WhatIsAlwaysWrongStops) {
  GrammarScript script{.percent = 100};
  script.foresees = [](int32_t, int32_t most) {
    return foresight_of(std::vector<Token>(static_cast<size_t>(most), 3));
  };
  const Answer expected = plain_answer(options_of(), script, 2000);
  const Answer guessed = answer_of(options_of(), script, 2000);
  EXPECT_EQ(guessed.tokens, expected.tokens);
  EXPECT_LT(guessed.stats.of(DraftSource::grammar).draft_tokens, 100U);
  EXPECT_LT(guessed.seconds, 1.02 * expected.seconds);
}

// Where asking takes as long as a good part of a step, a grammar that is wrong, or says what the text says as well, is
// asked ever more seldom; where it takes nothing, at each step.
TEST(ForeseenDrafts, AGrammarIsAskedSeldomWhereThatDoesNotPay) {
  for (const bool is_right : {false, true}) {
    for (const Duration asking : {Duration(microseconds(0)), Duration(milliseconds(2))}) {
      SCOPED_TRACE(is_right ? "repeats the text" : "wrong");
      HarnessOptions options = options_of();
      options.script.next_token = [is_right](const ScriptedToken& token) {
        return is_right ? 10 + token.output_index % 7 : unpredictable(token.output_index);
      };
      ManualClock* clock = nullptr;
      uint64_t asked = 0;
      GrammarScript script{.percent = 100};
      script.foresees = [&](int32_t count, int32_t most) {
        ++asked;
        clock->advance(asking);
        const Token token = is_right ? 10 + count % 7 : 3;
        return foresight_of(std::vector<Token>(static_cast<size_t>(std::min(most, 1)), token));
      };
      Harness h(options);
      clock = &h.clock;
      Request request;
      request.prompt = iota_prompt(12);
      request.sampling.max_tokens = 2400;
      request.grammar = std::make_shared<ScriptedGrammar>(script);
      const auto sink = h.add(std::move(request));
      h.run(100000);
      EXPECT_EQ(sink->tokens.at(0).size(), 2400U);
      if (asking == Duration(0)) {
        EXPECT_GT(asked, h.runner->num_steps() * 9 / 10);
      } else {
        EXPECT_LT(asked, 40U);
      }
    }
  }
}

// What the grammar says is the beginning of what was found, which goes on behind it.
TEST(ForeseenDrafts, WhatWasFoundGoesOnBehindThem) {
  HarnessOptions options = options_of();
  options.script.next_token = [](const ScriptedToken& token) { return 10 + token.output_index % 7; };
  GrammarScript script{.percent = 100};
  script.foresees = [](int32_t count, int32_t most) {
    std::vector<Token> tokens = {10 + count % 7, 10 + (count + 1) % 7};
    tokens.resize(std::min<size_t>(2, static_cast<size_t>(most)));
    return foresight_of(std::move(tokens), Certainty::end);
  };
  const Answer guessed = answer_of(options, script, 600);
  EXPECT_EQ(guessed.tokens, plain_answer(options, script, 600).tokens);
  EXPECT_LT(guessed.steps, 80U);
  EXPECT_GT(guessed.stats.of(DraftSource::grammar).accepted_tokens, 80U);
  EXPECT_GT(guessed.stats.of(DraftSource::lookup).accepted_tokens, 300U);
  EXPECT_LE(guessed.stats.total().drafts, guessed.steps) << "a draft of two sources is one draft";
  EXPECT_EQ(guessed.stats.total().accepted_tokens, static_cast<uint64_t>(guessed.request.accepted_tokens));
}

// A model that writes forced text otherwise than the tokenizer, always the same way: it has been seen, and is found.
TEST(ForeseenDrafts, WhatWasFoundIsPreferredWhereTheTwoPartAndItIsRight) {
  HarnessOptions options = options_of();
  options.script.next_token = [](const ScriptedToken& token) { return 10 + token.output_index % 7; };
  GrammarScript script{.percent = 100};
  script.foresees = [](int32_t count, int32_t most) {
    std::vector<Token> tokens = {10 + count % 7, 3, 4, 5};
    tokens.resize(std::min<size_t>(4, static_cast<size_t>(most)));
    return foresight_of(std::move(tokens));
  };
  const Answer guessed = answer_of(options, script, 600);
  EXPECT_EQ(guessed.tokens, plain_answer(options, script, 600).tokens);
  EXPECT_LT(guessed.steps, 90U);
  EXPECT_LT(guessed.stats.of(DraftSource::grammar).draft_tokens, guessed.steps + 30);
}

TEST(ForeseenDrafts, ADraftModelGoesOnBehindThem) {
  HarnessOptions options = options_of();
  options.script.check_contract = true;
  options.draft = Script{};
  options.draft->next_token = options.script.next_token;
  options.draft->step_cost = microseconds(500);
  options.draft->token_cost = microseconds(20);
  options.draft_capacity = {400};
  options.draft_context = 3000;
  GrammarScript script{.percent = 100};
  script.foresees = [](int32_t count, int32_t most) {
    Foresight foresight = rest_of_key(count, most, count % 5 == 0);
    foresight.tokens.resize(std::min<size_t>(3, foresight.tokens.size()));
    foresight.certainty.resize(foresight.tokens.size());
    return foresight;
  };
  const Answer guessed = answer_of(options, script, 400);
  EXPECT_EQ(guessed.tokens, plain_answer(options, script, 400).tokens);
  EXPECT_LT(guessed.steps, 70U);
  EXPECT_GT(guessed.stats.of(DraftSource::grammar).accepted_tokens, 25U);
  EXPECT_GT(guessed.stats.of(DraftSource::draft_model).accepted_tokens, 150U);
  EXPECT_LE(guessed.stats.total().drafts, guessed.steps);
}

TEST(ForeseenDrafts, ARequestMayHaveFewerOrNone) {
  for (const int32_t wanted : {0, 1}) {
    GrammarScript script = keys(false);
    script.foresees = [wanted](int32_t count, int32_t most) {
      EXPECT_LE(most, wanted);
      return rest_of_key(count, most, false);
    };
    const Answer guessed = answer_of(options_of(), script, 120,
                                     [&](Request& request) { request.sampling.num_speculative_tokens = wanted; });
    EXPECT_EQ(guessed.tokens, plain_answer(options_of(), script, 120).tokens);
    EXPECT_EQ(guessed.stats.of(DraftSource::grammar).draft_tokens == 0, wanted == 0);
    EXPECT_GE(guessed.steps, wanted == 0 ? 120U : 60U);
  }
}

// Whatever is foreseen: right, wrong, refused, an end, in a grammar that breaks over it; beside others, with guesses
// from elsewhere behind it.
TEST(ForeseenDrafts, TheTokensAreThoseOfPlainDecoding) {
  uint64_t accepted = 0;
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(seed);
    HarnessOptions options = options_of(6);
    options.script.check_contract = true;
    options.script.max_in_flight = seed % 3 == 0 ? 2 : 1;
    const bool repeats = seed % 2 == 0;
    options.script.next_token = [repeats](const ScriptedToken& token) {
      return repeats ? 10 + token.output_index % 7 : unpredictable(token.output_index);
    };
    if (seed % 5 == 0) {
      options.draft = Script{};
      options.draft->next_token = options.script.next_token;
      options.draft->step_cost = milliseconds(1);
      options.draft_capacity = {400};
      options.draft_context = 3000;
      if (seed % 10 == 0) options.draft->vocab_size = 150;
    }
    GrammarScript script;
    script.seed = seed;
    script.percent = seed % 4 == 0 ? 50 : 97;
    script.finishes_one = seed % 7 == 0 ? 90 : 0;
    script.rolls_back = seed % 11 != 0;
    script.breaks_one = seed % 13 == 0 ? 3 : 0;
    script.foreseeing_breaks_one = seed % 6 == 0 ? 20 : 0;
    script.foresees = [seed, repeats](int32_t count, int32_t most) {
      std::mt19937 random(static_cast<uint32_t>(seed * 1000) + static_cast<uint32_t>(count));
      Foresight foresight;
      for (int32_t left = static_cast<int32_t>(random() % 8); left > 0 && most > 0; --left, --most, ++count) {
        const Token right = repeats ? 10 + count % 7 : unpredictable(count);
        foresight.tokens.push_back(random() % 12 == 0 ? static_cast<Token>(random() % 256) : right);
        foresight.certainty.push_back(static_cast<Certainty>(random() % kNumCertainties));
      }
      return foresight;
    };
    std::vector<std::vector<Token>> tokens;
    for (const bool guesses : {false, true}) {
      HarnessOptions own = options;
      if (!guesses) {
        own.speculation.max_draft = 0;
        own.draft.reset();
      }
      Harness h(own);
      std::vector<std::shared_ptr<RecordingSink>> sinks;
      for (int i = 0; i < 3; ++i) {
        Request request;
        request.prompt = iota_prompt(12, 20 * i);
        for (Token& token : request.prompt) token %= 150;
        request.sampling.max_tokens = 120;
        if (i < 2) request.grammar = std::make_shared<ScriptedGrammar>(script);
        if (i == 1) request.sampling.n = 2;
        sinks.push_back(h.add(std::move(request)));
      }
      h.run();
      EngineStats stats;
      h.loop->fill_stats(stats);
      accepted += stats.speculation.of(DraftSource::grammar).accepted_tokens;
      std::vector<std::vector<Token>> said;
      for (const auto& sink : sinks) {
        for (const auto& [sample, text] : sink->tokens) said.push_back(text);
      }
      if (guesses) {
        EXPECT_EQ(said, tokens);
      }
      tokens = std::move(said);
    }
  }
  EXPECT_GT(accepted, 3000U);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A real schema, with a real tokenizer, and a model that says what a document of it has.
TEST(ForeseenDrafts, ASchemaWithLongKeysTakesAThirdOfTheSteps) {
  TokenizerFiles files;
  files.tokenizer_json = read_file(INFERNEO_SOURCE_DIR "/models/inferneo-story/tokenizer.json");
  const auto tokenizer = load_tokenizer(files).value();
  const std::string document =
      R"({"name_of_the_animal": "Tim", "kind_of_animal": "crocodile", "number_of_legs": 4, "is_friendly": false, )"
      R"("favourite_place_in_the_forest": "river"})";
  const std::vector<Token> tokens = tokenizer->encode(document, false).value();
  ASSERT_EQ(tokenizer->decode(tokens, false).value(), document);
  HarnessOptions options = options_of(8);
  options.script.vocab_size = tokenizer->vocab_size();
  options.script.next_token = [&](const ScriptedToken& token) {
    return tokens[std::min(static_cast<size_t>(token.output_index), tokens.size() - 1)];
  };
  const GrammarSpec schema{GrammarSpec::Kind::json_schema,
                           R"({"type": "object", "additionalProperties": false,
      "properties": {"name_of_the_animal": {"type": "string"}, "kind_of_animal": {"enum": ["elephant", "crocodile"]},
                     "number_of_legs": {"type": "integer"}, "is_friendly": {"type": "boolean"},
                     "favourite_place_in_the_forest": {"enum": ["river", "tree"]}},
      "required": ["name_of_the_animal", "kind_of_animal", "number_of_legs", "is_friendly",
                   "favourite_place_in_the_forest"]})",
                           {}};
  const std::vector<Token> eos = {0};
  Request request;
  request.prompt = iota_prompt(12);
  request.sampling.max_tokens = 400;
  request.grammar = tokenizer->compile_grammar(schema, tokenizer->vocab_size(), eos).value();
  uint64_t steps[2] = {};
  for (const bool guesses : {false, true}) {
    options.speculation.max_draft = guesses ? 8 : 0;
    Harness h(options);
    const auto sink = h.add(request);
    h.run();
    EXPECT_EQ(sink->tokens.at(0), tokens);
    EXPECT_EQ(sink->finished.at(0), FinishReason::stop);
    steps[guesses ? 1 : 0] = h.runner->num_steps();
  }
  EXPECT_LT(steps[1] * 3, steps[0]) << steps[1] << " of " << steps[0];
}

}  // namespace
}  // namespace inferneo
