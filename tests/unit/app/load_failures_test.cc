// A load fails at each of its stages: the state says so with a reason, in time; every byte and descriptor is back; and
// when the cause is gone, the next one who asks gets the model.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "model_house.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

constexpr const char* kModel = "model";
constexpr auto kLimit = std::chrono::seconds(5);

class LoadFailures : public ::testing::Test {
 protected:
  LoadFailures() {
    const std::filesystem::path from = bundled_model("inferneo-story-draft");
    std::filesystem::create_directories(tree_.path("model"));
    for (const auto& entry : std::filesystem::directory_iterator(from)) {
      std::filesystem::copy_file(entry.path(), tree_.path("model/" + entry.path().filename().string()));
    }
  }

  std::string read(const std::string& file) const {
    std::ifstream in(tree_.path("model/" + file), std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  void write(const std::string& file, std::string_view text) const { tree_.write("model/" + file, text); }

  static void start(ModelHouse& house, const std::string& source) {
    house.add(kModel, source);
    // What loads make once for the process is made: the pool's threads, the text library's tables.
    answers(house);
    house.unload(kModel);
  }
  static void answers(ModelHouse& house) {
    const auto lease = house.acquire(kModel);
    ASSERT_TRUE(lease.ok()) << house.status(kModel).failure.value_or(lease.error()).message;
    const auto prompt = (*lease)->tokenizer->encode("Once upon a time", true);
    ASSERT_TRUE(prompt.ok());
    const auto outcome = generate(*(*lease)->core, *prompt, 3);
    ASSERT_TRUE(outcome.ok() && !outcome->error);
  }

  // The law. Descriptors and threads are those of a process that has loaded and unloaded before.
  static void expect_failure(ModelHouse& house, const std::string& reason) {
    const size_t booked = house.ledger.used();
    const size_t descriptors = open_descriptors();
    const size_t threads = running_threads();
    const TimePoint start = house.clock.now();
    const auto lease = house.acquire(kModel);
    ASSERT_FALSE(lease.ok()) << "loaded in spite of: " << reason;
    EXPECT_LT(house.clock.now() - start, kLimit);
    const ModelStatus status = house.status(kModel);
    EXPECT_EQ(status.state, ModelState::failed);
    ASSERT_TRUE(status.failure.has_value());
    EXPECT_THAT(status.failure->message, HasSubstr(reason));
    EXPECT_EQ(house.ledger.used(), booked) << "bytes stayed booked";
    EXPECT_EQ(house.booked(kModel), 0U);
    EXPECT_EQ(open_descriptors(), descriptors);
    EXPECT_EQ(running_threads(), threads);
  }

  struct Case {
    const char* name;
    std::string reason;  // what the failure's message says of it
    std::function<void()> damage;
    std::function<void()> repair;
  };
  Case damaged_file(const char* name, const std::string& file, const std::string& text, std::string reason) {
    const std::string kept = read(file);
    return {name, std::move(reason), [this, file, text] { write(file, text); },
            [this, file, kept] { write(file, kept); }};
  }
  Case changed_config(const char* name, const std::function<void(nlohmann::json&)>& change, std::string reason) {
    nlohmann::json config = nlohmann::json::parse(read("config.json"));
    change(config);
    return damaged_file(name, "config.json", config.dump(), std::move(reason));
  }

  void run(ModelHouse& house, const std::vector<Case>& cases) const {
    start(house, tree_.path("model"));
    for (const Case& c : cases) {
      if (HasFatalFailure()) return;
      SCOPED_TRACE(c.name);
      c.damage();
      expect_failure(house, c.reason);
      expect_failure(house, c.reason);  // no state is left of the first one
      c.repair();
      answers(house);
      house.unload(kModel);
      EXPECT_EQ(house.ledger.used(), 0U);
    }
  }

  ::inferneo::testing::TempTree tree_;
};

TEST_F(LoadFailures, OfFiles) {
  ModelHouse house;
  const std::string weights = read("model.safetensors");
  std::string huge_header = weights;
  huge_header.replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\x7f");
  const std::string tokenizer = read("tokenizer.json");
  run(house,
      {{"source not found", tree_.path("model"),
        [this] { std::filesystem::rename(tree_.path("model"), tree_.path("elsewhere")); },
        [this] { std::filesystem::rename(tree_.path("elsewhere"), tree_.path("model")); }},
       damaged_file("config malformed", "config.json", R"({"architectures": [)", "config.json"),
       changed_config(
           "architecture unknown", [](auto& c) { c["architectures"] = {"NoSuchForCausalLM"}; }, "NoSuchForCausalLM"),
       changed_config(
           "tensor missing", [](auto& c) { c["num_hidden_layers"] = 3; }, "model.layers.2."),
       changed_config(
           "tensor of another shape", [](auto& c) { c["intermediate_size"] = 288; }, "mlp"),
       damaged_file("weights cut short", "model.safetensors", weights.substr(0, weights.size() - 64),
                    "model.safetensors"),
       damaged_file("weights malformed", "model.safetensors", huge_header, "model.safetensors"),
       damaged_file("tokenizer malformed", "tokenizer.json", tokenizer.substr(0, tokenizer.size() / 2),
                    "tokenizer.json"),
       damaged_file("generation config malformed", "generation_config.json", "[", "generation_config.json")});
}

TEST_F(LoadFailures, OfEverythingAfterTheFiles) {
  ModelHouse house;
  const auto none = [&house] { house.faults = {}; };
  const auto fails = [] { return Status(make_error(ErrorCode::io_error, "the device is gone")); };
  const auto throws = []() -> Status { throw std::runtime_error("surprise"); };
  const auto configured = [&house](auto change) { return [&house, change] { change(house.config); }; };
  run(house,
      {{"an error before the load", "the device is gone", [&, fails] { house.faults.before_load = fails; }, none},
       {"an error after it", "the device is gone", [&, fails] { house.faults.after_load = fails; }, none},
       {"an exception before it", "surprise", [&, throws] { house.faults.before_load = throws; }, none},
       {"an exception after it", "surprise", [&, throws] { house.faults.after_load = throws; }, none},
       {"instruction set unknown", "abacus", configured([](EngineConfig& c) { c.isa = "abacus"; }),
        configured([](EngineConfig& c) { c.isa = "auto"; })},
       {"no memory for the KV cache", "KV", configured([](EngineConfig& c) { c.kv_cache_gb = 1e-9; }),
        configured([](EngineConfig& c) { c.kv_cache_gb = 0; })},
       {"engine refuses its configuration", "max_num_seqs", configured([](EngineConfig& c) { c.max_num_seqs = 0; }),
        configured([](EngineConfig& c) { c.max_num_seqs = 16; })}});
}

// Others hold memory that the estimate did not know of: whatever is left, the load is refused or the model answers, and
// nothing stays booked. The steps are fine enough to fail in the mapping, in packing and in the workspace.
TEST_F(LoadFailures, OfMemoryAtEachStage) {
  constexpr size_t kBudget = size_t{64} << 20;
  ModelHouse house(kBudget);
  house.faults.estimate = 1;
  start(house, tree_.path("model"));
  std::map<std::string, int> stages;  // by the purpose that was refused
  int loaded = 0;
  constexpr size_t kStep = size_t{128} << 10;
  for (size_t left = kStep; left < kBudget && loaded < 3 && !HasFatalFailure(); left += kStep) {
    SCOPED_TRACE(left);
    auto others = house.ledger.reserve("others", MemoryPurpose::cache, kBudget - left);
    ASSERT_TRUE(others.ok());
    auto lease = house.acquire(kModel);
    const ModelStatus status = house.status(kModel);
    if (lease.ok()) {
      ++loaded;
      lease.value().reset();
      house.unload(kModel);
    } else {
      ASSERT_EQ(status.state, ModelState::failed);
      ASSERT_EQ(status.failure->code, ErrorCode::out_of_memory) << status.failure->message;
      for (const char* stage : {"weights", "packed_weights", "workspace", "kv"}) {
        if (status.failure->message.find(std::string("for ") + stage + ",") != std::string::npos) ++stages[stage];
      }
    }
    ASSERT_EQ(house.ledger.used(), kBudget - left);
  }
  EXPECT_EQ(loaded, 3);
  for (const char* stage : {"weights", "packed_weights", "workspace"}) EXPECT_GT(stages[stage], 0) << stage;
  house.faults = {};
  answers(house);
}

// Before a load its memory is held: what a pinned model takes away for good is told at once.
TEST_F(LoadFailures, OfMemoryBeforeItBegins) {
  size_t loading = 0;
  size_t resting = 0;
  {
    ModelHouse house;
    house.config.warm_up = false;  // it takes what memory there is to spare: not the same in both
    house.add(kModel, tree_.path("model"));
    ASSERT_TRUE(house.acquire(kModel).ok());
    loading = house.ledger.peak();
    resting = house.ledger.used();
  }
  ModelHouse house(loading + resting / 2);
  house.config.warm_up = false;
  start(house, tree_.path("model"));
  house.add("other", tree_.path("model"), true);
  ASSERT_TRUE(house.acquire("other").ok());
  expect_failure(house, "raise max_memory_gb");
  ASSERT_TRUE(house.manager->set_pinned("other", false).ok());
  answers(house);
  EXPECT_EQ(house.status("other").state, ModelState::unloaded);
}

}  // namespace
}  // namespace inferneo
