// From a directory to a runner: what is found, what is refused, what stands in the books.
#include <gmock/gmock.h>
#include <sys/stat.h>

#include <filesystem>

#include "formats/onnx/own_graphs.h"
#include "onnx_fixture.h"
#include "support/temp_tree.h"
#include "support/wire.h"

namespace inferneo::onnx {
namespace {

namespace fs = std::filesystem;
using inferneo::testing::onnx_external;
using inferneo::testing::onnx_model;
using inferneo::testing::onnx_node;
using inferneo::testing::onnx_tensor;
using inferneo::testing::TempTree;
using inferneo::testing::Wire;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A copy of a fixture that a test may spoil.
class OnnxLoaderTest : public ::testing::Test {
 protected:
  void SetUp() override { SKIP_WITHOUT_ONNX_RUNTIME(); }
  std::string copy(const std::string& name) const {
    fs::copy(golden_folder() + "/" + name, tree_.path(name), fs::copy_options::recursive);
    return tree_.path(name);
  }
  // The error of a load; "" when there is none. Nothing stays booked.
  static std::string refusal(const std::string& folder, const std::function<void(OnnxLoadOptions&)>& change = {}) {
    OnnxHouse house(folder);
    if (change) change(house.options);
    const Result<std::unique_ptr<ModelRunner>> runner = house.load();
    if (runner.ok()) return "";
    EXPECT_EQ(house.ledger.used(), 0U);
    return runner.error().message;
  }
  TempTree tree_;
};

TEST_F(OnnxLoaderTest, WhatAGraphCanDoIsFoundOut) {
  const auto abilities_in = [](const std::string& folder) {
    OnnxHouse house(folder);
    const Result<const OrtLibrary*> library = OrtLibrary::open("");
    EXPECT_TRUE(library.ok());
    const Result<OnnxDescription> about = describe_onnx(house.directory, "");
    EXPECT_TRUE(about.ok());
    const Result<OnnxFiles> files = scan_onnx_files(house.directory, about->file, house.ledger, "m");
    EXPECT_TRUE(files.ok());
    const Result<std::unique_ptr<OnnxSession>> session =
        OnnxSession::create(**library, files->path, {.num_threads = 2});
    EXPECT_TRUE(session.ok()) << session.error().message;
    const Result<OnnxGraph> graph =
        discover_graph((*session)->inputs(), (*session)->outputs(), files->facts, about->names, about->sizes);
    EXPECT_TRUE(graph.ok()) << graph.error().message;
    const Result<GraphTrial> trial = try_graph(**session, *graph, 256, house.ledger, "m");
    EXPECT_TRUE(trial.ok()) << trial.error().message;
    EXPECT_LT(trial->step_difference, 0.01);
    return std::tuple(graph->cache, trial->abilities.chunks, trial->abilities.batches, trial->abilities.last_logits);
  };
  const auto abilities = [&](const std::string& name) { return abilities_in(golden_folder() + "/" + name); };
  using Kind = CacheKind;
  EXPECT_EQ(abilities("shared"), std::tuple(Kind::shared, true, true, false));
  EXPECT_EQ(abilities("shared_f16"), std::tuple(Kind::shared, true, true, false));
  EXPECT_EQ(abilities("last_logits"), std::tuple(Kind::shared, true, true, true));
  EXPECT_EQ(abilities("copied"), std::tuple(Kind::copied, true, true, false));
  EXPECT_EQ(abilities("no_positions"), std::tuple(Kind::copied, true, true, false));
  EXPECT_EQ(abilities("traced"), std::tuple(Kind::copied, false, true, false)) << "a wrong mask for chunks is noticed";
  EXPECT_EQ(abilities("no_cache"), std::tuple(Kind::none, false, false, false));
  const auto of_exporter = [&](const std::string& name) { return abilities_in(exports_folder() + "/" + name); };
  for (const char* name : {"optimum_llama3", "optimum_gpt2", "optimum_merged"}) {
    EXPECT_EQ(of_exporter(name), std::tuple(Kind::copied, true, true, false)) << name;
  }
  for (const char* name : {"genai_llama3", "genai_llama3_int4", "genai_qwen3"}) {
    EXPECT_EQ(of_exporter(name), std::tuple(Kind::shared, true, true, false)) << name;
  }
}

TEST_F(OnnxLoaderTest, TheBooksHoldWhatThereIsAndNothingAfterwards) {
  for (const char* name : {"shared", "copied", "no_cache"}) {
    OnnxHouse house(golden_folder() + "/" + name);
    const Result<OnnxEstimate> estimate = estimate_onnx_memory(house.options, 12, 256);
    ASSERT_TRUE(estimate.ok()) << estimate.error().message;
    {
      Result<std::unique_ptr<ModelRunner>> runner = house.load();
      ASSERT_TRUE(runner.ok()) << runner.error().message;
      const size_t weights = house.ledger.used_by("m", MemoryPurpose::weights);
      EXPECT_EQ(weights, (*runner)->spec().weight_bytes);
      EXPECT_GT(weights, 80U << 10) << "some 94 kB of weights";
      EXPECT_LT(weights, 1U << 20);
      EXPECT_EQ(house.ledger.used(), weights) << "nothing of the trial stays";
      SlotHarness harness(**runner);
      auto sequence = harness.start({1, 2, 3});
      harness.step({{&sequence}});
      EXPECT_GT(house.ledger.used(), weights);
      EXPECT_LE(house.ledger.peak(), estimate->bytes);
    }
    EXPECT_EQ(house.ledger.used(), 0U);
  }
}

// Whatever the machine has: a provider either computes the probe or is refused with the way out.
TEST_F(OnnxLoaderTest, AProviderIsTriedBeforeItIsUsed) {
  const OrtLibrary& library = **OrtLibrary::open("");
  EXPECT_TRUE(probe_provider(library, {}).ok()) << "the graph of the probe is one that the CPU computes";
  for (const ExecutionProvider provider : {ExecutionProvider::cuda, ExecutionProvider::tensorrt}) {
    const ProviderChoice choice{
        .provider = provider, .device = 63, .gpu_memory_limit = size_t{1} << 30};  // no machine has so many
    const Status works = probe_provider(library, choice);
    ASSERT_FALSE(works.ok());
    EXPECT_EQ(works.error().code, ErrorCode::unsupported);
    EXPECT_EQ(works.error().param, "onnx_provider");
    EXPECT_THAT(works.error().message,
                AllOf(HasSubstr(std::string("onnx_provider ") + std::string(provider_name(provider))),
                      HasSubstr("onnx_provider: cpu"), HasSubstr(library.version())));
    EXPECT_THAT(refusal(golden_folder() + "/shared", [&](OnnxLoadOptions& options) { options.provider = choice; }),
                HasSubstr("onnx_provider"));
  }
}

TEST_F(OnnxLoaderTest, WhereNothingElseIsAskedForTheCpuStepsIn) {
  OnnxHouse house(golden_folder() + "/shared");
  house.options.provider = {.provider = ExecutionProvider::cuda, .device = 63, .or_else_the_cpu = true};
  Result<std::unique_ptr<ModelRunner>> runner = house.load();
  ASSERT_TRUE(runner.ok()) << runner.error().message;
  SlotHarness harness(**runner);
  auto sequence = harness.start({1, 2, 3});
  harness.step({{&sequence}});
  EXPECT_EQ((*usable_provider(**OrtLibrary::open(""), house.options.provider)).provider, ExecutionProvider::cpu);
}

TEST_F(OnnxLoaderTest, ABudgetThatIsTooSmallRefuses) {
  const std::string folder = golden_folder() + "/copied";
  OnnxHouse house(folder);
  MemoryLedger small(150 << 10);
  house.options.ledger = &small;
  house.options.check.when = GraphCheckOptions::When::always;
  house.options.check.command = {"/bin/sh", "-c", "echo x > " + tree_.path("begun") + "; echo ok"};
  const Result<std::unique_ptr<ModelRunner>> runner = house.load();
  ASSERT_FALSE(runner.ok());
  EXPECT_EQ(runner.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(small.used(), 0U);
  EXPECT_FALSE(fs::exists(tree_.path("begun"))) << "a child takes as much, so it does not even begin";
}

TEST_F(OnnxLoaderTest, TheFilesBesideTheGraphAreRead) {
  OnnxHouse genai(golden_folder() + "/shared");
  const Result<OnnxDescription> about = describe_onnx(genai.directory, "");
  ASSERT_TRUE(about.ok());
  EXPECT_EQ(about->file, "model.onnx");
  EXPECT_EQ(about->generation.eos_token_ids, std::vector<Token>{2});
  EXPECT_EQ(about->generation.bos_token_id, 1);
  EXPECT_EQ(about->generation.do_sample, false);
  EXPECT_EQ(about->max_position, 256);
  EXPECT_EQ(about->names.past_key, "past_key_values.%d.key");

  OnnxHouse plain(golden_folder() + "/copied");
  const Result<OnnxDescription> other = describe_onnx(plain.directory, "");
  ASSERT_TRUE(other.ok());
  EXPECT_EQ(other->architecture, "LlamaForCausalLM");
  EXPECT_EQ(other->sizes.kv_heads, 1);

  // What onnxruntime-genai's builder writes, which leaves config.json out, and what Optimum does.
  OnnxHouse built(exports_folder() + "/genai_llama3");
  const Result<OnnxDescription> llama = describe_onnx(built.directory, "");
  ASSERT_TRUE(llama.ok()) << llama.error().message;
  EXPECT_EQ(llama->file, "model.onnx");
  EXPECT_EQ(llama->architecture, "llama");
  EXPECT_EQ(llama->generation.eos_token_ids, (std::vector<Token>{2, 5, 7}));
  EXPECT_EQ(llama->generation.bos_token_id, 1);
  EXPECT_EQ(llama->generation.pad_token_id, 2);
  EXPECT_EQ(llama->max_position, 256);
  EXPECT_EQ(llama->sizes.kv_heads, 2);
  EXPECT_EQ(llama->sizes.head_dim, 16);
  OnnxHouse merged(exports_folder() + "/optimum_merged");
  const Result<OnnxDescription> both = describe_onnx(merged.directory, "");
  ASSERT_TRUE(both.ok()) << both.error().message;
  EXPECT_EQ(both->file, "decoder_model_merged.onnx");
}

TEST_F(OnnxLoaderTest, TheGraphIsFoundOrAskedFor) {
  const std::string folder = copy("copied");
  fs::rename(folder + "/model.onnx", folder + "/my.onnx");
  EXPECT_EQ(refusal(folder), "");
  fs::copy(folder + "/my.onnx", folder + "/other.onnx");
  EXPECT_THAT(refusal(folder), HasSubstr("my.onnx, other.onnx"));
  EXPECT_EQ(refusal(folder, [](OnnxLoadOptions& options) { options.file = "other.onnx"; }), "");
  fs::create_directory(folder + "/onnx");
  fs::rename(folder + "/my.onnx", folder + "/onnx/model.onnx");
  EXPECT_EQ(refusal(folder), "");
  fs::remove(folder + "/onnx/model.onnx");
  fs::remove(folder + "/other.onnx");
  EXPECT_THAT(refusal(folder), HasSubstr("no .onnx file"));
}

TEST_F(OnnxLoaderTest, DataOutsideTheDirectoryAreRefused) {
  const std::string folder = copy("shared");
  const std::string data = folder + "/model.onnx.data";
  EXPECT_EQ(refusal(folder), "");
  fs::rename(data, tree_.path("elsewhere"));
  EXPECT_THAT(refusal(folder), HasSubstr("no such file"));
  fs::create_symlink(tree_.path("elsewhere"), data);
  EXPECT_THAT(refusal(folder), HasSubstr("leaves the allowed model directories"));
  fs::remove(data);
  fs::create_directory(data);
  EXPECT_THAT(refusal(folder), HasSubstr("not a regular file"));
  fs::remove(data);
  fs::copy(tree_.path("elsewhere"), data);
  EXPECT_EQ(refusal(folder), "");
  fs::resize_file(data, 1000);
  EXPECT_THAT(refusal(folder), HasSubstr("which has 1000"));
  tree_.write("climbs/model.onnx",
              onnx_model(Wire().message(5, onnx_external("w", "../elsewhere", "0", "40", 10))).bytes());
  EXPECT_THAT(refusal(tree_.path("climbs")), HasSubstr("beneath the model's directory"));
}

// The library reads another format of its own by the file's ending, and our scan does not.
TEST_F(OnnxLoaderTest, AGraphIsAnOnnxFile) {
  const std::string folder = copy("shared");
  std::ifstream file(golden_folder() + "/shared/genai_config.json");
  nlohmann::json config = nlohmann::json::parse(file);
  for (const char* name : {"model.ort", "genai_config.json", "../shared/model.onnx", "model.onnx\n"}) {
    config["model"]["decoder"]["filename"] = name;
    tree_.write("shared/genai_config.json", config.dump());
    EXPECT_FALSE(describe_onnx(open_folder(folder), "").ok() && refusal(folder).empty()) << name;
  }
  fs::copy(folder + "/model.onnx", folder + "/model.ort");
  EXPECT_THAT(refusal(folder, [](OnnxLoadOptions& options) { options.file = "model.ort"; }),
              HasSubstr("'model.ort' is no .onnx file"));
}

// A snapshot of the hub's cache is links to files elsewhere within a root.
TEST_F(OnnxLoaderTest, ASnapshotOfLinksIsRead) {
  const std::string blobs = tree_.directory("hub/blobs");
  const std::string snapshot = tree_.directory("hub/snapshots/1");
  int number = 0;
  for (const auto& entry : fs::directory_iterator(golden_folder() + "/shared")) {
    const std::string blob = blobs + "/" + std::to_string(number++);
    fs::copy(entry.path(), blob);
    fs::create_symlink("../../blobs/" + std::to_string(number - 1), snapshot + "/" + entry.path().filename().string());
  }
  OnnxHouse house(tree_.path("hub"));
  Result<ModelDirectory> directory = ModelDirectory::open("snapshot", snapshot, {tree_.path("hub")});
  ASSERT_TRUE(directory.ok());
  house.directory = std::move(directory).value();
  const Result<std::unique_ptr<ModelRunner>> runner = house.load();
  EXPECT_TRUE(runner.ok()) << runner.error().message;
}

TEST_F(OnnxLoaderTest, WeightsThatAreCutShortFailTheModelAlone) {
  const std::string folder = copy("shared");
  OnnxHouse house(folder);
  Result<std::unique_ptr<ModelRunner>> runner = house.load();
  ASSERT_TRUE(runner.ok());
  fs::resize_file(folder + "/model.onnx.data", 0);
  SlotHarness harness(**runner);
  StepBatch batch;
  const std::vector<Token> tokens = {1, 2, 3};
  const int32_t slot = 0;
  const std::vector<std::span<const int32_t>> table = {{&slot, 1}};
  SequenceStep step;
  step.tokens = tokens;
  step.block_tables = table;
  batch.sequences = {step};
  const Result<Ticket> ticket = (*runner)->submit(batch);
  ASSERT_TRUE(ticket.ok());
  const Result<StepResult> result = (*runner)->collect(*ticket);
  if (result.ok()) return;  // what was computed from had been copied
  EXPECT_EQ(result.error().code, ErrorCode::io_error);
}

TEST_F(OnnxLoaderTest, BrainFloatSaysHowToConvert) {
  tree_.write("bf16/model.onnx", onnx_model(Wire().message(5, onnx_tensor("w", 16, {1}, "xx"))).bytes());
  EXPECT_THAT(refusal(tree_.path("bf16")), HasSubstr("precision f16, f32 or int4"));
}

TEST_F(OnnxLoaderTest, WhatTheLibraryRefusesIsNamed) {
  const Wire graph = Wire().message(1, onnx_node("NoSuchOperator"));
  tree_.write("odd/model.onnx", onnx_model(graph).bytes());
  EXPECT_THAT(refusal(tree_.path("odd")), HasSubstr("model.onnx"));
  tree_.write("text/model.onnx", "<html>not found</html>");
  EXPECT_THAT(refusal(tree_.path("text")), HasSubstr("model.onnx"));
  tree_.write("empty/model.onnx", "");
  EXPECT_NE(refusal(tree_.path("empty")), "");
}

TEST_F(OnnxLoaderTest, TheContextIsTheModelsOrAsAskedFor) {
  const std::string folder = golden_folder() + "/copied";
  EXPECT_THAT(refusal(folder, [](OnnxLoadOptions& options) { options.max_model_len = 257; }), HasSubstr("256"));
  EXPECT_EQ(refusal(folder, [](OnnxLoadOptions& options) { options.max_model_len = 256; }), "");
  // A graph made for shorter contexts than its model: the files that came from the model do not know.
  const std::string cut = copy("shared");
  std::ifstream config(golden_folder() + "/copied/config.json");
  nlohmann::json longer = nlohmann::json::parse(config);
  longer["max_position_embeddings"] = 4096;
  tree_.write("shared/config.json", longer.dump());
  EXPECT_EQ(describe_onnx(open_folder(cut), "")->max_position, 256);
  EXPECT_THAT(refusal(cut, [](OnnxLoadOptions& options) { options.max_model_len = 257; }), HasSubstr("256"));
  const std::string bare = copy("copied");
  fs::remove(bare + "/config.json");
  EXPECT_THAT(refusal(bare), HasSubstr("max_model_len"));
  EXPECT_EQ(refusal(bare, [](OnnxLoadOptions& options) { options.max_model_len = 64; }), "");
}

TEST_F(OnnxLoaderTest, AForeignGraphIsOpenedInAChildFirst) {
  const auto by = [&](const std::string& folder, GraphCheckOptions::When when, const std::string& script) {
    return refusal(folder, [&](OnnxLoadOptions& options) {
      options.check.when = when;
      options.check.command = {"/bin/sh", "-c", script};
    });
  };
  const std::string folder = copy("copied");
  using When = GraphCheckOptions::When;
  EXPECT_THAT(by(folder, When::foreign, "kill -ABRT $$"), HasSubstr("child process"));
  EXPECT_EQ(by(folder, When::never, "kill -ABRT $$"), "");
  EXPECT_EQ(by(folder, When::foreign, "echo ok"), "");
  EXPECT_EQ(by(folder, When::foreign, "kill -ABRT $$"), "") << "it has passed, and is the same";
  // Written to, it is another, also with the time of its content set back.
  const std::string graph = folder + "/model.onnx";
  const auto time = fs::last_write_time(graph);
  const auto changed = [&] {
    struct ::stat info {};
    EXPECT_EQ(::stat(graph.c_str(), &info), 0);
    return std::pair(info.st_ctim.tv_sec, info.st_ctim.tv_nsec);
  };
  const auto before = changed();
  while (changed() == before) {
    std::fstream(graph, std::ios::in | std::ios::out | std::ios::binary).put('\x08');
    fs::last_write_time(graph, time);
  }
  EXPECT_THAT(by(folder, When::foreign, "kill -ABRT $$"), HasSubstr("child process"));
  EXPECT_EQ(by(folder, When::foreign, "echo ok"), "");
  std::ofstream(folder + "/model.onnx", std::ios::app) << Wire().number(5, 1).bytes();
  EXPECT_THAT(by(folder, When::foreign, "kill -ABRT $$"), HasSubstr("child process"));
  EXPECT_EQ(refusal(folder,
                    [](OnnxLoadOptions& options) {
                      options.check.when = When::always;
                      options.check.command = {INFERNEO_PROGRAM, "onnx-check"};
                      options.library = ort_library();
                    }),
            "");
}

// Whose graph it is follows from its bytes, which our converter keeps a hash of, and not from what it says.
TEST_F(OnnxLoaderTest, AGraphThatSaysItIsOursIsForeign) {
  const std::string folder = copy("copied");
  std::ifstream file(folder + "/model.onnx", std::ios::binary);
  std::string graph((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string producer = Wire().text(2, "fixture").bytes();
  graph.replace(graph.find(producer), producer.size(), Wire().text(2, "inferneo").bytes());
  tree_.write("copied/model.onnx", graph);
  const auto with_home = [&](const std::string& home) {
    return refusal(folder, [&](OnnxLoadOptions& options) {
      options.home = home;
      options.check.when = GraphCheckOptions::When::foreign;
      options.check.command = {"/bin/sh", "-c", "kill -ABRT $$"};
    });
  };
  const std::string home = tree_.path("home");
  EXPECT_THAT(with_home(""), HasSubstr("child process"));
  EXPECT_THAT(with_home(home), HasSubstr("child process"));
  ASSERT_TRUE(OwnGraphs(home).add(std::as_bytes(std::span(graph))).ok());
  EXPECT_EQ(with_home(home), "");
  EXPECT_THAT(with_home(tree_.path("other home")), HasSubstr("child process"));
  EXPECT_THAT(with_home(""), HasSubstr("child process"));
  graph += Wire().number(5, 1).bytes();
  tree_.write("copied/model.onnx", graph);
  EXPECT_THAT(with_home(home), HasSubstr("child process")) << "one version number more";
}

}  // namespace
}  // namespace inferneo::onnx
