// A model and its draft are one load: one decision about the memory of both, one name in the books, one end; and a
// draft that cannot be one is refused with a sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/draft_loading.h"
#include "model_house.h"
#include "support/temp_tree.h"

namespace inferneo {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kStory = "story";

void add_with_draft(const ModelHouse& house, const std::string& draft, const std::string& enabled = "true") {
  ModelRegistration registration{.name = kStory, .path = bundled_model("inferneo-story")};
  registration.settings = {{"enable_speculative_decoding", enabled}, {"draft_model", draft}};
  const auto added = house.manager->register_model(registration);
  ASSERT_TRUE(added.ok()) << added.error().message;
}

std::vector<Token> story_of(const ModelHouse& house, RequestStats* stats) {
  const auto lease = house.acquire(kStory);
  EXPECT_TRUE(lease.ok()) << house.status(kStory).failure.value_or(lease.error()).message;
  if (!lease.ok()) return {};
  static RequestId last_id = 1000;
  const auto sink = std::make_shared<DoneSink>();
  Request request;
  request.id = ++last_id;
  request.prompt = *(*lease)->tokenizer->encode("Once upon a time", true);
  request.sampling.temperature = 0.0F;
  request.sampling.max_tokens = 60;
  request.sampling.ignore_eos = true;
  request.sink = sink;
  EXPECT_TRUE((*lease)->core->submit(std::move(request)).ok());
  *stats = sink->wait().stats;
  return sink->tokens;
}

TEST(DraftLoading, BothAreBookedUnderOneNameAndLeaveTogether) {
  ModelHouse plain;
  plain.config.deterministic = true;
  plain.add(kStory, bundled_model("inferneo-story"));
  ModelHouse house;
  house.config.deterministic = true;
  add_with_draft(house, bundled_model("inferneo-story-draft"));
  RequestStats stats;
  RequestStats plain_stats;
  const std::vector<Token> story = story_of(house, &stats);
  EXPECT_EQ(story, story_of(plain, &plain_stats));
  EXPECT_GT(stats.draft_tokens, 0);
  EXPECT_EQ(plain_stats.draft_tokens, 0);
  EXPECT_GT(house.ledger.used(), plain.ledger.used());
  EXPECT_LE(house.ledger.peak(), house.ledger.budget());
  house.unload(kStory);
  EXPECT_EQ(house.ledger.used(), 0U);
}

// Of the two together: what is not enough for both is not begun with.
TEST(DraftLoading, TheEstimateIsOfBoth) {
  ModelHouse house;
  const auto loader =
      make_model_loader({house.config, house.pool, house.ledger, house.ledger, nullptr, house.weights, house.clock});
  ModelRecord record;
  record.id = {kStory, "1"};
  record.source = bundled_model("inferneo-story");
  record.origin = RecordOrigin::config;
  const Result<ModelFootprint> alone = loader->footprint(record);
  ASSERT_TRUE(alone.ok()) << alone.error().message;
  record.settings = {{"enable_speculative_decoding", "true"}, {"draft_model", bundled_model("inferneo-story-draft")}};
  const Result<ModelFootprint> both = loader->footprint(record);
  ASSERT_TRUE(both.ok()) << both.error().message;
  EXPECT_GT(both->load_bytes, alone->load_bytes + (size_t{600} << 10));  // its weights
  EXPECT_GT(both->kv_bytes_per_token, alone->kv_bytes_per_token);
  EXPECT_EQ(both->max_model_len, alone->max_model_len);
  const auto loaded = loader->load(record, [](const LoadStage&) { return ok_status(); });
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  EXPECT_LE(house.ledger.peak(), both->load_bytes);
}

TEST(DraftLoading, AnotherVocabularyIsRefusedWithBothNames) {
  ModelHouse house;
  add_with_draft(house, bundled_model("inferneo-code"));
  const auto lease = house.acquire(kStory);
  ASSERT_FALSE(lease.ok());
  const ModelStatus status = house.status(kStory);
  ASSERT_TRUE(status.failure.has_value());
  EXPECT_THAT(status.failure->message, AllOf(HasSubstr("inferneo-code cannot guess for"), HasSubstr("inferneo-story"),
                                             HasSubstr("vocabularies differ")));
  EXPECT_EQ(house.ledger.used(), 0U);
}

TEST(DraftLoading, AFileThatSaysTheSameOtherwiseIsTheSameVocabulary) {
  const testing::TempTree tree;
  const std::filesystem::path from = bundled_model("inferneo-story-draft");
  std::filesystem::create_directories(tree.path("draft"));
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    std::filesystem::copy_file(entry.path(), tree.path("draft/" + entry.path().filename().string()));
  }
  std::ofstream(tree.path("draft/tokenizer.json"), std::ios::app) << "\n";
  ModelHouse house;
  add_with_draft(house, tree.path("draft"));
  RequestStats stats;
  EXPECT_EQ(story_of(house, &stats).size(), 60U);
  EXPECT_GT(stats.draft_tokens, 0);
  house.unload(kStory);
  tree.write("draft/model.safetensors", "damaged");
  EXPECT_FALSE(house.acquire(kStory).ok());
  EXPECT_THAT(house.status(kStory).failure->message, HasSubstr("draft_model"));
  EXPECT_EQ(house.ledger.used(), 0U);
}

TEST(DraftLoading, ADraftThatIsNotThereOrNotAllowedIsNamed) {
  ModelHouse house;
  add_with_draft(house, bundled_model("no-such-model"));
  ASSERT_FALSE(house.acquire(kStory).ok());
  EXPECT_THAT(house.status(kStory).failure->message, AllOf(HasSubstr("draft_model"), HasSubstr("no-such-model")));
  ModelRegistration registration{.name = "other", .path = bundled_model("inferneo-story")};
  registration.settings = {{"enable_speculative_decoding", "true"}, {"draft_model", "/etc"}};
  const auto added = house.manager->register_model(registration);
  ASSERT_FALSE(added.ok()) << "outside the roots";
  EXPECT_THAT(added.error().message, HasSubstr("/etc"));
}

TEST(DraftLoading, ADraftOnTheHubIsFetchedAsAModelIs) {
  const testing::TempTree tree;
  ModelHouse house;
  house.config.hub_cache = tree.directory("hub");
  const auto loader =
      make_model_loader({house.config, house.pool, house.ledger, house.ledger, nullptr, house.weights, house.clock});
  ModelRecord record;
  record.id = {kStory, "1"};
  record.source = bundled_model("inferneo-story");
  record.origin = RecordOrigin::config;
  EXPECT_FALSE(loader->can_fetch(record));
  record.settings = {{"enable_speculative_decoding", "true"}, {"draft_model", "somebody/story-draft"}};
  EXPECT_TRUE(loader->can_fetch(record));
  EXPECT_EQ(loader->estimate(record).error().code, ErrorCode::not_found);
  house.config.hub_offline = true;
  EXPECT_FALSE(loader->can_fetch(record));
  house.config.hub_offline = false;
  record.settings["draft_model"] = "/no/such/draft";  // which no download brings
  EXPECT_FALSE(loader->can_fetch(record));
  EXPECT_EQ(loader->estimate(record).error().code, ErrorCode::invalid_argument);
}

TEST(DraftLoading, WithoutSpeculationThereIsNone) {
  ModelHouse house;
  add_with_draft(house, bundled_model("inferneo-story-draft"), "false");
  RequestStats stats;
  EXPECT_EQ(story_of(house, &stats).size(), 60U);
  EXPECT_EQ(stats.draft_tokens, 0);
}

}  // namespace
}  // namespace inferneo
