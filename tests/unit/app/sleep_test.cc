// Real models on an emulated GPU behind the manager: they take turns on it, sleep in host memory, and come back without
// their files.
#include <atomic>
#include <filesystem>
#include <map>
#include <thread>

#include "support/cuda/fake_driver.h"
#include "support/cuda/test_device.h"
#include "support/tiny_models.h"
#include "unit/app/model_house.h"

namespace inferneo {
namespace {

constexpr size_t kPlenty = size_t{900} << 20;
constexpr size_t kLessThanAModel = size_t{8} << 20;  // that has been loaded

class GpuSleep : public ::testing::Test {
 protected:
  void SetUp() override {
    cuda::reset_fake_driver();
    auto opened = cuda::Device::open(cuda::fake_driver(), 0, {&cuda::testing::kFakeImage, 1});
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    device_ = *opened;
    config_.num_threads = 2;
    config_.max_num_seqs = 2;
    config_.max_num_batched_tokens = 32;
    config_.max_model_len = 64;
    config_.answer_cache_mb = 1.0;
    config_.model_roots = {std::filesystem::temp_directory_path().string()};
  }
  void make(size_t gpu) {
    manager_.reset();
    gpu_ = std::make_unique<MemoryLedger>(gpu);
    ManagerCore::Options options;
    options.host = &host_;
    options.max_sleep_bytes = host_.budget() / 2;
    options.tells_causes = true;
    manager_ = std::make_unique<ManagerCore>(loader(), *gpu_, clock_, options);
  }
  std::unique_ptr<ModelLoader> loader() {
    return make_model_loader({config_, pool_, *gpu_, host_, device_, weights_, clock_});
  }
  void TearDown() override {
    manager_.reset();
    EXPECT_EQ(gpu_->used(), 0U);
    EXPECT_EQ(host_.used(), 0U);
    device_.reset();
    EXPECT_EQ(cuda::fake_driver_books().allocated, 0U);
    EXPECT_EQ(cuda::fake_driver_books().pinned, 0U);
    EXPECT_EQ(cuda::fake_driver_books().pages, 0U);
    cuda::reset_fake_driver();
  }

  void add(const std::string& name, const std::string& architecture,
           const std::map<std::string, std::string>& settings = {}) {
    paths_[name] = testing::make_tiny_model(tree_, name, architecture);
    ModelRegistration registration{.name = name, .path = paths_[name]};
    registration.settings = settings;
    const auto added = manager_->register_model(registration);
    ASSERT_TRUE(added.ok()) << added.error().message;
  }
  // What one of them takes of the GPU while it loads, as the loader says.
  size_t estimate(const std::string& architecture) {
    make(kPlenty);
    ModelRecord record;
    record.id = {"measured", "1"};
    record.source = testing::make_tiny_model(tree_, "measured_" + architecture, architecture);
    const auto bytes = loader()->estimate(record);
    EXPECT_TRUE(bytes.ok()) << bytes.error().message;
    return bytes.ok() ? *bytes : 0;
  }
  std::vector<Token> answer(const std::string& name) {
    const auto lease = manager_->acquire_blocking(name);
    EXPECT_TRUE(lease.ok()) << lease.error().message;
    if (!lease.ok()) return {};
    const auto sink = std::make_shared<DoneSink>();
    Request request;
    request.id = ++requests_;
    request.prompt = {3, 1, 4, 1, 5};
    request.sampling.temperature = 0.0F;
    request.sampling.max_tokens = 4;
    request.sampling.ignore_eos = true;
    request.sink = sink;
    EXPECT_TRUE((*lease)->core->submit(std::move(request)).ok());
    const RequestOutcome outcome = sink->wait();
    EXPECT_FALSE(outcome.error) << outcome.error->message;
    return sink->tokens;
  }
  ModelStatus status(const std::string& name) const {
    auto status = manager_->status(name);
    EXPECT_TRUE(status.ok());
    status->model.reset();
    return std::move(*status);
  }
  bool becomes(const std::string& name, ModelState state) const {
    return ModelHouse::eventually([&] { return status(name).state == state; });
  }

  testing::TempTree tree_;
  std::map<std::string, std::string> paths_;
  EngineConfig config_;
  SteadyClock clock_;
  ThreadPool pool_{2};
  WeightStore weights_{WeightStore::Options{}};
  MemoryLedger host_{size_t{1} << 30};
  std::unique_ptr<MemoryLedger> gpu_;
  std::shared_ptr<cuda::Device> device_;
  std::unique_ptr<ManagerCore> manager_;
  std::atomic<RequestId> requests_{0};
};

TEST_F(GpuSleep, TwoTakeTurnsOnAGpuThatHoldsOneAndNeedTheirFilesOnce) {
  const size_t one = std::max(estimate("llama3_bf16"), estimate("qwen3_bf16"));
  make(one + kLessThanAModel);
  add("llama", "llama3_bf16");
  add("qwen", "qwen3_bf16", {{"quantization", "int8"}});
  std::map<std::string, std::vector<Token>> expected;
  for (const char* name : {"llama", "qwen"}) expected[name] = answer(name);
  EXPECT_NE(expected["llama"], expected["qwen"]);
  for (const auto& [name, path] : paths_) std::filesystem::remove_all(path);
  for (int turn = 0; turn < 4; ++turn) {
    const std::string name = turn % 2 == 0 ? "llama" : "qwen";
    const std::string other = turn % 2 == 0 ? "qwen" : "llama";
    EXPECT_EQ(answer(name), expected[name]) << "turn " << turn;
    EXPECT_LE(gpu_->used(), gpu_->budget());
    EXPECT_EQ(status(other).state, ModelState::sleeping);
    EXPECT_EQ(gpu_->used_by(other + ":1"), 0U);
    EXPECT_GT(host_.used_by(other + ":1", MemoryPurpose::asleep), 0U);
  }
  for (const auto& [name, path] : paths_) {
    EXPECT_EQ(status(name).loads, 1U);
    EXPECT_EQ(status(name).life.wakes, 2U);
  }
}

// Requests, sleeps and the turns that models take all at once: every answer is the one that the model gives alone.
TEST_F(GpuSleep, RequestsRaceWithSleepsAndWakes) {
  config_.deterministic = true;  // whoever shares its steps
  const size_t one = estimate("llama3_bf16");
  make(one + kLessThanAModel);
  add("a", "llama3_bf16");
  add("b", "llama3_bf16");
  const std::vector<Token> expected = answer("a");
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 4; ++i) {
        const std::string name = (t + i) % 2 == 0 ? "a" : "b";
        (void)manager_->sleep(name, clock_.now() + std::chrono::minutes(1));
        right += answer(name) == expected ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 12);
  EXPECT_EQ(status("a").loads + status("b").loads, 2U);
  EXPECT_GT(status("a").life.wakes + status("b").life.wakes, 0U);
}

// Tokenizer, answers and context are those of before; what the prefix cache held is gone.
TEST_F(GpuSleep, TheHostsPartStays) {
  make(kPlenty);
  add("m", "llama3_bf16");
  const std::vector<Token> expected = answer("m");
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<AnswerCache> answers;
  int32_t context = 0;
  {
    const auto lease = manager_->acquire_blocking("m");
    tokenizer = (*lease)->tokenizer;
    answers = (*lease)->answers;
    context = (*lease)->max_model_len;
  }
  ASSERT_NE(answers, nullptr);
  ASSERT_TRUE(manager_->sleep("m", clock_.now()).ok());
  ASSERT_TRUE(becomes("m", ModelState::sleeping));
  EXPECT_EQ(gpu_->used(), 0U);
  EXPECT_EQ(answer("m"), expected);
  const auto lease = manager_->acquire_blocking("m");
  EXPECT_EQ((*lease)->tokenizer, tokenizer);
  EXPECT_EQ((*lease)->answers, answers);
  EXPECT_EQ((*lease)->max_model_len, context);
  EXPECT_EQ((*lease)->stats().prefix_hits, 0U);
  EXPECT_EQ((*lease)->spec.architecture, "LlamaForCausalLM");
  tokenizer.reset();
  answers.reset();
}

TEST_F(GpuSleep, ADraftSleepsWithItsModel) {
  config_.enable_speculative_decoding = true;
  config_.num_speculative_tokens = 3;
  make(kPlenty);
  const std::string draft = testing::make_tiny_model(tree_, "draft", "llama3_bf16");
  add("m", "llama3_bf16", {{"draft_model", draft}});
  const std::vector<Token> expected = answer("m");
  const size_t awake = gpu_->used() - gpu_->used_by("m:1", MemoryPurpose::kv);
  std::filesystem::remove_all(draft);
  ASSERT_TRUE(manager_->sleep("m", clock_.now()).ok());
  ASSERT_TRUE(becomes("m", ModelState::sleeping));
  EXPECT_EQ(gpu_->used(), 0U);
  EXPECT_EQ(answer("m"), expected);
  EXPECT_EQ(gpu_->used() - gpu_->used_by("m:1", MemoryPurpose::kv), awake);
  EXPECT_GT(status("m").stats.speculation.total().draft_tokens, 0U);
}

TEST_F(GpuSleep, AGpuThatIsLostMeanwhileIsTheReason) {
  make(kPlenty);
  add("m", "llama3_bf16");
  (void)answer("m");
  ASSERT_TRUE(manager_->sleep("m", clock_.now()).ok());
  ASSERT_TRUE(becomes("m", ModelState::sleeping));
  cuda::fail_fake_driver("copy_to_device", 700);
  const auto lost = manager_->acquire_blocking("m");
  ASSERT_FALSE(lost.ok());
  EXPECT_NE(lost.error().message.find("is lost"), std::string::npos) << lost.error().message;
  EXPECT_EQ(status("m").state, ModelState::failed);
  EXPECT_EQ(gpu_->used(), 0U);
  EXPECT_EQ(host_.used_by("m:1", MemoryPurpose::asleep), 0U);
}

TEST_F(GpuSleep, AModelOnTheCpuBesideItDoesNotSleep) {
  make(kPlenty);
  add("m", "llama3_bf16", {{"device", "cpu"}});
  ASSERT_TRUE(manager_->acquire_blocking("m").ok());
  const Status refused = manager_->sleep("m", clock_.now());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, ErrorCode::unsupported);
  EXPECT_NE(refused.error().message.find("computes on the CPU"), std::string::npos) << refused.error().message;
  EXPECT_EQ(status("m").state, ModelState::ready);
}

}  // namespace
}  // namespace inferneo
