#include "formats/config_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace inferneo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ConfigReader reader(std::string_view text) {
  Result<ConfigReader> result = ConfigReader::parse(text, "config.json");
  EXPECT_TRUE(result.ok()) << result.error().message;
  return *result;
}

TEST(ConfigReaderTest, ReadsEachType) {
  const ConfigReader config =
      reader(R"({"i":7,"n":0.5,"b":true,"s":"x","l":[1,2],"f":[1,2.5],"w":["a","b"],"o":{"k":3},"z":null})");
  EXPECT_EQ(*config.integer("i", 0, 10), 7);
  EXPECT_EQ(*config.number("i"), 7.0);
  EXPECT_EQ(*config.number("n"), 0.5);
  EXPECT_TRUE(*config.boolean("b"));
  EXPECT_EQ(*config.string("s"), "x");
  EXPECT_THAT(*config.integers("l", 0, 10), ElementsAre(1, 2));
  EXPECT_THAT(*config.integers("i", 0, 10), ElementsAre(7));
  EXPECT_THAT(*config.numbers("f"), ElementsAre(1.0, 2.5));
  EXPECT_THAT(*config.strings("w"), ElementsAre("a", "b"));
  EXPECT_THAT(*config.integers("none", 0, 10), IsEmpty());
  EXPECT_EQ(*config.section("o")->integer("k", 0, 10), 3);
}

TEST(ConfigReaderTest, AbsentAndNullAreTheDefault) {
  const ConfigReader config = reader(R"({"z":null})");
  for (const char* key : {"z", "absent"}) {
    EXPECT_FALSE(config.has(key));
    EXPECT_EQ(*config.integer_or(key, 4, 0, 10), 4);
    EXPECT_EQ(*config.number_or(key, 0.25), 0.25);
    EXPECT_EQ(*config.boolean_or(key, true), true);
    EXPECT_EQ(*config.string_or(key, "d"), "d");
    EXPECT_FALSE(config.optional_integer(key, 0, 1)->has_value());
    EXPECT_FALSE(config.optional_number(key)->has_value());
    EXPECT_FALSE(config.optional_section(key)->has_value());
    EXPECT_THAT(config.integer(key, 0, 10).error().message, HasSubstr("got nothing"));
  }
}

TEST(ConfigReaderTest, ErrorsNameFileFieldRangeAndValue) {
  const ConfigReader config = reader(R"({"num_attention_heads":0,"eps":"1e-5","big":18446744073709551615,"inf":Infinity,
    "rope":{"type":3,"factors":[1,"x"]},"frac":4.0})");
  EXPECT_EQ(config.integer("num_attention_heads", 1, 4096).error().message,
            "config.json: num_attention_heads must be an integer from 1 to 4096, got 0");
  EXPECT_EQ(config.integer("num_attention_heads", 1, 4096).error().code, ErrorCode::malformed);
  EXPECT_EQ(config.integer("num_attention_heads", 1, 4096).error().param, "num_attention_heads");
  EXPECT_EQ(config.number("eps", 0, 1).error().message, R"(config.json: eps must be a number from 0 to 1, got "1e-5")");
  EXPECT_FALSE(config.integer("big", INT64_MIN, INT64_MAX).ok());
  EXPECT_FALSE(config.integer("frac", 0, 10).ok());
  EXPECT_EQ(config.number("inf").error().message, R"(config.json: inf must be a finite number, got "Infinity")");
  EXPECT_FALSE(config.number_or("inf", 1.0).ok());
  EXPECT_FALSE(config.boolean_or("eps", true).ok());
  EXPECT_FALSE(config.section("eps").ok());
  Result<ConfigReader> rope = config.section("rope");
  EXPECT_EQ(rope->string("type").error().message, "config.json: rope.type must be a string, got 3");
  EXPECT_EQ(rope->numbers("factors").error().message,
            R"(config.json: rope.factors[1] must be a finite number, got "x")");
  EXPECT_EQ(rope->error("type", "is unknown", ErrorCode::unsupported).message, "config.json: rope.type is unknown");
}

TEST(ConfigReaderTest, ReportsWhatNobodyRead) {
  const ConfigReader config = reader(R"({"a":1,"b":{"c":1,"d":2},"e":null,"f":{"g":1},"h":0})");
  EXPECT_THAT(config.unread(), ElementsAre("a", "b", "e", "f", "h"));
  EXPECT_TRUE(config.integer("a", 0, 1).ok());
  EXPECT_TRUE(config.has("h"));
  config.ignore("e");
  Result<ConfigReader> section = config.section("b");
  EXPECT_TRUE(section->integer("c", 0, 1).ok());
  EXPECT_THAT(config.unread(), ElementsAre("f", "h", "b.d"));
}

TEST(ConfigReaderTest, TheTopLevelIsAnObject) {
  EXPECT_FALSE(ConfigReader::parse("[]", "config.json").ok());
  EXPECT_FALSE(ConfigReader::parse("", "config.json").ok());
}

TEST(ConfigReaderTest, LongValuesDoNotFloodAnError) {
  const ConfigReader config = reader(R"({"a":")" + std::string(100'000, 'x') + R"("})");
  EXPECT_LT(config.integer("a", 0, 1).error().message.size(), 200U);
}

}  // namespace
}  // namespace inferneo
