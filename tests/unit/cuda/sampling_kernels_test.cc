// Tokens chosen on the device against the host's sampler: the same parameters, seeds and rows. Greedy choices, filters'
// members and logprobs must agree; a draw may differ where it falls within the rounding of the weights (float
// arithmetic of exp on both sides), which a row in a few thousand does.
#include "kernel_data.h"
#include "models/cuda/sampling_upload.h"
#include "models/sampling/sampler.h"

namespace inferneo::cuda::testing {
namespace {

struct Outcome {
  int32_t chosen = 0;
  int32_t differed = 0;
};

class SamplingKernels : public DeviceTest {
 protected:
  // One step of rows: each a sequence that wants a sample.
  Outcome check(const std::vector<SamplingParams>& params, int32_t vocab, const std::vector<float>& logits,
                std::span<const uint32_t> mask, std::span<const Token> banned, uint64_t seed) {
    const auto rows = static_cast<int32_t>(params.size());
    StepBatch batch;
    const Token token = 0;
    const std::vector<Token> prompt = {1, 2, 2, 5, -7, vocab + 3};
    const std::vector<Token> output = {3, 3, 3, 5};
    for (int32_t r = 0; r < rows; ++r) {
      SequenceStep step;
      step.tokens = std::span(&token, 1);
      step.position = 100 + r;
      step.want = Want::sample;
      step.sampling.params = &params[static_cast<size_t>(r)];
      step.sampling.prompt = prompt;
      step.sampling.output = output;
      step.sampling.seed = seed + static_cast<uint64_t>(r % 3);
      if (r % 2 == 0) step.sampling.allowed_mask = mask;
      step.sampling.banned = banned;
      batch.sequences.push_back(step);
    }
    SamplingUpload upload;
    upload.build(batch, vocab);
    std::vector<uint8_t> bytes(upload.bytes());
    upload.write({reinterpret_cast<std::byte*>(bytes.data()), bytes.size()});
    const Array<uint8_t> data(*this, bytes);
    const auto* base = reinterpret_cast<const std::byte*>(data.get());
    const Array<float> logits_on(*this, logits);
    const Array<float> edited(*this, std::max<size_t>(upload.num_edits(), 1));
    const Array<RowPart> raw(*this, static_cast<size_t>(rows * kScanParts));
    const Array<RowPart> parts(*this, static_cast<size_t>(rows * kScanParts));
    const Array<SampleResult> results(*this, static_cast<size_t>(rows));
    const Array<int32_t> sampled(*this, static_cast<size_t>(rows));
    SampleArgs args{};
    args.logits = logits_on.get();
    args.vocab = vocab;
    args.samples = upload.samples(base);
    args.edits = upload.edits(base);
    args.edited = edited.get();
    args.masks = upload.masks(base);
    args.raw = raw.get();
    args.parts = parts.get();
    args.results = results.get();
    args.sampled = sampled.get();
    args.rows = rows;
    Ops on = ops();
    EXPECT_TRUE(on.sample(args, {upload.processes(0, rows), upload.wants_top(0, rows)}).ok());
    const std::vector<SampleResult> got = results.download();
    const std::vector<int32_t> tokens = sampled.download();
    Outcome outcome;
    Sampler sampler;
    for (int32_t r = 0; r < rows; ++r) {
      const SampleResult& result = got[static_cast<size_t>(r)];
      std::vector<float> row(logits.begin() + int64_t{r} * vocab, logits.begin() + int64_t{r + 1} * vocab);
      const SequenceStep& step = batch.sequences[static_cast<size_t>(r)];
      const auto want = sampler.sample(row, step.sampling, step.position + 1);
      EXPECT_EQ(result.status == kSampleOk, want.ok()) << "row " << r;
      if (!want.ok() || result.status != kSampleOk) continue;
      EXPECT_GE(result.num_top, 0) << "row " << r;
      ++outcome.chosen;
      EXPECT_EQ(tokens[static_cast<size_t>(r)], result.token);
      const bool greedy = params[static_cast<size_t>(r)].temperature < kGreedyTemperature;
      if (greedy) {
        EXPECT_EQ(result.token, want->token) << "row " << r;
      }
      if (result.token != want->token) {
        ++outcome.differed;
        continue;
      }
      if (!params[static_cast<size_t>(r)].logprobs) continue;
      EXPECT_NEAR(result.logprob, want->logprobs.logprob, 2e-4) << "row " << r;
      EXPECT_EQ(static_cast<size_t>(result.num_top), want->logprobs.top.size());
      if (static_cast<size_t>(result.num_top) != want->logprobs.top.size()) continue;
      for (size_t i = 0; i < want->logprobs.top.size(); ++i) {
        EXPECT_EQ(result.top_tokens[i], want->logprobs.top[i].first) << "row " << r << ", place " << i;
        EXPECT_NEAR(result.top_logprobs[i], want->logprobs.top[i].second, 2e-4);
      }
    }
    return outcome;
  }

  static std::vector<SamplingParams> variety(Numbers& numbers, int32_t rows) {
    std::vector<SamplingParams> all;
    for (int32_t r = 0; r < rows; ++r) {
      SamplingParams p;
      const int kind = r % 8;
      p.temperature = kind == 0 ? 0.0F : static_cast<float>(0.2 + std::abs(numbers.next(1.5)));
      if (kind == 2 || kind == 5) p.top_k = 1 + numbers.below(40);
      if (kind == 3 || kind == 5 || kind == 6) p.top_p = static_cast<float>(0.05 + std::abs(numbers.next(0.9)));
      if (kind == 4 || kind == 6) p.min_p = static_cast<float>(std::abs(numbers.next(0.3)));
      if (kind == 7) p.typical_p = static_cast<float>(0.1 + std::abs(numbers.next(0.8)));
      if (numbers.below(3) == 0) p.repetition_penalty = 1.3F;
      if (numbers.below(3) == 0) p.presence_penalty = 0.7F;
      if (numbers.below(3) == 0) p.frequency_penalty = -0.4F;
      if (numbers.below(3) == 0) p.logit_bias = {{7, 3.0F}, {3, -2.0F}, {7, 0.5F}, {-1, 9.0F}};
      if (numbers.below(2) == 0) p.logprobs = numbers.below(21);
      all.push_back(p);
    }
    return all;
  }
};

TEST_F(SamplingKernels, ChooseWhatTheHostChooses) {
  Outcome total;
  for (const int32_t vocab : {50, 151, 2000}) {
    for (uint32_t round = 0; round < 6; ++round) {
      Numbers numbers(round * 100 + static_cast<uint32_t>(vocab));
      constexpr int32_t kRows = 16;
      std::vector<float> logits = numbers.floats(kRows * vocab, 6.0);
      for (int i = 0; i < 40; ++i) logits[static_cast<size_t>(numbers.below(kRows * vocab))] = 5.5F;  // ties
      std::vector<uint32_t> mask(static_cast<size_t>((vocab + 31) / 32));
      for (uint32_t& word : mask) word = static_cast<uint32_t>(numbers.below(1 << 30)) << 2 | 9U;
      const std::vector<Token> banned = {0, 11, 900000};
      const bool masked = round % 2 == 1;
      const Outcome outcome = check(variety(numbers, kRows), vocab, logits, masked ? mask : std::vector<uint32_t>(),
                                    round % 3 == 0 ? banned : std::vector<Token>(), round);
      total.chosen += outcome.chosen;
      total.differed += outcome.differed;
    }
  }
  EXPECT_GE(total.chosen, 250);
  EXPECT_LE(total.differed, 2);
}

TEST_F(SamplingKernels, LargeVocabulary) {
  // A GPU takes a whole batch of them: logits behind 2^23.
  const int32_t vocab = is_emulated() ? 70000 : 151936;
  const int32_t rows = is_emulated() ? 3 : 96;
  Numbers numbers(4);
  std::vector<SamplingParams> params(static_cast<size_t>(rows));
  for (size_t r = 0; r < params.size(); r += 3) {
    params[r].temperature = 0.0F;
    params[r + 1].top_p = 0.9F;
    params[r + 1].top_k = 50;
    params[r + 2].temperature = 1.0F;
    params[r + 2].logprobs = 5;
  }
  const Outcome outcome = check(params, vocab, numbers.floats(int64_t{rows} * vocab, 8.0), {}, {}, 99);
  EXPECT_EQ(outcome.chosen, rows);
  EXPECT_LE(outcome.differed, is_emulated() ? 0 : 2);
}

// The sampled token's logprob alone: nobody has written a list of the best.
TEST_F(SamplingKernels, LogprobsWithoutTheBest) {
  Numbers numbers(6);
  std::vector<SamplingParams> params(2);
  params[0].logprobs = 0;
  EXPECT_EQ(check(params, 80, numbers.floats(160, 4.0), {}, {}, 3).chosen, 2);
}

TEST_F(SamplingKernels, RefuseWhatIsNoNumber) {
  constexpr int32_t kVocab = 90;
  constexpr float kInf = std::numeric_limits<float>::infinity();
  std::vector<float> logits(4 * kVocab, 0.5F);
  logits[70] = std::numeric_limits<float>::quiet_NaN();
  logits[kVocab + 3] = kInf;
  for (int i = 0; i < kVocab; ++i) logits[static_cast<size_t>(2 * kVocab + i)] = -kInf;
  logits[3 * kVocab + 80] = 0.75F;
  std::vector<SamplingParams> params(4);
  params[3].temperature = 0.0F;
  EXPECT_EQ(check(params, kVocab, logits, {}, {}, 1).chosen, 1);
}

// The laws of the filters at their ends: ties go to the lower id, one token always stays.
TEST_F(SamplingKernels, FiltersAtTheirEnds) {
  constexpr int32_t kVocab = 64;
  std::vector<float> logits(3 * kVocab, 1.0F);  // all equal
  std::vector<SamplingParams> params(3);
  params[0].top_k = 1;
  params[1].top_p = 1e-6F;
  params[2].min_p = 1.0F;
  params[2].top_k = 3;
  const Outcome outcome = check(params, kVocab, logits, {}, {}, 5);
  EXPECT_EQ(outcome.chosen, 3);
  EXPECT_EQ(outcome.differed, 0);
}

TEST(SamplingUpload, DraftsCountAsOutputOnlyBehindThemselves) {
  SamplingParams params;
  params.frequency_penalty = 1.0F;
  const std::vector<Token> tokens = {9, 4, 4};
  const std::vector<Token> output = {9};
  SequenceStep step;
  step.tokens = tokens;
  step.position = 10;
  step.want = Want::verify;
  step.num_draft = 2;
  step.sampling.params = &params;
  step.sampling.output = output;
  StepBatch batch;
  batch.sequences = {step};
  SamplingUpload upload;
  upload.build(batch, 20);
  ASSERT_EQ(upload.chosen().size(), 3U);
  std::vector<std::byte> bytes(upload.bytes());
  upload.write(bytes);
  const SampleRow* rows = upload.samples(bytes.data());
  const LogitEdit* edits = upload.edits(bytes.data());
  const auto count_of = [&](int row, Token token) {
    for (int32_t e = 0; e < rows[row].edit_count; ++e) {
      if (edits[rows[row].edit_begin + e].token == token) return edits[rows[row].edit_begin + e].count;
    }
    return 0;
  };
  EXPECT_EQ(count_of(0, 4), 0);
  EXPECT_EQ(count_of(1, 4), 1);
  EXPECT_EQ(count_of(2, 4), 2);
  EXPECT_EQ(count_of(2, 9), 1);
  EXPECT_EQ(rows[0].position, 11);
  EXPECT_EQ(rows[2].position, 13);
}

}  // namespace
}  // namespace inferneo::cuda::testing
