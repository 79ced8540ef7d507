// Golden models on a GPU with quantised weights (the emulated GPU, unless a real one is asked for). The outside truth
// is the host's f32 kernels over a copy of the model whose matrices hold what the host's quantiser made of them: the
// device uses the same weights and rounds inputs to bf16, so it is off by what that does to an exact model. The host
// rounds inputs to 8 bits, and the two are compared as well.
#include <cmath>
#include <filesystem>

#include "device_golden_fixture.h"
#include "kernels/packed_matrix.h"
#include "models/transformers/bound_tensors.h"
#include "models/transformers/weights.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

// The tensors of a checkpoint in f32, the rows of every matrix replaced by what the quantised weights are.
class DequantisedCopy {
 public:
  // Into a new folder of the tree, config.json and all.
  static std::string write(const testing::TempTree& tree, const ModelDirectory& directory, const std::string& from,
                           Quantization quantization) {
    MemoryLedger ledger(size_t{1} << 30);
    ThreadPool pool(1);
    LoadOptions options;
    options.directory = &directory;
    options.ledger = &ledger;
    const DecoderSpec spec = describe_directory(options).value().spec;
    const Checkpoint checkpoint = Checkpoint::open(ledger, "copy", directory).value();
    const ModelWeights weights = load_weights(spec, checkpoint, quantization, ledger, "copy", pool, {}).value();
    const std::vector<const SafetensorsTensor*> bound = bind_tensors(spec, checkpoint).value();
    DequantisedCopy copy;
    for (const SafetensorsTensor* tensor : checkpoint.tensors()) copy.add(*tensor);
    for (size_t i = 0; i < bound.size(); ++i) copy.replace(spec.tensors[i], *bound[i], weights);
    const std::string to = tree.directory("dequantised");
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      if (entry.path().extension() == ".json") {
        std::filesystem::copy_file(entry.path(), std::filesystem::path(to) / entry.path().filename());
      }
    }
    tree.write("dequantised/model.safetensors", copy.file());
    return to;
  }

 private:
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> values;
  };
  void add(const SafetensorsTensor& tensor) {
    tensors_.push_back({tensor.name, tensor.shape, {}});
    for (int64_t i = 0; i < tensor.num_elements(); ++i) tensors_.back().values.push_back(read_element(tensor, i));
  }
  void replace(const TensorBinding& binding, const SafetensorsTensor& tensor, const ModelWeights& weights) {
    if (binding.cols == 0) return;
    const WeightSet& set = binding.layer < 0 ? weights.ends : weights.layers[static_cast<size_t>(binding.layer)];
    const kernels::PackedView& view = set.matrix(binding.role, std::max(binding.expert, 0));
    const auto found = std::find_if(tensors_.begin(), tensors_.end(), [&](auto& t) { return t.name == tensor.name; });
    const kernels::WeightView target = source_view(binding, tensor);
    std::vector<float> row(static_cast<size_t>(binding.cols));
    for (int64_t r = 0; r < binding.rows; ++r) {
      kernels::unpack(view, r, 0, binding.cols, row.data());
      for (int64_t c = 0; c < binding.cols; ++c) {
        const int64_t at = (binding.row_begin + r) * target.row_stride + c * target.col_stride;
        found->values[static_cast<size_t>(at)] = row[static_cast<size_t>(c)];
      }
    }
  }
  std::string file() const {
    std::string header;
    std::string data;
    for (const Tensor& tensor : tensors_) {
      std::string shape;
      for (const int64_t n : tensor.shape) shape += (shape.empty() ? "" : ",") + std::to_string(n);
      header += (header.empty() ? "{\"" : ",\"") + tensor.name + R"(":{"dtype":"F32","shape":[)" + shape +
                R"(],"data_offsets":[)" + std::to_string(data.size()) + ",";
      data.append(reinterpret_cast<const char*>(tensor.values.data()), tensor.values.size() * sizeof(float));
      header += std::to_string(data.size()) + "]}";
    }
    header += "}";
    header.resize((header.size() + 7) / 8 * 8, ' ');
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + header + data;
  }

  std::vector<Tensor> tensors_;
};

// A quantization, and behind it the type of a cache in 8 bits where it is not the checkpoint's: "int4_fp8".
class CudaQuantised : public CudaGoldenTest {
 protected:
  void SetUp() override {
    CudaGoldenTest::SetUp();
    const std::string& on = GetParam().isa;
    const size_t split = on.find('_');
    quantization_ = on.substr(0, split);
    if (split != std::string::npos) kv_cache_dtype_ = on.substr(split + 1);
  }

  std::vector<float> device_logits(const std::vector<int32_t>& chunks,
                                   const std::vector<PagedHarness::Sequence*>& others = {}) {
    auto runner = load(16);
    if (runner == nullptr) return {};
    EXPECT_EQ(runner->spec().dtype, quantization_ == "none" ? runner->spec().stored_dtype : quantization_);
    PagedHarness harness(*runner, 64, 1, memory());
    EXPECT_TRUE(harness.bind(4, kMaxTokens).ok());
    return prompt_logits(harness, chunks, others);
  }

  std::vector<float> host_logits(const ModelDirectory& directory, const std::string& quantization,
                                 const std::string& cache) {
    LoadOptions options;
    options.directory = &directory;
    options.model_name = "host";
    options.ledger = &ledger_;
    options.pool = &pool_;
    options.quantization = quantization;
    options.kv_cache_dtype = cache;
    options.block_size = 16;
    if (GetParam().model == "phi3_longrope_short") options.max_model_len = 128;
    auto runner = load_transformers_model(options);
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    if (!runner.ok()) return {};
    PagedHarness harness(**runner, 64);
    EXPECT_TRUE(harness.bind(4, kMaxTokens).ok());
    return prompt_logits(harness, {kMaxTokens});
  }

  // Root mean square of the difference over that of the logits about their mean.
  static double relative(const float* got, const float* want, size_t count, double spread) {
    double error = 0.0;
    for (size_t i = 0; i < count; ++i) error += (double{got[i]} - want[i]) * (double{got[i]} - want[i]);
    return std::sqrt(error / static_cast<double>(count)) / spread;
  }
  static double spread_of(const std::vector<float>& logits) {
    double mean = 0.0;
    double squares = 0.0;
    for (const float v : logits) mean += v / static_cast<double>(logits.size());
    for (const float v : logits) squares += (v - mean) * (v - mean) / static_cast<double>(logits.size());
    return std::sqrt(squares);
  }

  // Seven products a layer and one behind them whose inputs are rounded by `rounding` of their size, and keys and
  // values that are moved by cache_rounding(), add up as independent errors, which random networks of this kind amplify
  // by less than 8 (golden_fixture.h). Positions alone are within four times the bound of all together, since some are
  // amplified more than others; where there are experts one position in ten is left out: a choice that is nearly a tie
  // may fall the other way.
  void expect_near(const std::vector<float>& got, const std::vector<float>& want, double rounding) {
    ASSERT_EQ(got.size(), want.size());
    const double bound = 8.0 * std::sqrt((7.0 * num_layers_ + 1.0) * rounding * rounding +
                                         2.0 * num_layers_ * cache_rounding() * cache_rounding());
    const double spread = spread_of(want);
    const size_t vocab = want.size() / expected_.prompt.size();
    std::vector<double> errors;  // of positions
    for (size_t i = 0; i < want.size(); i += vocab) {
      errors.push_back(relative(got.data() + i, want.data() + i, vocab, spread));
      ASSERT_FALSE(std::isnan(errors.back())) << "position " << i / vocab;
    }
    std::sort(errors.begin(), errors.end());
    if (has_experts_) errors.resize(errors.size() - errors.size() / 10);
    double squares = 0.0;
    for (const double error : errors) squares += error * error;
    const double all = std::sqrt(squares / static_cast<double>(errors.size()));
    EXPECT_LE(all, bound);
    EXPECT_LE(errors.back(), 4.0 * bound);
    RecordProperty("relative", std::to_string(all / bound));
  }

  // Two caches that hold values which differ by noise. In int8 what noise moves to the next code is as small as the
  // noise. The codes of e4m3 lie 2^-4 of a value apart on average: noise n moves n / 2^-4 of them, by that much.
  // Rounding to bf16 is 2^-10 on average, so the root mean square of what it moves is that of the product.
  double cache_rounding() const { return kv_cache_dtype_ == "fp8" ? std::exp2(-7) : 0.0; }

  void look_at_the_model() {
    LoadOptions options;
    options.directory = directory_.get();
    options.ledger = &ledger_;
    const DecoderSpec spec = describe_directory(options).value().spec;
    num_layers_ = static_cast<double>(spec.layers.size());
    has_experts_ = spec.layers[0].ffn.num_experts > 0;
  }

  void expect_computes_with_the_hosts_weights() {
    const std::string from = golden_root() + "/" + GetParam().model;
    const std::string to = DequantisedCopy::write(tree_, *directory_, from, *quantization_from_name(quantization_));
    const ModelDirectory copy = open_model(to).value();
    look_at_the_model();
    const std::vector<float> got = device_logits({kMaxTokens});
    // A cache of 8 bits is the host's too.
    const std::string cache = kv_cache_dtype_ == "auto" ? "f32" : kv_cache_dtype_;
    const std::vector<float> exact = host_logits(copy, "none", cache);
    {
      SCOPED_TRACE("against the same weights in f32: inputs are rounded to bf16");
      expect_near(got, exact, std::exp2(-9));
    }
    if (quantization_ == "none" || quantization_ == "fp8") return;  // the host has no product of its own for it
    const std::vector<float> host = host_logits(*directory_, quantization_, cache);
    {
      SCOPED_TRACE("against the host's products: it rounds inputs to 1/127 of the largest of 32, half a percent");
      expect_near(got, host, 0.005);
    }
    if (has_experts_) return;
    const double spread = spread_of(exact);
    EXPECT_LT(relative(got.data(), exact.data(), exact.size(), spread),
              relative(host.data(), exact.data(), exact.size(), spread));
  }

  testing::TempTree tree_;
  double num_layers_ = 0.0;
  bool has_experts_ = false;
};

class CudaQuantisedLaws : public CudaQuantised {};

TEST_P(CudaQuantised, ComputesWithTheWeightsOfTheHost) { expect_computes_with_the_hosts_weights(); }

TEST_P(CudaQuantisedLaws, WithoutGraphsDeterministic) {
  graphs_ = false;
  deterministic_ = true;
  expect_computes_with_the_hosts_weights();
}

// Chunks, and others in the batch, change no more than other kernels for other numbers of rows do.
TEST_P(CudaQuantisedLaws, ChunksAndBatchesChangeLittle) {
  look_at_the_model();
  const std::vector<float> whole = device_logits({kMaxTokens});
  PagedHarness::Sequence other{expected_.prompt, 0, {}};
  expect_near(device_logits({5, 1, 7}, {&other}), whole, std::exp2(-9));
}

TEST_P(CudaQuantisedLaws, DeterministicKeepsBits) { expect_deterministic_bits(); }

TEST_P(CudaQuantisedLaws, RunsAhead) { expect_runs_ahead(); }

TEST_P(CudaQuantisedLaws, WakesToTheBit) { expect_wakes_to_the_bit(); }

// A dense model, one with windows and soft caps, one whose matrices stand the other way round, one of experts.
std::vector<Case> laws_on(const std::string& on) {
  if (!cuda::testing::is_emulated()) return cases_of(golden_names(), on);
  return cases_of({"llama3_bf16", "gemma2_bf16", "gpt2", "qwen3_moe_unnormalised_bf16"}, on);
}

INSTANTIATE_TEST_SUITE_P(Int8, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Int4, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "int4")), case_name);
INSTANTIATE_TEST_SUITE_P(Fp8, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "fp8")), case_name);
INSTANTIATE_TEST_SUITE_P(Cache, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "none_int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Both, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "int4_int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Fp8Cache, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "none_fp8")), case_name);
INSTANTIATE_TEST_SUITE_P(Int8, CudaQuantisedLaws, ::testing::ValuesIn(laws_on("int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Int4, CudaQuantisedLaws, ::testing::ValuesIn(laws_on("int4")), case_name);
INSTANTIATE_TEST_SUITE_P(Both, CudaQuantisedLaws, ::testing::ValuesIn(laws_on("int8_int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Fp8, CudaQuantisedLaws, ::testing::ValuesIn(laws_on("fp8_fp8")), case_name);

}  // namespace
}  // namespace inferneo
