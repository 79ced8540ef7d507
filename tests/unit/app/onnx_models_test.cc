// ONNX models behind the real loader, manager and engine: as any other model, and no danger to the others.
#include <gmock/gmock.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "model_house.h"
#include "models/onnx/ort_library.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string golden_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx"; }
std::string exports_folder() { return std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/onnx_exports"; }
std::string library_path() { return std::string(INFERNEO_SOURCE_DIR) + "/build/onnxruntime/libonnxruntime.so.1"; }

class OnnxModels : public ::testing::Test {
 protected:
  void SetUp() override {
    if (fs::exists(library_path())) house_.config.onnxruntime = library_path();
    const auto library = onnx::OrtLibrary::open(house_.config.onnxruntime);
    if (!library.ok()) GTEST_SKIP() << library.error().message;
    house_.config.model_roots.push_back(golden_folder());
    house_.config.model_roots.push_back(exports_folder());
    read_golden(golden_folder());
  }
  void read_golden(const std::string& folder) {
    std::ifstream file(folder + "/golden.json");
    golden_ = nlohmann::json::parse(file)["answers"];
    ASSERT_FALSE(golden_.empty());
  }
  // The answer to the i-th prompt is the golden one, and ends as asked for.
  void expect_answer(EngineCore& core, size_t i) const {
    const auto answer = golden_[i]["answer"].get<std::vector<Token>>();
    const auto sink = std::make_shared<DoneSink>();
    static std::atomic<RequestId> last_id{1 << 20};
    Request request;
    request.id = ++last_id;
    request.prompt = golden_[i]["prompt"].get<std::vector<Token>>();
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = static_cast<int>(answer.size());
    request.sampling.ignore_eos = true;
    request.sink = sink;
    ASSERT_TRUE(core.submit(std::move(request)).ok());
    const RequestOutcome outcome = sink->wait();
    EXPECT_FALSE(outcome.error);
    EXPECT_EQ(sink->tokens, answer);
  }

  ModelHouse house_;
  nlohmann::json golden_;
};

TEST_F(OnnxModels, AnswerLikeAnyOther) {
  for (const char* name : {"shared", "copied", "no_cache"}) {
    house_.add(name, golden_folder() + "/" + name);
    {
      const auto lease = house_.acquire(name);
      ASSERT_TRUE(lease.ok()) << lease.error().message;
      EXPECT_EQ((*lease)->format, ModelFormat::ONNX);
      EXPECT_EQ((*lease)->max_model_len, 256);
      EXPECT_EQ((*lease)->tokenizer->vocab_size(), 64);
      for (size_t i = 0; i < golden_.size(); ++i) expect_answer(*(*lease)->core, i);
      EXPECT_GT(house_.booked(name, MemoryPurpose::weights), 0U);
      EXPECT_GT(house_.booked(name, MemoryPurpose::kv), 0U);
    }
    house_.unload(name);
  }
}

// As Optimum and onnxruntime-genai's builder have written them, looked at in a child process first where there is one.
TEST_F(OnnxModels, ExportsOfOthersAnswerLikeAnyOther) {
  for (const char* name :
       {"optimum_llama3", "optimum_gpt2", "optimum_merged", "genai_llama3", "genai_llama3_int4", "genai_qwen3"}) {
    const std::string folder = exports_folder() + "/" + name;
    read_golden(folder);
    house_.add(name, folder);
    {
      const auto lease = house_.acquire(name);
      ASSERT_TRUE(lease.ok()) << lease.error().message;
      EXPECT_EQ((*lease)->max_model_len, std::string_view(name) == "optimum_gpt2" ? 96 : 256);
      EXPECT_EQ((*lease)->tokenizer->vocab_size(), 151);
      const auto words = (*lease)->tokenizer->encode("w3 w150", true);
      ASSERT_TRUE(words.ok());
      EXPECT_EQ(*words, (std::vector<Token>{3, 150}));
      // Again: a slot is a whole sequence's, and nothing of the first time is used.
      for (int time = 0; time < 2; ++time) {
        for (size_t i = 0; i < golden_.size(); ++i) expect_answer(*(*lease)->core, i);
      }
      std::vector<std::thread> clients;
      for (size_t i = 0; i < golden_.size(); ++i) {
        clients.emplace_back([&, i] { expect_answer(*(*lease)->core, i); });
      }
      for (std::thread& client : clients) client.join();
      EXPECT_EQ((*lease)->core->stats().prefix_hits, 0U);
    }
    house_.unload(name);
  }
}

// More requests than slots, at the same time, some of which leave.
TEST_F(OnnxModels, RequestsShareSteps) {
  house_.config.max_num_seqs = 4;
  house_.add("shared", golden_folder() + "/shared");
  const auto lease = house_.acquire("shared");
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  EngineCore& core = *(*lease)->core;
  std::vector<std::shared_ptr<DoneSink>> leaving;
  for (RequestId id = 1; id <= 8; ++id) {
    leaving.push_back(std::make_shared<DoneSink>());
    Request request;
    request.id = id;
    request.prompt = golden_[id % golden_.size()]["prompt"].get<std::vector<Token>>();
    request.sampling.max_tokens = 200;
    request.sampling.ignore_eos = true;
    request.sink = leaving.back();
    ASSERT_TRUE(core.submit(std::move(request)).ok());
  }
  std::vector<std::thread> clients;
  for (size_t i = 0; i < 2 * golden_.size(); ++i) {
    clients.emplace_back([&, i] { expect_answer(core, i % golden_.size()); });
  }
  for (RequestId id = 1; id <= 8; ++id) core.cancel(id);
  for (std::thread& client : clients) client.join();
  for (const auto& sink : leaving) sink->wait();
}

TEST_F(OnnxModels, AreNamedByTheirGraphToo) {
  house_.add("file", golden_folder() + "/copied/model.onnx");
  const auto lease = house_.acquire("file");
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  EXPECT_EQ((*lease)->format, ModelFormat::ONNX);
}

TEST_F(OnnxModels, TheFormatAskedForIsOpenedWhereThereAreSeveral) {
  const testing::TempTree tree;
  fs::copy(golden_folder() + "/copied", tree.path("both"), fs::copy_options::recursive);
  tree.write("both/model.safetensors", "not weights");
  const auto added =
      house_.manager->register_model({.name = "both", .path = tree.path("both"), .format = ModelFormat::ONNX});
  ASSERT_TRUE(added.ok()) << added.error().message;
  const auto lease = house_.acquire("both");
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  EXPECT_EQ((*lease)->format, ModelFormat::ONNX);
}

TEST_F(OnnxModels, WhatAGraphCannotBeIsRefused) {
  house_.config.quantization = "int8";
  house_.add("copied", golden_folder() + "/copied");
  const auto lease = house_.acquire("copied");
  ASSERT_FALSE(lease.ok());
  const ModelStatus status = house_.status("copied");
  ASSERT_TRUE(status.failure);
  EXPECT_THAT(status.failure->message, HasSubstr("quantization int8"));
}

TEST_F(OnnxModels, HostileFilesHarmNobody) {
  const testing::TempTree tree;
  std::ifstream file(golden_folder() + "/copied/model.onnx", std::ios::binary);
  const std::string whole((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  house_.add("good", golden_folder() + "/shared");
  const auto good = house_.acquire("good");
  ASSERT_TRUE(good.ok()) << good.error().message;
  const size_t used = house_.ledger.used();
  for (size_t cut = 1; cut <= 8; ++cut) {
    const std::string name = "bad" + std::to_string(cut);
    fs::copy(golden_folder() + "/copied", tree.path(name), fs::copy_options::recursive);
    tree.write(name + "/model.onnx", std::string_view(whole).substr(0, whole.size() * cut / 9));
    house_.add(name, tree.path(name));
    const auto lease = house_.acquire(name);
    ASSERT_FALSE(lease.ok()) << name;
    EXPECT_FALSE(lease.error().message.empty());
    EXPECT_EQ(house_.booked(name), 0U);
  }
  EXPECT_EQ(house_.ledger.used(), used);
  expect_answer(*(*good)->core, 0);
}

}  // namespace
}  // namespace inferneo
