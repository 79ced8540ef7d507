#include "models/onnx_convert/verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "base/split_mix.h"

namespace inferneo {
namespace {

constexpr int kSequences = 4;

std::vector<Token> pseudo_random_tokens(uint64_t seed, int32_t count, int32_t vocab_size) {
  std::vector<Token> tokens;
  for (int32_t i = 0; i < count; ++i) {
    const uint64_t number = split_mix(seed + static_cast<uint64_t>(i + 1) * kGoldenGamma);
    tokens.push_back(static_cast<Token>(number % static_cast<uint64_t>(vocab_size)));
  }
  return tokens;
}

double standard_deviation(std::span<const float> row) {
  double sum = 0.0;
  double squares = 0.0;
  for (const float v : row) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  const auto count = static_cast<double>(row.size());
  const double mean = sum / count;
  return std::sqrt(std::max(squares / count - mean * mean, 1e-30));
}

// A runner whose cache holds one sequence, in memory of its own.
class OneSequence {
 public:
  OneSequence(ModelRunner& runner, int32_t max_tokens) : runner_(runner) {
    for (const KvGroupSpec& group : runner.kv_spec().groups) {
      const int32_t blocks = (max_tokens + group.block_size - 1) / group.block_size;
      tables_.emplace_back();
      for (int32_t b = 0; b < blocks; ++b) tables_.back().push_back(b);
      std::vector<std::byte*> planes;
      for (const KvPlaneSpec& plane : group.planes) {
        const size_t bytes = plane.bytes_per_block * static_cast<size_t>(blocks);
        memory_.push_back(std::make_unique<std::vector<std::byte>>(bytes + plane.alignment));
        const auto begin = reinterpret_cast<uintptr_t>(memory_.back()->data());
        planes.push_back(memory_.back()->data() + (plane.alignment - begin % plane.alignment) % plane.alignment);
      }
      binding_.bases.push_back(std::move(planes));
      binding_.capacity_blocks.push_back(blocks);
    }
  }

  Status bind(int32_t max_tokens) { return runner_.bind(binding_, 1, max_tokens); }

  Result<std::vector<float>> logits(std::span<const Token> tokens) {
    std::vector<std::span<const int32_t>> tables(tables_.begin(), tables_.end());
    static const SamplingParams kAny;
    SequenceStep step;
    step.sequence_id = ++sequence_;
    step.tokens = tokens;
    step.block_tables = tables;
    step.want = Want::logits;
    step.sampling.params = &kAny;
    StepBatch batch;
    batch.sequences.push_back(step);
    ASSIGN_OR_RETURN(const Ticket ticket, runner_.submit(batch));
    ASSIGN_OR_RETURN(StepResult result, runner_.collect(ticket));
    if (result.sequences.front().error) return *result.sequences.front().error;
    return std::move(result.sequences.front().logits);
  }

 private:
  ModelRunner& runner_;
  KvBinding binding_;
  std::vector<std::vector<int32_t>> tables_;  // [groups][blocks]
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
  uint64_t sequence_ = 0;
};

}  // namespace

Result<SequenceLogits> logits_of(ModelRunner& runner, int32_t max_tokens) {
  auto sequence = std::make_shared<OneSequence>(runner, max_tokens);
  RETURN_IF_ERROR(sequence->bind(max_tokens));
  return SequenceLogits([sequence](std::span<const Token> tokens) { return sequence->logits(tokens); });
}

double difference_bound(Precision precision, bool native_bf16) {
  constexpr std::array kBounds = {0.002, 0.02, 0.3, 0.9};
  return kBounds[static_cast<size_t>(precision)] + (native_bf16 ? 0.1 : 0.0);
}

Result<ConvertVerification> compare_logits(const SequenceLogits& native, const SequenceLogits& converted,
                                           int32_t vocab_size, int32_t max_tokens, double bound) {
  ConvertVerification verification;
  verification.bound = bound;
  double squares = 0.0;
  const auto vocab = static_cast<size_t>(vocab_size);
  for (int s = 0; s < kSequences; ++s) {
    const std::vector<Token> tokens =
        pseudo_random_tokens(static_cast<uint64_t>(s), std::min(kVerifiedTokens, max_tokens), vocab_size);
    ASSIGN_OR_RETURN(const std::vector<float> expected, native(tokens));
    ASSIGN_OR_RETURN(const std::vector<float> got, converted(tokens));
    if (expected.size() != tokens.size() * vocab || got.size() != expected.size()) {
      return make_error(ErrorCode::internal, fmt::format("{} and {} logits for {} tokens of {}", expected.size(),
                                                         got.size(), tokens.size(), vocab_size));
    }
    for (size_t t = 0; t < tokens.size(); ++t) {
      const std::span<const float> want = std::span(expected).subspan(t * vocab, vocab);
      const std::span<const float> have = std::span(got).subspan(t * vocab, vocab);
      const double spread = standard_deviation(want);
      for (size_t i = 0; i < vocab; ++i) {
        const double difference = std::abs(static_cast<double>(want[i]) - have[i]);
        // What is no number differs without limit.
        const double units = std::isfinite(difference) ? difference / spread : HUGE_VAL;
        verification.largest_difference = std::max(verification.largest_difference, units);
        squares += units * units;
      }
      const bool same = std::max_element(want.begin(), want.end()) - want.begin() ==
                        std::max_element(have.begin(), have.end()) - have.begin();
      verification.agreeing += same ? 1 : 0;
      ++verification.tokens;
    }
  }
  verification.typical_difference = std::sqrt(squares / (static_cast<double>(verification.tokens) * vocab_size));
  verification.done = true;
  return verification;
}

Status within_bounds(const ConvertVerification& verification) {
  if (verification.typical_difference <= verification.bound) return ok_status();
  return make_error(
      ErrorCode::numeric,
      fmt::format(
          "the converted model's logits typically differ from the native ones by {:.3g} of their spread, where at "
          "most {:.3g} is right for this precision ({} of {} greedy tokens agree); nothing was kept. "
          "Convert with a higher --precision, or keep it unchecked with --no-verify",
          verification.typical_difference, verification.bound, verification.agreeing, verification.tokens));
}

}  // namespace inferneo
