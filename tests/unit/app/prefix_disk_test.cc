// The prefix cache's level on disk, on a bundled model: another process finds what this one computed, says the same,
// and bears whatever lies in the folder.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <thread>

#include "inferneo/enhanced_engine.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

class PrefixDiskTest : public ::testing::Test {
 protected:
  EngineConfig config(bool with_disk) const {
    EngineConfig config;
    config.model = {std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story"};
    config.home = tree_.path("home");
    config.registry = "memory";
    config.max_memory_gb = 0.5;
    config.num_threads = 2;
    config.packed_cache_gb = 0.0;
    if (with_disk) config.prefix_cache_dir = root_;
    return config;
  }
  static std::string prompt() {
    std::string text;
    for (int i = 0; i < 12; ++i) text += "Once upon a time there was a little fox who lived in a big green wood. ";
    return text;
  }
  static GenerationResult ask(EnhancedInferneoEngine& engine, float temperature = 0.0F) {
    SamplingParams sampling;
    sampling.temperature = temperature;
    sampling.seed = 5;
    sampling.max_tokens = 24;
    sampling.ignore_eos = true;
    auto result = engine.generate(prompt(), sampling).get();
    EXPECT_TRUE(result.ok()) << result.error().message;
    return result.ok() ? *std::move(result) : GenerationResult{};
  }
  static EnhancedStats::Model stats_of(EnhancedInferneoEngine& engine) {
    return engine.get_stats().model_metrics.begin()->second;
  }
  struct Answer {
    std::vector<Token> tokens;
    int32_t cached = 0;
    EnhancedStats::Model stats;
  };
  // Of an engine that begins and ends with it.
  static Answer answer(const EngineConfig& config, float temperature = 0.0F) {
    EnhancedInferneoEngine engine(config);
    const Status started = engine.start();
    EXPECT_TRUE(started.ok()) << started.error().message;
    if (!started.ok()) return {};
    GenerationResult result = ask(engine, temperature);
    if (result.samples.empty()) return {};
    return {std::move(result.samples[0].tokens), result.cached_tokens, stats_of(engine)};
  }
  size_t num_files() const {
    size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(root_)) count += entry.path().extension() == ".kv";
    return count;
  }

  testing::TempTree tree_;
  const std::string root_ = tree_.path("prefixes");
};

// The first: it forks while this process has one thread.
TEST_F(PrefixDiskTest, AKilledProcessLeavesWhatTheNextOneUses) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    EnhancedInferneoEngine engine(config(true));
    if (!engine.start().ok()) ::_exit(1);
    (void)ask(engine);
    // Until the writer has begun to write what the idle engine hands down: any moment is good for a kill.
    for (int tries = 0; stats_of(engine).disk_cache_bytes == 0 && tries < 30'000; ++tries) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    (void)::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  const Answer with = answer(config(true));
  EXPECT_GT(with.cached, 0);
  EXPECT_EQ(with.stats.disk_cache_hits, static_cast<uint64_t>(with.cached));
  EXPECT_EQ(with.tokens, answer(config(false)).tokens);
}

TEST_F(PrefixDiskTest, ASecondStartHitsAndSaysTheSame) {
  for (float temperature : {0.0F, 0.9F}) {
    const Answer without = answer(config(false), temperature);
    const Answer first = answer(config(true), temperature);
    const Answer second = answer(config(true), temperature);
    EXPECT_EQ(first.tokens, without.tokens);
    EXPECT_EQ(second.tokens, without.tokens);
    EXPECT_EQ(without.cached, 0);
    EXPECT_GT(second.cached, 100);
    EXPECT_EQ(second.stats.cache_hits, 0U) << "memory had nothing";
    EXPECT_EQ(second.stats.disk_cache_hits, static_cast<uint64_t>(second.cached));
    EXPECT_GE(second.stats.disk_cache_queries, second.stats.disk_cache_hits);
    EXPECT_GT(second.stats.disk_cache_read_bytes, 0U);
    EXPECT_GT(second.stats.disk_cache_bytes, 0U);
  }
}

TEST_F(PrefixDiskTest, OtherTypesBlocksAndWeightsMiss) {
  (void)answer(config(true));
  ASSERT_GT(num_files(), 0U);
  EngineConfig other_type = config(true);
  other_type.kv_cache_dtype = "int8";
  EXPECT_EQ(answer(other_type).cached, 0);
  EngineConfig other_block = config(true);
  other_block.block_size = 32;
  EXPECT_EQ(answer(other_block).cached, 0);
  EngineConfig other_weights = config(true);
  other_weights.quantization = "int8";
  EXPECT_EQ(answer(other_weights).cached, 0);
  EXPECT_GT(answer(config(true)).cached, 0);
}

TEST_F(PrefixDiskTest, AChangedDescriptionMisses) {
  const auto copy = [&](const std::string& name) {
    std::filesystem::copy(std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story", tree_.path(name));
    EngineConfig own = config(true);
    own.model = {tree_.path(name)};
    return own;
  };
  const EngineConfig same = copy("same");
  (void)answer(same);
  EXPECT_GT(answer(same).cached, 0);
  const EngineConfig changed = copy("changed");
  std::filesystem::remove(tree_.path("changed") + "/model.safetensors");
  std::filesystem::create_hard_link(tree_.path("same") + "/model.safetensors",
                                    tree_.path("changed") + "/model.safetensors");
  std::ofstream(tree_.path("changed") + "/config.json", std::ios::app) << "\n";
  EXPECT_EQ(answer(changed).cached, 0) << "the same weights, and a description that is not the same";
}

TEST_F(PrefixDiskTest, DamagedFilesAreComputedAnew) {
  const Answer first = answer(config(true));
  for (const auto& entry : std::filesystem::directory_iterator(root_)) {
    std::filesystem::resize_file(entry.path(), std::filesystem::file_size(entry.path()) - 1);
  }
  const Answer second = answer(config(true));
  EXPECT_EQ(second.tokens, first.tokens);
  EXPECT_EQ(second.cached, 0);
  EXPECT_EQ(answer(config(true)).tokens, first.tokens);
}

TEST_F(PrefixDiskTest, WithoutRoomOnDiskItWorksInMemoryAlone) {
  tree_.write("prefixes", "not a folder");
  const Answer with = answer(config(true));
  EXPECT_EQ(with.tokens, answer(config(false)).tokens);
  EXPECT_EQ(with.stats.disk_cache_written_bytes, 0U);
}

TEST_F(PrefixDiskTest, WhatLeavesMemoryIsWrittenAndFetchedWhileTheModelIsThere) {
  EngineConfig own = config(true);
  own.kv_keep_alive = 0.02;  // the idle engine gives its KV memory back
  EnhancedInferneoEngine engine(own);
  ASSERT_TRUE(engine.start().ok());
  const GenerationResult first = ask(engine);
  GenerationResult second = ask(engine);
  for (int tries = 0; stats_of(engine).disk_cache_hits == 0 && tries < 500; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(30));  // idle is what it is meant to be
    second = ask(engine);
    ASSERT_EQ(second.samples[0].tokens, first.samples[0].tokens);
  }
  EXPECT_GT(stats_of(engine).disk_cache_hits, 0U);
}

}  // namespace
}  // namespace inferneo
