#include "models/sampling/validate_sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "rows.h"

namespace inferneo {
namespace {

using testing::kInf;
using testing::kNan;

struct BadParams {
  const char* field;
  std::function<void(SamplingParams&)> spoil;
};

TEST(ValidateSamplingTest, DefaultsAndLimitsAreFine) {
  EXPECT_TRUE(validate_sampling({}, 10).ok());
  SamplingParams params;
  params.temperature = 2.0F;
  params.top_k = -1;
  params.min_p = 1.0F;
  params.presence_penalty = -2.0F;
  params.frequency_penalty = 2.0F;
  params.n = 16;
  params.logprobs = 20;
  params.prompt_logprobs = 0;
  params.stop.assign(16, "x");
  params.stop_token_ids.assign(64, 9);
  params.logit_bias.assign(4096, {0, -100.0F});
  params.min_tokens = 5;
  params.max_tokens = 5;
  EXPECT_TRUE(validate_sampling(params, 10).ok());
  params.temperature = 0.0F;
  EXPECT_TRUE(validate_sampling(params, 10).ok());
}

TEST(ValidateSamplingTest, NamesTheFieldAtFault) {
  std::vector<BadParams> cases;
  const auto add_floats = [&](const char* field, float SamplingParams::*member, std::vector<float> values) {
    values.insert(values.end(), {kNan, kInf, -kInf, 1e30F});
    for (const float value : values) cases.push_back({field, [=](SamplingParams& p) { p.*member = value; }});
  };
  add_floats("temperature", &SamplingParams::temperature, {-0.1F, 2.1F});
  add_floats("top_p", &SamplingParams::top_p, {0.0F, -0.5F, 1.01F});
  add_floats("min_p", &SamplingParams::min_p, {-0.1F, 1.1F});
  add_floats("typical_p", &SamplingParams::typical_p, {0.0F, 1.1F});
  add_floats("repetition_penalty", &SamplingParams::repetition_penalty, {0.0F, -1.0F});
  add_floats("presence_penalty", &SamplingParams::presence_penalty, {-2.1F, 2.1F});
  add_floats("frequency_penalty", &SamplingParams::frequency_penalty, {-2.1F, 2.1F});
  const std::vector<BadParams> others = {
      {"top_k", [](SamplingParams& p) { p.top_k = -2; }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{10, 1.0F}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{-1, 1.0F}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{1, kNan}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{1, -kInf}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias = {{1, 100.5F}};
       }},
      {"logit_bias",
       [](SamplingParams& p) {
         p.logit_bias.assign(4097, {1, 1.0F});
       }},
      {"stop", [](SamplingParams& p) { p.stop.assign(17, "x"); }},
      {"stop", [](SamplingParams& p) { p.stop = {""}; }},
      {"stop", [](SamplingParams& p) { p.stop = {std::string(2000, 'x')}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids = {10}; }},
      {"stop_token_ids", [](SamplingParams& p) { p.stop_token_ids.assign(65, 1); }},
      {"n", [](SamplingParams& p) { p.n = 0; }},
      {"n", [](SamplingParams& p) { p.n = 1'000'000'000; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = -1; }},
      {"logprobs", [](SamplingParams& p) { p.logprobs = 1'000'000; }},
      {"prompt_logprobs", [](SamplingParams& p) { p.prompt_logprobs = 21; }},
      {"max_tokens", [](SamplingParams& p) { p.max_tokens = 0; }},
      {"min_tokens", [](SamplingParams& p) { p.min_tokens = -1; }},
      {"min_tokens",
       [](SamplingParams& p) {
         p.max_tokens = 4;
         p.min_tokens = 5;
       }},
  };
  cases.insert(cases.end(), others.begin(), others.end());
  for (const BadParams& bad : cases) {
    SamplingParams params;
    bad.spoil(params);
    const Status status = validate_sampling(params, 10);
    ASSERT_FALSE(status.ok()) << bad.field;
    EXPECT_EQ(status.error().code, ErrorCode::invalid_argument);
    EXPECT_EQ(status.error().param, bad.field);
    EXPECT_TRUE(status.error().message.starts_with(bad.field)) << status.error().message;
  }
}

}  // namespace
}  // namespace inferneo
