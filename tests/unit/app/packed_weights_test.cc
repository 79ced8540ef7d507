// The program starts again and packs nothing; copies of a model lie in memory once; the books agree with the system.
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <map>
#include <set>

#include "app/application.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

class PromiseSink final : public OutputSink {
 public:
  explicit PromiseSink(std::promise<GenerateOutcome>& done) : done_(done) {}
  void on_delta(OutputDelta delta) override { text += delta.text; }
  void on_done(GenerateOutcome outcome) override { done_.set_value(std::move(outcome)); }
  std::string text;

 private:
  std::promise<GenerateOutcome>& done_;
};

class PackedWeightsTest : public ::testing::Test {
 protected:
  std::string copy_of_story(const std::string& name) {
    fs::copy(std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story", tree_.path(name));
    const std::string weights = tree_.path(name) + "/model.safetensors";
    fs::last_write_time(weights, fs::file_time_type::clock::now() - std::chrono::hours(1));
    return tree_.path(name);
  }

  std::unique_ptr<Application> start(const std::vector<std::string>& models, std::vector<ModelEntry> entries = {}) {
    EngineConfig config;
    config.models = std::move(entries);
    config.model = models;
    config.home = tree_.path("home");
    config.max_memory_gb = 1.0;
    config.max_num_batched_tokens = 256;
    config.num_threads = 2;
    auto made = Application::create(config);
    EXPECT_TRUE(made.ok()) << made.error().message;
    const Status loaded = (*made)->load_models();
    EXPECT_TRUE(loaded.ok()) << loaded.error().message;
    return std::move(made).value();
  }
  static std::string answer(Application& application, const std::string& model) {
    std::promise<GenerateOutcome> done;
    GenerateRequest request;
    request.model = model;
    request.prompt = std::string("Once upon a time");
    request.sampling.max_tokens = 8;
    request.sampling.temperature = 0.0F;
    request.sampling.ignore_eos = true;
    request.explicit_sampling.temperature = true;
    auto sink = std::make_shared<PromiseSink>(done);
    application.service().generate(std::move(request), sink);
    const GenerateOutcome outcome = done.get_future().get();
    EXPECT_FALSE(outcome.error) << outcome.error->message;
    return sink->text;
  }
  // How each model came to its weights.
  static std::multiset<std::string> origins(Application& application) {
    std::multiset<std::string> found;
    for (const ModelStatus& status : application.manager().statuses()) {
      if (status.model != nullptr) found.insert(status.model->spec.weight_origin);
    }
    return found;
  }
  static std::map<std::string, double> packed_weights(Application& application) {
    std::map<std::string, double> bytes;
    for (const MetricSample& sample : application.service().metrics()) {
      if (sample.name != "inferneo:memory_used_bytes" || sample.labels.back().second != "packed_weights") continue;
      bytes[sample.labels[0].second] = std::get<double>(sample.value);
    }
    return bytes;
  }

  testing::TempTree tree_;
};

TEST_F(PackedWeightsTest, TheSecondStartPacksNothing) {
  const std::string path = copy_of_story("story");
  std::string expected;
  {
    const auto first = start({path});
    expected = answer(*first, "");
    EXPECT_EQ(origins(*first), std::multiset<std::string>{"packed"});
  }
  const auto second = start({path});
  EXPECT_EQ(origins(*second), std::multiset<std::string>{"mapped"});
  EXPECT_EQ(answer(*second, ""), expected);
}

TEST_F(PackedWeightsTest, CopiesAreBookedOnceToTheirContent) {
  const auto application = start({copy_of_story("first"), copy_of_story("second")});
  EXPECT_EQ(origins(*application), (std::multiset<std::string>{"packed", "shared"}));
  const auto books = packed_weights(*application);
  ASSERT_EQ(books.size(), 1U);
  EXPECT_TRUE(books.begin()->first.starts_with("weights "));
  EXPECT_EQ(answer(*application, "first"), answer(*application, "second"));
}

TEST_F(PackedWeightsTest, EachModelIsQuantisedAsItIsTold) {
  const std::string path = copy_of_story("story");
  const auto entry = [&](const std::string& name, const std::string& quantization) {
    ModelEntry model{.source = path, .name = name};
    if (!quantization.empty()) model.settings = {{"quantization", quantization}};
    return model;
  };
  const auto application = start({}, {entry("plain", ""), entry("eight", "int8"), entry("four", "int4")});
  std::map<std::string, std::string> types;
  std::map<std::string, size_t> bytes;
  for (const ModelStatus& status : application->manager().statuses()) {
    ASSERT_NE(status.model, nullptr) << status.id;
    types[status.id] = status.model->spec.dtype;
    bytes[status.id] = status.model->spec.weight_bytes;
    EXPECT_EQ(status.model->spec.stored_dtype, "bf16");
    EXPECT_EQ(status.model->spec.weight_origin, "packed") << "nobody takes another's";
  }
  EXPECT_EQ(types, (std::map<std::string, std::string>{{"plain:1", "bf16"}, {"eight:1", "int8"}, {"four:1", "int4"}}));
  EXPECT_LT(bytes["eight:1"], bytes["plain:1"] * 0.56);
  EXPECT_LT(bytes["four:1"], bytes["plain:1"] * 0.36);
  EXPECT_EQ(packed_weights(*application).size(), 3U);
  for (const char* model : {"plain", "eight", "four"}) EXPECT_FALSE(answer(*application, model).empty()) << model;
}

}  // namespace
}  // namespace inferneo
