// One character, a million and ten million times: linear time, exact round trips where the family keeps the text.
#include <gtest/gtest.h>

#include "fixtures.h"
#include "support/cpu_time.h"

namespace inferneo {
namespace {

std::string repeat(const std::string& unit, size_t bytes) {
  std::string text;
  text.reserve(bytes + unit.size());
  while (text.size() < bytes) text += unit;
  return text;
}

double encode_seconds(const Tokenizer& tokenizer, const std::string& text) {
  return cpu_seconds([&] {
    const auto tokens = tokenizer.encode(text, false);
    EXPECT_TRUE(tokens.ok()) << (tokens.ok() ? "" : tokens.error().message);
  });
}

class LongText : public testing::TestWithParam<std::string> {};

TEST_P(LongText, OneMegabyteOfAnything) {
  const auto tokenizer = load_fixture(GetParam());
  const std::vector<std::string> units = {"a",
                                          " ",
                                          "\n",
                                          "1",
                                          "\xc3\xa9",
                                          "\xe4\xbd\xa0",
                                          "!",
                                          "\t",
                                          "a ",
                                          " \n",
                                          "\r\n",
                                          "</s>",
                                          "<|im_end|>",
                                          "<",
                                          std::string(1, '\0'),
                                          "▁",
                                          "\xf0\x9f\x91\x8b",
                                          "a\xcc\x81",
                                          "\xcc\x81"};
  for (const std::string& unit : units) {
    const double small = encode_seconds(*tokenizer, repeat(unit, 1 << 17));
    const double large = encode_seconds(*tokenizer, repeat(unit, 1 << 20));
    EXPECT_LT(large, 8 * 3 * small + 0.5) << GetParam() << " " << unit;
    if (large > 1.5) std::printf("%s: 1 MiB of '%s' took %.2f s\n", GetParam().c_str(), unit.c_str(), large);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LongText, testing::ValuesIn(families()),
                         [](const auto& family) { return family.param; });

TEST(TenMegabytes, OfOneCharacterAreLinearOrTooLarge) {
  for (const char* family : {"gpt2", "llama3", "llama2", "gemma"}) {
    const auto tokenizer = load_fixture(family);
    for (const char* unit : {"a", " "}) {
      const double small = encode_seconds(*tokenizer, repeat(unit, 1 << 20));
      const std::string text = repeat(unit, 10 << 20);
      const double large = cpu_seconds([&] {
        // A regular expression of the family's may give up on millions of spaces: that is a typed error.
        const auto tokens = tokenizer->encode(text, false);
        if (!tokens.ok()) {
          EXPECT_EQ(tokens.error().code, ErrorCode::payload_too_large) << tokens.error().message;
        }
      });
      std::printf("%s: 10 MiB of '%s' took %.2f s\n", family, unit, large);
      EXPECT_LT(large, 10 * 3 * small + 0.5) << family << " '" << unit << "'";
    }
  }
}

}  // namespace
}  // namespace inferneo
