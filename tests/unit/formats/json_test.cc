#include "formats/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace inferneo {
namespace {

using ::testing::HasSubstr;

std::string problem(std::string_view text, const JsonLimits& limits = {}) {
  const Result<nlohmann::json> result = parse_json(text, "x.json", limits);
  EXPECT_FALSE(result.ok()) << text;
  if (result.ok()) return {};
  EXPECT_EQ(result.error().code, ErrorCode::malformed);
  return result.error().message;
}

TEST(JsonTest, BuildsTheSameDocumentAsTheLibrary) {
  for (const char* text : {R"({"a":[1,-2,3.5,"x",null,true,{"b":[]}],"c":{},"d":{"e":{"f":[[1],[2,[3]]]}}})", "3",
                           "\"x\"", "[]", "null", R"([{"a":1},{"a":2}])", R"({"\u00e9":"\ud83d\ude00"})"}) {
    Result<nlohmann::json> result = parse_json(text, "x.json");
    ASSERT_TRUE(result.ok()) << result.error().message;
    EXPECT_EQ(*result, nlohmann::json::parse(text)) << text;
  }
}

TEST(JsonTest, KeepsTheLimits) {
  EXPECT_THAT(problem("[1,2,3]", {.max_bytes = 6}), HasSubstr("the limit is 6"));
  EXPECT_THAT(problem("[1,2,3]", {.max_values = 3}), HasSubstr("more than 3 values"));
  EXPECT_TRUE(parse_json("[1,2,3]", "x", {.max_values = 4}).ok());
  EXPECT_TRUE(parse_json("[[[]]]", "x", {.max_depth = 3}).ok());
  EXPECT_THAT(problem("[[[]]]", {.max_depth = 2}), HasSubstr("nested deeper than 2"));
  EXPECT_THAT(problem(std::string(1'000'000, '[')), HasSubstr("nested deeper than 64"));
}

TEST(JsonTest, RefusesRepeatedKeysAndBrokenText) {
  EXPECT_THAT(problem(R"({"a":1,"b":{"c":1,"c":2}})"), HasSubstr("\"c\" appears twice"));
  EXPECT_THAT(problem(""), HasSubstr("x.json: not valid JSON at byte"));
  for (const char* text : {"{", "[1,]", "{\"a\":1} x", "'a'", "\"\xc3\x28\"", "1e999", "\"\x01\"", "nul"})
    problem(text);
}

TEST(JsonTest, ReadsPythonsNonFiniteNumbersAsStrings) {
  Result<nlohmann::json> result =
      parse_json(R"({"a":NaN,"b":[-Infinity,Infinity],"c":"NaN \"Infinity\\","d":"\\","e":NaN})", "x.json");
  ASSERT_TRUE(result.ok()) << result.error().message;
  EXPECT_EQ((*result)["a"], "NaN");
  EXPECT_EQ((*result)["b"][0], "-Infinity");
  EXPECT_EQ((*result)["b"][1], "Infinity");
  EXPECT_EQ((*result)["c"], "NaN \"Infinity\\");
  EXPECT_EQ((*result)["e"], "NaN");
  problem("NaNaN");
  problem("-NaN");
}

}  // namespace
}  // namespace inferneo
