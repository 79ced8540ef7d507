// Golden models on a GPU with quantised weights (the emulated GPU, unless a real one is asked for). The outside truth is
// the host's f32 kernels over a copy of the model whose matrices hold what the host's quantiser made of them: the device
// uses the same weights and rounds inputs to bf16, so it may be off by as much as a bf16 model from an exact one.
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

  // Of a model with these weights that are exact: golden_fixture.h says why, for bf16. An int8 cache is a rounding to
  // one part in 254 of the largest of a head, which is less than 2^-8 of a vector's size.
  double bf16_bound() const { return 4.0 * std::sqrt(6.0 * num_layers_ + 1.0) * std::exp2(-9); }

  static double worst_of(const std::vector<float>& got, const std::vector<float>& want) {
    double worst = 0.0;
    for (size_t i = 0; i < want.size(); ++i) {
      const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
      if (!(difference <= worst)) worst = difference;
    }
    const auto [low, high] = std::minmax_element(want.begin(), want.end());
    return worst / (static_cast<double>(*high) - *low);
  }

  void expect_computes_with_the_hosts_weights() {
    const std::string from = golden_root() + "/" + GetParam().model;
    const std::string to =
        DequantisedCopy::write(tree_, *directory_, from, *quantization_from_name(quantization_));
    const ModelDirectory copy = open_model(to).value();
    LoadOptions options;
    options.directory = &copy;
    options.ledger = &ledger_;
    num_layers_ = static_cast<double>(describe_directory(options).value().spec.layers.size());
    const std::vector<float> exact = host_logits(copy, "none", "f32");
    const std::vector<float> got = device_logits({kMaxTokens});
    ASSERT_EQ(got.size(), exact.size());
    EXPECT_LE(worst_of(got, exact), bf16_bound());
    RecordProperty("worst_relative", std::to_string(worst_of(got, exact)));
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
