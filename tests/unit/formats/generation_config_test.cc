#include "formats/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Result<GenerationConfig> read(const char* config, const char* generation) {
  std::optional<ConfigReader> second;
  if (generation != nullptr) second = *ConfigReader::parse(generation, "generation_config.json");
  return read_generation_config(*ConfigReader::parse(config, "config.json"), second, 100);
}

TEST(GenerationConfigTest, GenerationConfigComesBeforeConfig) {
  Result<GenerationConfig> result =
      read(R"({"eos_token_id":1,"bos_token_id":2,"pad_token_id":3})", R"({"eos_token_id":[4,5,4],"bos_token_id":6})");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_THAT(result->eos_token_ids, ElementsAre(4, 5));
  EXPECT_EQ(result->bos_token_id, 6);
  EXPECT_EQ(result->pad_token_id, 3);
  EXPECT_FALSE(result->temperature.has_value());
}

TEST(GenerationConfigTest, ConfigServesWhenTheOtherIsAbsentOrSilent) {
  EXPECT_THAT(read(R"({"eos_token_id":[1,2]})", nullptr)->eos_token_ids, ElementsAre(1, 2));
  EXPECT_THAT(read(R"({"eos_token_id":1})", R"({"eos_token_id":null})")->eos_token_ids, ElementsAre(1));
  EXPECT_TRUE(read("{}", nullptr)->eos_token_ids.empty());
  EXPECT_FALSE(read(R"({"pad_token_id":-1})", nullptr)->pad_token_id.has_value());
}

TEST(GenerationConfigTest, ReadsSamplingDefaults) {
  Result<GenerationConfig> result =
      read("{}", R"({"do_sample":true,"temperature":0.6,"top_k":20,"top_p":0.95,"repetition_penalty":1.05,)"
                 R"("min_p":0.1,"typical_p":0.9,"max_new_tokens":2048,"transformers_version":"4.57.0"})");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_TRUE(*result->do_sample);
  EXPECT_FLOAT_EQ(*result->temperature, 0.6F);
  EXPECT_EQ(*result->top_k, 20);
  EXPECT_FLOAT_EQ(*result->top_p, 0.95F);
  EXPECT_FLOAT_EQ(*result->repetition_penalty, 1.05F);
  EXPECT_FLOAT_EQ(*result->min_p, 0.1F);
  EXPECT_FLOAT_EQ(*result->typical_p, 0.9F);
  EXPECT_EQ(*result->max_new_tokens, 2048);
}

TEST(GenerationConfigTest, ErrorsNameFileAndField) {
  EXPECT_THAT(read(R"({"eos_token_id":100})", nullptr).error().message,
              HasSubstr("config.json: eos_token_id must be an integer from 0 to 99, got 100"));
  EXPECT_THAT(read("{}", R"({"eos_token_id":[1,-2]})").error().message,
              HasSubstr("generation_config.json: eos_token_id[1]"));
  EXPECT_THAT(read("{}", R"({"top_p":1.5})").error().message, HasSubstr("generation_config.json: top_p"));
  EXPECT_THAT(read("{}", R"({"temperature":NaN})").error().message, HasSubstr("temperature"));
}

}  // namespace
}  // namespace inferneo
