// A config.json that lies: every field of every golden model is replaced by values that it should not have. The load is
// refused with an error that says what is wrong, or the model computes finite numbers.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/system.h"
#include "formats/checkpoint.h"
#include "formats/generation_config.h"
#include "golden_models.h"
#include "models/transformers/architectures.h"
#include "models/transformers/weights.h"
#include "paged_harness.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using json = nlohmann::json;
using ::testing::AnyOf;
using ::testing::HasSubstr;

const std::vector<json>& hostile_values() {
  static const std::vector<json> values = {0,
                                           -1,
                                           1,
                                           7,
                                           0.5,
                                           -0.5,
                                           1e-300,
                                           1e30,
                                           1e308,
                                           65536,
                                           1 << 27,
                                           1 << 30,
                                           2147483648L,
                                           int64_t{1} << 62,
                                           INT64_MIN,
                                           UINT64_MAX,
                                           true,
                                           nullptr,
                                           "x",
                                           "NaN",
                                           "",
                                           json::array(),
                                           json::object(),
                                           json::array({0}),
                                           json::array({-1, 1e300})};
  return values;
}

// A golden model's weights with whatever config.json is written.
class HostileConfig : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string from = golden_root() + "/" + GetParam();
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with("model")) std::filesystem::copy_file(entry.path(), tree_.path(name));
    }
    std::ifstream(from + "/config.json") >> config_;
  }

  Result<std::unique_ptr<ModelRunner>> load(const json& config) {
    tree_.write("config.json", config.dump());
    ASSIGN_OR_RETURN(const ModelDirectory directory, open_model(tree_.root()));
    LoadOptions options;
    options.directory = &directory;
    options.model_name = GetParam();
    options.ledger = &ledger_;
    options.pool = &pool_;
    options.block_size = 16;
    return load_transformers_model(options);
  }

  // What was loaded after all computes numbers, or says that it does not.
  void compute(ModelRunner& runner) {
    PagedHarness harness(runner, 2);
    if (!harness.bind(1, 8).ok()) return;  // more than the memory that there is
    const int32_t length = std::min(4, runner.spec().max_position);
    PagedHarness::Sequence sequence{{1, 2, 3, 4}, 0, {}};
    sequence.tokens.resize(static_cast<size_t>(length));
    const Result<StepResult> result = harness.step({{&sequence, length, Want::sample}});
    ASSERT_TRUE(result.ok()) << result.error().message;
    const SequenceResult& share = result->sequences[0];
    if (share.error) {
      EXPECT_EQ(share.error->code, ErrorCode::numeric) << share.error->message;
    } else {
      ASSERT_EQ(share.tokens.size(), 1U);
      EXPECT_LT(share.tokens[0], runner.spec().vocab_size);
    }
  }

  void attack(const json& config) {
    const auto start = std::chrono::steady_clock::now();
    auto runner = load(config);
    if (runner.ok()) {
      compute(**runner);
      runner->reset();
    } else {
      EXPECT_THAT(runner.error().message, AnyOf(HasSubstr("config.json"), HasSubstr("tensor "))) << config.dump();
    }
    EXPECT_EQ(ledger_.used(), 0U);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << config.dump();
  }

  // Every place below `node`, each with every value and once removed.
  void attack_all(json& root, json& node) {
    const auto replace = [&](json& place) {
      if (place.is_structured()) attack_all(root, place);
      const json kept = place;
      for (const json& value : hostile_values()) {
        place = value;
        attack(root);
        if (HasFailure()) return;
      }
      place = kept;
    };
    if (node.is_array()) {
      if (!node.empty()) replace(node.front());
      return;
    }
    std::vector<std::string> keys;
    for (const auto& [key, value] : node.items()) keys.push_back(key);
    for (const std::string& key : keys) {
      SCOPED_TRACE(key);
      replace(node[key]);
      const json kept = node[key];
      node.erase(key);
      attack(root);
      node[key] = kept;
      if (HasFailure()) return;
    }
  }

  MemoryLedger ledger_{size_t{256} << 20};
  ThreadPool pool_{1};
  testing::TempTree tree_;
  json config_;
};

TEST_P(HostileConfig, IsRefusedOrComputesFiniteNumbers) { attack_all(config_, config_); }

// Each field within its own limits, but their product names twelve million tensors.
TEST(HostileConfigs, ManyExpertsInManyLayersAreRefusedBeforeTheyArePlanned) {
  for (const auto& [model, key] : {std::pair("mixtral", "num_local_experts"), std::pair("qwen3_moe", "num_experts")}) {
    json config;
    std::ifstream(golden_root() + "/" + model + "/config.json") >> config;
    config[key] = 4096;
    config["num_hidden_layers"] = 1024;
    config.erase("layer_types");
    testing::TempTree tree;
    tree.write("config.json", config.dump());
    const auto directory = open_model(tree.root());
    ASSERT_TRUE(directory.ok());
    const size_t before = resident_bytes();
    MemoryLedger ledger(size_t{1} << 20);
    ThreadPool pool(1);
    LoadOptions options;
    options.directory = &*directory;
    options.ledger = &ledger;
    options.pool = &pool;
    const auto runner = load_transformers_model(options);
    ASSERT_FALSE(runner.ok());
    EXPECT_THAT(runner.error().message, HasSubstr("config.json"));
    EXPECT_THAT(runner.error().message, HasSubstr(key));
    EXPECT_LT(resident_bytes(), before + (size_t{64} << 20));
  }
}

// The files are mapped when they shrink: by pages that will never be there again, and by less than one.
TEST(HostileFiles, WeightsCutShortWhileTheyAreReadFailTheLoad) {
  for (const auto& [model, file] :
       {std::pair("qwen3", "model.safetensors"), std::pair("mixtral", "model-00002-of-00004.safetensors")}) {
    const std::string from = golden_root() + "/" + model;
    const uintmax_t size = std::filesystem::file_size(from + "/" + file);
    for (const uintmax_t left : {size - 1, size / 2, uintmax_t{4096}, uintmax_t{0}}) {
      SCOPED_TRACE(fmt::format("{} cut to {}", file, left));
      testing::TempTree tree;
      std::filesystem::copy(from, tree.path("model"));
      const auto directory = open_model(tree.path("model"));
      ASSERT_TRUE(directory.ok());
      const auto config = read_config(*directory);
      ASSERT_TRUE(config.ok());
      const auto spec = describe_model(*config);
      ASSERT_TRUE(spec.ok());
      MemoryLedger ledger(size_t{256} << 20);
      ThreadPool pool(2);
      {
        const auto checkpoint = Checkpoint::open(ledger, model, *directory);
        ASSERT_TRUE(checkpoint.ok());
        EXPECT_TRUE(load_weights(*spec, *checkpoint, Quantization::none, ledger, model, pool, {}).ok())
            << "the control";
        std::filesystem::resize_file(tree.path("model") + "/" + file, left);
        const auto weights = load_weights(*spec, *checkpoint, Quantization::none, ledger, model, pool, {});
        ASSERT_FALSE(weights.ok());
        EXPECT_THAT(weights.error().message, HasSubstr("cut short"));
      }
      EXPECT_EQ(ledger.used(), 0U);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, HostileConfig, ::testing::ValuesIn(golden_names()),
                         [](const auto& tested) { return tested.param; });

}  // namespace
}  // namespace inferneo
