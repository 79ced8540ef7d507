// One character over and over: linear time, in every family.
// INFERNEO_TEXT_BYTES is the length: 64 KiB in every full run; the soak build has 1 MiB of anything and 10 MiB of
// some, and INFERNEO_SOAK_SCALE (1: all) scales how many of its pairs of family and character are tried.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

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

constexpr size_t kBytes = INFERNEO_TEXT_BYTES;
constexpr bool kSoak = kBytes >= 1 << 20;

// Of the soak's pairs every n-th is tried, the first always.
size_t stride() {
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  if (!kSoak) return 1;
  return static_cast<size_t>(1.0 / std::clamp(scale == nullptr ? 0.02 : std::atof(scale), 0.001, 1.0));
}

// The index of a test's family, for stride().
size_t index_of(const std::string& family) {
  return static_cast<size_t>(std::find(families().begin(), families().end(), family) - families().begin());
}

class LongText : public testing::TestWithParam<std::string> {};

TEST_P(LongText, OfAnythingTakesLinearTime) {
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
  for (size_t i = 0; i < units.size(); ++i) {
    if ((index_of(GetParam()) * units.size() + i) % stride() != 0) continue;
    const double small = encode_seconds(*tokenizer, repeat(units[i], kBytes / 8));
    const double large = encode_seconds(*tokenizer, repeat(units[i], kBytes));
    EXPECT_LT(large, 8 * 3 * small + 0.1) << GetParam() << " " << units[i];
    if (large > 1.5) std::printf("%s: '%s' took %.2f s\n", GetParam().c_str(), units[i].c_str(), large);
  }
}

INSTANTIATE_TEST_SUITE_P(Families, LongText, testing::ValuesIn(families()),
                         [](const auto& family) { return family.param; });

TEST(TenTimesAsMuch, OfOneCharacterIsLinearOrTooLarge) {
  size_t pair = 0;
  for (const char* family : {"gpt2", "llama3", "llama2", "gemma"}) {
    const auto tokenizer = load_fixture(family);
    for (const char* unit : {"a", " "}) {
      if (pair++ % stride() != 0) continue;
      const double small = encode_seconds(*tokenizer, repeat(unit, kBytes));
      const std::string text = repeat(unit, 10 * kBytes);
      const double large = cpu_seconds([&] {
        // A regular expression of the family's may give up on millions of spaces: that is a typed error.
        const auto tokens = tokenizer->encode(text, false);
        if (!tokens.ok()) {
          EXPECT_EQ(tokens.error().code, ErrorCode::payload_too_large) << tokens.error().message;
        }
      });
      std::printf("%s: %zu bytes of '%s' took %.2f s\n", family, text.size(), unit, large);
      EXPECT_LT(large, 10 * 3 * small + 0.1) << family << " '" << unit << "'";
    }
  }
}

}  // namespace
}  // namespace inferneo
