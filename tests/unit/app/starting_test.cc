// An application between its making and the end of its loads: it can be asked, and takes no requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <set>
#include <stop_token>
#include <string>
#include <thread>

#include "app/application.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

EngineConfig config_of(std::vector<std::string> models) {
  EngineConfig config;
  config.model = std::move(models);
  config.max_memory_gb = 0.25;
  config.num_threads = 2;
  return config;
}

const std::string kDraft = std::string(INFERNEO_SOURCE_DIR) + "/models/inferneo-story-draft";

TEST(Starting, RequestsAreTakenWhenAllModelsAreLoaded) {
  std::vector<Status> during;
  Application* asked = nullptr;
  auto made = Application::create(
      config_of({kDraft}), {.progress = [&](const ModelProgress&) { during.push_back(asked->service().ready()); }});
  ASSERT_TRUE(made.ok());
  Application& application = **made;
  asked = &application;
  EXPECT_FALSE(application.service().admission().ok());
  EXPECT_FALSE(application.service().ready().ok());
  ASSERT_TRUE(application.load_models().ok());
  EXPECT_TRUE(application.service().admission().ok());
  EXPECT_TRUE(application.service().ready().ok());
  ASSERT_FALSE(during.empty());
  for (const Status& status : during) {
    ASSERT_FALSE(status.ok());
    EXPECT_EQ(status.error().code, ErrorCode::unavailable);
    EXPECT_THAT(status.error().message, HasSubstr("inferneo-story-draft"));
  }
  application.drain(std::chrono::seconds(1));
  EXPECT_FALSE(application.service().admission().ok());
}

TEST(Starting, AnotherThreadGivesItUp) {
  std::stop_source starting;
  std::promise<void> loads;
  bool told = false;
  const auto progress = [&](const ModelProgress&) {  // on the thread that loads
    if (!told) loads.set_value();
    told = true;
    while (!starting.stop_requested()) std::this_thread::yield();
  };
  auto made = Application::create(config_of({kDraft}), {.progress = progress});
  ASSERT_TRUE(made.ok());
  std::thread other([&] {
    loads.get_future().wait();
    starting.request_stop();
  });
  const Status status = (*made)->load_models(starting.get_token());
  other.join();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.error().code, ErrorCode::cancelled);
  EXPECT_FALSE((*made)->service().admission().ok());
}

TEST(Starting, ModelsComputeBeforeRequestsAreTaken) {
  for (const bool warm_up : {true, false}) {
    EngineConfig config = config_of({kDraft});
    config.warm_up = warm_up;
    auto made = Application::create(config);
    ASSERT_TRUE(made.ok());
    ASSERT_TRUE((*made)->load_models().ok());
    double steps = 0.0;
    for (const MetricSample& sample : (*made)->service().metrics()) {
      if (sample.name == "inferneo:engine_steps") steps += std::get<double>(sample.value);
    }
    EXPECT_EQ(steps > 0.0, warm_up);
    const ServerStats stats = (*made)->service().stats();
    EXPECT_EQ(stats.total_requests, 0U) << "it is nobody's request";
    EXPECT_EQ(stats.running, 0);
  }
}

TEST(Starting, AModelThatIsLoadedLaterComputesBeforeItIsReadyToo) {
  for (const bool warm_up : {true, false}) {
    EngineConfig config = config_of({kDraft});
    config.enable_lazy_loading = true;
    config.warm_up = warm_up;
    std::set<std::string> stages;
    auto made = Application::create(
        config, {.progress = [&](const ModelProgress& progress) { stages.insert(progress.stage); }});
    ASSERT_TRUE(made.ok());
    ASSERT_TRUE((*made)->load_models().ok());
    const auto lease = (*made)->manager().acquire_blocking("");
    ASSERT_TRUE(lease.ok()) << lease.error().message;
    EXPECT_EQ((*lease)->core->stats().steps > 0, warm_up);
    EXPECT_EQ((*lease)->core->stats().finished_requests, 0U) << "it is nobody's request";
    EXPECT_EQ(stages.contains("warming up"), warm_up);
    EXPECT_EQ((*made)->service().stats().total_requests, 0U);
  }
}

TEST(Starting, AFailedLoadLeavesItClosed) {
  auto made = Application::create(config_of({kDraft, "./absent"}));
  ASSERT_TRUE(made.ok());
  const Status loaded = (*made)->load_models();
  ASSERT_FALSE(loaded.ok());
  EXPECT_THAT(loaded.error().message, HasSubstr("absent"));
  EXPECT_FALSE((*made)->service().admission().ok());
}

TEST(Starting, LazyModelsDoNotKeepItClosed) {
  EngineConfig config = config_of({kDraft});
  config.enable_lazy_loading = true;
  auto made = Application::create(config);
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE((*made)->load_models().ok());
  EXPECT_TRUE((*made)->service().admission().ok());
}

TEST(Starting, ModelsAndAliasesOfTheFileAreRegistered) {
  EngineConfig config = config_of({});
  config.enable_lazy_loading = true;
  config.models = {{.source = kDraft, .aliases = {"draft"}},
                   {.source = kDraft,
                    .name = "story",
                    .version = "2",
                    .pinned = false,
                    .keep_alive = 60,
                    .settings = {{"max_model_len", "64"}}}};
  config.aliases = {{"stable", "story:2"}};
  auto made = Application::create(config);
  ASSERT_TRUE(made.ok()) << made.error().message;
  ManagerCore& manager = (*made)->manager();
  EXPECT_EQ(manager.status("draft")->id, "inferneo-story-draft:1");
  const auto story = manager.status("stable");
  ASSERT_TRUE(story.ok()) << story.error().message;
  EXPECT_EQ(story->id, "story:2");
  EXPECT_EQ(story->record.origin, RecordOrigin::config);
  EXPECT_EQ(story->record.keep_alive, 60);
  const auto lease = manager.acquire_blocking("story");
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  EXPECT_EQ(manager.status("story")->model->max_model_len, 64);
}

TEST(Starting, EntriesThatCannotBeRegisteredSayWhereTheyStand) {
  const std::pair<ModelEntry, const char*> cases[] = {
      {{.source = kDraft, .name = "a b", .where = "f.yaml:3:5"}, "f.yaml:3:5: 'a b' cannot be a model's name"},
      {{.source = kDraft, .name = "a", .version = "x y", .where = "f.yaml:3:5"},
       "f.yaml:3:5: 'x y' cannot be a version"},
      {{.source = kDraft, .format = "gguf", .where = "f.yaml:3:5"}, "f.yaml:3:5: format: expected huggingface"},
      {{.source = kDraft, .settings = {{"port", "1"}}}, "'port' is no setting of a model"},
  };
  for (const auto& [entry, why] : cases) {
    EngineConfig config = config_of({});
    config.models = {entry};
    const auto made = Application::create(config);
    ASSERT_FALSE(made.ok()) << why;
    EXPECT_THAT(made.error().message, HasSubstr(why));
  }
  EngineConfig config = config_of({kDraft});
  config.aliases = {{"x", "unknown"}};
  EXPECT_FALSE(Application::create(config).ok());
}

}  // namespace
}  // namespace inferneo
