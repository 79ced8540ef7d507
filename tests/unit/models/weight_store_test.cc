// Where weights come from: packed once, mapped afterwards, in memory once for all who use them, and always the same.
#include "models/transformers/weight_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <fstream>
#include <set>
#include <thread>

#include "formats/generation_config.h"
#include "golden_models.h"
#include "kernels/op_table.h"
#include "models/transformers/architectures.h"
#include "paged_harness.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;

class WeightStoreTest : public ::testing::Test {
 protected:
  using Loaded = std::unique_ptr<ModelRunner>;

  // A copy of a golden model, old enough for its hash to be kept.
  std::string copy_model(const std::string& golden, const std::string& name) {
    const std::string to = tree_.directory(name);
    for (const auto& entry : fs::directory_iterator(golden_root() + "/" + golden)) {
      const std::string file = entry.path().filename().string();
      if (file.starts_with("expected")) continue;
      fs::copy_file(entry.path(), to + "/" + file);
      fs::last_write_time(to + "/" + file, fs::file_time_type::clock::now() - std::chrono::hours(1));
    }
    return to;
  }
  WeightStore::Options options() const { return {folder_, uint64_t{1} << 30, ""}; }

  LoadOptions request(WeightStore& store, const std::string& path, const std::string& name) {
    directories_.push_back(std::make_unique<ModelDirectory>(open_model(path).value()));
    LoadOptions load;
    load.directory = directories_.back().get();
    load.model_name = name;
    load.ledger = &ledger_;
    load.store = &store;
    load.pool = &pool_;
    load.isa = isa_;
    load.progress = [this](const LoadProgress& progress) {
      stages_.insert(progress.stage);
      return progress.stage == give_up_at_ ? Status(make_error(ErrorCode::deadline_exceeded, "too late")) : ok_status();
    };
    return load;
  }
  Loaded load(WeightStore& store, const std::string& path, const std::string& name = "m") {
    stages_.clear();
    auto runner = load_transformers_model(request(store, path, name));
    EXPECT_TRUE(runner.ok()) << runner.error().message;
    return runner.ok() ? std::move(runner).value() : nullptr;
  }
  // Loads and forgets; how it came to its weights.
  std::string origin(WeightStore& store, const std::string& path) {
    const Loaded runner = load(store, path);
    return runner == nullptr ? "failed" : runner->spec().weight_origin;
  }
  static Result<std::vector<float>> try_logits(ModelRunner& runner) {
    PagedHarness harness(runner, 16);
    RETURN_IF_ERROR(harness.bind(1, 64));
    PagedHarness::Sequence sequence{{1, 5, 9, 2, 7, 3, 8}, 0, {}};
    ASSIGN_OR_RETURN(StepResult result, harness.step({{&sequence, 7, Want::logits}}));
    return std::move(result.sequences[0].logits);
  }
  static std::vector<float> logits(ModelRunner& runner) {
    auto result = try_logits(runner);
    EXPECT_TRUE(result.ok()) << result.error().message;
    return result.ok() ? std::move(result).value() : std::vector<float>();
  }
  std::vector<std::string> files(const std::string& ending) const {
    std::vector<std::string> found;
    if (!fs::exists(folder_)) return found;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().string().ends_with(ending)) found.push_back(entry.path().string());
    }
    return found;
  }

  testing::TempTree tree_;
  const std::string folder_ = tree_.path("home/cache/packed");
  MemoryLedger ledger_{size_t{1} << 30};
  ThreadPool pool_{2};
  std::string isa_ = "auto";
  std::vector<std::unique_ptr<ModelDirectory>> directories_;
  std::multiset<std::string> stages_;
  std::string give_up_at_;  // the stage whose first report ends the load
};

TEST_F(WeightStoreTest, PackedWeightsTakeTheirBytesAndLessThanAHugePage) {
  const std::string path = std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story";
  WeightStore store({"", 0, ""});
  const Loaded runner = load(store, path);
  ASSERT_NE(runner, nullptr);
  EXPECT_EQ(runner->spec().weight_origin, "packed");
  size_t booked = 0;
  for (const auto& [key, bytes] : ledger_.books()) booked += key.second == MemoryPurpose::packed_weights ? bytes : 0;
  const size_t needed = runner->spec().weight_bytes;
  EXPECT_GT(needed, kHugePage);
  EXPECT_GE(booked, needed);
  EXPECT_LT(booked, needed + kHugePage);
}

TEST_F(WeightStoreTest, ALoadCanBeGivenUpInEachStageAndLeavesNothing) {
  const std::string path = copy_model("llama3_bf16", "given-up");
  WeightStore store(options());
  for (const char* stage : {"hashing weights", "packing weights", "mapping weights"}) {
    SCOPED_TRACE(stage);
    give_up_at_ = stage;
    const auto runner = load_transformers_model(request(store, path, "m"));
    ASSERT_FALSE(runner.ok());
    EXPECT_EQ(runner.error().message, "too late");
    EXPECT_EQ(ledger_.used(), 0U);
    give_up_at_.clear();
    EXPECT_NE(load(store, path), nullptr);  // and for the last stage: leaves the packed file
    while (files(".packed").empty()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (std::string(stage) == "hashing weights") fs::remove(files(".packed").front());
  }
}

TEST_F(WeightStoreTest, TheSecondLoadPacksNothingAndComputesTheSame) {
  for (const char* golden : {"llama3_bf16", "llama2_f16", "mixtral", "gpt2", "phi3", "gemma3"}) {
    SCOPED_TRACE(golden);
    const std::string path = copy_model(golden, golden);
    std::vector<float> packed;
    {
      WeightStore store(options());
      const Loaded first = load(store, path);
      ASSERT_NE(first, nullptr);
      EXPECT_EQ(first->spec().weight_origin, "packed");
      EXPECT_TRUE(stages_.contains("hashing weights"));
      EXPECT_TRUE(stages_.contains("packing weights"));
      packed = logits(*first);
    }
    WeightStore store(options());  // another process
    const Loaded second = load(store, path);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->spec().weight_origin, "mapped");
    EXPECT_EQ(stages_.count("packing weights") + stages_.count("hashing weights"), 0U);
    EXPECT_TRUE(stages_.contains("mapping weights"));
    EXPECT_EQ(logits(*second), packed) << "bit for bit";
  }
  EXPECT_EQ(ledger_.used(), 0U);
  EXPECT_TRUE(files(".tmp").empty());
}

TEST_F(WeightStoreTest, CopiesOfTheSameContentLieInMemoryOnce) {
  const std::string path = copy_model("llama3_bf16", "a");
  const std::string copy = copy_model("llama3_bf16", "b");
  const std::string other = copy_model("qwen3_bf16", "c");
  WeightStore store(options());
  for (const char* round : {"packed", "mapped"}) {
    SCOPED_TRACE(round);
    Loaded a = load(store, path, "a");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->spec().weight_origin, round);
    const size_t alone = ledger_.used();
    EXPECT_EQ(ledger_.used_by("a"), alone) << "its going would free all of it";
    Loaded b = load(store, copy, "b");
    ASSERT_NE(b, nullptr);
    EXPECT_EQ(b->spec().weight_origin, "shared");
    EXPECT_EQ(ledger_.used(), alone) << "booked once";
    EXPECT_EQ(ledger_.used_by("a") + ledger_.used_by("b"), 0U);
    EXPECT_EQ(ledger_.needed_by("b"), alone);
    const Loaded c = load(store, other, "c");
    EXPECT_NE(c->spec().weight_origin, "shared");
    EXPECT_EQ(logits(*a), logits(*b));
    a.reset();
    const auto kept = logits(*b);
    EXPECT_EQ(ledger_.used() - ledger_.used_by("c"), ledger_.needed_by("b"));
    EXPECT_GE(ledger_.used_by("b"), alone);
    EXPECT_EQ(kept, logits(*b));
  }
  EXPECT_EQ(ledger_.used(), 0U);
}

TEST_F(WeightStoreTest, OtherInstructionSetsDoNotMix) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  const Loaded best = load(store, path, "a");
  isa_ = "reference";
  const Loaded reference = load(store, path, "b");
  ASSERT_NE(reference, nullptr);
  if (best->spec().device != reference->spec().device) {
    EXPECT_EQ(reference->spec().weight_origin, "packed");
  }
}

TEST_F(WeightStoreTest, WhateverIsWrongWithTheFileIsPackedAnew) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  std::vector<float> expected;
  {
    const Loaded first = load(store, path);
    expected = logits(*first);
  }
  ASSERT_EQ(files(".packed").size(), 1U);
  const std::string file = files(".packed")[0];
  std::ifstream stream(file, std::ios::binary);
  const std::string good{std::istreambuf_iterator<char>(stream), {}};
  const auto replaced = [&](const std::string& what, const std::string& with) {
    std::string bytes = good;
    bytes.replace(bytes.find(what), what.size(), with);
    return bytes;
  };
  const std::string isa = good.substr(good.find("isa "), good.find('\n', good.find("isa ")) - good.find("isa "));
  for (const std::string& bytes : {std::string(), std::string("a poem"), good.substr(0, good.size() / 2), good + "!",
                                   replaced("version 1", "version 9"), replaced(isa, std::string(isa.size(), 'x')),
                                   replaced("matrix bf16", "matrix bf61"), replaced("key ", "kez ")}) {
    std::ofstream(file, std::ios::binary) << bytes;
    const Loaded again = load(store, path);
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(again->spec().weight_origin, "packed");
    EXPECT_EQ(logits(*again), expected);
  }
  EXPECT_EQ(origin(store, path), "mapped") << "and replaced";
  EXPECT_EQ(files(".packed").size(), 1U);
}

TEST_F(WeightStoreTest, AFolderThatCannotBeWrittenCostsTheNextLoad) {
  const std::string path = copy_model("llama3_bf16", "a");
  tree_.write("file", std::string_view("x"));
  WeightStore store({tree_.path("file/packed"), uint64_t{1} << 30, ""});
  EXPECT_EQ(origin(store, path), "packed");
  EXPECT_EQ(origin(store, path), "packed");
  for (const WeightStore::Options& none :
       {WeightStore::Options{"", uint64_t{1} << 30, ""}, WeightStore::Options{folder_, 0, ""}}) {
    WeightStore off(none);
    EXPECT_EQ(origin(off, path), "packed");
    EXPECT_EQ(origin(off, path), "packed");
    const Loaded a = load(off, path, "a");
    EXPECT_EQ(stages_.count("hashing weights"), 0U);
    EXPECT_EQ(origin(off, path), "shared") << "what comes from the same file";
    EXPECT_FALSE(fs::exists(folder_));
  }
}

TEST_F(WeightStoreTest, AFullDiskCostsTheNextLoad) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 4096;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_EQ(origin(store, path), "packed");
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_TRUE(files(".packed").empty());
  EXPECT_TRUE(files(".tmp").empty());
  EXPECT_EQ(origin(store, path), "packed");
  EXPECT_EQ(origin(store, path), "mapped");
}

TEST_F(WeightStoreTest, LoadsAtOncePackOnce) {
  const std::string path = copy_model("llama3_bf16", "a");
  for (const char* round : {"packed", "mapped"}) {
    WeightStore store(options());
    std::vector<LoadOptions> requests;
    for (int t = 0; t < 4; ++t) {
      requests.push_back(request(store, path, std::to_string(t)));
      requests.back().progress = {};
    }
    std::vector<Loaded> runners(requests.size());
    std::vector<std::thread> threads;
    for (size_t t = 0; t < requests.size(); ++t) {
      threads.emplace_back([&, t] { runners[t] = load_transformers_model(requests[t]).value(); });
    }
    for (std::thread& thread : threads) thread.join();
    std::multiset<std::string> origins;
    for (const Loaded& runner : runners) origins.insert(runner->spec().weight_origin);
    EXPECT_EQ(origins.count(round), 1U);
    EXPECT_EQ(origins.count("shared"), 3U);
  }
  EXPECT_EQ(ledger_.used(), 0U);
}

TEST_F(WeightStoreTest, ProcessesAtOnceDisturbNobody) {
  const std::string path = copy_model("llama3_bf16", "a");
  std::vector<std::unique_ptr<WeightStore>> stores;
  std::vector<LoadOptions> requests;
  for (int t = 0; t < 4; ++t) {
    stores.push_back(std::make_unique<WeightStore>(options()));
    requests.push_back(request(*stores.back(), path, std::to_string(t)));
    requests.back().progress = {};
  }
  std::vector<std::thread> threads;
  std::vector<std::vector<float>> results(requests.size());
  for (size_t t = 0; t < requests.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 5; ++i) results[t] = logits(*load_transformers_model(requests[t]).value());
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
  EXPECT_EQ(origin(*stores[0], path), "mapped");
  EXPECT_EQ(files(".packed").size(), 1U);
  EXPECT_TRUE(files(".tmp").empty());
}

TEST_F(WeightStoreTest, AFileCutShortInUseFailsThatModelAndIsReplaced) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  ASSERT_EQ(origin(store, path), "packed");
  const Loaded mapped = load(store, path, "a");
  ASSERT_EQ(mapped->spec().weight_origin, "mapped");
  const std::vector<float> expected = logits(*mapped);
  fs::resize_file(files(".packed")[0], 5000);
  const auto failed = try_logits(*mapped);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code, ErrorCode::io_error);
  EXPECT_THAT(failed.error().message, ::testing::HasSubstr("cut short"));
  const Loaded next = load(store, path, "b");
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(next->spec().weight_origin, "packed") << "neither shared nor mapped";
  EXPECT_EQ(logits(*next), expected);
}

TEST_F(WeightStoreTest, EstimatesKnowWhatIsThere) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  const auto estimate = [&](const std::string& name) {
    const auto bytes = estimate_transformers_memory(request(store, path, name), 64);
    EXPECT_TRUE(bytes.ok()) << bytes.error().message;
    return bytes.ok() ? bytes->bytes : size_t{0};
  };
  const auto weights_of = [&](const std::string& name) {
    const LoadOptions load = request(store, path, name);
    DecoderSpec spec = describe_model(read_config(*load.directory).value()).value();
    return store
        .estimate({load.directory,
                   &spec,
                   std::string(kernels::select_op_table("auto").value()->name),
                   name,
                   &ledger_,
                   &pool_,
                   {}})
        .value();
  };
  const WeightStore::Need packed = weights_of("a");
  EXPECT_GT(packed.loading, packed.resident);
  EXPECT_GT(estimate("a"), 0U);
  ASSERT_EQ(origin(store, path), "packed");
  const WeightStore::Need mapped = weights_of("a");
  EXPECT_LE(mapped.loading, mapped.resident + (size_t{64} << 10)) << "nothing is packed";
  {
    MemoryLedger tight(mapped.loading);
    LoadOptions load = request(store, path, "a");
    load.ledger = &tight;
    EXPECT_TRUE(load_transformers_model(load).ok()) << "and that is all that it takes";
  }
  const Loaded a = load(store, path, "a");
  EXPECT_LE(weights_of("b").loading, size_t{64} << 10) << "headers are looked at";
  EXPECT_EQ(weights_of("b").resident, 0U) << "shared";
  EXPECT_EQ(ledger_.used_by("a"), mapped.resident);
}

TEST_F(WeightStoreTest, VerifyFindsTheFileWhoseBytesChanged) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  const ModelDirectory directory = open_model(path).value();
  ASSERT_EQ(store.verify(directory).value().size(), 1U);
  EXPECT_TRUE(store.verify(directory).value()[0].expected.empty()) << "never loaded";
  ASSERT_EQ(origin(store, path), "packed");
  const WeightFileCheck good = store.verify(directory).value()[0];
  EXPECT_TRUE(good.matches());
  EXPECT_EQ(good.expected, good.found);

  const std::string file = path + "/model.safetensors";
  const auto time = fs::last_write_time(file);
  {
    std::fstream stream(file, std::ios::binary | std::ios::in | std::ios::out);
    stream.seekp(-1, std::ios::end);
    stream.put('\x7f');
  }
  fs::last_write_time(file, time);
  EXPECT_EQ(origin(store, path), "mapped") << "nobody can tell without reading all of it";
  const WeightFileCheck bad = store.verify(directory).value()[0];
  EXPECT_FALSE(bad.matches());
  EXPECT_EQ(bad.file, "model.safetensors");
  fs::last_write_time(file, time + std::chrono::minutes(1));
  EXPECT_EQ(origin(store, path), "packed") << "another content";
}

TEST_F(WeightStoreTest, TheProgramsEndGivesUpWhatIsBeingWritten) {
  const std::string path = copy_model("llama3_bf16", "a");
  WeightStore store(options());
  store.stop_writing(Duration{0});
  EXPECT_EQ(origin(store, path), "packed");
  EXPECT_TRUE(files(".packed").empty());
}

}  // namespace
}  // namespace inferneo
