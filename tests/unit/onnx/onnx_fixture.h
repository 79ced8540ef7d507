// The graphs of tests/golden/onnx behind a runner, and a small engine of slots to drive it: slots are handed out in a
// shuffled order, and their memory is poisoned with NaN, so that what is read and should not be shows.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "models/onnx/graph_trial.h"
#include "models/onnx/onnx_loader.h"
#include "models/onnx/onnx_runner.h"

namespace inferneo::onnx {

inline std::string golden_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx"; }
// What exporters have made of tests/golden/models (tools/make_export_fixtures.py).
inline std::string exports_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx_exports"; }
inline std::string ort_library() { return std::string(INFERNEO_SOURCE_DIR) + "/build/onnxruntime/libonnxruntime.so.1"; }
// With a reason to leave a test out; empty: there is a library.
inline std::string why_not() {
  static const Result<const OrtLibrary*> library =
      std::ifstream(ort_library()).good() ? OrtLibrary::open(ort_library()) : OrtLibrary::open("");
  return library.ok() ? "" : library.error().message;
}
#define SKIP_WITHOUT_ONNX_RUNTIME() \
  if (!why_not().empty()) GTEST_SKIP() << why_not()

struct GoldenAnswer {
  std::vector<Token> prompt;
  std::vector<Token> answer;  // greedy
  std::vector<float> logits;  // after the prompt
};
inline std::vector<GoldenAnswer> golden_answers(const std::string& folder = golden_folder()) {
  std::ifstream file(folder + "/golden.json");
  std::vector<GoldenAnswer> answers;
  const nlohmann::json golden = nlohmann::json::parse(file);
  for (const auto& row : golden["answers"]) {
    answers.push_back({row["prompt"].get<std::vector<Token>>(), row["answer"].get<std::vector<Token>>(),
                       row["logits"].get<std::vector<float>>()});
  }
  EXPECT_EQ(answers.size(), 5U);
  return answers;
}

inline ModelDirectory open_folder(const std::string& folder) {
  Result<ModelDirectory> directory = ModelDirectory::open("fixture", folder, {folder});
  EXPECT_TRUE(directory.ok()) << directory.error().message;
  return std::move(directory).value();
}

// One thing of everything that a load needs.
struct OnnxHouse {
  explicit OnnxHouse(const std::string& folder) : directory(open_folder(folder)) {
    options.directory = &directory;
    options.model_name = "m";
    options.ledger = &ledger;
    options.pool = &pool;
    options.check.when = GraphCheckOptions::When::never;
  }
  Result<std::unique_ptr<ModelRunner>> load() const { return load_onnx_model(options); }

  ThreadPool pool{2};
  MemoryLedger ledger{size_t{1} << 30};
  ModelDirectory directory;
  OnnxLoadOptions options;
};

class SlotHarness {
 public:
  explicit SlotHarness(ModelRunner& runner, int32_t num_slots = 12, uint32_t seed = 1)
      : runner_(runner), random_(seed) {
    KvBinding binding;
    const KvGroupSpec& group = runner.kv_spec().groups[0];
    binding.bases.emplace_back();
    for (const KvPlaneSpec& plane : group.planes) {
      const size_t bytes = plane.bytes_per_block * static_cast<size_t>(num_slots);
      memory_.push_back(std::make_unique<std::vector<std::byte>>(bytes + 64, std::byte{0xff}));
      auto* base = memory_.back()->data();
      base += (64 - reinterpret_cast<uintptr_t>(base) % 64) % 64;
      binding.bases[0].push_back(base);
    }
    binding.capacity_blocks = {num_slots};
    for (int32_t slot = 0; slot < num_slots; ++slot) free_.push_back(slot);
    std::shuffle(free_.begin(), free_.end(), random_);
    const Status bound = runner.bind(binding, num_slots, 256);
    EXPECT_TRUE(bound.ok()) << bound.error().message;
  }

  struct Sequence {
    std::vector<Token> tokens;
    int32_t computed = 0;
    int32_t slot = -1;
    size_t prompt = 0;
    std::vector<Token> output() const { return {tokens.begin() + static_cast<std::ptrdiff_t>(prompt), tokens.end()}; }
  };
  Sequence start(std::vector<Token> prompt) {
    Sequence sequence;
    sequence.prompt = prompt.size();
    sequence.tokens = std::move(prompt);
    sequence.slot = free_.back();
    free_.pop_back();
    return sequence;
  }
  void end(Sequence& sequence) {
    free_.insert(free_.begin() + static_cast<std::ptrdiff_t>(random_() % (free_.size() + 1)), sequence.slot);
    sequence.slot = -1;
  }

  struct Part {
    Sequence* sequence = nullptr;
    int32_t count = 0;  // 0: all that is not computed yet
    Want want = Want::sample;
    int32_t num_draft = 0;
    std::span<const Token> prompt_targets = {};
  };
  // What is sampled is appended, but for verified drafts, which the caller has appended.
  StepResult step(const std::vector<Part>& parts) {
    static const SamplingParams kGreedy = [] {
      SamplingParams params;
      params.temperature = 0.0F;
      return params;
    }();
    StepBatch batch;
    std::vector<std::span<const int32_t>> tables;
    tables.reserve(parts.size());
    for (const Part& part : parts) {
      const Sequence& sequence = *part.sequence;
      SequenceStep step;
      const size_t left = sequence.tokens.size() - static_cast<size_t>(sequence.computed);
      step.tokens = std::span(sequence.tokens)
                        .subspan(static_cast<size_t>(sequence.computed),
                                 part.count == 0 ? left : static_cast<size_t>(part.count));
      step.position = sequence.computed;
      tables.emplace_back(&sequence.slot, 1);
      step.block_tables = {&tables.back(), 1};
      step.want = part.want;
      step.num_draft = part.num_draft;
      step.prompt_targets = part.prompt_targets;
      step.sampling.params = &kGreedy;
      batch.sequences.push_back(step);
    }
    const Result<Ticket> ticket = runner_.submit(batch);
    EXPECT_TRUE(ticket.ok()) << (ticket.ok() ? "" : ticket.error().message);
    if (!ticket.ok()) return {};
    Result<StepResult> result = runner_.collect(*ticket);
    EXPECT_TRUE(result.ok()) << (result.ok() ? "" : result.error().message);
    if (!result.ok()) return {};
    for (size_t i = 0; i < parts.size(); ++i) {
      Sequence& sequence = *parts[i].sequence;
      EXPECT_FALSE(result->sequences[i].error) << result->sequences[i].error->message;
      sequence.computed += static_cast<int32_t>(batch.sequences[i].tokens.size());
      if (parts[i].want != Want::sample) continue;
      sequence.tokens.insert(sequence.tokens.end(), result->sequences[i].tokens.begin(),
                             result->sequences[i].tokens.end());
    }
    return std::move(result).value();
  }

 private:
  ModelRunner& runner_;
  std::mt19937 random_;
  std::vector<std::unique_ptr<std::vector<std::byte>>> memory_;
  std::vector<int32_t> free_;
};

}  // namespace inferneo::onnx
