// What the tests of loading and unloading share: the real loader behind a model manager of its own, faults between the
// two, and what a process holds at a moment.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "app/model_loading.h"
#include "base/thread_pool.h"
#include "manager/manager_core.h"

namespace inferneo {

inline std::string bundled_model(const std::string& name) {
  return std::string(INFERNEO_SOURCE_DIR) + "/models/" + name;
}

inline size_t entries_of(const char* directory) {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}
inline size_t open_descriptors() { return entries_of("/proc/self/fd"); }
inline size_t running_threads() { return entries_of("/proc/self/task"); }

// The end of one request.
class DoneSink final : public TokenSink {
 public:
  void on_token(int32_t, Token token, const TokenLogprobs*, bool) override { tokens.push_back(token); }
  void on_sample_finished(int32_t, FinishReason, std::optional<Token>) override {}
  void on_done(const RequestOutcome& outcome) override {
    const std::lock_guard lock(mutex_);
    outcome_ = outcome;
    ++outcomes_;
    changed_.notify_all();
  }
  RequestOutcome wait() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(120), [this] { return outcomes_ > 0; }))
        << "a request was lost";
    return outcome_.value_or(RequestOutcome{.reason = FinishReason::failed, .error = {}, .stats = {}});
  }
  int outcomes() const {
    const std::lock_guard lock(mutex_);
    return outcomes_;
  }
  std::vector<Token> tokens;  // to be read after wait()

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<RequestOutcome> outcome_;
  int outcomes_ = 0;
};

// A few tokens, greedily. The outcome, or why the request was not accepted.
inline Result<RequestOutcome> generate(EngineCore& core, std::vector<Token> prompt, int max_tokens) {
  static std::atomic<RequestId> last_id{0};
  const auto sink = std::make_shared<DoneSink>();
  Request request;
  request.id = ++last_id;
  request.prompt = std::move(prompt);
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = max_tokens;
  request.sampling.ignore_eos = true;
  request.sink = sink;
  RETURN_IF_ERROR(core.submit(std::move(request)));
  RequestOutcome outcome = sink->wait();
  EXPECT_EQ(sink->outcomes(), 1);
  return outcome;
}

// The real loader, and what a test does before and after its work: an error there is the load's.
class FaultyLoader final : public ModelLoader {
 public:
  struct Faults {
    std::function<Status()> before_load;
    std::function<Status()> after_load;  // of everything; the model goes with the error
    std::optional<size_t> estimate;      // instead of the loader's own
  };
  FaultyLoader(std::unique_ptr<ModelLoader> loader, const Faults& faults)
      : loader_(std::move(loader)), faults_(faults) {}

  Status check(const ModelRecord& record) override { return loader_->check(record); }
  Result<size_t> estimate(const ModelRecord& record) override {
    if (faults_.estimate) return *faults_.estimate;
    return loader_->estimate(record);
  }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    if (faults_.before_load) RETURN_IF_ERROR(faults_.before_load());
    ASSIGN_OR_RETURN(std::shared_ptr<LoadedModel> model, loader_->load(record, report));
    if (faults_.after_load) RETURN_IF_ERROR(faults_.after_load());
    return model;
  }

 private:
  std::unique_ptr<ModelLoader> loader_;
  const Faults& faults_;
};

// A model manager with everything that it needs. Faults and configuration are changed while no load is under way.
struct ModelHouse {
  explicit ModelHouse(size_t budget = size_t{1} << 30) : ledger(budget) {
    config.num_threads = 2;
    config.max_num_seqs = 16;
    config.max_num_batched_tokens = 256;
    config.model_roots = {bundled_model(""), std::filesystem::temp_directory_path()};
    manager = std::make_unique<ManagerCore>(
        std::make_unique<FaultyLoader>(make_model_loader({config, pool, ledger, ledger, nullptr, weights, clock}),
                                       faults),
        ledger, clock);
  }

  void add(const std::string& id, const std::string& source, bool pinned = false) const {
    const auto added = manager->register_model({.name = id, .path = source, .pinned = pinned});
    ASSERT_TRUE(added.ok()) << added.error().message;
  }
  // Also a model that has just failed is tried again.
  Result<ModelLease> acquire(const std::string& id) const {
    return manager->acquire_blocking(id, {.priority = 0, .keep_alive = {}, .now = true});
  }
  ModelStatus status(const std::string& id) const {
    Result<ModelStatus> status = manager->status(id);
    EXPECT_TRUE(status.ok()) << "no model " << id;
    if (!status.ok()) return {};
    status->model.reset();  // a look that lasted would hold an unload up
    return std::move(*status);
  }
  size_t booked(const std::string& id) const { return ledger.used_by(status(id).id); }
  size_t booked(const std::string& id, MemoryPurpose purpose) const { return ledger.used_by(status(id).id, purpose); }
  template <typename Predicate>
  static bool eventually(Predicate holds) {
    for (int i = 0; i < 20'000 && !holds(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return holds();
  }
  // Out of the memory, with every byte back in the ledger's books.
  void unload(const std::string& id) const {
    ASSERT_TRUE(manager->unload(id, clock.now()).ok());
    ASSERT_TRUE(eventually([&] { return status(id).state == ModelState::unloaded; }));
    EXPECT_EQ(booked(id), 0U);
  }

  EngineConfig config;
  SteadyClock clock;
  ThreadPool pool{2};
  MemoryLedger ledger;
  WeightStore weights{WeightStore::Options{}};
  FaultyLoader::Faults faults;
  std::unique_ptr<ManagerCore> manager;
};

}  // namespace inferneo
