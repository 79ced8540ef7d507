// Who is served in which step: order, chunks, fairness, preemption.
#include "engine/scheduler.h"

#include <gmock/gmock.h>

#include "engine_fixture.h"

namespace inferneo {
namespace {

using testing::ElementsAre;
using testing::Pair;

struct Fixture {
  explicit Fixture(SchedulerConfig config, int32_t capacity = 1000, int32_t block_size = 4) {
    KvCacheConfig cache;
    KvGroupConfig group;
    group.block_size = block_size;
    group.capacity = capacity;
    cache.groups = {group};
    cache.enable_prefix_caching = false;
    cache.max_tokens_in_flight = config.max_num_batched_tokens;
    KvCacheSpec spec;
    spec.groups.push_back({{}, 0, block_size, {KvPlaneSpec{16, 16}}});
    memory = std::make_unique<TestKvMemory>(spec, cache.groups);
    kv = std::make_unique<KvCacheManager>(cache, *memory);
    scheduler = std::make_unique<Scheduler>(config, *kv);
  }
  Sequence& add(int prompt_size, int32_t priority = 0) {
    auto request = std::make_unique<RequestState>();
    request->request.priority = priority;
    request->arrival = requests.size();
    auto sequence = std::make_unique<Sequence>();
    sequence->id = requests.size();
    sequence->request = request.get();
    sequence->tokens = iota_prompt(prompt_size);
    sequence->prompt_size = prompt_size;
    sequence->max_output = 1000;
    request->samples.push_back(std::move(sequence));
    requests.push_back(std::move(request));
    scheduler->add(*requests.back()->samples[0]);
    return *requests.back()->samples[0];
  }
  // One step: (id, tokens) of who was served, in order; every sampled token arrives at once.
  std::vector<std::pair<uint64_t, int32_t>> step() {
    last = scheduler->schedule(false);
    std::vector<std::pair<uint64_t, int32_t>> served;
    for (const ScheduledSequence& s : last.sequences) {
      served.emplace_back(s.sequence->id, s.num_tokens);
      kv->settle(*s.sequence, s.position + s.num_tokens);
      if (s.sample) s.sequence->tokens.push_back(1);
    }
    EXPECT_TRUE(kv->check_integrity().ok());
    return served;
  }
  std::unique_ptr<TestKvMemory> memory;
  std::unique_ptr<KvCacheManager> kv;
  std::unique_ptr<Scheduler> scheduler;
  std::vector<std::unique_ptr<RequestState>> requests;
  Schedule last;
};

TEST(Scheduler, ServesByPriorityThenArrival) {
  Fixture f({1, 64, 64, 64});
  f.add(8, 1);
  f.add(8, 0);
  f.add(8, 0);
  EXPECT_THAT(f.step(), ElementsAre(Pair(1, 8)));
  f.scheduler->remove(*f.requests[1]->samples[0]);
  f.kv->release(*f.requests[1]->samples[0]);
  EXPECT_THAT(f.step(), ElementsAre(Pair(2, 8)));
}

TEST(Scheduler, FinishesAPromptBeforeTheNextBegins) {
  Fixture f({8, 32, 32, 32});
  f.add(50);
  f.add(50);
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 32)));
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 18), Pair(1, 14)));
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1), Pair(1, 31)));
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1), Pair(1, 5)));
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1), Pair(1, 1)));
}

TEST(Scheduler, ABurstGetsItsFirstTokensOneAfterTheOther) {
  Fixture f({16, 4096, 4096, 64});
  for (int i = 0; i < 4; ++i) f.add(100);
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 100)));
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1), Pair(1, 100)));
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1), Pair(1, 1), Pair(2, 100)));
  Fixture small({16, 4096, 4096, 64});
  for (int i = 0; i < 4; ++i) small.add(30);
  EXPECT_THAT(small.step(), ElementsAre(Pair(0, 30), Pair(1, 30), Pair(2, 30))) << "short ones share a step";
}

TEST(Scheduler, DecodingIsNeverStarvedAndItsGapIsBounded) {
  Fixture f({8, 64, 16, 64});
  for (int i = 0; i < 4; ++i) f.add(4);
  f.step();
  f.add(500, -1);  // served first, and yet
  for (int i = 0; i < 20; ++i) {
    const auto served = f.step();
    ASSERT_EQ(served.size(), 5U);
    for (size_t k = 0; k < 4; ++k) EXPECT_EQ(served[k], std::pair(uint64_t{k}, 1));
    EXPECT_EQ(served[4], std::pair(uint64_t{4}, 16));
  }
}

TEST(Scheduler, PromptsProgressBesideAFullHouseOfDecodes) {
  Fixture f({4, 4, 4, 4});
  for (int i = 0; i < 3; ++i) f.add(1);
  f.step();
  f.add(10);
  for (int i = 0; i < 10; ++i) EXPECT_THAT(f.step().back(), Pair(3, 1));
}

TEST(Scheduler, PreemptsTheLastInLineAndLetsItReturn) {
  Fixture f({8, 64, 64, 64}, 6);
  f.add(8);
  f.add(8);
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 8), Pair(1, 8)));
  EXPECT_THAT(f.requests[0]->samples[0]->block_tables[0], ElementsAre(0, 1));
  EXPECT_THAT(f.requests[1]->samples[0]->block_tables[0], ElementsAre(2, 3));
  for (int i = 0; i < 4; ++i) EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1), Pair(1, 1)));
  EXPECT_EQ(f.kv->pool(0).num_unreferenced(), 0);
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1))) << "sequence 0 needs a block: sequence 1 gives all of its own";
  EXPECT_THAT(f.last.preempted, ElementsAre(f.requests[1]->samples[0].get()));
  EXPECT_EQ(f.requests[1]->samples[0]->state, SequenceState::preempted);
  EXPECT_EQ(f.scheduler->num_preemptions(), 1U);
  EXPECT_EQ(f.scheduler->waiting().size(), 1U);
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1))) << "13 tokens do not fit beside it";
  f.scheduler->remove(*f.requests[0]->samples[0]);
  f.kv->release(*f.requests[0]->samples[0]);
  EXPECT_THAT(f.step(), ElementsAre(Pair(1, 13))) << "prompt and output are computed anew";
  EXPECT_TRUE(f.last.sequences[0].sample);
}

TEST(Scheduler, PreemptsLowPriorityFirstWhateverItsArrival) {
  Fixture f({8, 64, 64, 64}, 5);
  f.add(8, 5);
  f.add(8, 0);
  f.step();
  for (int i = 0; i < 4; ++i) f.step();
  EXPECT_THAT(f.step(), ElementsAre(Pair(1, 1)));
  EXPECT_EQ(f.requests[0]->samples[0]->state, SequenceState::preempted);
}

TEST(Scheduler, NothingIsPreemptedWhileAStepIsInFlight) {
  Fixture f({8, 64, 64, 64}, 4);
  f.add(8);
  f.add(8);
  f.step();
  const Schedule schedule = f.scheduler->schedule(true);
  EXPECT_TRUE(schedule.sequences.empty());
  EXPECT_TRUE(schedule.preempted.empty());
  EXPECT_TRUE(schedule.starved.empty());
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1)));
}

TEST(Scheduler, TheFirstInLineIsNotOvertaken) {
  Fixture f({8, 64, 64, 64}, 10);
  f.add(20);
  f.step();
  f.add(24);
  f.add(4);
  EXPECT_THAT(f.step(), ElementsAre(Pair(0, 1)));
  EXPECT_EQ(f.scheduler->waiting().size(), 2U);
}

TEST(Scheduler, NamesWhatNothingCanHelp) {
  Fixture f({8, 64, 64, 64}, 4);
  Sequence& large = f.add(20);
  EXPECT_TRUE(f.step().empty());
  EXPECT_THAT(f.last.starved, ElementsAre(&large));
}

}  // namespace
}  // namespace inferneo
