// The engine as a program embeds it, given models that are not what they should be: each is an error that names the
// thing, in time, and the process goes on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "inferneo/engine.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

// A bundled model, to be damaged.
class BadModels : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path from = std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft";
    std::filesystem::create_directories(tree_.path("model"));
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      std::filesystem::copy_file(entry.path(), tree_.path("model/" + entry.path().filename().string()));
    }
    config_.model = {tree_.path("model")};
    config_.max_memory_gb = 0.25;
    config_.num_threads = 2;
  }

  std::string read(const std::string& file) const {
    std::ifstream in(tree_.path("model/" + file), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  // The error of starting; none when it started.
  std::optional<Error> start_error() const {
    const auto start = std::chrono::steady_clock::now();
    InferneoEngine engine(config_);
    Status status = engine.start();
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
    if (status.ok()) return std::nullopt;
    return std::move(status).error();
  }

  void expect_refused(const std::string& what) const {
    const auto error = start_error();
    ASSERT_TRUE(error.has_value()) << "started in spite of " << what;
    EXPECT_THAT(error->message, HasSubstr(what));
  }

  Result<GenerationResult> generate(std::string prompt, SamplingParams sampling) const {
    InferneoEngine engine(config_);
    RETURN_IF_ERROR(engine.start());
    return engine.generate(std::move(prompt), std::move(sampling)).get();
  }

  ::inferneo::testing::TempTree tree_;
  EngineConfig config_;
};

TEST_F(BadModels, GpusThatAreNotThereShareNothing) {
  config_.tensor_parallel_size = 2;  // of a model with three heads, in a program that may have no kernels for GPUs
  expect_refused("tensor_parallel_size 2");
}

TEST_F(BadModels, NamesThatNoPathCanHaveAreErrors) {
  tree_.link("loop", "loop");
  ASSERT_EQ(mkfifo(tree_.path("fifo").c_str(), 0600), 0);
  for (const std::string& name : {std::string(5000, 'a'), "./" + std::string(300, 'a'), tree_.path("loop"),
                                  tree_.path("fifo"), std::string("/dev/zero"), std::string("/proc/self/fd"),
                                  tree_.path("model") + "/config.json", std::string("a\nb"), std::string("..")}) {
    config_.model = {name};
    EXPECT_TRUE(start_error().has_value()) << name.substr(0, 80);
  }
}

TEST_F(BadModels, ATemplateThatDoesNotCompileIsRefusedWithItsPlace) {
  tree_.write("broken.jinja", "a\n{% for m in messages %}");
  config_.chat_template = tree_.path("broken.jinja");
  expect_refused("line 2 of the template");
}

TEST_F(BadModels, TemplatesThatAreNoFilesAreRefusedAndNeverWaitedFor) {
  ASSERT_EQ(mkfifo(tree_.path("fifo").c_str(), 0600), 0);
  for (const std::string& path :
       {tree_.path("fifo"), std::string("/dev/zero"), tree_.path("model"), tree_.path("no")}) {
    config_.chat_template = path;
    expect_refused("chat_template: ");
  }
  tree_.write("long", std::string((size_t{1} << 20) + 1, 'x'));
  config_.chat_template = tree_.path("long");
  expect_refused("larger than the limit");
}

// What is optional when it is absent is still an error when it may not be read.
TEST_F(BadModels, OptionalFilesThatLeadElsewhereAreRefused) {
  for (const std::string file : {"chat_template.jinja", "tokenizer_config.json", "generation_config.json"}) {
    std::filesystem::remove(tree_.path("model/" + file));
    EXPECT_FALSE(start_error().has_value()) << "without " << file;
    tree_.link("/etc/passwd", "model/" + file);
    expect_refused(file);
    std::filesystem::remove(tree_.path("model/" + file));
  }
}

TEST_F(BadModels, FilesThatAreCutShortOrDoNotBelongTogether) {
  const std::string weights = read("model.safetensors");
  tree_.write("model/model.safetensors", std::string_view(weights).substr(0, weights.size() - 1));
  expect_refused("model.safetensors");
  tree_.write("model/model.safetensors", std::string("\x80\x02}q\x00", 5) + std::string(100, 'x'));
  expect_refused("pickle");
  tree_.write("model/model.safetensors", weights);
  const std::string config = read("config.json");
  nlohmann::json changed = nlohmann::json::parse(config);
  changed["num_hidden_layers"] = 3;
  tree_.write("model/config.json", changed.dump());
  expect_refused("tensor model.layers.2.");
  tree_.write("model/config.json", config);
  for (const auto* file : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    const std::string kept = read(file);
    tree_.write(std::string("model/") + file, std::string_view(kept).substr(0, kept.size() / 2));
    expect_refused(file);
    tree_.write(std::string("model/") + file, kept);
  }
  EXPECT_FALSE(start_error().has_value()) << "whole again";
}

TEST_F(BadModels, WeightsThatAreNotNumbersFailTheLoadOrTheRequest) {
  std::string weights = read("model.safetensors");
  uint64_t header = 0;
  std::memcpy(&header, weights.data(), sizeof(header));
  std::fill(weights.begin() + static_cast<std::ptrdiff_t>(8 + header), weights.end(), '\xff');  // NaN in bf16
  tree_.write("model/model.safetensors", weights);
  SamplingParams sampling;
  sampling.logprobs = 3;
  expect_refused("its first tokens could not be computed");
  config_.warm_up = false;
  for (const float temperature : {0.0F, 1.0F}) {
    sampling.temperature = temperature;
    const auto result = generate("Once upon a time", sampling);
    ASSERT_FALSE(result.ok());
    EXPECT_EQ(result.error().code, ErrorCode::numeric) << result.error().message;
  }
}

TEST_F(BadModels, PromptsThatCanNeverFitAreRefusedAtOnce) {
  SamplingParams sampling;
  sampling.max_tokens = 1;
  std::string words;
  while (words.size() < 40'000) words += "once upon a time ";
  const auto too_long = generate(words, sampling);
  ASSERT_FALSE(too_long.ok());
  EXPECT_EQ(too_long.error().code, ErrorCode::context_too_long) << too_long.error().message;
  config_.kv_cache_gb = 64.0 / (1 << 20);  // 64 KiB: far under the model's own context
  const auto no_room = generate(words.substr(0, 3'000), sampling);
  ASSERT_FALSE(no_room.ok()) << "never a deadlock";
}

}  // namespace
}  // namespace inferneo
