// The manager puts models to sleep and wakes them: books of both ledgers, who waits, what fails, what operators are
// told.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include "manager/manager_core.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

constexpr size_t kWeights = 100;

struct GpuModel : LoadedModel {
  MemoryLedger::Booking booking;
};

// What a loader of GPU models does, without a GPU: weights move between two ledgers.
class SleepLoader final : public ModelLoader {
 public:
  struct Log {
    std::atomic<int> loads{0};
    std::atomic<int> sleeps{0};
    std::atomic<int> wakes{0};
    std::atomic<int> slow_ms{1};
    std::function<Status()> at_sleep;  // changed while nothing is under way
    std::function<Status()> at_wake;
    size_t staging = 0;  // of the host, while it loads
  };
  SleepLoader(Log& log, MemoryLedger& gpu, MemoryLedger& host) : log_(log), gpu_(gpu), host_(host) {}

  Result<size_t> estimate(const ModelRecord&) override { return kWeights; }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    ++log_.loads;
    RETURN_IF_ERROR(report({"loading", 0, 1}));
    ASSIGN_OR_RETURN(const auto staging, host_.reserve(record.id.text(), MemoryPurpose::staging, log_.staging));
    std::this_thread::sleep_for(std::chrono::milliseconds(log_.slow_ms));
    return make(record.id.text(), record.source == "cpu" ? 0 : kWeights);
  }
  Result<std::unique_ptr<SleepingModel>> sleep(LoadedModel& model) override {
    ++log_.sleeps;
    if (log_.at_sleep) RETURN_IF_ERROR(log_.at_sleep());
    ASSIGN_OR_RETURN(auto booking, host_.reserve(model.id, MemoryPurpose::asleep, kWeights));
    return std::unique_ptr<SleepingModel>(std::make_unique<Sleeper>(*this, model.id, std::move(booking)));
  }

 private:
  class Sleeper final : public SleepingModel {
   public:
    Sleeper(SleepLoader& loader, std::string id, MemoryLedger::Booking booking)
        : loader_(loader), id_(std::move(id)), booking_(std::move(booking)) {}
    Result<std::shared_ptr<LoadedModel>> wake() override {
      ++loader_.log_.wakes;
      std::this_thread::sleep_for(std::chrono::milliseconds(loader_.log_.slow_ms));
      if (loader_.log_.at_wake) RETURN_IF_ERROR(loader_.log_.at_wake());
      return loader_.make(id_, kWeights);
    }

   private:
    SleepLoader& loader_;
    const std::string id_;
    MemoryLedger::Booking booking_;
  };
  Result<std::shared_ptr<LoadedModel>> make(const std::string& id, size_t sleep_bytes) {
    auto model = std::make_shared<GpuModel>();
    model->id = id;
    model->sleep_bytes = sleep_bytes;
    ASSIGN_OR_RETURN(model->booking, gpu_.reserve(id, MemoryPurpose::weights, kWeights));
    return std::shared_ptr<LoadedModel>(model);
  }

  Log& log_;
  MemoryLedger& gpu_;
  MemoryLedger& host_;
};

class ManagerSleep : public testing::Test {
 protected:
  void make(size_t gpu, size_t host, size_t sleepers, ManagerCore::Options options = {}) {
    gpu_ = std::make_unique<MemoryLedger>(gpu);
    host_ = std::make_unique<MemoryLedger>(host);
    options.host = host_.get();
    options.max_sleep_bytes = sleepers;
    options.tells_causes = true;
    manager_ =
        std::make_unique<ManagerCore>(std::make_unique<SleepLoader>(log_, *gpu_, *host_), *gpu_, clock_, options);
  }
  void make() { make(kWeights, 10 * kWeights, 10 * kWeights); }
  void TearDown() override {
    manager_.reset();
    EXPECT_EQ(gpu_->used(), 0U);
    EXPECT_EQ(host_->used(), 0U);
  }
  void add(const std::string& name, const std::string& source = "gpu") {
    ASSERT_TRUE(manager_->register_model({.name = name, .path = source}).ok());
  }
  void use(const std::string& name) {
    const auto lease = manager_->acquire_blocking(name);
    ASSERT_TRUE(lease.ok()) << lease.error().message;
    EXPECT_EQ((*lease)->id, name + ":1");
  }
  ModelStatus status(const std::string& name) const {
    auto status = manager_->status(name);
    EXPECT_TRUE(status.ok());
    status->model.reset();
    return std::move(*status);
  }
  // What slept is given back by the thread that woke it, which may be a moment behind those who are told.
  bool host_becomes_free() const {
    for (int i = 0; i < 5000 && host_->used() > 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return host_->used() == 0;
  }
  bool becomes(const std::string& name, ModelState state) const {
    for (int i = 0; i < 5000; ++i) {
      if (status(name).state == state) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  void put_to_sleep(const std::string& name) {
    const Status asked = manager_->sleep(name, clock_.now());
    ASSERT_TRUE(asked.ok()) << asked.error().message;
    ASSERT_TRUE(becomes(name, ModelState::sleeping)) << model_state_name(status(name).state);
  }
  Result<ModelLease> wake_up(const std::string& name) {
    RETURN_IF_ERROR(ManagerCore::check_wakes(status(name)));
    return manager_->acquire_blocking(name);
  }

  SleepLoader::Log log_;
  SteadyClock clock_;
  std::unique_ptr<MemoryLedger> gpu_;
  std::unique_ptr<MemoryLedger> host_;
  std::unique_ptr<ManagerCore> manager_;
};

// Two models on a GPU that holds one: after the first turn nothing is loaded any more.
TEST_F(ManagerSleep, TwoTakeTurnsAndAreLoadedOnce) {
  make();
  add("a");
  add("b");
  for (int turn = 0; turn < 20; ++turn) {
    const std::string name = turn % 2 == 0 ? "a" : "b";
    use(name);
    EXPECT_EQ(gpu_->used(), kWeights);
    EXPECT_EQ(gpu_->used_by(name + ":1"), kWeights);
  }
  EXPECT_EQ(log_.loads, 2);
  EXPECT_EQ(log_.wakes, 18);
  ASSERT_TRUE(becomes("b", ModelState::ready));
  const ModelStatus a = status("a");
  EXPECT_EQ(a.state, ModelState::sleeping);
  EXPECT_EQ(a.sleep_bytes, kWeights);
  EXPECT_EQ(a.memory_bytes, 0U);
  EXPECT_EQ(a.loads, 1U);
  EXPECT_EQ(a.misses, 1U) << "a wake is no load";
  EXPECT_EQ(a.life.sleeps, 10U);
  EXPECT_EQ(a.life.wakes, 9U);
  EXPECT_EQ(a.life.wake_seconds.count(), 9U);
  EXPECT_GT(a.wake_time, Duration{0});
  EXPECT_EQ(a.life.loaded_bytes, 10 * kWeights);
  EXPECT_EQ(a.life.unloaded_bytes, 10 * kWeights);
  EXPECT_EQ(a.unloads, (std::array<uint64_t, kNumUnloadReasons>{}));
}

TEST_F(ManagerSleep, AllWhoWaitShareAWake) {
  make();
  add("a");
  use("a");
  put_to_sleep("a");
  EXPECT_EQ(host_->used_by("a:1", MemoryPurpose::asleep), kWeights);
  EXPECT_EQ(gpu_->used(), 0U);
  log_.slow_ms = 20;
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] { answered += manager_->acquire_blocking("a").ok() ? 1 : 0; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 8);
  EXPECT_EQ(log_.wakes, 1);
  EXPECT_EQ(log_.loads, 1);
}

TEST_F(ManagerSleep, OperatorsAreToldWhatCannotSleep) {
  make(10 * kWeights, 10 * kWeights, kWeights + 1);
  add("gpu");
  add("cpu", "cpu");
  EXPECT_EQ(manager_->sleep("nobody", clock_.now()).error().code, ErrorCode::not_found);
  const Status absent = manager_->sleep("gpu", clock_.now());
  EXPECT_EQ(absent.error().code, ErrorCode::conflict);
  EXPECT_THAT(absent.error().message, HasSubstr("gpu:1 is not in memory"));
  EXPECT_EQ(wake_up("gpu").error().code, ErrorCode::conflict);
  EXPECT_THAT(wake_up("gpu").error().message, HasSubstr("load it"));
  use("gpu");
  use("cpu");
  const Status on_cpu = manager_->sleep("cpu", clock_.now());
  EXPECT_EQ(on_cpu.error().code, ErrorCode::unsupported);
  EXPECT_THAT(on_cpu.error().message, HasSubstr("cpu:1 computes on the CPU"));
  EXPECT_THAT(on_cpu.error().message, HasSubstr("unload is what there is"));
  EXPECT_EQ(status("cpu").state, ModelState::ready);
  EXPECT_TRUE(wake_up("gpu").ok()) << "it is awake";
  put_to_sleep("gpu");
  EXPECT_TRUE(manager_->sleep("gpu", clock_.now()).ok()) << "it sleeps";
  EXPECT_TRUE(wake_up("gpu").ok());
  EXPECT_EQ(status("gpu").state, ModelState::ready);
  ASSERT_TRUE(host_becomes_free());
  const auto taken = host_->reserve("others", MemoryPurpose::cache, 10 * kWeights - 10);
  ASSERT_TRUE(taken.ok());
  const Status full = manager_->sleep("gpu", clock_.now());
  EXPECT_EQ(full.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(full.error().param, "sleep_memory_share");
  EXPECT_EQ(status("gpu").state, ModelState::ready) << "and it stays";
}

TEST_F(ManagerSleep, NoneSleepsWhereNoneMay) {
  make(kWeights, 10 * kWeights, 0);
  add("a");
  add("b");
  use("a");
  EXPECT_THAT(manager_->sleep("a", clock_.now()).error().message, HasSubstr("sleep_memory_share is 0"));
  use("b");
  EXPECT_EQ(status("a").state, ModelState::unloaded);
  EXPECT_EQ(log_.sleeps, 0);
}

TEST_F(ManagerSleep, ALeasePreventsItUntilItEnds) {
  make();
  add("a");
  auto lease = manager_->acquire_blocking("a");
  ASSERT_TRUE(lease.ok());
  ASSERT_TRUE(manager_->sleep("a", clock_.now() + std::chrono::hours(1)).ok());
  ASSERT_TRUE(becomes("a", ModelState::draining));
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(log_.sleeps, 0);
  *lease = nullptr;
  EXPECT_TRUE(becomes("a", ModelState::sleeping));
}

// A model that cannot be put to sleep is unloaded, and comes back by a load.
TEST_F(ManagerSleep, ASleepThatFailsUnloads) {
  make();
  add("a");
  use("a");
  log_.at_sleep = [] { return make_error(ErrorCode::out_of_memory, "no pinned memory"); };
  ASSERT_TRUE(manager_->sleep("a", clock_.now()).ok());
  ASSERT_TRUE(becomes("a", ModelState::unloaded));
  EXPECT_EQ(gpu_->used(), 0U);
  EXPECT_EQ(host_->used(), 0U);
  EXPECT_EQ(status("a").unloads[static_cast<size_t>(UnloadReason::asked)], 1U);
  EXPECT_EQ(status("a").life.sleeps, 0U);
  use("a");
  EXPECT_EQ(log_.loads, 2);
}

// For want of memory it sleeps on and is tried again; what else is wrong ends the sleep, and a load from disk is next.
TEST_F(ManagerSleep, AWakeThatFails) {
  make();
  add("a");
  use("a");
  put_to_sleep("a");
  log_.at_wake = [] { return make_error(ErrorCode::out_of_memory, "another process took it"); };
  const auto refused = manager_->acquire_blocking("a");
  EXPECT_EQ(refused.error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(log_.wakes, 1) << "more than the GPU has cannot be asked for";
  EXPECT_EQ(status("a").state, ModelState::sleeping);
  EXPECT_TRUE(status("a").failure);
  EXPECT_EQ(gpu_->used(), 0U);
  EXPECT_EQ(host_->used(), kWeights);
  log_.at_wake = {};
  use("a");
  EXPECT_FALSE(status("a").failure);
  EXPECT_EQ(log_.loads, 1);
  put_to_sleep("a");
  log_.at_wake = [] { return make_error(ErrorCode::unavailable, "the GPU is lost"); };
  const auto lost = manager_->acquire_blocking("a");
  EXPECT_EQ(lost.error().code, ErrorCode::unavailable);
  EXPECT_THAT(lost.error().message, HasSubstr("the GPU is lost"));
  EXPECT_EQ(status("a").state, ModelState::failed);
  EXPECT_EQ(host_->used(), 0U);
  EXPECT_EQ(status("a").unloads[static_cast<size_t>(UnloadReason::failed)], 1U);
  log_.at_wake = {};
  use("a");
  EXPECT_EQ(log_.loads, 2);
}

// A load that finds no room in the host's memory gets that of those who sleep there, and no larger estimate.
TEST_F(ManagerSleep, SleepersLeaveForALoadsStaging) {
  make(kWeights, 3 * kWeights, 3 * kWeights);
  for (const char* name : {"a", "b", "c"}) add(name);
  use("a");
  use("b");
  ASSERT_EQ(status("a").state, ModelState::sleeping);
  log_.staging = 2 * kWeights;
  use("c");
  EXPECT_EQ(status("a").state, ModelState::unloaded);
  EXPECT_EQ(status("b").state, ModelState::sleeping);
  EXPECT_EQ(status("c").life.load_failures, 0U);
}

TEST_F(ManagerSleep, WhatElseNeedsTheHostsMemoryGetsIt) {
  make(kWeights, 2 * kWeights, 2 * kWeights);
  add("a");
  use("a");
  put_to_sleep("a");
  EXPECT_FALSE(host_->reserve("others", MemoryPurpose::cache, 2 * kWeights).ok());
  EXPECT_TRUE(becomes("a", ModelState::unloaded));
  EXPECT_TRUE(host_->reserve("others", MemoryPurpose::cache, 2 * kWeights).ok());
}

TEST_F(ManagerSleep, RemovedUnloadedAndPlannedWhileItSleeps) {
  make();
  for (const char* name : {"a", "b", "c"}) add(name);
  for (const char* name : {"a", "b"}) {
    use(name);
    put_to_sleep(name);
  }
  const auto plan = manager_->plan({{.id = "a"}, {.id = "c"}});
  ASSERT_TRUE(plan.ok());
  EXPECT_FALSE(plan->rows[0].refusal);
  EXPECT_TRUE(plan->rows[1].refusal) << "both are not there at once";
  use("c");
  const auto swap = manager_->plan({{.id = "a"}});
  EXPECT_EQ(swap->evicted, std::vector<std::string>({"c:1"}));
  EXPECT_EQ(swap->asleep, std::vector<std::string>({"c:1"}));
  ASSERT_TRUE(manager_->unload("a", clock_.now()).ok());
  ASSERT_TRUE(becomes("a", ModelState::unloaded));
  ASSERT_TRUE(manager_->remove_model("b", clock_.now()).ok());
  EXPECT_TRUE(host_becomes_free());
}

// New settings are those of the next load: a sleeper would wake with the old ones.
TEST_F(ManagerSleep, NewSettingsEndASleep) {
  make();
  add("a");
  use("a");
  put_to_sleep("a");
  ModelAmendment amendment;
  amendment.settings["max_num_seqs"] = "4";
  ASSERT_TRUE(manager_->amend("a", amendment).ok());
  ASSERT_TRUE(becomes("a", ModelState::unloaded));
  use("a");
  EXPECT_EQ(log_.loads, 2);
  amendment.settings["max_num_seqs"] = "8";
  ASSERT_TRUE(manager_->amend("a", amendment).ok());
  EXPECT_EQ(manager_->sleep("a", clock_.now()).error().code, ErrorCode::conflict);
}

// Requests, sleeps, wakes and unloads at once: every request is answered, and the books are exact in the end.
TEST_F(ManagerSleep, RacesWithRequests) {
  make(2 * kWeights, 4 * kWeights, 3 * kWeights);
  for (const char* name : {"a", "b", "c", "d"}) add(name);
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  constexpr int kThreads = 6;
  constexpr int kRequests = 60;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < kRequests; ++i) {
        const std::string name(1, static_cast<char>('a' + random() % 4));
        if (random() % 4 == 0) (void)manager_->sleep(name, clock_.now());
        if (random() % 16 == 0) (void)manager_->unload(name, clock_.now());
        const auto lease = manager_->acquire_blocking(name);
        answered += lease.ok() && (*lease)->id == name + ":1" ? 1 : 0;
        if (gpu_->used() > gpu_->budget() || host_->used_by(name + ":1") > kWeights) ADD_FAILURE() << "over budget";
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, kThreads * kRequests);
  EXPECT_GT(log_.wakes, 0);
  EXPECT_GT(log_.loads, 0);
}

}  // namespace
}  // namespace inferneo
