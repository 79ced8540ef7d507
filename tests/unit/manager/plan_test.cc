// What a plan says, and that what it says happens.
#include <gtest/gtest.h>

#include <thread>

#include "manager/manager_core.h"

namespace inferneo {
namespace {

constexpr size_t kBytes = 10'000;
constexpr size_t kPerToken = 2;

struct BookedModel : LoadedModel {
  MemoryLedger::Booking booking;
};

class SizedLoader final : public ModelLoader {
 public:
  explicit SizedLoader(MemoryLedger& ledger) : ledger_(ledger) {}
  Result<size_t> estimate(const ModelRecord& record) override {
    if (record.source == "broken") return make_error(ErrorCode::malformed, "bad files");
    return record.source == "huge" ? size_t{1'000'000} : kBytes;
  }
  Result<ModelFootprint> footprint(const ModelRecord& record) override {
    ASSIGN_OR_RETURN(const size_t bytes, estimate(record));
    return ModelFootprint{bytes, 2048, kPerToken, 100'000};
  }
  Result<std::shared_ptr<LoadedModel>> load(const ModelRecord& record, const LoadReport&) override {
    auto model = std::make_shared<BookedModel>();
    model->id = record.id.text();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSIGN_OR_RETURN(model->booking, ledger_.reserve(model->id, MemoryPurpose::weights, kBytes));
    return std::shared_ptr<LoadedModel>(model);
  }

 private:
  MemoryLedger& ledger_;
};

class PlanTest : public ::testing::Test {
 protected:
  PlanTest() : manager_(std::make_unique<SizedLoader>(ledger_), ledger_, clock_) {
    for (const char* id : {"a", "b", "c", "d"}) {
      EXPECT_TRUE(manager_.register_model({.name = id, .path = "files"}).ok());
    }
    EXPECT_TRUE(manager_.register_model({.name = "huge", .path = "huge"}).ok());
    EXPECT_TRUE(manager_.register_model({.name = "broken", .path = "broken"}).ok());
  }
  void load(const std::string& id) {
    ASSERT_TRUE(manager_.acquire_blocking(id).ok());
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }

  SteadyClock clock_;
  MemoryLedger ledger_{3 * kBytes + 1000};
  ManagerCore manager_;
};

TEST_F(PlanTest, SaysWhatFitsAndChangesNothing) {
  const auto plan = manager_.plan({{"a"}, {"b"}});
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->fits);
  EXPECT_TRUE(plan->evicted.empty());
  EXPECT_EQ(plan->used_before, 0U);
  EXPECT_EQ(plan->used_after, 2 * kBytes);
  EXPECT_EQ(plan->rows[1].more_tokens, static_cast<int64_t>((kBytes + 1000) / kPerToken));
  EXPECT_EQ(manager_.status("a")->state, ModelState::unloaded);
  EXPECT_EQ(ledger_.used(), 0U);
}

TEST_F(PlanTest, NamesTheModelsThatWouldGoAndTheyDo) {
  for (const char* id : {"a", "b", "c"}) load(id);
  const auto plan = manager_.plan({{"b"}, {"d"}});
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(plan->fits);
  EXPECT_TRUE(plan->rows[0].resident);
  ASSERT_EQ(plan->evicted.size(), 1U);
  EXPECT_NE(plan->evicted[0], "b:1") << "it is planned for";
  const ModelLease b = *manager_.acquire_blocking("b");
  load("d");
  EXPECT_EQ(manager_.status(plan->evicted[0])->state, ModelState::unloaded);
  EXPECT_EQ(manager_.status("b")->state, ModelState::ready);
}

TEST_F(PlanTest, SaysWhyOneCannotBeThere) {
  const auto huge = manager_.plan({{"huge"}});
  ASSERT_TRUE(huge.ok());
  EXPECT_FALSE(huge->fits);
  EXPECT_EQ(huge->rows[0].refusal->code, ErrorCode::out_of_memory);
  const auto four = manager_.plan({{"a"}, {"b"}, {"c"}, {"d"}});
  ASSERT_TRUE(four.ok());
  EXPECT_FALSE(four->fits);
  EXPECT_FALSE(four->rows[2].refusal);
  EXPECT_TRUE(four->rows[3].refusal);
  EXPECT_EQ(manager_.plan({{"nobody"}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(manager_.plan({{"broken"}}).error().code, ErrorCode::malformed);
  EXPECT_EQ(manager_.plan({{"a", -1}}).error().param, "context");
  EXPECT_EQ(manager_.plan({{"a"}, {"a:1"}}).error().param, "models") << "by whatever names";
}

TEST_F(PlanTest, LongContextsTakeTheirCache) {
  const auto small = manager_.plan({{"a", 2048}});
  EXPECT_EQ(small->rows[0].bytes, kBytes) << "a load brings that much";
  const auto large = manager_.plan({{"a", 12'048}});
  EXPECT_EQ(large->rows[0].bytes, kBytes + 10'000 * kPerToken);
  EXPECT_TRUE(large->fits);
  EXPECT_FALSE(manager_.plan({{"a", 50'000}})->fits);
  for (const char* id : {"a", "b", "c"}) load(id);
  const auto grows = manager_.plan({{"a", 7'048}});
  ASSERT_TRUE(grows->fits) << grows->rows[0].refusal->message;
  EXPECT_EQ(grows->evicted.size(), 1U) << "for the cache of one that is there";
}

TEST_F(PlanTest, ModelsInUseStay) {
  std::vector<ModelLease> leases;
  for (const char* id : {"a", "b", "c"}) leases.push_back(*manager_.acquire_blocking(id));
  const auto plan = manager_.plan({{"d"}});
  ASSERT_TRUE(plan.ok());
  EXPECT_FALSE(plan->fits);
  EXPECT_EQ(plan->rows[0].refusal->code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace inferneo
