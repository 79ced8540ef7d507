// Speculative decoding on real models: the same tokens as without, greedy and sampled, alone and in company, with
// guesses from the text and from a draft model, and fewer steps where text repeats itself.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "inferneo/engine.h"

namespace inferneo {
namespace {

EngineConfig config_of(const char* model, bool speculates) {
  EngineConfig config;
  config.model = {std::string(INFERNEO_SOURCE_DIR "/models/") + model};
  config.enable_speculative_decoding = speculates;
  config.num_speculative_tokens = 6;
  config.deterministic = true;  // a row's sums do not depend on how many rows there are
  config.max_memory_gb = 1.0;
  config.packed_cache_gb = 0.0;
  config.registry = "memory";
  config.quiet = true;
  return config;
}

struct Prompt {
  const char* text;
  float temperature;
};

constexpr Prompt kPrompts[] = {
    {"Once upon a time there was a little fox. The fox said: I am a little fox. The dog said:", 0.0F},
    {"One day Tim and Sue went to the park. Tim and Sue", 0.7F},
    {"def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\ndef mul(a, b):\n", 0.0F},
    {"def add(a, b):\n    return a + b\n\ndef sub(a, b):\n", 0.8F},
};

// [prompts][samples]
std::vector<std::vector<Token>> answers(InferneoEngine& engine, int32_t* accepted, bool together) {
  std::vector<std::future<Result<GenerationResult>>> futures;
  std::vector<std::vector<Token>> tokens;
  const auto take = [&](Result<GenerationResult> result) {
    ASSERT_TRUE(result.ok()) << result.error().message;
    *accepted += result->accepted_tokens;
    for (GenerationSample& sample : result->samples) tokens.push_back(std::move(sample.tokens));
  };
  for (const Prompt& prompt : kPrompts) {
    SamplingParams sampling;
    sampling.temperature = prompt.temperature;
    sampling.seed = 11;
    sampling.n = 2;
    sampling.max_tokens = 160;
    sampling.ignore_eos = true;
    auto future = engine.generate(prompt.text, sampling);
    if (together) {
      futures.push_back(std::move(future));
    } else {
      take(future.get());
    }
  }
  for (auto& future : futures) take(future.get());
  return tokens;
}

TEST(Speculation, GivesTheTokensOfPlainDecoding) {
  for (const char* model : {"inferneo-story", "inferneo-code"}) {
    InferneoEngine plain(config_of(model, false));
    InferneoEngine speculating(config_of(model, true));
    ASSERT_TRUE(plain.start().ok());
    ASSERT_TRUE(speculating.start().ok());
    int32_t none = 0;
    int32_t accepted = 0;
    const std::vector<std::vector<Token>> expected = answers(plain, &none, false);
    EXPECT_EQ(answers(speculating, &accepted, false), expected) << model;
    EXPECT_EQ(answers(speculating, &accepted, true), expected) << model;
    EXPECT_EQ(none, 0);
    EXPECT_GT(accepted, 0) << model;  // how many depends on what steps took
  }
}

// A small draft, the model itself, and a draft that is larger than its model.
TEST(Speculation, ADraftModelChangesNoToken) {
  struct Pair {
    const char* model;
    const char* draft;
  };
  for (const Pair& pair : {Pair{"inferneo-story", "inferneo-story-draft"}, Pair{"inferneo-story", "inferneo-story"},
                           Pair{"inferneo-story-draft", "inferneo-story"}}) {
    SCOPED_TRACE(std::string(pair.model) + " with " + pair.draft);
    EngineConfig config = config_of(pair.model, true);
    config.draft_model = std::string(INFERNEO_SOURCE_DIR "/models/") + pair.draft;
    InferneoEngine plain(config_of(pair.model, false));
    InferneoEngine speculating(config);
    ASSERT_TRUE(plain.start().ok());
    ASSERT_TRUE(speculating.start().ok());
    int32_t none = 0;
    int32_t accepted = 0;
    const std::vector<std::vector<Token>> expected = answers(plain, &none, false);
    EXPECT_EQ(answers(speculating, &accepted, false), expected);
    EXPECT_EQ(answers(speculating, &accepted, true), expected);
    EXPECT_GT(accepted, 0);  // how many depends on what steps took
  }
}

}  // namespace
}  // namespace inferneo
