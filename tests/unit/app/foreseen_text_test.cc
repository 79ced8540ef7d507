// What a schema foresees, on real models: the tokens of plain decoding, greedy and sampled, alone and in company.
#include <string>
#include <vector>

#include "model_house.h"

namespace inferneo {
namespace {

constexpr const char* kSchemas[] = {
    R"({"type": "object", "additionalProperties": false, "properties": {"name_of_the_animal": {"type": "string",
        "maxLength": 20}, "kind_of_animal": {"enum": ["elephant", "crocodile", "little fox"]}, "number_of_legs":
        {"type": "integer", "maximum": 99}, "is_friendly_to_people": {"type": "boolean"}},
        "required": ["name_of_the_animal", "kind_of_animal", "number_of_legs", "is_friendly_to_people"]})",
    R"({"type": "array", "minItems": 2, "maxItems": 3, "items": {"type": "object", "additionalProperties": false,
        "properties": {"Gr\u00f6\u00dfe in \u20ac \ud83e\udd8a": {"type": "number"}, "the \"quoted\" key": {"const":
        "always the same answer"}}, "required": ["Gr\u00f6\u00dfe in \u20ac \ud83e\udd8a", "the \"quoted\" key"]}})"};

constexpr const char* kBeginnings[] = {"Once upon a time there was a little fox.",
                                       "def add(a, b):\n    return a + b\n"};

struct Answered {
  std::vector<std::vector<Token>> tokens;
  SpeculationStats stats;
};

Answered answered_by(const std::string& model, bool speculates, bool together) {
  Answered result;
  ModelHouse house;
  house.config.deterministic = true;  // a row's sums do not depend on how many rows there are
  ModelRegistration registration{.name = "m", .path = bundled_model(model)};
  registration.settings = {{"enable_speculative_decoding", speculates ? "true" : "false"}};
  const auto added = house.manager->register_model(registration);
  EXPECT_TRUE(added.ok());
  const auto lease = house.acquire("m");
  EXPECT_TRUE(lease.ok());
  if (!lease.ok()) return result;
  const LoadedModel& loaded = **lease;
  std::vector<std::shared_ptr<DoneSink>> sinks;
  RequestId id = 0;
  for (const char* schema : kSchemas) {
    const auto grammar = loaded.tokenizer->compile_grammar({GrammarSpec::Kind::json_schema, schema, {}},
                                                           loaded.spec.vocab_size, loaded.spec.eos_token_ids);
    EXPECT_TRUE(grammar.ok()) << (grammar.ok() ? "" : grammar.error().message);
    if (!grammar.ok()) return result;
    for (const char* prompt : kBeginnings) {
      for (const float temperature : {0.0F, 0.9F}) {
        Request request;
        request.id = ++id;
        request.prompt = loaded.tokenizer->encode(prompt, true).value();
        request.seed = id;
        request.sampling.temperature = temperature;
        request.sampling.max_tokens = 220;
        request.grammar = grammar.value();
        sinks.push_back(std::make_shared<DoneSink>());
        request.sink = sinks.back();
        EXPECT_TRUE(loaded.core->submit(std::move(request)).ok());
        if (!together) sinks.back()->wait();
      }
    }
  }
  for (const auto& sink : sinks) {
    EXPECT_FALSE(sink->wait().error.has_value());
    result.tokens.push_back(sink->tokens);
  }
  result.stats = loaded.core->stats().speculation;
  return result;
}

TEST(ForeseenText, GivesTheTokensOfPlainDecoding) {
  uint64_t accepted = 0;
  for (const char* model : {"inferneo-story", "inferneo-code"}) {
    SCOPED_TRACE(model);
    const Answered plain = answered_by(model, false, false);
    EXPECT_EQ(plain.stats.total().drafts, 0U);
    for (const bool together : {false, true}) {
      const Answered guessed = answered_by(model, true, together);
      EXPECT_EQ(guessed.tokens, plain.tokens);
      accepted += guessed.stats.of(DraftSource::grammar).accepted_tokens;
    }
  }
  // How many depends on what steps took, and on how well a model, which was trained on no JSON, writes it: one alone
  // may come to none.
  EXPECT_GT(accepted, 0U);
}

}  // namespace
}  // namespace inferneo
