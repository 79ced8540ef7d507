// Versions, aliases, removal and what is kept: the manager and its registry together.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <set>
#include <thread>

#include "manager/manager_core.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using inferneo::testing::TempTree;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

// What a test says about loading, by source; models have no engine and no memory.
struct Script {
  std::mutex mutex;
  std::set<std::string> broken;
  std::map<std::string, int> loads;
  std::set<std::string> remote;  // to be downloaded first
  int fetches = 0;
  std::atomic<int> slow_ms{1};
  std::atomic<bool> hub_is_up{true};
  std::atomic<bool> hold_downloads{false};
};

class ScriptedFiles final : public ModelLoader {
 public:
  explicit ScriptedFiles(Script& script) : script_(script) {}
  Status check(const ModelRecord& record) override {
    if (record.settings.contains("zebra")) return make_error(ErrorCode::invalid_argument, "no zebra", "settings");
    return ok_status();
  }
  Result<size_t> estimate(const ModelRecord& record) override {
    const std::lock_guard lock(script_.mutex);
    if (script_.remote.contains(record.source)) return make_error(ErrorCode::not_found, "not downloaded");
    return 1;
  }
  bool can_fetch(const ModelRecord& record) override { return record.source.starts_with("org/"); }
  Status fetch(const ModelRecord& record, const LoadReport& report, std::stop_token stop) override {
    RETURN_IF_ERROR(report({"downloading", 0, 100}));
    while (script_.hold_downloads && !stop.stop_requested()) std::this_thread::sleep_for(milliseconds(1));
    const std::lock_guard lock(script_.mutex);
    ++script_.fetches;
    if (stop.stop_requested()) return make_error(ErrorCode::cancelled, "stopped");
    if (!script_.hub_is_up) return make_error(ErrorCode::unavailable, "the hub does not answer");
    script_.remote.erase(record.source);
    return ok_status();
  }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport& report) override {
    RETURN_IF_ERROR(report({"reading", 0, 10}));
    std::this_thread::sleep_for(milliseconds(script_.slow_ms));
    const std::lock_guard lock(script_.mutex);
    ++script_.loads[record.id.text()];
    if (script_.broken.contains(record.source)) return make_error(ErrorCode::malformed, "broken files");
    auto model = std::make_shared<LoadedModel>();
    model->id = record.id.text();
    return model;
  }

 private:
  Script& script_;
};

class VersionsTest : public ::testing::Test {
 protected:
  void open(const std::string& path = "", ManagerCore::Options options = {}) {
    manager_.reset();
    auto registry = Registry::open(path);
    ASSERT_TRUE(registry.ok()) << registry.error().message;
    manager_ = std::make_unique<ManagerCore>(std::make_unique<ScriptedFiles>(script_), ledger_, clock_, options,
                                             std::move(*registry));
  }
  void add(const std::string& id, const std::string& source = "files") {
    const auto added = manager_->register_model({.name = id, .path = source});
    ASSERT_TRUE(added.ok()) << added.error().message;
  }
  // The id of who answers, or the error.
  std::string ask(const std::string& name) {
    const auto lease = manager_->acquire_blocking(name);
    return lease.ok() ? (*lease)->id : lease.error().message;
  }
  void set_broken(const std::string& source, bool broken) {
    const std::lock_guard lock(script_.mutex);
    if (broken) {
      script_.broken.insert(source);
    } else {
      script_.broken.erase(source);
    }
  }
  bool becomes(const std::string& name, ModelState state) {
    for (int i = 0; i < 2000; ++i) {
      const auto status = manager_->status(name);
      if (status.ok() && status->state == state) return true;
      std::this_thread::sleep_for(milliseconds(1));
    }
    return false;
  }

  SteadyClock clock_;
  MemoryLedger ledger_{size_t{1} << 20};
  Script script_;
  std::unique_ptr<ManagerCore> manager_;
};

TEST_F(VersionsTest, RegistrationsAreCheckedAndNamedOnce) {
  open();
  EXPECT_EQ(manager_->acquire_blocking("").error().code, ErrorCode::not_found);
  EXPECT_EQ(manager_->register_model({.name = "chat", .path = "a"})->text(), "chat:1");
  EXPECT_EQ(manager_->register_model({.name = "chat:1", .path = "b"}).error().code, ErrorCode::already_exists);
  EXPECT_EQ(manager_->register_model({.name = "chat:2", .path = "b", .settings = {{"zebra", "1"}}}).error().param,
            "settings");
  for (const char* bad : {"", "a b", "../x", "a:", ":1", "a:b:c"}) {
    EXPECT_EQ(manager_->register_model({.name = bad, .path = "a"}).error().code, ErrorCode::invalid_argument) << bad;
  }
  EXPECT_EQ(manager_->register_model({.name = "other", .path = "a", .aliases = {"chat"}}).error().code,
            ErrorCode::already_exists);
  EXPECT_FALSE(manager_->status("other").ok()) << "registered wholly or not at all";
}

TEST_F(VersionsTest, TheLatestAnswersOnceItIsLoadedAndTheOldOneUntilThen) {
  open();
  add("chat:1");
  EXPECT_EQ(ask("chat"), "chat:1");
  script_.slow_ms = 50;
  add("chat:2");
  EXPECT_EQ(ask("chat"), "chat:1") << "while the new one is being loaded";
  ASSERT_TRUE(becomes("chat:2", ModelState::ready));
  EXPECT_EQ(ask("chat"), "chat:2");
  EXPECT_EQ(ask("chat:1"), "chat:1");
  EXPECT_EQ(script_.loads["chat:2"], 1);
}

TEST_F(VersionsTest, AReplacementThatFailsLeavesTheOldOneServing) {
  open();
  add("chat:1");
  ASSERT_EQ(ask("chat"), "chat:1");
  set_broken("bad", true);
  add("chat:2", "bad");
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(ask("chat"), "chat:1");
    std::this_thread::sleep_for(milliseconds(2));
  }
  EXPECT_LE(script_.loads["chat:2"], 3) << "tried again only after a pause";
  // Also when the old one is out of memory, and has to come back.
  ASSERT_TRUE(manager_->unload("chat:1", clock_.now() + seconds(1)).ok());
  ASSERT_TRUE(becomes("chat:1", ModelState::unloaded));
  EXPECT_EQ(ask("chat"), "chat:1");
  EXPECT_THAT(ask("chat:2"), HasSubstr("could not be loaded"));
}

TEST_F(VersionsTest, SwitchesLoadFirstAndGoBack) {
  open();
  add("chat:1");
  add("chat:2");
  add("chat:3", "bad");
  set_broken("bad", true);
  ASSERT_TRUE(manager_->switch_version("chat", "1").ok());
  EXPECT_EQ(ask("chat"), "chat:1");
  EXPECT_EQ(script_.loads["chat:2"], 0);
  const auto failed = manager_->switch_version("chat", "3");
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr("'chat' stays as it is"));
  EXPECT_EQ(ask("chat"), "chat:1");
  ASSERT_TRUE(manager_->switch_version("chat", "2").ok());
  EXPECT_EQ(manager_->status("chat:2")->state, ModelState::ready) << "in memory before it is asked";
  EXPECT_EQ(ask("chat"), "chat:2");
  ASSERT_TRUE(manager_->rollback("chat").ok());
  EXPECT_EQ(ask("chat"), "chat:1");
  EXPECT_EQ(manager_->switch_version("chat", "9").error().code, ErrorCode::not_found);
  EXPECT_EQ(manager_->rollback("none").error().code, ErrorCode::not_found);
  set_broken("bad", false);
  ASSERT_TRUE(manager_->follow_policy("chat").ok());
  ASSERT_TRUE(manager_->acquire_blocking("chat:3", {.now = true}).ok()) << "the operator need not wait";
  EXPECT_EQ(ask("chat"), "chat:3");
}

TEST_F(VersionsTest, RemovedModelsAreUnknownAtOnceAndGoneWhenTheirRequestsAre) {
  open();
  add("chat:1");
  add("chat:2");
  add("solo");
  ModelLease lease = *manager_->acquire_blocking("chat:1");
  ASSERT_TRUE(manager_->remove_model("chat:1", clock_.now() + seconds(5)).ok());
  EXPECT_EQ(manager_->acquire_blocking("chat:1").error().code, ErrorCode::not_found);
  EXPECT_EQ(manager_->statuses().back().id, "chat:1");
  EXPECT_TRUE(manager_->statuses().back().removing);
  EXPECT_EQ(manager_->register_model({.name = "chat:1", .path = "x"}).error().code, ErrorCode::conflict);
  EXPECT_EQ(ask("chat"), "chat:2");
  lease.reset();
  for (int i = 0; i < 1000 && manager_->statuses().size() > 2; ++i) std::this_thread::sleep_for(milliseconds(1));
  ASSERT_EQ(manager_->statuses().size(), 2U);
  add("chat:1");
  EXPECT_EQ(ask("chat"), "chat:2") << "until the one that was registered last is there";
  ASSERT_TRUE(becomes("chat:1", ModelState::ready));
  EXPECT_EQ(ask("chat"), "chat:1");
  ASSERT_TRUE(manager_->remove_model("solo", clock_.now()).ok());
  EXPECT_EQ(manager_->remove_model("solo", clock_.now()).error().code, ErrorCode::not_found);
}

TEST_F(VersionsTest, WhoWaitsForARemovedModelIsTold) {
  open();
  script_.slow_ms = 100;
  add("first");
  add("second");
  manager_->acquire("first", [](const Result<ModelLease>&) {});
  std::promise<Result<ModelLease>> told;
  manager_->acquire("second", [&](Result<ModelLease> lease) { told.set_value(std::move(lease)); });
  ASSERT_TRUE(manager_->remove_model("second", clock_.now()).ok());
  EXPECT_EQ(told.get_future().get().error().code, ErrorCode::not_found);
}

TEST_F(VersionsTest, EverythingIsThereAfterARestart) {
  const TempTree tree;
  open(tree.path("registry.db"));
  ASSERT_TRUE(manager_->register_model({.name = "chat:1", .path = "a", .aliases = {"gpt-4"}, .pinned = true}).ok());
  add("chat:2");
  ASSERT_TRUE(manager_->switch_version("chat", "1").ok());
  ASSERT_TRUE(manager_->set_keep_alive("chat:2", 7).ok());
  ASSERT_TRUE(manager_->set_alias("other", "chat:2").ok());
  EXPECT_EQ(ask("gpt-4"), "chat:1");
  open(tree.path("registry.db"));
  EXPECT_EQ(ask("gpt-4"), "chat:1");
  EXPECT_EQ(ask("other"), "chat:2");
  EXPECT_TRUE(manager_->status("chat:1")->record.pinned);
  EXPECT_EQ(manager_->status("chat:2")->keep_alive, seconds(7));
  EXPECT_GT(manager_->status("chat:1")->record.load_count, 0) << "usage is written at the end";
  EXPECT_GT(manager_->status("chat:1")->last_used, 0);
}

TEST_F(VersionsTest, TheConfigurationReplacesItself) {
  open("", {.config_keep_alive = seconds(3)});
  ModelRecord record;
  record.id = {"configured", "1"};
  record.source = "files";
  ASSERT_TRUE(manager_->register_config({{record}, {{.alias = "c", .name = "configured"}}}).ok());
  EXPECT_EQ(ask("c"), "configured:1");
  EXPECT_EQ(manager_->status("c")->keep_alive, seconds(3));
  EXPECT_EQ(manager_->remove_model("configured", clock_.now()).error().code, ErrorCode::conflict);
  record.id = {"renamed", "1"};
  ASSERT_TRUE(manager_->register_config({{record}, {}}).ok());
  EXPECT_THAT(ask("c"), HasSubstr("does not exist"));
  EXPECT_EQ(ask("renamed"), "renamed:1");
}

TEST_F(VersionsTest, RequestsMaySayHowLongAModelStays) {
  open("", {.keep_alive = seconds(100)});
  add("chat");
  { const auto lease = manager_->acquire_blocking("chat", {.keep_alive = 0}); }
  EXPECT_TRUE(becomes("chat", ModelState::unloaded));
  ASSERT_EQ(ask("chat"), "chat:1");
  EXPECT_EQ(manager_->status("chat")->keep_alive, seconds(100)) << "it was for that stay";
  { const auto lease = manager_->acquire_blocking("chat", {.keep_alive = kKeepForever}); }
  EXPECT_FALSE(manager_->status("chat")->keep_alive);
  EXPECT_FALSE(manager_->status("chat")->keep_alive_left);
}

TEST_F(VersionsTest, FailuresPauseLongerAndLonger) {
  open();
  set_broken("bad", true);
  add("chat", "bad");
  EXPECT_THAT(ask("chat"), HasSubstr("could not be loaded;"));
  EXPECT_THAT(ask("chat"), HasSubstr("could not be loaded;")) << "the second time at once";
  EXPECT_THAT(ask("chat"), HasSubstr("2 times in a row"));
  EXPECT_EQ(script_.loads["chat:1"], 2);
  set_broken("bad", false);
  EXPECT_THAT(ask("chat"), HasSubstr("2 times in a row"));
  EXPECT_TRUE(manager_->acquire_blocking("chat", {.now = true}).ok());
  EXPECT_EQ(ask("chat"), "chat:1");
}

TEST_F(VersionsTest, EventsTellTheStoryInOrder) {
  open();
  std::vector<std::string> story;
  uint64_t last = 0;
  const uint64_t id = manager_->events().subscribe(0, [&](const ModelEvent& event) {
    EXPECT_EQ(event.sequence, last + 1);
    last = event.sequence;
    std::string line = std::string(model_event_name(event.kind)) + " " + event.model;
    if (event.kind == ModelEvent::Kind::state) line += std::string(" ") + model_state_name(event.state);
    story.push_back(line);
  });
  add("chat");
  ASSERT_EQ(ask("chat"), "chat:1");
  ASSERT_TRUE(manager_->unload("chat", clock_.now()).ok());
  ASSERT_TRUE(becomes("chat", ModelState::unloaded));
  ASSERT_TRUE(manager_->remove_model("chat", clock_.now()).ok());
  manager_->stop();
  manager_->events().unsubscribe(id);
  const std::vector<std::string> wanted = {"registered chat:1",  "state chat:1 loading",  "progress chat:1",
                                           "state chat:1 ready", "state chat:1 draining", "state chat:1 unloaded",
                                           "removed chat:1"};
  size_t next = 0;
  for (const std::string& line : story) next += next < wanted.size() && line == wanted[next] ? 1 : 0;
  EXPECT_EQ(next, wanted.size()) << ::testing::PrintToString(story);
}

TEST_F(VersionsTest, WhoWaitsCanBeToldHowLong) {
  open();
  script_.slow_ms = 200;
  add("a");
  add("b");
  EXPECT_FALSE(manager_->outlook("a"));
  ASSERT_EQ(ask("a"), "a:1");
  EXPECT_FALSE(manager_->outlook("a")) << "it is there";
  ASSERT_TRUE(manager_->unload("a", clock_.now()).ok());
  ASSERT_TRUE(becomes("a", ModelState::unloaded));
  manager_->acquire("a", [](const Result<ModelLease>&) {});
  manager_->acquire("b", [](const Result<ModelLease>&) {});
  for (int i = 0; i < 1000; ++i) {
    const auto outlook = manager_->outlook("a");
    if (outlook && outlook->loading && outlook->progress) break;
    std::this_thread::sleep_for(milliseconds(1));
  }
  const auto first = manager_->outlook("a");
  ASSERT_TRUE(first && first->loading && first->left);
  EXPECT_EQ(first->progress->stage, "reading");
  EXPECT_LE(*first->left, milliseconds(400));
  const auto second = manager_->outlook("b");
  ASSERT_TRUE(second);
  EXPECT_FALSE(second->loading);
  EXPECT_EQ(second->place, 1U);
}

TEST_F(VersionsTest, HubModelsAreDownloadedAtTheirFirstUseBesideOtherLoads) {
  open();
  script_.remote = {"org/big", "org/never"};
  add("big", "org/big");
  add("never", "org/never");
  add("small");
  script_.hold_downloads = true;
  std::vector<std::future<bool>> answers;
  for (int i = 0; i < 3; ++i) {
    auto told = std::make_shared<std::promise<bool>>();
    answers.push_back(told->get_future());
    manager_->acquire("big", [told](const Result<ModelLease>& lease) { told->set_value(lease.ok()); });
  }
  ASSERT_TRUE(becomes("big", ModelState::loading));
  for (int i = 0; i < 1000 && !manager_->status("big")->progress; ++i) std::this_thread::sleep_for(milliseconds(1));
  ASSERT_TRUE(manager_->status("big")->progress);
  EXPECT_EQ(manager_->status("big")->progress->stage, "downloading");
  EXPECT_EQ(manager_->status("big")->waiting, 3U);
  EXPECT_TRUE(manager_->outlook("big")->loading);
  EXPECT_EQ(ask("small"), "small:1") << "others are loaded meanwhile";
  script_.hold_downloads = false;
  for (auto& answer : answers) EXPECT_TRUE(answer.get());
  EXPECT_EQ(script_.fetches, 1);
  script_.hub_is_up = false;
  EXPECT_THAT(ask("never"), HasSubstr("could not be loaded"));
  EXPECT_EQ(manager_->status("never")->failure->message, "the hub does not answer");
  script_.hub_is_up = true;
  EXPECT_EQ(ask("never"), "never:1");
}

TEST_F(VersionsTest, ADownloadEndsWithItsModelOrTheManager) {
  open();
  script_.remote = {"org/a", "org/b"};
  script_.hold_downloads = true;
  add("a", "org/a");
  add("b", "org/b");
  std::promise<Result<ModelLease>> a;
  std::promise<Result<ModelLease>> b;
  manager_->acquire("a", [&](Result<ModelLease> lease) { a.set_value(std::move(lease)); });
  ASSERT_TRUE(becomes("a", ModelState::loading));
  manager_->acquire("b", [&](Result<ModelLease> lease) { b.set_value(std::move(lease)); });
  ASSERT_TRUE(manager_->remove_model("a", clock_.now()).ok());
  EXPECT_EQ(a.get_future().get().error().code, ErrorCode::not_found);
  manager_->stop();
  EXPECT_EQ(b.get_future().get().error().code, ErrorCode::unavailable);
}

// Every answer of a request that began before a switch, during or after it is from one version, and none fails.
TEST_F(VersionsTest, SwitchesUnderLoadLoseNothing) {
  open();
  add("chat:1");
  add("chat:2");
  ASSERT_TRUE(manager_->switch_version("chat", "1").ok());
  std::atomic<bool> done{false};
  std::atomic<int> failed{0};
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < 4; ++t) {
    clients.emplace_back([&] {
      while (!done) {
        const auto lease = manager_->acquire_blocking("chat");
        if (!lease.ok()) {
          ++failed;
          continue;
        }
        const std::string id = (*lease)->id;
        std::this_thread::yield();
        if ((*lease)->id != id) ++failed;
        ++answered;
      }
    });
  }
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(manager_->switch_version("chat", i % 2 == 0 ? "2" : "1").ok());
    ASSERT_TRUE(manager_->unload(i % 2 == 0 ? "chat:1" : "chat:2", clock_.now() + seconds(5)).ok());
  }
  done = true;
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(failed, 0);
  EXPECT_GT(answered, 0);
}

}  // namespace
}  // namespace inferneo
