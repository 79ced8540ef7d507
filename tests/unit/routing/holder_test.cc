// Readers of the rule set in force, while it is replaced under them: each look is of one snapshot, none of a mixture,
// and a replaced one is gone when replace() has returned. INFERNEO_LOOKS of them against a hundredth as many
// replacements; INFERNEO_SOAK_SCALE scales the soak build (1: full).
#include <cstdlib>
#include <thread>

#include "base/snapshot_holder.h"
#include "routing/rule_set.h"
#include "routing_fixture.h"

namespace inferneo {
namespace {

int num_looks() {
  if (INFERNEO_LOOKS < 50'000) return INFERNEO_LOOKS;
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max(2000, static_cast<int>(INFERNEO_LOOKS * (scale == nullptr ? 0.02 : std::atof(scale))));
}

// Each rule of a generation leads to the model of its generation, and so do its options.
std::shared_ptr<const RuleSet> generation(int number, HitCounters& counters, const RuleSet* previous) {
  std::vector<RoutingRule> rules;
  const std::string model = std::to_string(number);
  for (const char* name : {"a", "b", "c"}) {
    rules.push_back({.name = name, .condition = std::string("prompt contains '") + name + "'", .model_name = model});
  }
  rules.push_back({.name = "rest", .condition = "prompt matches /z+/ or user == '" + model + "'", .model_name = model});
  auto set = RuleSet::build(std::move(rules), {.default_model = model}, &counters, previous);
  EXPECT_TRUE(set.ok());
  return *set;
}

TEST(SnapshotHolder, GivesWhatIsInForce) {
  HitCounters counters;
  const auto first = generation(1, counters, nullptr);
  const auto second = generation(2, counters, nullptr);
  SnapshotHolder<RuleSet> holder(first);
  EXPECT_EQ(holder.current(), first);
  const auto held = holder.current();
  EXPECT_EQ(holder.replace(second), first);
  EXPECT_EQ(holder.current(), second);
  EXPECT_EQ(holder.replace(first), second);
  EXPECT_EQ(holder.current(), held);
  EXPECT_EQ(second.use_count(), 1);  // the holder keeps nothing of what was replaced
}

TEST(SnapshotHolder, EachLookIsOfOneSnapshot) {
  const int looks = num_looks();
  constexpr int kReaders = 3;
  constexpr int kLooksPerSet = 100;
  HitCounters counters;
  SnapshotHolder<RuleSet> holder(generation(0, counters, nullptr));
  std::atomic<int> in_force{0};  // at least
  std::atomic<int> decided{0};
  std::atomic<int> next{0};
  std::vector<std::thread> readers;
  for (int reader = 0; reader < kReaders; ++reader) {
    readers.emplace_back([&] {
      RoutingScratch scratch;
      const std::string_view prompts[] = {"an a", "some b", "the c", "zzz"};
      int newest = 0;
      for (int look = next.fetch_add(1); look < looks; look = next.fetch_add(1)) {
        while (look > (in_force.load() + 1) * kLooksPerSet) std::this_thread::yield();
        const int before = in_force.load();
        const auto rules = holder.current();
        const int number = std::atoi(rules->options().default_model.c_str());
        ASSERT_GE(number, before);  // replaced ones are never seen again
        ASSERT_GE(number, newest);
        newest = number;
        const RoutingDecision decision = rules->decide({.prompt = prompts[look % 4]}, scratch);
        ASSERT_NE(decision.target, nullptr);
        ASSERT_EQ(decision.target->name, rules->options().default_model);
        decided.fetch_add(1);
      }
    });
  }
  // Each set in the middle of the looks that are due to the one before it.
  for (int replacement = 1; replacement <= looks / kLooksPerSet; ++replacement) {
    while (next.load() < replacement * kLooksPerSet - kLooksPerSet / 2) std::this_thread::yield();
    const auto old = holder.current();
    holder.replace(generation(replacement, counters, old.get()));
    in_force = replacement;
  }
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(decided.load(), looks);
  // The counts went along from set to set: the first set's looks are in those of the last.
  const auto last = holder.current();
  uint64_t counted = 0;
  for (size_t i = 0; i < last->size(); ++i) counted += last->hits(i);
  EXPECT_EQ(counted, static_cast<uint64_t>(looks));
  EXPECT_EQ(last.use_count(), 2);
}

TEST(SnapshotHolder, WritersTakeTurns) {
  HitCounters counters;
  SnapshotHolder<RuleSet> holder(generation(0, counters, nullptr));
  std::atomic<int> given_back{0};
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 3; ++writer) {
    writers.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        if (holder.replace(generation(i, counters, nullptr)) != nullptr) ++given_back;
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(given_back.load(), 150);  // each set was in force once and given back once, but the last
}

}  // namespace
}  // namespace inferneo
