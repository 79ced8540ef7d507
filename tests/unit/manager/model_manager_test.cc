#include "manager/manager_core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>

namespace inferneo {
namespace {

using ::testing::HasSubstr;

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr size_t kModelBytes = 100;

struct BookedModel : LoadedModel {
  MemoryLedger::Booking booking;
};

// Loads models without an engine core (the manager looks at none), each with its memory in the ledger.
class FakeLoader final : public ModelLoader {
 public:
  struct Log {
    std::atomic<int> loads{0};
    std::atomic<int> slow_ms{5};
    std::mutex mutex;
    std::vector<std::string> order;
  };
  FakeLoader(Log& log, MemoryLedger& ledger) : log_(log), ledger_(ledger) {}

  Result<size_t> estimate(const ModelRecord& record) override {
    if (record.source == "no-files") return make_error(ErrorCode::not_found, "no such directory");
    return record.source == "underestimated" ? kModelBytes / 2 : kModelBytes;
  }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    const int load = ++log_.loads;
    {
      const std::lock_guard lock(log_.mutex);
      log_.order.push_back(record.id.text());
    }
    RETURN_IF_ERROR(report({"sleeping", 0, 1}));
    do std::this_thread::sleep_for(milliseconds(log_.slow_ms));
    while (record.source == "endless" && report({"sleeping", 0, 1}).ok());
    RETURN_IF_ERROR(report({"sleeping", 1, 1}));
    if (record.source == "broken") return make_error(ErrorCode::malformed, "bad weights in /secret/place");
    if (record.source == "throws") throw std::runtime_error("surprise");
    if (record.source == "flaky" && load == 1) return make_error(ErrorCode::io_error, "try again");
    auto model = std::make_shared<BookedModel>();
    model->id = record.id.text();
    ASSIGN_OR_RETURN(model->booking, ledger_.reserve(record.id.text(), MemoryPurpose::weights, kModelBytes));
    return std::shared_ptr<LoadedModel>(model);
  }

 private:
  Log& log_;
  MemoryLedger& ledger_;
};

class ModelManagerTest : public testing::Test {
 protected:
  void make(size_t budget = SIZE_MAX, ManagerCore::Options options = {}) {
    ledger_ = std::make_unique<MemoryLedger>(budget);
    manager_ = std::make_unique<ManagerCore>(std::make_unique<FakeLoader>(log_, *ledger_), *ledger_, clock_, options);
  }
  void add(const std::string& id, const std::string& source = "path") {
    ASSERT_TRUE(manager_->register_model({.name = id, .path = source}).ok());
  }
  ModelStatus status(const std::string& id) const {
    for (ModelStatus& status : manager_->statuses()) {
      if (status.record.id.name == id || status.id == id) return std::move(status);
    }
    ADD_FAILURE() << "no model " << id;
    return {};
  }
  bool becomes(const std::string& id, ModelState state) const {
    for (int i = 0; i < 2000; ++i) {
      if (status(id).state == state) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }
  void TearDown() override {
    manager_.reset();
    EXPECT_EQ(ledger_->used(), 0U);
  }

  FakeLoader::Log log_;
  SteadyClock clock_;
  std::unique_ptr<MemoryLedger> ledger_;
  std::unique_ptr<ManagerCore> manager_;
};

TEST_F(ModelManagerTest, ConcurrentCallersShareOneLoad) {
  make();
  add("a");
  std::vector<std::thread> threads;
  std::atomic<int> answered{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto lease = manager_->acquire_blocking("a");
      answered += lease.ok() && (*lease)->id == "a:1" ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 8);
  EXPECT_EQ(log_.loads, 1);
  EXPECT_EQ(status("a").state, ModelState::ready);
  EXPECT_EQ(status("a").memory_bytes, kModelBytes);
  EXPECT_EQ(status("a").loads, 1U);
}

TEST_F(ModelManagerTest, ALoadThatTakesTooLongIsGivenUp) {
  make(SIZE_MAX, {.load_timeout = milliseconds(30)});
  add("a", "endless");
  add("b");
  const auto lease = manager_->acquire_blocking("a");
  EXPECT_EQ(lease.error().code, ErrorCode::unavailable);
  EXPECT_EQ(status("a").state, ModelState::failed);
  EXPECT_EQ(status("a").failure->code, ErrorCode::deadline_exceeded);
  EXPECT_THAT(status("a").failure->message, HasSubstr("load_timeout (0.03 s)"));
  EXPECT_TRUE(manager_->acquire_blocking("b").ok());
}

TEST_F(ModelManagerTest, RemovingAModelOrStoppingGivesItsLoadUp) {
  make();
  add("a", "endless");
  auto removed = std::async(std::launch::async, [&] { return manager_->acquire_blocking("a"); });
  ASSERT_TRUE(becomes("a", ModelState::loading));
  ASSERT_TRUE(manager_->remove_model("a", clock_.now()).ok());
  EXPECT_FALSE(removed.get().ok());
  while (!manager_->statuses().empty()) std::this_thread::sleep_for(milliseconds(1));
  add("b", "endless");
  auto stopped = std::async(std::launch::async, [&] { return manager_->acquire_blocking("b"); });
  ASSERT_TRUE(becomes("b", ModelState::loading));
  manager_->stop();
  EXPECT_EQ(stopped.get().error().code, ErrorCode::unavailable);
}

TEST_F(ModelManagerTest, UnknownNamesSayWhatThereIs) {
  make();
  add("a");
  add("story-teller");
  EXPECT_EQ(manager_->register_model({.name = "a", .path = "elsewhere"}).error().code, ErrorCode::already_exists);
  EXPECT_FALSE(manager_->register_model({.name = "", .path = "elsewhere"}).ok());
  const auto lease = manager_->acquire_blocking(std::string(100'000, 'x'));
  ASSERT_FALSE(lease.ok());
  EXPECT_EQ(lease.error().code, ErrorCode::not_found);
  EXPECT_NE(lease.error().message.find("a, story-teller"), std::string::npos);
  EXPECT_LT(lease.error().message.size(), 400U);
  EXPECT_NE(manager_->acquire_blocking("story-tellre").error().message.find("did you mean 'story-teller'?"),
            std::string::npos);
  EXPECT_EQ((*manager_->acquire_blocking(""))->id, "a:1") << "no name means the first one";
  for (int i = 0; i < 500; ++i) add("model-number-" + std::to_string(i));
  EXPECT_LT(manager_->acquire_blocking("?").error().message.size(), 400U);
}

TEST_F(ModelManagerTest, AliasesNameTheSameModelAndAreTakenOnce) {
  make();
  ASSERT_TRUE(manager_->register_model({.name = "a", .path = "path", .aliases = {"gpt-4", "default"}}).ok());
  EXPECT_EQ((*manager_->acquire_blocking("gpt-4"))->id, "a:1");
  EXPECT_EQ((*manager_->acquire_blocking("default"))->id, "a:1");
  EXPECT_EQ(log_.loads, 1);
  EXPECT_EQ(manager_->register_model({.name = "b", .path = "path", .aliases = {"gpt-4"}}).error().code,
            ErrorCode::already_exists);
}

TEST_F(ModelManagerTest, FailuresAreToldWithoutTheFilesAndTriedAgain) {
  make();
  for (const char* name : {"flaky", "throws", "broken", "no-files"}) add(name, name);
  EXPECT_EQ(manager_->acquire_blocking("flaky").error().code, ErrorCode::unavailable);
  EXPECT_EQ(status("flaky").state, ModelState::failed);
  EXPECT_EQ(status("flaky").failure->message, "try again");
  EXPECT_TRUE(manager_->acquire_blocking("flaky").ok());
  EXPECT_EQ(status("flaky").life.load_failures, 1U);
  EXPECT_EQ(status("flaky").life.load_seconds.count(), 1U);
  EXPECT_GE(status("flaky").life.load_seconds.sum, 0.005) << "the load that succeeded alone";
  EXPECT_EQ(status("flaky").life.wait_seconds.count(), 2U);
  EXPECT_FALSE(manager_->acquire_blocking("throws").ok());
  EXPECT_NE(status("throws").failure->message.find("surprise"), std::string::npos);
  const auto broken = manager_->acquire_blocking("broken");
  EXPECT_EQ(broken.error().message.find("/secret"), std::string::npos) << broken.error().message;
  EXPECT_EQ(status("broken").failure->code, ErrorCode::malformed);
  EXPECT_FALSE(manager_->acquire_blocking("no-files").ok());
  EXPECT_EQ(status("no-files").failure->code, ErrorCode::not_found);
  EXPECT_EQ(ledger_->used(), kModelBytes) << "nothing stays booked after a failure";
}

TEST_F(ModelManagerTest, RoomIsMadeWithinTheBudget) {
  make(2 * kModelBytes + 50);
  for (const char* id : {"a", "b", "c"}) add(id);
  ASSERT_TRUE(manager_->acquire_blocking("a").ok());
  ASSERT_TRUE(manager_->acquire_blocking("b").ok());
  ASSERT_TRUE(manager_->acquire_blocking("c").ok());
  EXPECT_EQ(status("a").state, ModelState::unloaded);
  EXPECT_EQ(status("a").unloads[static_cast<size_t>(UnloadReason::room)], 1U);
  EXPECT_EQ(status("a").life.eviction_age_seconds.count(), 1U);
  EXPECT_EQ(status("a").life.loaded_bytes, kModelBytes);
  EXPECT_EQ(status("a").life.unloaded_bytes, kModelBytes);
  EXPECT_EQ(status("b").life.eviction_age_seconds.count(), 0U);
  EXPECT_EQ(status("b").state, ModelState::ready);
  EXPECT_TRUE(manager_->acquire_blocking("a").ok()) << "and comes back";
  EXPECT_LE(ledger_->peak(), ledger_->budget());
}

TEST_F(ModelManagerTest, ALeaseKeepsAModel) {
  make(kModelBytes);
  add("a");
  add("b");
  auto lease = *manager_->acquire_blocking("a");
  std::promise<bool> told;
  manager_->acquire("b", [&told](const Result<ModelLease>& other) { told.set_value(other.ok()); });
  auto answer = told.get_future();
  EXPECT_EQ(answer.wait_for(milliseconds(50)), std::future_status::timeout);
  EXPECT_EQ(status("b").queue_place, 1U);
  EXPECT_EQ(status("a").leases, 1);
  const ModelLease copy = lease;
  lease.reset();
  EXPECT_EQ(answer.wait_for(milliseconds(20)), std::future_status::timeout) << "a copy is the same lease";
  const_cast<ModelLease&>(copy).reset();
  EXPECT_TRUE(answer.get());
}

TEST_F(ModelManagerTest, WhatCanNeverFitIsRefusedAtOnce) {
  make(kModelBytes - 1);
  add("a");
  EXPECT_EQ(manager_->acquire_blocking("a").error().code, ErrorCode::out_of_memory);
  EXPECT_EQ(log_.loads, 0);
  EXPECT_EQ(status("a").state, ModelState::failed);
}

TEST_F(ModelManagerTest, AnEstimateThatWasTooLowIsRaised) {
  make(kModelBytes + kModelBytes / 2 + 10);
  add("b");
  add("a", "underestimated");
  ASSERT_TRUE(manager_->acquire_blocking("b").ok());
  EXPECT_TRUE(manager_->acquire_blocking("a").ok()) << "half of it fitted beside the other";
  EXPECT_EQ(log_.loads, 3);
  EXPECT_EQ(status("b").state, ModelState::unloaded);
}

TEST_F(ModelManagerTest, UnloadingPinningAndKeepAlive) {
  make(2 * kModelBytes, {.keep_alive = milliseconds(10)});
  for (const char* id : {"a", "b"}) {
    ASSERT_TRUE(manager_->register_model({.name = id, .path = "path", .keep_alive = kKeepForever}).ok());
  }
  add("brief");
  ASSERT_TRUE(manager_->acquire_blocking("a").ok());
  ASSERT_TRUE(manager_->unload("a", clock_.now() + seconds(1)).ok());
  EXPECT_TRUE(becomes("a", ModelState::unloaded));
  EXPECT_EQ(status("a").unloads[static_cast<size_t>(UnloadReason::asked)], 1U);
  EXPECT_EQ(manager_->unload("?", clock_.now()).error().code, ErrorCode::not_found);
  ASSERT_TRUE(manager_->acquire_blocking("brief").ok());
  EXPECT_TRUE(becomes("brief", ModelState::unloaded));
  EXPECT_EQ(status("brief").unloads[static_cast<size_t>(UnloadReason::idle)], 1U);
  ASSERT_TRUE(manager_->acquire_blocking("a").ok());
  ASSERT_TRUE(manager_->set_pinned("a", true).ok());
  ASSERT_TRUE(manager_->acquire_blocking("b").ok());
  ASSERT_TRUE(manager_->acquire_blocking("brief").ok());
  EXPECT_EQ(status("a").state, ModelState::ready);
  EXPECT_TRUE(status("a").record.pinned);
  EXPECT_EQ(manager_->set_pinned("?", true).error().code, ErrorCode::not_found);
}

TEST_F(ModelManagerTest, IdleModelsGoWhenSomebodysMemoryCannotGrow) {
  make(2 * kModelBytes);
  add("idle");
  add("busy");
  ASSERT_TRUE(manager_->acquire_blocking("idle").ok());
  const ModelLease busy = *manager_->acquire_blocking("busy");
  EXPECT_FALSE(ledger_->reserve("busy:1", MemoryPurpose::kv, 10).ok());
  EXPECT_TRUE(becomes("idle", ModelState::unloaded));
  EXPECT_TRUE(ledger_->reserve("busy:1", MemoryPurpose::kv, 10).ok());
}

TEST_F(ModelManagerTest, NobodyWaitsForeverWhenItEnds) {
  make();
  std::vector<std::future<bool>> answers;
  for (const char* id : {"a", "b", "c", "d"}) add(id);
  for (const char* id : {"a", "b", "c", "d"}) {
    auto told = std::make_shared<std::promise<bool>>();
    answers.push_back(told->get_future());
    manager_->acquire(id, [told](const Result<ModelLease>& lease) { told->set_value(lease.ok()); });
  }
  manager_->stop();
  for (auto& answer : answers) EXPECT_EQ(answer.wait_for(seconds(0)), std::future_status::ready);
  EXPECT_EQ(manager_->acquire_blocking("a").error().code, ErrorCode::unavailable);
}

TEST_F(ModelManagerTest, LeasesMayOutliveTheManager) {
  make();
  add("a");
  ModelLease lease = *manager_->acquire_blocking("a");
  manager_.reset();
  EXPECT_EQ(lease->id, "a:1");
  lease.reset();
}

// Ten models, room for three, twenty threads: never over the budget, nobody is refused, loads coalesce.
TEST_F(ModelManagerTest, ManyThreadsShareALittleMemory) {
  make(3 * kModelBytes, {.max_models = 0, .patience = milliseconds(2)});
  log_.slow_ms = 0;
  for (int i = 0; i < 10; ++i) add("m" + std::to_string(i));
  std::atomic<int> answered{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 20; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 50; ++i) {
        const std::string id = "m" + std::to_string(random() % 10);
        const auto lease = manager_->acquire_blocking(id);
        if (lease.ok() && (*lease)->id == id + ":1") ++answered;
        if (random() % 4 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 500));
        if (random() % 16 == 0) (void)manager_->statuses();
        if (random() % 32 == 0) (void)manager_->unload(id, clock_.now() + seconds(1));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 1000);
  EXPECT_LE(ledger_->peak(), 3 * kModelBytes);
  uint64_t loads = 0;
  for (const ModelStatus& model : manager_->statuses()) loads += model.loads;
  EXPECT_EQ(loads, static_cast<uint64_t>(log_.loads));
  EXPECT_LT(loads, 1000U);
}

TEST_F(ModelManagerTest, IdleLeasesComeAtOnceOrNotAtAllAndMakeRoom) {
  make(kModelBytes + kModelBytes / 2);
  add("a");
  add("b");
  const ManagerCore::AcquireOptions idle{.idle = true};
  EXPECT_EQ(manager_->acquire_blocking("a", idle).error().code, ErrorCode::unavailable);
  EXPECT_EQ(manager_->acquire_blocking("nobody", idle).error().code, ErrorCode::not_found);
  EXPECT_EQ(log_.loads, 0);
  ASSERT_TRUE(manager_->acquire_blocking("a").ok());
  auto lease = manager_->acquire_blocking("a", idle);
  ASSERT_TRUE(lease.ok());
  std::promise<void> pressed;
  std::once_flag once;
  std::promise<void> calm;
  manager_->on_pressure([&](bool is_pressed) {
    if (!is_pressed) return calm.set_value();
    std::call_once(once, [&] { pressed.set_value(); });
  });
  auto waiting = std::async(std::launch::async, [&] { return manager_->acquire_blocking("b"); });
  ASSERT_EQ(pressed.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(status("a").state, ModelState::ready) << "it stays as long as the lease";
  lease = make_error(ErrorCode::cancelled, "made room");
  EXPECT_TRUE(waiting.get().ok());
  EXPECT_EQ(status("a").state, ModelState::unloaded);
  EXPECT_EQ(calm.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  manager_.reset();  // nobody calls back any more
}

TEST_F(ModelManagerTest, AVariantComesAndGoesWithoutItsModel) {
  make();
  add("a");
  const std::vector<ModelVariant> variants = {{"a", "t~B", {{"max_num_seqs", "2"}}}};
  EXPECT_TRUE(manager_->check_variant(variants[0]).ok());
  EXPECT_EQ(manager_->check_variant({"b", "t~B", {}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(manager_->acquire_blocking("a~t~B").error().code, ErrorCode::not_found);
  manager_->set_variants(variants);
  EXPECT_EQ(log_.loads, 0) << "it is loaded when somebody asks";
  auto lease = manager_->acquire_blocking("a~t~B");
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  EXPECT_EQ((*lease)->id, "a:1~t~B");
  EXPECT_EQ(status("a:1").state, ModelState::unloaded);
  EXPECT_EQ(status("a:1~t~B").variant_of, "a:1");
  EXPECT_EQ(ledger_->used_by("a:1~t~B"), kModelBytes);
  EXPECT_EQ(manager_->registry().load_all()->models.size(), 1U) << "the registry knows nothing of it";
  // What changes registrations leaves it alone.
  for (const Status& refused : {manager_->set_pinned("a~t~B", true), manager_->amend("a~t~B", {.pinned = true}),
                                manager_->check_variant({"a~t~B", "t~C", {}})}) {
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.error().code, ErrorCode::conflict);
    EXPECT_THAT(refused.error().message, HasSubstr("arm of an A/B test"));
  }
  EXPECT_EQ(manager_->remove_model("a:1~t~B", clock_.now()).error().code, ErrorCode::conflict);
  EXPECT_EQ(manager_->register_model({.name = "a", .version = "1~t~C", .path = "p"}).error().code,
            ErrorCode::invalid_argument);
  manager_->set_variants({});  // in use: unknown at once, in memory until its last lease ends
  EXPECT_EQ(manager_->acquire_blocking("a~t~B").error().code, ErrorCode::not_found);
  EXPECT_EQ(ledger_->used_by("a:1~t~B"), kModelBytes);
  EXPECT_TRUE(manager_->acquire_blocking("a").ok());
  manager_->set_variants(variants);  // and it may come back meanwhile
  EXPECT_EQ(status("a:1~t~B").removing, false);
  lease = make_error(ErrorCode::cancelled, "let go");
  lease = manager_->acquire_blocking("a~t~B");
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  lease = make_error(ErrorCode::cancelled, "let go");
  manager_->set_variants({});
  for (int i = 0; i < 5000 && ledger_->used_by("a:1~t~B") > 0; ++i) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(ledger_->used_by("a:1~t~B"), 0U);
  EXPECT_EQ(ledger_->used_by("a:1"), kModelBytes);
}

TEST_F(ModelManagerTest, AVariantFollowsWhatItsNameMeans) {
  make();
  add("a:1");
  manager_->set_variants({{"a", "t~B", {}}});
  EXPECT_EQ((*manager_->acquire_blocking("a~t~B"))->id, "a:1~t~B");
  add("a:2");
  EXPECT_EQ((*manager_->acquire_blocking("a~t~B"))->id, "a:2~t~B");
  ASSERT_TRUE(manager_->switch_version("a", "1").ok());
  EXPECT_EQ((*manager_->acquire_blocking("a~t~B"))->id, "a:1~t~B");
  ASSERT_TRUE(manager_->remove_model("a:2", clock_.now()).ok());
  ASSERT_TRUE(manager_->remove_model("a:1", clock_.now()).ok());
  EXPECT_EQ(manager_->acquire_blocking("a~t~B").error().code, ErrorCode::not_found);
}

TEST_F(ModelManagerTest, SettingsThatChangeArePendingUntilTheNextLoad) {
  make();
  ASSERT_TRUE(manager_->register_model({.name = "a", .path = "p", .settings = {{"x", "1"}, {"y", "1"}}}).ok());
  ASSERT_TRUE(manager_->amend("a", {.settings = {{"x", "2"}}}).ok());
  EXPECT_TRUE(status("a").pending.empty()) << "nothing is in memory";
  ASSERT_TRUE(manager_->acquire_blocking("a").ok());
  EXPECT_TRUE(status("a").pending.empty());
  ASSERT_TRUE(manager_
                  ->amend("a", {.settings = {{"x", "3"}, {"y", std::nullopt}, {"z", "1"}},
                                .metadata = {{"owner", "me"}},
                                .pinned = true,
                                .keep_alive = std::optional<int64_t>(7)})
                  .ok());
  EXPECT_THAT(status("a").pending, testing::UnorderedElementsAre("x", "y", "z"));
  EXPECT_EQ(status("a").record.settings, (std::map<std::string, std::string>{{"x", "3"}, {"z", "1"}}));
  EXPECT_EQ(status("a").record.keep_alive, 7);
  EXPECT_TRUE(status("a").record.pinned);
  ASSERT_TRUE(manager_->unload("a", clock_.now()).ok());
  ASSERT_TRUE(becomes("a", ModelState::unloaded));
  ASSERT_TRUE(manager_->acquire_blocking("a").ok());
  EXPECT_TRUE(status("a").pending.empty());
  EXPECT_EQ(manager_->amend("b", {.pinned = true}).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace inferneo
