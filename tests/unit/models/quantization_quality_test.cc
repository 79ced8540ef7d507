// What quantised weights cost in quality: how far the next-token distributions of the bundled models move, beside the
// formats of llama.cpp on the same tensors. benchmarks/quantization/report.py puts the rows that this prints into
// docs/quantization.md.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <utility>

#include "formats/checkpoint.h"
#include "golden_models.h"
#include "kernels/quantize.h"
#include "models/model_runner.h"
#include "paged_harness.h"
#include "reference_quantizers.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

constexpr int kTexts = 16;
constexpr int kTokens = 160;  // of each
constexpr Token kStart = 2;   // ends a document, so a new one begins behind it
constexpr size_t kPredictions = static_cast<size_t>(kTexts) * kTokens;

using Texts = std::vector<std::vector<Token>>;
using RowChange = std::function<void(std::span<float>)>;

struct Quality {
  double bits_per_weight = 0.0;
  double divergence = 0.0;  // mean KL divergence from the exact distribution, in nats
  double agreement = 0.0;   // share of positions with the same most probable token
};

std::vector<double> log_softmax(std::span<const float> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float v : logits) sum += std::exp(v - largest);
  std::vector<double> logs;
  for (const float v : logits) logs.push_back(v - largest - std::log(sum));
  return logs;
}

// What the scheme makes of a row.
RowChange as(const QuantScheme& scheme) {
  return [scheme](std::span<float> row) {
    const WeightFormat format(scheme);
    kernels::PackedView view{nullptr, format.dtype, 1, static_cast<int64_t>(row.size()), scheme};
    std::vector<std::byte> panel(view.panel_bytes());
    view.data = panel.data();
    ASSERT_TRUE(kernels::quantize_row(row.data(), view, 0, panel.data()));
    kernels::dequantize(view, 0, 0, view.cols, row.data());
  };
}

class QuantizationQuality : public ::testing::TestWithParam<const char*> {
 protected:
  std::string path() const { return std::string(INFERNEO_SOURCE_DIR) + "/models/" + GetParam(); }

  std::unique_ptr<ModelRunner> load(const std::string& from, const std::string& quantization,
                                    const std::string& cache = "f32") {
    directories_.push_back(std::make_unique<ModelDirectory>(open_model(from).value()));
    LoadOptions options;
    options.directory = directories_.back().get();
    options.model_name = "m";
    options.ledger = &ledger_;
    options.pool = &pool_;
    options.quantization = quantization;
    options.kv_cache_dtype = cache;
    auto runner = load_transformers_model(options);
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    return runner.ok() ? std::move(runner).value() : nullptr;
  }

  // The model with its matrices in f32, each row changed: `head` changes embeddings and output, `layer` the others.
  std::string changed_copy(const std::string& name, const RowChange& head, const RowChange& layer) {
    const ModelDirectory directory = open_model(path()).value();
    const Checkpoint checkpoint = Checkpoint::open(ledger_, "copy", directory).value();
    std::string header;
    std::string data;
    counts_ = {};
    for (const SafetensorsTensor* tensor : checkpoint.tensors()) {
      std::vector<float> values(static_cast<size_t>(tensor->num_elements()));
      for (size_t i = 0; i < values.size(); ++i) {
        uint16_t bits = 0;
        std::memcpy(&bits, tensor->bytes.data() + 2 * i, sizeof(bits));
        values[i] = bf16_to_f32(bits);
      }
      if (tensor->shape.size() == 2) {
        const auto cols = static_cast<size_t>(tensor->shape[1]);
        const bool in_head = tensor->name.find("embed_tokens") != std::string::npos;
        const RowChange& change = in_head ? head : layer;
        (in_head ? counts_.head : counts_.layers) += static_cast<double>(values.size());
        for (size_t i = 0; i < values.size(); i += cols) change(std::span(values).subspan(i, cols));
      }
      if (tensor->shape.size() != 2) counts_.vectors += static_cast<double>(values.size());
      std::string shape;
      for (const int64_t n : tensor->shape) shape += (shape.empty() ? "" : ",") + std::to_string(n);
      header += (header.empty() ? "{\"" : ",\"") + tensor->name + R"(":{"dtype":"F32","shape":[)" + shape +
                R"(],"data_offsets":[)" + std::to_string(data.size()) + ",";
      data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
      header += std::to_string(data.size()) + "]}";
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t length = header.size();
    std::string to = tree_.directory(name);
    for (const char* file : {"config.json", "generation_config.json"}) {
      std::filesystem::copy_file(path() + "/" + file, to + "/" + file);
    }
    tree_.write(name + "/model.safetensors",
                std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data);
    return to;
  }

  // Of the last changed copy, were its weights stored in so many bits (vectors in 32, as ours).
  double bits_with(double head, double layers) const {
    return (counts_.head * head + counts_.layers * layers + counts_.vectors * 32.0) /
           (counts_.head + counts_.layers + counts_.vectors);
  }

  // What the model writes by itself, sampled at temperature 1.
  Texts write_texts(ModelRunner& runner) {
    PagedHarness harness(runner, 4 * kTexts * (kTokens / 16 + 1));
    EXPECT_TRUE(harness.bind(kTexts, 2 * kTexts).ok());
    std::vector<PagedHarness::Sequence> sequences(kTexts);
    for (auto& sequence : sequences) sequence.tokens = {kStart};
    std::mt19937_64 random(7);
    for (int step = 1; step < kTokens; ++step) {
      std::vector<PagedHarness::Part> parts;
      for (auto& sequence : sequences) parts.push_back({&sequence, 1, Want::logits});
      const StepResult result = harness.step(parts).value();
      for (size_t s = 0; s < sequences.size(); ++s) {
        const std::vector<double> logs = log_softmax(result.sequences[s].logits);
        double left = static_cast<double>(random() >> 11) * 0x1p-53;
        size_t token = 0;
        while (token + 1 < logs.size() && (left -= std::exp(logs[token])) > 0.0) ++token;
        sequences[s].tokens.push_back(static_cast<Token>(token));
      }
    }
    Texts texts;
    for (const auto& sequence : sequences) texts.push_back(sequence.tokens);
    return texts;
  }

  std::vector<float> logits_of(ModelRunner& runner, const Texts& texts) {
    PagedHarness harness(runner, 2 * (kTokens / 16 + 1));
    EXPECT_TRUE(harness.bind(1, kTokens).ok());
    std::vector<float> all;
    for (const auto& text : texts) {
      PagedHarness::Sequence sequence{text, 0, {}};
      const StepResult result = harness.step({{&sequence, kTokens, Want::logits}}).value();
      all.insert(all.end(), result.sequences[0].logits.begin(), result.sequences[0].logits.end());
      harness.release(sequence);
    }
    return all;
  }

  Quality measure(ModelRunner& runner, const Texts& texts, const std::vector<float>& exact) {
    const std::vector<float> logits = logits_of(runner, texts);
    EXPECT_EQ(logits.size(), exact.size());
    const size_t vocab = exact.size() / kPredictions;
    Quality quality;
    quality.bits_per_weight = runner.spec().bits_per_weight;
    for (size_t i = 0; i < exact.size(); i += vocab) {
      const std::span<const float> want(exact.data() + i, vocab);
      const std::span<const float> got(logits.data() + i, vocab);
      const std::vector<double> p = log_softmax(want);
      const std::vector<double> q = log_softmax(got);
      for (size_t t = 0; t < vocab; ++t) quality.divergence += std::exp(p[t]) * (p[t] - q[t]) / kPredictions;
      const auto best = std::max_element(want.begin(), want.end()) - want.begin();
      const auto chosen = std::max_element(got.begin(), got.end()) - got.begin();
      quality.agreement += (best == chosen ? 1.0 : 0.0) / kPredictions;
    }
    return quality;
  }

  struct Counts {
    double head = 0.0, layers = 0.0, vectors = 0.0;
  };
  Counts counts_;
  testing::TempTree tree_;
  MemoryLedger ledger_{size_t{1} << 30};
  ThreadPool pool_{2};
  std::vector<std::unique_ptr<ModelDirectory>> directories_;
};

TEST_P(QuantizationQuality, IsThatOfTheBestFormatsOfTheSameBits) {
  const auto keep = [](std::span<float>) {};
  const auto exact_model = load(changed_copy("exact", keep, keep), "none");
  const Texts texts = write_texts(*exact_model);
  const std::vector<float> exact = logits_of(*exact_model, texts);

  std::map<std::string, Quality> found;
  std::vector<std::string> order;
  const auto row = [&](const std::string& name, const std::string& from, const std::string& quantization, double bits,
                       const std::string& cache = "f32") {
    const auto runner = load(from, quantization, cache);
    found[name] = measure(*runner, texts, exact);
    if (bits > 0.0) found[name].bits_per_weight = bits;
    order.push_back(name);
  };
  row("bf16", path(), "none", 0.0);
  row("int8", path(), "int8", 0.0);
  row("int4", path(), "int4", 0.0);
  // A GPU's inputs are bf16, whose rounding is as small beside that of fp8 as of the row above.
  row("fp8", changed_copy("fp8", as(kInt8), as(kFp8)), "none", bits_with(8.5, 8.0));
  row("bf16, KV cache bf16", path(), "none", 0.0, "bf16");
  row("bf16, KV cache int8", path(), "none", 0.0, "int8");
  row("bf16, KV cache fp8", path(), "none", 0.0, "fp8");
  // As llama.cpp computes: inputs in 8 bits too. Loading the changed weights as int8 does that; it keeps those of Q8_0
  // as they are and moves those of 4 bits by less than a tenth of their own error. Embeddings have 8 bits, as in int4
  // mode.
  row("Q8_0", changed_copy("q8_0", as_q8_0, as_q8_0), "int8", bits_with(8.5, 8.5));
  row("Q4_K", changed_copy("q4_k", as_q8_0, as_q4_k), "int8", bits_with(8.5, 4.5));
  row("Q4_0", changed_copy("q4_0", as_q8_0, as_q4_0), "int8", bits_with(8.5, 4.5));
  for (const std::string& name : order) {
    const Quality& q = found[name];
    std::printf("row | %s | %s | %.2f | %.2g | %.2f %% |\n", GetParam(), name.c_str(), q.bits_per_weight, q.divergence,
                100.0 * q.agreement);
  }
  EXPECT_LT(found["bf16"].divergence, 1e-4);
  EXPECT_LT(found["bf16, KV cache int8"].divergence, 5e-4);
  EXPECT_LT(found["bf16, KV cache fp8"].divergence, 3e-3);
  EXPECT_LT(found["int8"].divergence, 1e-3);
  EXPECT_LE(found["fp8"].divergence, 0.25 * found["int4"].divergence);
  // Rounding errors of the same size, drawn otherwise, move a divergence by some per cent: equals differ.
  EXPECT_LE(found["int8"].divergence, 1.25 * found["Q8_0"].divergence);
  EXPECT_LE(found["int4"].divergence, found["Q4_0"].divergence);
  EXPECT_LE(found["int4"].divergence, 1.1 * found["Q4_K"].divergence);
  if (std::string(GetParam()) == "inferneo-story-draft") return;  // 0.35 M parameters: of 96 inputs little averages out
  EXPECT_LT(found["int4"].divergence, 0.01);
  EXPECT_GT(found["int8"].agreement, 0.99);
  EXPECT_GT(found["int4"].agreement, 0.95);
}

INSTANTIATE_TEST_SUITE_P(Bundled, QuantizationQuality,
                         ::testing::Values("inferneo-story", "inferneo-code", "inferneo-story-draft"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace inferneo
