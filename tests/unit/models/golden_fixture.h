// What the golden tests share: loading a golden model, its prompt's logits and its greedy continuation.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "golden_models.h"
#include "kernels/op_table.h"
#include "paged_harness.h"

namespace inferneo {

inline constexpr int32_t kMaxTokens = 256;

struct Case {
  std::string model;
  std::string isa;
};
inline void PrintTo(const Case& tested, std::ostream* out) { *out << tested.model << " on " << tested.isa; }

// Every model on every instruction set of this machine, or on the best one only.
inline std::vector<Case> golden_cases(bool best_only) {
  std::vector<Case> cases;
  for (const std::string& model : golden_names()) {
    for (const kernels::IsaEntry& isa : kernels::isa_entries()) {
      if (!isa.supported()) continue;
      cases.push_back({model, std::string(isa.name)});
      if (best_only) break;
    }
  }
  return cases;
}
inline std::string case_name(const testing::TestParamInfo<Case>& tested) {
  return tested.param.model + "_on_" + tested.param.isa;
}

class GoldenTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    auto directory = open_model(golden_root() + "/" + GetParam().model);
    ASSERT_TRUE(directory.ok()) << directory.error().message;
    directory_ = std::make_unique<ModelDirectory>(std::move(directory).value());
    auto expected = read_expected(ledger_, *directory_);
    ASSERT_TRUE(expected.ok()) << expected.error().message;
    expected_ = std::move(expected).value();
  }

  virtual std::unique_ptr<HarnessMemory> memory() { return std::make_unique<HarnessMemory>(); }

  virtual std::unique_ptr<ModelRunner> load(int32_t block_size) {
    LoadOptions options;
    options.directory = directory_.get();
    options.model_name = GetParam().model;
    options.ledger = &ledger_;
    options.pool = &pool_;
    options.isa = GetParam().isa;
    options.block_size = block_size;
    options.quantization = quantization_;
    // LongRoPE chooses its factors by the longest context that is served; this model's short ones end at 128.
    if (GetParam().model == "phi3_longrope_short") options.max_model_len = 128;
    auto runner = load_transformers_model(options);
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    return runner.ok() ? std::move(runner).value() : nullptr;
  }

  // Logits of the whole prompt, computed in chunks of these sizes (the last repeats), each beside `others`.
  std::vector<float> prompt_logits(PagedHarness& harness, const std::vector<int32_t>& chunks,
                                   std::vector<PagedHarness::Sequence*> others = {}) {
    std::vector<float> logits;
    PagedHarness::Sequence sequence{expected_.prompt, 0, {}};
    const auto size = static_cast<int32_t>(expected_.prompt.size());
    for (size_t i = 0; sequence.computed < size; ++i) {
      const int32_t count = std::min(chunks[std::min(i, chunks.size() - 1)], size - sequence.computed);
      std::vector<PagedHarness::Part> parts;
      for (PagedHarness::Sequence* other : others) {
        const int32_t left = static_cast<int32_t>(other->tokens.size()) - other->computed;
        if (left > 0) parts.push_back({other, std::min(left, 3 + static_cast<int32_t>(parts.size())), Want::nothing});
      }
      parts.insert(parts.begin() + static_cast<std::ptrdiff_t>(parts.size() / 2), {&sequence, count, Want::logits});
      auto result = harness.step(parts);
      if (!result.ok()) {
        ADD_FAILURE() << result.error().message;
        return {};
      }
      for (auto& share : result->sequences) {
        EXPECT_FALSE(share.error) << share.error->message;
        logits.insert(logits.end(), share.logits.begin(), share.logits.end());
      }
    }
    harness.release(sequence);
    return logits;
  }

  // Greedy continuation; recompute_at: give all blocks back after that many tokens and compute the sequence again.
  std::vector<Token> greedy(PagedHarness& harness, int recompute_at = -1) {
    PagedHarness::Sequence sequence{expected_.prompt, 0, {}};
    std::vector<Token> tokens;
    while (tokens.size() < expected_.greedy_tokens.size()) {
      if (static_cast<int>(tokens.size()) == recompute_at) {
        harness.release(sequence);
        recompute_at = -1;
      }
      const auto count = static_cast<int32_t>(sequence.tokens.size()) - sequence.computed;
      auto result = harness.step({{&sequence, count, Want::sample}});
      if (!result.ok() || result->sequences[0].error || result->sequences[0].tokens.size() != 1) {
        ADD_FAILURE() << "no token";
        return tokens;
      }
      tokens.push_back(result->sequences[0].tokens[0]);
      sequence.tokens.push_back(tokens.back());
    }
    harness.release(sequence);
    return tokens;
  }

  // Relative to the range of the expected logits.
  // f32: 1e-4. bf16: the reference is exact for the rounded weights, so what is left are our roundings:
  // six per layer (inputs of four products, keys, values) and one before lm_head, each 2^-9 relative to its vector,
  // which add up as independent errors; random networks of this kind (gains of 2 in q and k) amplify them by less
  // than 8. The range spans about eight standard deviations and the worst of 7,000 logits lies at four: a factor of two
  // less. Besides, transformers' own error in that type is a bound (half as much again for the luck of one draw). f16
  // weights take f32 inputs: only keys and values are rounded, at 2^-12.
  double bound(const ModelRunner& runner) const {
    double layers = 0;
    for (const KvGroupSpec& group : runner.kv_spec().groups) layers += static_cast<double>(group.layers.size());
    if (runner.spec().dtype == "bf16") return 4.0 * std::sqrt(6.0 * layers + 1.0) * std::exp2(-9);
    if (runner.spec().dtype == "f16") return 4.0 * std::sqrt(2.0 * layers) * std::exp2(-12);
    return 1e-4;
  }

  double range() const {
    const auto [low, high] = std::minmax_element(expected_.logits.begin(), expected_.logits.end());
    return static_cast<double>(*high) - *low;
  }

  // Logits at every position within the bound, greedy tokens equal up to near ties.
  void expect_matches_transformers() {
    auto runner = load(16);
    ASSERT_NE(runner, nullptr);
    PagedHarness harness(*runner, 64, 1, memory());
    ASSERT_TRUE(harness.bind(4, kMaxTokens).ok());
    const std::vector<float> logits = prompt_logits(harness, {kMaxTokens});
    ASSERT_EQ(logits.size(), expected_.logits.size());
    double worst = 0;
    size_t where = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      const double difference = std::abs(static_cast<double>(logits[i]) - expected_.logits[i]);
      if (!(difference <= worst)) {
        worst = difference;
        where = i;
      }
    }
    const auto vocab = static_cast<size_t>(runner->spec().vocab_size);
    EXPECT_LE(worst / range(), bound(*runner)) << "worst at position " << where / vocab << ", token " << where % vocab
                                               << ": " << logits[where] << " instead of " << expected_.logits[where];
    if (expected_.rounded_error > 0) {
      EXPECT_LE(worst / range(), 1.5 * expected_.rounded_error);
    }
    RecordProperty("worst_relative", std::to_string(worst / range()));

    const std::vector<Token> tokens = greedy(harness);
    for (size_t i = 0; i < tokens.size(); ++i) {
      // Two logits may each be off by the bound. After a near tie the texts may part; nothing follows from the rest.
      if (expected_.greedy_margins[i] <= 2 * bound(*runner) * range()) break;
      ASSERT_EQ(tokens[i], expected_.greedy_tokens[i]) << "greedy token " << i;
    }
  }

  std::string quantization_ = "none";
  MemoryLedger ledger_{size_t{1} << 30};
  ThreadPool pool_{2};
  std::unique_ptr<ModelDirectory> directory_;
  Expected expected_;
};

}  // namespace inferneo
