#include "server/json.h"

#include <gtest/gtest.h>

#include <clocale>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "server/json_writer.h"

namespace inferneo {
namespace {

std::string as_json(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(JsonWriter, EscapesWhatJsonCannotHold) {
  EXPECT_EQ(as_json("a\"b\\c\n\r\t\x01"), R"("a\"b\\c\n\r\t\u0001")");
  EXPECT_EQ(as_json("ünï 😀"), "\"ünï 😀\"");
}

TEST(JsonWriter, TurnsRandomBytesIntoValidJson) {
  std::mt19937 random(7);
  for (int round = 0; round < 3000; ++round) {
    std::string bytes(random() % 40, '\0');
    for (char& c : bytes) c = static_cast<char>(random() % 4 == 0 ? 0xE0 + random() % 32 : random());
    const std::string json = as_json(bytes);
    // The parser refuses invalid UTF-8.
    ASSERT_FALSE(Json::parse(json, nullptr, false).is_discarded()) << json;
  }
}

TEST(JsonWriter, KeepsValidUtf8AndReplacesEachBadByte) {
  for (uint32_t code = 1; code < 0x110000; code += code < 0x3000 ? 1 : 0x101) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    if (code < 0x80) {
      text = {static_cast<char>(code)};
    } else if (code < 0x800) {
      text = {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
    } else if (code < 0x10000) {
      text = {static_cast<char>(0xE0 | (code >> 12)), static_cast<char>(0x80 | ((code >> 6) & 63)),
              static_cast<char>(0x80 | (code & 63))};
    } else {
      text = {static_cast<char>(0xF0 | (code >> 18)), static_cast<char>(0x80 | ((code >> 12) & 63)),
              static_cast<char>(0x80 | ((code >> 6) & 63)), static_cast<char>(0x80 | (code & 63))};
    }
    ASSERT_EQ(Json::parse(as_json(text)).get<std::string>(), text) << code;
  }
  EXPECT_EQ(as_json("\xED\xA0\x80"), "\"\uFFFD\uFFFD\uFFFD\"");  // a surrogate
  EXPECT_EQ(as_json("\xC0\x80"), "\"\uFFFD\uFFFD\"");            // overlong
  EXPECT_EQ(as_json("\xF0\x9F"), "\"\uFFFD\uFFFD\"");            // cut off
}

TEST(JsonWriter, PlacesCommasAndKeepsNumbersFinite) {
  setlocale(LC_NUMERIC, "de_DE.UTF-8");  // where it is installed
  JsonWriter json;
  json.begin_object().field("a", 1).field("b", true).key("c").begin_array();
  json.number(1.5).number(-std::numeric_limits<double>::infinity()).number(std::nan("")).begin_object().end_object();
  json.end_array().field("d", "x").key("e").null().end_object();
  EXPECT_EQ(json.take(), R"({"a":1,"b":true,"c":[1.5,null,null,{}],"d":"x","e":null})");
  setlocale(LC_NUMERIC, "C");
}

TEST(ParseJson, HoldsToItsLimits) {
  EXPECT_TRUE(parse_json_object(R"({"a":[1,{"b":2}]})").ok());
  std::string nested(R"({"deep":)");
  nested += std::string(63, '[') + std::string(63, ']') + "}";
  EXPECT_TRUE(parse_json_object(nested).ok());
  const auto too_deep = parse_json_object(R"({"deep":)" + std::string(100000, '['));
  ASSERT_FALSE(too_deep.ok());
  EXPECT_EQ(too_deep.error().param, "deep");
  std::string many = "{\"k\":{";
  for (int i = 0; i < 2000; ++i) many += "\"" + std::to_string(i) + "\":0,";
  const auto too_many = parse_json_object(many + "\"x\":0}}");
  ASSERT_FALSE(too_many.ok());
  EXPECT_NE(too_many.error().message.find("keys"), std::string::npos);
}

TEST(ParseJson, NamesTheFieldAtFault) {
  for (const char* body : {R"({"model":"a","temperature":NaN})", R"({"model":"a","temperature":1e999})",
                           R"({"model":"a","temperature":Infinity})", R"({"temperature":)"}) {
    const auto parsed = parse_json_object(body);
    ASSERT_FALSE(parsed.ok()) << body;
    EXPECT_EQ(parsed.error().code, ErrorCode::invalid_argument);
    EXPECT_NE(parsed.error().message.find("temperature"), std::string::npos) << parsed.error().message;
  }
  for (const char* body : {"", "[]", "1", "\"x\"", "{\"a\":\"\xFF\"}", "{} x", "nul"}) {
    EXPECT_FALSE(parse_json_object(body).ok()) << body;
  }
}

}  // namespace
}  // namespace inferneo
