// Copies for shadow models: who is copied, what is dropped, and what comes of pairs. The service is played by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "shadow_fixture.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;

TEST_F(ShadowTest, APairIsComparedWhenBothHaveEnded) {
  add({.name = "s", .model = "story", .shadow_model = "draft", .keep_texts = true});
  const auto asked = original(request());
  ASSERT_NE(asked, nullptr);
  EXPECT_TRUE(service_.asked.empty()) << "no copy before the original was accepted";
  accept(*asked);
  ASSERT_EQ(service_.asked.size(), 1U);
  const GenerateRequest& copy = service_.asked[0]->request;
  EXPECT_TRUE(copy.is_copy);
  EXPECT_EQ(copy.model, "draft");
  EXPECT_EQ(std::get<std::string>(copy.prompt), "Once");
  EXPECT_EQ(copy.sampling.n, 1);
  EXPECT_FALSE(copy.sampling.logprobs);
  EXPECT_EQ(copy.sampling.max_tokens, 10);
  answer(*asked, {"a", "b", "c"}, std::chrono::milliseconds(80));
  EXPECT_EQ(sink_->text, "abc");
  ASSERT_TRUE(sink_->done);
  EXPECT_EQ(counts().completed, 0);
  answer(*service_.asked[0], {"a", "x"}, std::chrono::milliseconds(20), FinishReason::length);
  const auto view = book_.find("s");
  EXPECT_EQ(view->results->counts.completed, 1);
  EXPECT_EQ(view->results->counts.prompt_tokens, 7);
  EXPECT_EQ(view->results->counts.completion_tokens, 2);
  ASSERT_EQ(view->results->pairs.size(), 1U);
  const ShadowPair& pair = view->results->pairs[0];
  EXPECT_EQ(pair.request_id, "r");
  EXPECT_EQ(pair.original.text, "abc");
  EXPECT_EQ(pair.copy.text, "ax");
  EXPECT_EQ(pair.original.finish, "stop");
  EXPECT_EQ(pair.copy.finish, "length");
  EXPECT_FALSE(pair.same_text);
  EXPECT_EQ(pair.first_difference, 1);
  EXPECT_DOUBLE_EQ(*pair.copy.computing[2], 0.02);
  EXPECT_DOUBLE_EQ(*pair.copy.computing[0], 0.005);
  EXPECT_DOUBLE_EQ(*pair.original.computing[1], 0.03);
  const ShadowDifferences& differences = view->results->differences;
  EXPECT_EQ(differences.same_finish, 0);
  EXPECT_NEAR(differences.computing[2].ratio.histogram.quantile(0.5), 0.25, 0.003);
  EXPECT_NEAR(differences.completion_tokens.ratio.moments.mean, 2.0 / 3.0, 1e-9);
}

TEST_F(ShadowTest, TheCopyMayEndFirst) {
  add({.name = "s", .shadow_model = "draft"});
  const auto asked = original(request());
  accept(*asked);
  answer(*service_.asked[0], {"a", "b"});
  EXPECT_EQ(counts().completed, 0);
  EXPECT_EQ(book_.find("s")->in_hand, 1U);
  answer(*asked, {"a", "b"});
  EXPECT_EQ(counts().completed, 1);
  const ShadowPair& pair = book_.find("s")->results->pairs[0];
  EXPECT_TRUE(pair.same_text);
  EXPECT_FALSE(pair.first_difference);
  EXPECT_TRUE(pair.copy.text.empty()) << "texts are kept only where that is asked for";
}

TEST_F(ShadowTest, AnOriginalThatHasEndedBeforeItsCopyWasMade) {
  add({.name = "s", .shadow_model = "draft"});
  const auto asked = original(request());
  const auto hook = std::exchange(asked->request.on_submitted, nullptr);
  answer(*asked, {"a"});
  hook(asked->request, 7);
  answer(*service_.asked.at(0), {"a"});
  EXPECT_EQ(counts().completed, 1);
  const auto failed = original(request());
  const auto late = std::exchange(failed->request.on_submitted, nullptr);
  fail(*failed, ErrorCode::internal);
  late(failed->request, 7);
  EXPECT_TRUE(service_.asked.at(1)->cancelled);
}

TEST_F(ShadowTest, OnlyRequestsOfItsModelAreCopied) {
  add({.name = "s", .model = "story", .shadow_model = "draft"});
  EXPECT_NE(original(request("story")), nullptr);
  EXPECT_NE(original(request("story:2")), nullptr) << "a name stands for all of its versions";
  EXPECT_NE(original(request("")), nullptr) << "the default model is story";
  EXPECT_NE(original(request("tale")), nullptr);
  EXPECT_EQ(original(request("draft")), nullptr);
  EXPECT_EQ(original(request("nobody")), nullptr);
  ASSERT_TRUE(book_.replace({.name = "s", .model = "story:2", .shadow_model = "draft"}).ok());
  EXPECT_EQ(original(request("story")), nullptr);
  EXPECT_NE(original(request("story:2")), nullptr);
  ASSERT_TRUE(book_.replace({.name = "s", .shadow_model = "draft", .enabled = false}).ok());
  EXPECT_EQ(original(request("story")), nullptr);
  GenerateRequest forced = request("story");
  forced.traits.forced_arm = "B";
  ASSERT_TRUE(book_.replace({.name = "s", .shadow_model = "draft"}).ok());
  EXPECT_EQ(original(forced), nullptr);
  GenerateRequest scored = request("story");
  scored.sampling.max_tokens = 0;
  EXPECT_EQ(original(scored), nullptr) << "there is no answer to compare";
  EXPECT_EQ(counts().sent, 0) << "none of them was accepted";
}

TEST_F(ShadowTest, AShareIsOfTheRequestsAndAlwaysOfTheSameOnes) {
  add({.name = "s", .shadow_model = "draft", .share = 0.2});
  const auto chosen = [&](const std::string& salt) {
    EXPECT_TRUE(book_.replace({.name = "s", .shadow_model = "draft", .share = 0.2, .salt = salt}).ok());
    std::set<int> set;
    for (int i = 0; i < 4000; ++i) {
      if (original(request("story", "req-" + std::to_string(i))) != nullptr) set.insert(i);
    }
    return set;
  };
  const std::set<int> first = chosen("");
  EXPECT_NEAR(static_cast<double>(first.size()), 800.0, 5 * 25.3);  // five standard deviations
  EXPECT_EQ(chosen(""), first);
  const std::set<int> other = chosen("another");
  std::vector<int> both;
  std::set_intersection(first.begin(), first.end(), other.begin(), other.end(), std::back_inserter(both));
  EXPECT_NEAR(static_cast<double>(both.size()), 160.0, 5 * 12.4);
}

TEST_F(ShadowTest, WhatIsTooMuchIsDropped) {
  add({.name = "s", .shadow_model = "draft", .max_concurrent = 2, .max_queue = 3});
  std::vector<std::shared_ptr<HeldService::Asked>> originals;
  for (int i = 0; i < 8; ++i) {
    originals.push_back(original(request()));
    accept(*originals.back());
  }
  EXPECT_EQ(service_.asked.size(), 2U);
  EXPECT_EQ(dropped(ShadowDrop::queue_full), 3);
  for (size_t i = 0; i < 5; ++i) answer(*service_.asked[i], {"a"});  // each makes room for the next
  for (const auto& one : originals) answer(*one, {"a"});
  EXPECT_EQ(counts().completed, 5);
  EXPECT_EQ(counts().sent, 8);
}

TEST_F(ShadowTest, ABudgetOfTokensHolds) {
  add({.name = "s", .shadow_model = "draft", .max_tokens_per_minute = 60});  // a copy may take 7 + 10
  std::vector<std::shared_ptr<HeldService::Asked>> originals;
  const auto send = [&] {
    originals.push_back(original(request()));
    accept(*originals.back());
  };
  for (int i = 0; i < 5; ++i) send();
  EXPECT_EQ(service_.asked.size(), 3U);
  EXPECT_EQ(dropped(ShadowDrop::budget), 2);
  for (int i = 0; i < 3; ++i) answer(*service_.asked[static_cast<size_t>(i)], {"a"});  // 8 each: 27 are given back
  send();
  send();
  EXPECT_EQ(service_.asked.size(), 5U);
  send();
  EXPECT_EQ(service_.asked.size(), 5U);
  clock_.advance(std::chrono::seconds(30));
  send();
  EXPECT_EQ(service_.asked.size(), 6U);
}

TEST_F(ShadowTest, AFailureOfTheShadowModelIsCountedAndTouchesNobody) {
  add({.name = "s", .shadow_model = "draft"});
  const auto asked = original(request());
  accept(*asked);
  fail(*service_.asked[0], ErrorCode::numeric);
  answer(*asked, {"a", "b"});
  EXPECT_EQ(sink_->text, "ab");
  EXPECT_FALSE(sink_->done->error);
  EXPECT_EQ(counts().failed, 1);
  const auto other = original(request());
  accept(*other);
  fail(*service_.asked[1], ErrorCode::unavailable);
  answer(*other, {"a"});
  EXPECT_EQ(counts().failed, 1);
  EXPECT_EQ(dropped(ShadowDrop::not_in_memory), 1);
}

TEST_F(ShadowTest, WithoutItsModelInMemoryThereIsNoCopy) {
  models_.in_memory.clear();
  add({.name = "s", .shadow_model = "draft"});
  const auto asked = original(request());
  accept(*asked);
  EXPECT_TRUE(service_.asked.empty());
  EXPECT_TRUE(loads_.empty());
  EXPECT_EQ(dropped(ShadowDrop::not_in_memory), 1);
  answer(*asked, {"a"});
  // Only where the owner says so is it loaded, and copies wait for that.
  ASSERT_TRUE(book_.replace({.name = "s", .shadow_model = "draft", .load = true}).ok());
  const auto second = original(request());
  accept(*second);
  EXPECT_EQ(loads_, std::vector<std::string>{"draft"});
  EXPECT_TRUE(service_.asked.empty());
  models_.in_memory = {"draft"};
  clock_.advance(std::chrono::seconds(1));
  const auto third = original(request());
  accept(*third);
  EXPECT_EQ(service_.asked.size(), 2U);
  EXPECT_EQ(loads_.size(), 1U);
}

TEST_F(ShadowTest, AnOriginalThatFailsTakesItsCopyWithIt) {
  add({.name = "s", .shadow_model = "draft", .max_concurrent = 1});
  const auto first = original(request());
  const auto second = original(request());
  accept(*first);
  accept(*second);
  fail(*second, ErrorCode::cancelled);  // its copy waits
  EXPECT_EQ(dropped(ShadowDrop::original_ended), 1);
  fail(*first, ErrorCode::internal);  // its copy is under way
  EXPECT_TRUE(service_.asked[0]->cancelled);
  fail(*service_.asked[0], ErrorCode::cancelled);
  EXPECT_EQ(dropped(ShadowDrop::original_ended), 2);
  EXPECT_EQ(service_.asked.size(), 1U);
}

TEST_F(ShadowTest, CopiesMakeRoomAndComeBack) {
  add({.name = "s", .shadow_model = "draft", .max_concurrent = 1});
  const auto first = original(request());
  accept(*first);
  book_.yield_room();
  EXPECT_TRUE(service_.asked[0]->cancelled);
  fail(*service_.asked[0], ErrorCode::cancelled);
  EXPECT_EQ(service_.asked.size(), 1U) << "not at once";
  EXPECT_EQ(book_.find("s")->in_hand, 1U);
  const auto second = original(request());
  accept(*second);
  EXPECT_EQ(service_.asked.size(), 1U);
  book_.resume();
  ASSERT_EQ(service_.asked.size(), 2U);
  answer(*service_.asked[1], {"a"});
  ASSERT_EQ(service_.asked.size(), 3U);
  answer(*service_.asked[2], {"a"});
  answer(*first, {"a"});
  answer(*second, {"a"});
  EXPECT_EQ(counts().completed, 2);
}

TEST_F(ShadowTest, ChangesKeepResultsWhereTheModelsStay) {
  add({.name = "s", .model = "story", .shadow_model = "draft"});
  const auto asked = original(request());
  accept(*asked);
  answer(*service_.asked[0], {"a"});
  answer(*asked, {"a"});
  ASSERT_TRUE(book_.replace({.name = "s", .model = "story", .shadow_model = "draft", .share = 0.5}).ok());
  EXPECT_EQ(counts().completed, 1);
  ASSERT_TRUE(book_.replace({.name = "s", .model = "story", .shadow_model = "story:2"}).ok());
  EXPECT_EQ(counts().completed, 0);
  ASSERT_TRUE(book_.remove("s").ok());
  EXPECT_FALSE(book_.has_any());
  EXPECT_EQ(book_.remove("s").error().code, ErrorCode::not_found);
  EXPECT_EQ(book_.replace({.name = "s", .shadow_model = "draft"}).error().code, ErrorCode::not_found);
}

TEST_F(ShadowTest, ARemovedShadowDropsWhatItHas) {
  add({.name = "s", .shadow_model = "draft", .max_concurrent = 1});
  const auto results = book_.find("s")->results;
  const auto first = original(request());
  const auto second = original(request());
  accept(*first);
  accept(*second);
  ASSERT_TRUE(book_.remove("s").ok());
  EXPECT_TRUE(service_.asked[0]->cancelled);
  fail(*service_.asked[0], ErrorCode::cancelled);
  answer(*first, {"a"});
  answer(*second, {"a"});
  EXPECT_EQ(service_.asked.size(), 1U);
  EXPECT_EQ(results->counts.dropped[static_cast<size_t>(ShadowDrop::removed)], 2);
}

TEST_F(ShadowTest, WhatCannotBeIsRefused) {
  EXPECT_EQ(refused({.name = "a b", .shadow_model = "draft"}, "name"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({.name = "s"}, "shadow_model"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({.name = "s", .shadow_model = "nobody"}, "shadow_model"), ErrorCode::not_found);
  EXPECT_EQ(refused({.name = "s", .model = "nobody", .shadow_model = "draft"}, "model"), ErrorCode::not_found);
  EXPECT_EQ(refused({.name = "s", .shadow_model = "draft", .share = 0.0}, "share"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({.name = "s", .shadow_model = "draft", .share = 1.1}, "share"), ErrorCode::invalid_argument);
  EXPECT_EQ(refused({.name = "s", .shadow_model = "draft", .max_concurrent = 0}, "max_concurrent"),
            ErrorCode::invalid_argument);
  EXPECT_EQ(refused({.name = "s", .shadow_model = "draft", .max_queue = -1}, "max_queue"), ErrorCode::invalid_argument);
  add({.name = "s", .shadow_model = "draft"});
  EXPECT_EQ(refused({.name = "s", .shadow_model = "draft"}, "name"), ErrorCode::already_exists);
  ASSERT_TRUE(book_.begin({{.name = "file", .shadow_model = "draft"}}).ok());
  EXPECT_THAT(book_.remove("file").error().message, HasSubstr("configuration file"));
  EXPECT_EQ(book_.replace({.name = "file", .shadow_model = "draft"}).error().code, ErrorCode::conflict);
}

TEST_F(ShadowTest, MetricsCountTheCopies) {
  add({.name = "s", .shadow_model = "draft"});
  const auto asked = original(request());
  accept(*asked);
  answer(*service_.asked[0], {"a", "b"});
  answer(*asked, {"a"});
  std::vector<MetricSample> samples;
  book_.collect(samples);
  std::map<std::string, double> values;
  for (const MetricSample& sample : samples) {
    values[sample.name + " " + sample.labels[0].second + " " + sample.labels[1].second] =
        std::get<double>(sample.value);
  }
  EXPECT_EQ(values["inferneo:shadow_copies s completed"], 1.0);
  EXPECT_EQ(values["inferneo:shadow_copies s dropped"], 0.0);
  EXPECT_EQ(values["inferneo:shadow_tokens s completion"], 2.0);
}

// Any order of acceptance, ends, failures, room wanted and changes: every copy is counted once.
TEST_F(ShadowTest, AnyHistoryKeepsTheCounts) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    std::mt19937_64 random(seed);
    const std::string name = "h" + std::to_string(seed);
    add({.name = name, .shadow_model = "draft", .max_concurrent = 2, .max_queue = 3});
    const auto results = book_.find(name)->results;
    std::vector<std::shared_ptr<HeldService::Asked>> originals;
    const size_t begin = service_.asked.size();
    int accepted = 0;
    for (int step = 0; step < 300; ++step) {
      const auto one_of = [&](const auto& list, size_t first) -> HeldService::Asked* {
        std::vector<HeldService::Asked*> open;
        for (size_t i = first; i < list.size(); ++i) {
          if (list[i]->sink != nullptr) open.push_back(list[i].get());
        }
        return open.empty() ? nullptr : open[random() % open.size()];
      };
      const uint64_t choice = random() % 10;
      if (choice < 3) {
        originals.push_back(original(request()));
        accept(*originals.back());
        ++accepted;
      } else if (choice < 6) {
        if (auto* asked = one_of(originals, 0)) {
          random() % 5 == 0 ? fail(*asked, ErrorCode::cancelled) : answer(*asked, {"a"});
        }
      } else if (choice < 9) {
        if (auto* asked = one_of(service_.asked, begin)) {
          asked->cancelled    ? fail(*asked, ErrorCode::cancelled)
          : random() % 8 == 0 ? fail(*asked, ErrorCode::internal)
                              : answer(*asked, {"a"});
        }
      } else if (random() % 2 == 0) {
        book_.yield_room();
      } else {
        book_.resume();
      }
      const auto view = *book_.find(name);
      ASSERT_NO_FATAL_FAILURE(check_law(view)) << "seed " << seed;
    }
    ASSERT_TRUE(book_.remove(name).ok());
    for (size_t i = begin; i < service_.asked.size(); ++i) {
      if (service_.asked[i]->sink != nullptr) fail(*service_.asked[i], ErrorCode::cancelled);
    }
    for (const auto& one : originals) {
      if (one->sink != nullptr) answer(*one, {"a"});
    }
    const ShadowCounts& counts = results->counts;
    ASSERT_EQ(counts.sent, accepted);
    ASSERT_EQ(counts.sent, counts.completed + counts.failed + counts.all_dropped()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace inferneo
