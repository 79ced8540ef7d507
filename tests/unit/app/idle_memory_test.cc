// Two stages of idling on real models: first the KV memory goes back, by itself or because another needs it, and then
// only the weights.
#include <gtest/gtest.h>

#include "model_house.h"
#include "tensor/memory.h"

namespace inferneo {
namespace {

constexpr size_t kRoom = 8 * kHugePage;  // for the KV memory of two models

size_t kv_of(const ModelHouse& house, const std::string& id) { return house.booked(id, MemoryPurpose::kv); }

// A prompt that shares no prefix with those of other numbers, nearly a context long: 1 KiB of KV a token.
std::vector<Token> long_prompt(int number) {
  std::vector<Token> prompt;
  for (int i = 0; i < 900; ++i) prompt.push_back(10 + (number * 37 + i * (1 + number % 7)) % 1400);
  return prompt;
}

// Until its KV memory holds so many bytes; what it has said before stays cached.
void fill(const ModelHouse& house, const std::string& id, size_t bytes) {
  const auto lease = house.acquire(id);
  ASSERT_TRUE(lease.ok()) << lease.error().message;
  for (int i = 0; i < 100 && kv_of(house, id) < bytes; ++i) {
    const auto outcome = generate(*(*lease)->core, long_prompt(i), 2);
    ASSERT_TRUE(outcome.ok() && !outcome->error) << "request " << i;
    ASSERT_LE(house.ledger.used(), house.ledger.budget());
  }
  EXPECT_GE(kv_of(house, id), bytes) << id;
}

TEST(IdleMemory, KvGoesBackByItselfAndTheModelStays) {
  ModelHouse house;
  house.config.kv_keep_alive = 0.05;
  house.add("story", bundled_model("inferneo-story"));
  fill(house, "story", 4 * kHugePage);
  const size_t full = house.ledger.used();
  EXPECT_TRUE(ModelHouse::eventually([&] { return kv_of(house, "story") == 0; })) << "the minimum is nothing";
  EXPECT_LE(house.ledger.used() + 4 * kHugePage, full);
  EXPECT_EQ(house.status("story").state, ModelState::ready);
  fill(house, "story", kHugePage);
  EXPECT_EQ(house.status("story").loads, 1U);
}

// Of one model: what it holds without KV memory, and what its load needs at most.
struct Sizes {
  size_t resting = 0;
  size_t loading = 0;
};
Sizes measure() {
  ModelHouse house;
  house.config.kv_keep_alive = 0.01;
  house.add("a", bundled_model("inferneo-story"));
  fill(house, "a", 1);
  EXPECT_TRUE(ModelHouse::eventually([&] { return kv_of(house, "a") == 0; }));
  return {house.ledger.used(), house.ledger.peak()};
}

TEST(IdleMemory, KvMovesWithTheLoadAndWeightsStay) {
  ModelHouse house(2 * measure().resting + kRoom);
  house.config.kv_keep_alive = 0;  // only when somebody needs it
  for (const char* id : {"a", "b"}) house.add(id, bundled_model("inferneo-story"));
  for (const char* id : {"a", "b"}) fill(house, id, 1);
  for (int round = 0; round < 4; ++round) {
    SCOPED_TRACE(round);
    fill(house, round % 2 == 0 ? "a" : "b", kRoom - 2 * kHugePage);
    EXPECT_LE(kv_of(house, round % 2 == 0 ? "b" : "a"), 2 * kHugePage) << "it has given what the other took";
  }
  for (const char* id : {"a", "b"}) {
    EXPECT_EQ(house.status(id).loads, 1U) << "nobody's weights had to go";
    EXPECT_EQ(house.status(id).state, ModelState::ready);
  }
  EXPECT_LE(house.ledger.peak(), house.ledger.budget());
}

TEST(IdleMemory, ALoadTakesTheKvOfOthersBeforeTheirWeights) {
  const Sizes sizes = measure();
  ModelHouse house(sizes.resting + sizes.loading + 4 * kHugePage);
  house.config.kv_keep_alive = 0;
  for (const char* id : {"a", "b"}) house.add(id, bundled_model("inferneo-story"));
  fill(house, "a", 7 * kHugePage);  // and what is left is too little for the work space and the KV memory of another
  fill(house, "b", 1);
  EXPECT_EQ(kv_of(house, "a"), 0U);
  EXPECT_EQ(house.status("a").state, ModelState::ready);
  EXPECT_EQ(house.status("b").loads, 1U);
}

}  // namespace
}  // namespace inferneo
