// Every field of a request, each given what it should not be: refused with an error that names it, or within its
// limits.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "server/openai/request_draft.h"
#include "support/cpu_time.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

Result<RequestDraft> parse(Api api, const std::string& body) {
  return api == Api::chat ? parse_chat_request(body) : parse_completion_request(body);
}

// A request that is right but for one field, whose value is `text`.
std::string body_with(Api api, std::string_view field, const std::string& text) {
  Json body = api == Api::chat ? Json::parse(R"({"messages":[{"role":"user","content":"hi"}]})")
                               : Json::parse(R"({"prompt":"hi"})");
  body.erase(std::string(field));
  std::string out = body.dump();
  out.pop_back();
  return out + (body.empty() ? "" : ",") + Json(field).dump() + ":" + text + "}";
}

std::string repeat(const std::string& text, size_t count) {
  std::string out;
  for (size_t i = 0; i < count; ++i) out += text;
  return out;
}

std::vector<std::string> hostile_values() {
  std::string biases = "{";
  for (int i = 0; i < 1090; ++i) biases += (i == 0 ? "\"" : ",\"") + std::to_string(i) + "\":1";
  return {"0",
          "-1",
          "1",
          "1000000000",
          "2147483648",
          "9223372036854775807",
          "9223372036854775808",
          "-9223372036854775808",
          "-9223372036854775809",
          "18446744073709551616",
          "1e308",
          "-1e308",
          "1e-320",
          "1.5",
          "-0.0",
          "true",
          "false",
          "\"\"",
          "\"NaN\"",
          "\"\\u0000\"",
          "\"<|im_end|>\"",
          "\"" + repeat("x", 70'000) + "\"",
          "\"{\\\"a\\\":" + repeat("[", 10'000) + "\"",
          "[]",
          "{}",
          "[null]",
          "[1e308]",
          "[[]]",
          "[" + repeat("1,", 5'000) + "1]",
          "[" + repeat("\"\",", 5'000) + "\"\"]",
          "[" + repeat("{},", 5'000) + "{}]",
          repeat("[", 60) + repeat("]", 60),
          biases + "}",
          R"({"type":"json_schema","json_schema":{"schema":[]}})",
          R"({"type":[]})",
          R"({"":null})"};
}

void expect_sane(const RequestDraft& draft) {
  const SamplingParams& sampling = draft.request.sampling;
  EXPECT_TRUE(sampling.n >= 1 && sampling.n <= kMaxSamples);
  EXPECT_TRUE(sampling.temperature >= 0.0F && sampling.temperature <= 2.0F);
  EXPECT_TRUE(sampling.top_p > 0.0F && sampling.top_p <= 1.0F) << sampling.top_p;
  EXPECT_TRUE(sampling.min_p >= 0.0F && sampling.min_p <= 1.0F);
  EXPECT_TRUE(sampling.typical_p > 0.0F && sampling.typical_p <= 1.0F) << sampling.typical_p;
  EXPECT_TRUE(sampling.repetition_penalty > 0.0F && sampling.repetition_penalty <= 100.0F);
  EXPECT_TRUE(std::abs(sampling.presence_penalty) <= 2.0F && std::abs(sampling.frequency_penalty) <= 2.0F);
  EXPECT_GE(sampling.top_k, -1);
  EXPECT_GE(sampling.min_tokens, 0);
  EXPECT_GE(sampling.max_tokens.value_or(1), sampling.echo ? 0 : 1);
  EXPECT_LE(sampling.logprobs.value_or(0), kMaxTopLogprobs);
  EXPECT_LE(sampling.prompt_logprobs.value_or(0), kMaxTopLogprobs);
  EXPECT_LE(sampling.stop.size(), kMaxStops);
  EXPECT_LE(sampling.logit_bias.size(), kMaxListedTokens);
  EXPECT_LE(sampling.stop_token_ids.size(), kMaxListedTokens);
  EXPECT_LE(sampling.grammar.text.size(), kMaxGrammarBytes);
  EXPECT_LE(draft.request.model.size() + draft.request.user.size() + draft.request.cache_salt.size(), 3 * 512U);
}

TEST(RequestFields, HostileValuesAreRefusedByNameOrWithinLimits) {
  const std::vector<std::string> values = hostile_values();
  for (const Api api : {Api::chat, Api::completions}) {
    const std::vector<std::string_view> fields = request_field_names(api);
    ASSERT_GT(fields.size(), 40U);
    for (const std::string_view field : fields) {
      for (const std::string& value : values) {
        const std::string shown = std::string(field) + " = " + value.substr(0, 60);
        const auto draft = parse(api, body_with(api, field, value));
        if (draft.ok()) {
          expect_sane(*draft);
        } else {
          EXPECT_EQ(draft.error().code, ErrorCode::invalid_argument) << shown;
          EXPECT_LT(draft.error().message.size(), 400U) << shown;
          // The field itself, or the one that it does not go together with.
          const std::string base = std::string(field).substr(0, field.find('.'));
          EXPECT_THAT(draft.error().message + draft.error().param, HasSubstr(base)) << shown;
        }
      }
    }
  }
}

TEST(RequestFields, NumbersOutOfRangeAreRefused) {
  const std::vector<std::pair<std::string, std::vector<std::string>>> rows = {
      {"n", {"0", "-1", "17", "1e9", "1000000000", "1.5", "9223372036854775808", "\"1\"", "true"}},
      {"temperature", {"-0.1", "2.1", "1e308", "\"1\"", "true", "[1]"}},
      {"top_p", {"0", "-1", "1.1", "1e-320", "1e-50"}},
      {"typical_p", {"0", "1.1", "1e-320"}},
      {"min_p", {"-0.1", "1.1"}},
      {"top_k", {"-2", "1.5", "2147483648"}},
      {"repetition_penalty", {"0", "-1", "101", "1e-320", "1e-50"}},
      {"presence_penalty", {"-2.1", "2.1"}},
      {"frequency_penalty", {"-2.1", "2.1"}},
      {"max_tokens", {"0", "-1", "2147483648", "9223372036854775808", "1e300"}},
      {"min_tokens", {"-1", "2147483648"}},
      {"seed", {"1.5", "18446744073709551616", "-9223372036854775809", "\"1\""}},
      {"prompt_logprobs", {"-1", "21", "1000000"}},
      {"priority", {"2147483648", "-9223372036854775808", "0.5"}},
      {"logit_bias",
       {R"({"-1":1})", R"({"1":101})", R"({"1":-1e308})", R"({"x":1})", R"({"2147483648":1})", R"({"":1})",
        R"({" 1":1})", R"({"1 ":1})", R"({"0x1":1})", R"({"1":null})", "[]", "1"}},
      {"stop",
       {R"("")", "[\"\"]", "[1]", "{}", "[" + repeat("\"a\",", 16) + "\"a\"]", "\"" + repeat("a", 1025) + "\""}},
      {"stop_token_ids", {"[-1]", "[2147483648]", "[1.5]", "{}", "[" + repeat("1,", 1024) + "1]"}},
  };
  for (const Api api : {Api::chat, Api::completions}) {
    for (const auto& [field, values] : rows) {
      for (const std::string& value : values) {
        const auto draft = parse(api, body_with(api, field, value));
        ASSERT_FALSE(draft.ok()) << field << " = " << value.substr(0, 60);
        EXPECT_THAT(draft.error().param, StartsWith(field)) << value.substr(0, 60);
      }
    }
  }
  for (const char* count : {"-1", "21", "1000000", "1e6", "9223372036854775808"}) {
    const auto top = parse(Api::chat, R"({"messages":[{"role":"user","content":"x"}],"logprobs":true,"top_logprobs":)" +
                                          std::string(count) + "}");
    ASSERT_FALSE(top.ok()) << count;
    EXPECT_EQ(top.error().param, "top_logprobs");
    EXPECT_EQ(parse(Api::completions, body_with(Api::completions, "logprobs", count)).error().param, "logprobs");
  }
  // A million biases are refused while they are being read.
  std::string million = "{";
  for (int i = 0; i < 1'000'000; ++i) million += "\"" + std::to_string(i) + "\":1,";
  const std::string body = body_with(Api::chat, "logit_bias", million + "\"x\":1}");
  Result<RequestDraft> draft = RequestDraft{};
  EXPECT_LT(cpu_seconds([&] { draft = parse(Api::chat, body); }), 0.05 * kSlowdown);
  ASSERT_FALSE(draft.ok());
  EXPECT_THAT(draft.error().message, HasSubstr("keys"));
}

TEST(RequestFields, JsonThatIsNoneOrTooMuch) {
  for (const std::string& text :
       {std::string("\"\\ud800\""), std::string("\"\\udc00\\ud800\""), std::string("\"\\ud800x\""),
        std::string("\"\xff\""), std::string("\"\xed\xa0\x80\""), std::string("\"\xc0\x80\""), std::string("\"a\nb\""),
        std::string("NaN"), std::string("-Infinity"), std::string("1e999"), std::string("01"), std::string("+1"),
        std::string("'x'"), repeat("[", 100'000), repeat("{\"a\":", 100'000), "[" + repeat("[],", 300'000) + "[]]",
        "[" + repeat("\"\",", 300'000) + "\"\"]", "\"" + repeat("x", 100)}) {
    for (const Api api : {Api::chat, Api::completions}) {
      const auto draft = parse(api, body_with(api, "metadata", text));
      ASSERT_FALSE(draft.ok()) << text.substr(0, 40);
      EXPECT_EQ(draft.error().code, ErrorCode::invalid_argument);
      EXPECT_LT(draft.error().message.size(), 300U);
    }
  }
  // A key twice: the last one counts, whole, and for every check.
  const auto twice =
      parse(Api::completions, R"({"prompt":"a","n":2,"prompt":"b","n":3,"max_tokens":1,"max_tokens":5})");
  ASSERT_TRUE(twice.ok());
  EXPECT_EQ(twice->request.sampling.n, 3);
  EXPECT_EQ(twice->request.sampling.max_tokens, 5);
  ASSERT_EQ(twice->prompts.size(), 1U);
  EXPECT_EQ(std::get<std::string>(twice->prompts[0]), "b");
  EXPECT_FALSE(parse(Api::completions, R"({"prompt":"a","n":2,"n":99})").ok());
}

// Documents in strings are bounded as the body is: their depth was once the stack's.
TEST(RequestFields, NestedDocumentsAreBounded) {
  const std::string deep = R"({\"a\":)" + repeat("[", 1'000'000);
  const std::string closed = R"({\"a\":)" + repeat("[", 1'000'000) + repeat("]", 1'000'000) + "}";
  for (const std::string& text : {deep, closed}) {
    for (const char* field : {"guided_json"}) {
      for (const Api api : {Api::chat, Api::completions}) {
        const auto draft = parse(api, body_with(api, field, "\"" + text + "\""));
        ASSERT_FALSE(draft.ok());
        EXPECT_EQ(draft.error().param, field);
      }
    }
    const auto calls = parse(Api::chat, body_with(Api::chat, "messages",
                                                  R"([{"role":"assistant","tool_calls":[{"function":{"name":"f",)"
                                                  R"("arguments":")" +
                                                      text + R"("}}]}])"));
    ASSERT_FALSE(calls.ok());
    EXPECT_EQ(calls.error().param, "messages[0].tool_calls[0].function.arguments");
    EXPECT_THAT(calls.error().message, HasSubstr("nested deeper"));
  }
  const auto fine = parse(Api::chat, body_with(Api::chat, "guided_json", R"("{\"type\":\"object\"}")"));
  ASSERT_TRUE(fine.ok());
  EXPECT_EQ(fine->request.sampling.grammar.text, R"({"type":"object"})");
}

// Whatever a body is made of, reading it takes time in proportion to its size.
TEST(RequestFields, BodiesAreReadInLinearTime) {
  for (const std::string unit : {"{},", "[],", "\"\",", "0,", "{\"a\":0},", "[{}],", "null,", "1e9,", "\"\\u0041\","}) {
    const auto body_of = [&](size_t bytes) {
      return body_with(Api::chat, "metadata", "[" + repeat(unit, bytes / unit.size()) + "0]");
    };
    const std::string small = body_of(1 << 16);
    const std::string large = body_of(8 << 20);
    const double fast = cpu_seconds([&] { EXPECT_TRUE(parse(Api::chat, small).ok()) << unit; });
    const double slow = cpu_seconds([&] { (void)parse(Api::chat, large); });
    EXPECT_LT(slow, 128 * 4 * fast + 0.5 * kSlowdown) << unit;
  }
}

TEST(RequestFields, GrammarsAreBoundedTogether) {
  const std::string choice = "\"" + repeat("x", 60'000) + "\"";
  EXPECT_TRUE(parse(Api::chat, body_with(Api::chat, "guided_choice", "[" + choice + "," + choice + "]")).ok());
  const auto many =
      parse(Api::chat, body_with(Api::chat, "guided_choice", "[" + repeat(choice + ",", 100) + choice + "]"));
  ASSERT_FALSE(many.ok());
  EXPECT_EQ(many.error().param, "guided_choice");
  const auto schema =
      parse(Api::chat, body_with(Api::chat, "guided_json", R"({"const":")" + repeat("x", 300'000) + "\"}"));
  ASSERT_FALSE(schema.ok());
  EXPECT_EQ(schema.error().param, "guided_json");
}

}  // namespace
}  // namespace inferneo
