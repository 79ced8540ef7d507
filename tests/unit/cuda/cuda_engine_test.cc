// The engine over the CUDA runner: requests to their ends, many at once, and on the emulated GPU books against the
// driver's and what becomes of a model whose GPU is lost.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>

#include "support/temp_tree.h"
#include "unit/cuda/device_engine_fixture.h"
#include "unit/engine/scripted_grammar.h"

namespace inferneo {
namespace {

TEST_F(CudaEngine, ServesRequestsAndKeepsItsBooks) {
  const auto estimate = cuda::estimate_cuda_memory(options(), 64);
  ASSERT_TRUE(estimate.ok()) << estimate.error().message;
  start();
  const auto first = submit(RequestId{1}, 8);
  const auto second = submit(RequestId{2}, 8);
  EXPECT_FALSE(first->wait().error);
  EXPECT_FALSE(second->wait().error);
  // Equal to each other, and to transformers while no near tie comes. On a GPU their prompts may take kernels that
  // round differently.
  if (cuda::testing::is_emulated()) {
    EXPECT_EQ(first->tokens, second->tokens);
  }
  ASSERT_EQ(first->tokens.size(), 8U);
  EXPECT_EQ(first->tokens[0], expected_.greedy_tokens[0]);

  EXPECT_LE(ledger_.used(), estimate->bytes);
  if (!cuda::testing::is_emulated()) return;
  const cuda::FakeDriverBooks& books = cuda::fake_driver_books();
  EXPECT_GT(books.pages, 0U);
  EXPECT_EQ(ledger_.used_by("m", MemoryPurpose::kv), books.pages << 21);
  const size_t buffers = ledger_.used() - ledger_.used_by("m", MemoryPurpose::kv);
  EXPECT_GE(buffers, books.allocated);
  EXPECT_LE(buffers, books.allocated + (size_t{16} << 21));  // each rounded up to a page
  EXPECT_GT(books.graph_launches, 0U);
}

TEST_F(CudaEngine, ManyRequestsAtOnceAreAnsweredAsAlone) {
  for (const bool deterministic : {true, false}) {
    deterministic_ = deterministic;
    answer_many();
  }
}

TEST_F(CudaEngine, QuantisedModelsAnswerManyAtOnce) {
  deterministic_ = true;
  for (const auto& [quantization, cache] : {std::pair("int8", "int8"), {"int4", "int8"}, {"fp8", "fp8"}}) {
    quantization_ = quantization;
    kv_cache_dtype_ = cache;
    answer_many();
  }
}

// Half and a quarter of the bytes, as the ledger, the estimate and the model's description say.
TEST_F(CudaEngine, QuantisedWeightsAreBookedAsTheyAre) {
  directory_ = std::make_unique<ModelDirectory>(open_model(golden_root() + "/../../../models/inferneo-story").value());
  std::map<std::string, size_t> bytes;
  for (const char* quantization : {"none", "int8", "int4", "fp8"}) {
    quantization_ = quantization;
    const MemoryEstimate estimate = cuda::estimate_cuda_memory(options(), 64).value();
    const auto runner = cuda::load_cuda_model(options());
    ASSERT_TRUE(runner.ok()) << runner.error().message;
    const ModelSpec& spec = (*runner)->spec();
    EXPECT_EQ(spec.dtype, std::string(quantization) == "none" ? "bf16" : quantization);
    EXPECT_EQ(spec.stored_dtype, "bf16");
    EXPECT_EQ(estimate.dtype, spec.dtype);
    bytes[quantization] = spec.weight_bytes;
    const size_t booked = ledger_.used_by("m", MemoryPurpose::weights);
    EXPECT_GE(booked, spec.weight_bytes);
    EXPECT_LE(booked, spec.weight_bytes + (size_t{2} << 20)) << quantization << ": a page";
    EXPECT_LT(booked, estimate.bytes);
  }
  EXPECT_LT(bytes["int8"], bytes["none"] * 9 / 16);
  EXPECT_LT(bytes["int4"], bytes["int8"] * 9 / 10) << "a third of this model is its embedding, in 8 bits";
  EXPECT_LT(bytes["fp8"], bytes["int8"] * 99 / 100) << "no scales in the layers";
  EXPECT_GT(bytes["fp8"], bytes["int8"] * 94 / 100);
  // A cache of 8 bits takes half of a bf16 one, and a scale for each head.
  quantization_ = "none";
  const size_t wide = cuda::estimate_cuda_memory(options(), 64).value().kv_bytes_per_token;
  for (const char* cache : {"int8", "fp8"}) {
    kv_cache_dtype_ = cache;
    const size_t narrow = cuda::estimate_cuda_memory(options(), 64).value().kv_bytes_per_token;
    EXPECT_GT(narrow * 2, wide);
    EXPECT_LT(narrow * 16, wide * 10);
  }
}

// A weight that int8 cannot hold is named, with the way out, and nothing stays booked.
TEST_F(CudaEngine, WeightsThatAreNotFiniteAreRefused) {
  const testing::TempTree tree;
  const std::string from = golden_root() + "/llama3_bf16";
  const std::string to = tree.directory("broken");
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    std::filesystem::copy_file(entry.path(), to + "/" + entry.path().filename().string());
  }
  std::string file;
  {
    std::ifstream in(to + "/model.safetensors", std::ios::binary);
    file.assign(std::istreambuf_iterator<char>(in), {});
  }
  uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof(header));
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const size_t entry = file.find(name);
  ASSERT_NE(entry, std::string::npos);
  const size_t offsets = file.find("data_offsets\":[", entry);
  const size_t at = 8 + header + std::stoul(file.substr(offsets + std::strlen("data_offsets\":["))) + 2 * 77;
  file[at] = static_cast<char>(0x80);  // bf16 0x7f80: infinity
  file[at + 1] = 0x7f;
  tree.write("broken/model.safetensors", file);
  directory_ = std::make_unique<ModelDirectory>(open_model(to).value());
  for (const char* quantization : {"int8", "int4", "fp8"}) {
    quantization_ = quantization;
    const auto runner = cuda::load_cuda_model(options());
    ASSERT_FALSE(runner.ok());
    EXPECT_EQ(runner.error().code, ErrorCode::unsupported);
    EXPECT_EQ(runner.error().param, "quantization");
    EXPECT_NE(runner.error().message.find(name), std::string::npos) << runner.error().message;
    EXPECT_NE(runner.error().message.find("quantization none"), std::string::npos);
    EXPECT_EQ(ledger_.used(), 0U);
  }
}

// Looked up in a prediction, alone, under a grammar and in company; and what nothing predicts runs ahead as before.
TEST_F(CudaEngine, GuessesChangeNoToken) {
  deterministic_ = true;
  const int max_tokens = cuda::testing::is_emulated() ? 14 : 60;
  GrammarScript script;
  script.vocab_size = 0;  // until the model is there
  std::vector<std::vector<Token>> expected(3);
  const auto ask = [&](RequestId id, size_t kind) {
    auto sink = std::make_shared<Collect>();
    Request request;
    request.id = id;
    request.prompt = expected_.prompt;
    request.seed = 5;
    request.sampling.temperature = kind == 0 ? 0.0F : 1.0F;
    request.sampling.max_tokens = max_tokens;
    request.sampling.ignore_eos = true;
    request.prediction = expected[kind];
    if (kind == 1) request.grammar = std::make_shared<ScriptedGrammar>(script);
    if (kind == 2) request.prediction.clear();
    request.sink = sink;
    EXPECT_TRUE(core_->submit(std::move(request)).ok());
    return sink;
  };
  uint64_t plain_ahead = 0;
  for (const bool guesses : {false, true}) {
    SCOPED_TRACE(guesses);
    num_speculative_tokens_ = guesses ? 4 : 0;
    start();
    script.vocab_size = runner_->spec().vocab_size;
    script.eos = runner_->spec().eos_token_ids.at(0);
    const auto unpredicted = ask(RequestId{1}, 2);
    EXPECT_FALSE(unpredicted->wait().error);
    expected[2] = guesses ? expected[2] : unpredicted->tokens;
    EXPECT_EQ(unpredicted->tokens, expected[2]);
    const uint64_t ahead = steps_ahead();
    plain_ahead = guesses ? plain_ahead : ahead;
    EXPECT_GT(ahead, static_cast<uint64_t>(max_tokens) / 2);
    EXPECT_EQ(ahead, plain_ahead);
    core_.reset();
    start();
    for (const size_t kind : {size_t{0}, size_t{1}}) {
      const auto sink = ask(RequestId{kind + 2}, kind);
      const RequestOutcome outcome = sink->wait();
      EXPECT_FALSE(outcome.error) << outcome.error->message;
      if (!guesses) expected[kind] = sink->tokens;
      EXPECT_EQ(sink->tokens, expected[kind]);
      EXPECT_EQ(outcome.stats.accepted_tokens > 0, guesses) << "kind " << kind;
    }
    std::vector<std::shared_ptr<Collect>> together;
    for (size_t kind = 0; kind < 3; ++kind) together.push_back(ask(RequestId{kind + 10}, kind));
    for (size_t kind = 0; kind < 3; ++kind) {
      EXPECT_FALSE(together[kind]->wait().error);
      EXPECT_EQ(together[kind]->tokens, expected[kind]) << "kind " << kind;
    }
    core_.reset();
  }
}

TEST_F(CudaEngine, ALostGpuFailsTheModelWithItsReason) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  start();
  EXPECT_FALSE(submit(RequestId{1}, 2)->wait().error);
  cuda::fail_fake_driver("event_synchronize", 700);
  const RequestOutcome outcome = submit(RequestId{2}, 8)->wait();
  ASSERT_TRUE(outcome.error);
  EXPECT_NE(outcome.error->message.find("ILLEGAL_ADDRESS"), std::string::npos) << outcome.error->message;
  EXPECT_EQ(core_->stats().state, EngineState::failed);
  core_.reset();
  // Nothing can be loaded on it any more, and the reason is said.
  const auto again = cuda::load_cuda_model(options());
  ASSERT_FALSE(again.ok());
  EXPECT_NE(again.error().message.find("is lost"), std::string::npos) << again.error().message;
}

TEST_F(CudaEngine, WhatDoesNotFitIsRefusedAndGivenBack) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it looks into the fake driver's books";
  cuda::CudaLoadOptions small = options();
  MemoryLedger none(size_t{1} << 20);
  small.ledger = &none;
  EXPECT_EQ(cuda::load_cuda_model(small).error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(none.used(), 0U);
  EXPECT_EQ(cuda::fake_driver_books().allocated, 0U);
  // The driver refuses half way.
  cuda::fail_fake_driver("copy_to_device", 1, 0);
  EXPECT_FALSE(cuda::load_cuda_model(options()).ok());
  EXPECT_EQ(ledger_.used(), 0U);
  EXPECT_EQ(cuda::fake_driver_books().pinned, 0U);
  // The weights are there, and the runner gets no stream.
  cuda::fail_fake_driver("stream_create", cuda::kCuOutOfMemory, 1);
  EXPECT_EQ(cuda::load_cuda_model(options()).error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(ledger_.used(), 0U);
}

// A capture that fails turns graphs off, and the tokens stay.
TEST_F(CudaEngine, WithoutGraphsWhereTheyCannotBeMade) {
  if (!cuda::testing::is_emulated()) GTEST_SKIP() << "it breaks the fake driver";
  cuda::fail_fake_driver("graph_instantiate", 801);
  start();
  const auto sink = submit(RequestId{1}, 8);
  EXPECT_FALSE(sink->wait().error);
  ASSERT_EQ(sink->tokens.size(), 8U);
  EXPECT_EQ(sink->tokens[0], expected_.greedy_tokens[0]);
  EXPECT_EQ(cuda::fake_driver_books().graph_launches, 0U);
}

}  // namespace
}  // namespace inferneo
