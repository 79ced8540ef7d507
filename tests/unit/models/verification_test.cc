// How a converted model is compared with the native one.
#include "models/onnx_convert/verification.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "golden_models.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kVocab = 97;

// Logits that follow from the tokens alone.
Result<std::vector<float>> made_up(std::span<const Token> tokens) {
  std::vector<float> logits;
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (int32_t v = 0; v < kVocab; ++v) {
      logits.push_back(std::sin(static_cast<float>(tokens[t] * 31 + v * 7 + static_cast<int32_t>(t))));
    }
  }
  return logits;
}

SequenceLogits shifted(float by) {
  return [by](std::span<const Token> tokens) -> Result<std::vector<float>> {
    std::vector<float> logits = made_up(tokens).value();
    logits.back() += by;
    return logits;
  };
}

TEST(Verification, EqualModelsAgree) {
  const auto same = compare_logits(made_up, made_up, kVocab, 100, 0.002).value();
  EXPECT_TRUE(same.done);
  EXPECT_EQ(same.largest_difference, 0.0);
  EXPECT_EQ(same.agreeing, same.tokens);
  EXPECT_EQ(same.tokens, 4 * kVerifiedTokens);
  EXPECT_TRUE(within_bounds(same).ok());
  EXPECT_EQ(compare_logits(made_up, made_up, kVocab, 3, 0.002)->tokens, 4 * 3) << "a short context";
}

TEST(Verification, OneWrongLogitIsFound) {
  // The spread of a sine is 0.7.
  const auto small = compare_logits(made_up, shifted(0.001F), kVocab, 100, 0.002).value();
  EXPECT_NEAR(small.largest_difference, 0.001 / 0.707, 0.0002);
  EXPECT_NEAR(small.typical_difference, small.largest_difference / std::sqrt(32.0 * kVocab), 0.0001);
  EXPECT_TRUE(within_bounds(small).ok());
  const auto large = compare_logits(made_up, shifted(5.0F), kVocab, 100, 0.01).value();
  EXPECT_LT(large.agreeing, large.tokens);
  const Status refused = within_bounds(large);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::numeric);
  EXPECT_THAT(refused.error().message, HasSubstr("--no-verify"));
}

TEST(Verification, WhatIsNoNumberIsRefused) {
  for (const float bad : {std::nanf(""), HUGE_VALF}) {
    const auto found = compare_logits(made_up, shifted(bad), kVocab, 100, 0.01).value();
    EXPECT_FALSE(within_bounds(found).ok());
  }
}

TEST(Verification, BoundsGrowAsPrecisionFalls) {
  double last = 0.0;
  for (const Precision precision : {Precision::Float32, Precision::Float16, Precision::Int8, Precision::Int4}) {
    EXPECT_GT(difference_bound(precision, false), last);
    last = difference_bound(precision, false);
    EXPECT_GT(difference_bound(precision, true), last);
  }
  EXPECT_LT(difference_bound(Precision::Int4, true), 1.4) << "what unlike models differ by";
}

TEST(Verification, ErrorsAndWrongShapesArePassedOn) {
  const SequenceLogits broken = [](std::span<const Token>) -> Result<std::vector<float>> {
    return make_error(ErrorCode::io_error, "gone");
  };
  EXPECT_EQ(compare_logits(made_up, broken, kVocab, 100, 0.002).error().message, "gone");
  const SequenceLogits shorter = [](std::span<const Token>) -> Result<std::vector<float>> {
    return std::vector<float>(5);
  };
  EXPECT_EQ(compare_logits(made_up, shorter, kVocab, 100, 0.002).error().code, ErrorCode::internal);
}

// Through the seam that every runner implements: two native runners, one of them quantised.
TEST(Verification, ReadsLogitsOfARunner) {
  MemoryLedger ledger(size_t{1} << 30);
  ThreadPool pool(2);
  const ModelDirectory directory = open_model(golden_root() + "/llama3").value();
  const auto load = [&](const char* quantization) {
    LoadOptions options;
    options.directory = &directory;
    options.model_name = "m";
    options.ledger = &ledger;
    options.pool = &pool;
    options.quantization = quantization;
    options.kv_cache_dtype = "f32";
    return load_transformers_model(options).value();
  };
  const auto plain = load("none");
  const auto same = load("none");
  const auto int8 = load("int8");
  const SequenceLogits expected = logits_of(*plain, kVerifiedTokens).value();
  const int32_t vocab = plain->spec().vocab_size;
  const auto equal = compare_logits(expected, logits_of(*same, kVerifiedTokens).value(), vocab, 256, 0.0).value();
  EXPECT_EQ(equal.largest_difference, 0.0);
  const auto near = compare_logits(expected, logits_of(*int8, kVerifiedTokens).value(), vocab, 256,
                                   difference_bound(Precision::Int8, false))
                        .value();
  EXPECT_GT(near.largest_difference, 0.0);
  EXPECT_TRUE(within_bounds(near).ok()) << near.typical_difference;
}

}  // namespace
}  // namespace inferneo
