// Golden models on a GPU with quantised weights (the emulated GPU, unless a real one is asked for). The outside truth
// is the host's f32 kernels over a copy of the model whose matrices hold what the host's quantiser made of them: the
// device uses the same weights and rounds inputs to bf16, so it is off by what that does to an exact model. The host
// rounds inputs to 8 bits, and the two are compared as well.
#include <cmath>
#include <filesystem>

#include "cuda_golden_fixture.h"
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

// "int8", "int4", and what the cache is kept in where it is not the checkpoint's type: "int8_kv".
class CudaQuantised : public CudaGoldenTest {
 protected:
  void SetUp() override {
    CudaGoldenTest::SetUp();
    const std::string& on = GetParam().isa;
    quantization_ = on.substr(0, 4);
    if (on.ends_with("_kv")) kv_cache_dtype_ = "int8";
  }

  std::vector<float> device_logits(const std::vector<int32_t>& chunks,
                                   const std::vector<PagedHarness::Sequence*>& others = {}) {
    auto runner = load(16);
    if (runner == nullptr) return {};
    EXPECT_EQ(runner->spec().dtype, quantization_);
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

  // Seven products a layer and one behind them whose inputs are rounded by `rounding` of their size add up as
  // independent errors, which random networks of this kind amplify by less than 8 (golden_fixture.h). That is the bound
  // of all logits together, and of nine positions in ten alone, with twice as much: a choice between experts that is
  // nearly a tie may fall the other way, and positions are unlike.
  void expect_near(const std::vector<float>& got, const std::vector<float>& want, double rounding) {
    ASSERT_EQ(got.size(), want.size());
    const double bound = 8.0 * std::sqrt(7.0 * num_layers_ + 1.0) * rounding;
    const double spread = spread_of(want);
    const double all = relative(got.data(), want.data(), want.size(), spread);
    EXPECT_LE(all, bound);
    const size_t vocab = want.size() / expected_.prompt.size();
    size_t outside = 0;
    for (size_t i = 0; i < want.size(); i += vocab) {
      // Written so that NaN is outside.
      if (!(relative(got.data() + i, want.data() + i, vocab, spread) <= 2.0 * bound)) ++outside;
    }
    EXPECT_LE(outside, expected_.prompt.size() / 10);
    RecordProperty("relative", std::to_string(all));
  }

  void expect_computes_with_the_hosts_weights() {
    const std::string from = golden_root() + "/" + GetParam().model;
    const std::string to = DequantisedCopy::write(tree_, *directory_, from, *quantization_from_name(quantization_));
    const ModelDirectory copy = open_model(to).value();
    LoadOptions options;
    options.directory = &copy;
    options.ledger = &ledger_;
    num_layers_ = static_cast<double>(describe_directory(options).value().spec.layers.size());
    const std::vector<float> got = device_logits({kMaxTokens});
    {
      SCOPED_TRACE("against the same weights in f32: inputs are rounded to bf16");
      expect_near(got, host_logits(copy, "none", "f32"), std::exp2(-9));
    }
    {
      SCOPED_TRACE("against the host's products: it rounds inputs to 1/127 of the largest of 32, half a percent");
      expect_near(got, host_logits(*directory_, quantization_, kv_cache_dtype_), 0.005);
    }
  }

  testing::TempTree tree_;
  double num_layers_ = 0.0;
};

class CudaQuantisedLaws : public CudaQuantised {};

TEST_P(CudaQuantised, ComputesWithTheWeightsOfTheHost) { expect_computes_with_the_hosts_weights(); }

TEST_P(CudaQuantisedLaws, WithoutGraphsDeterministic) {
  graphs_ = false;
  deterministic_ = true;
  expect_computes_with_the_hosts_weights();
}

TEST_P(CudaQuantisedLaws, DeterministicKeepsBits) { expect_deterministic_bits(); }

TEST_P(CudaQuantisedLaws, RunsAhead) { expect_runs_ahead(); }

INSTANTIATE_TEST_SUITE_P(Int8, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Int4, CudaQuantised, ::testing::ValuesIn(cases_of(golden_names(), "int4")), case_name);
INSTANTIATE_TEST_SUITE_P(Int8, CudaQuantisedLaws, ::testing::ValuesIn(cases_of(law_models(), "int8")), case_name);
INSTANTIATE_TEST_SUITE_P(Int4, CudaQuantisedLaws, ::testing::ValuesIn(cases_of(law_models(), "int4")), case_name);

}  // namespace
}  // namespace inferneo
