// Fair shares among tenants, in tokens: a scheduler with backlogged tenants of different weights and request sizes, for
// thousands of steps.
#include <gtest/gtest.h>

#include <deque>
#include <map>

#include "engine/scheduler.h"
#include "engine_fixture.h"

namespace inferneo {
namespace {

constexpr SchedulerConfig kConfig = {16, 512, 128, 64};

struct Load {
  TenantShare tenant;
  int min_prompt = 10;
  int max_prompt = 10;
  int min_output = 10;
  int max_output = 10;
};

// Requests of random sizes against a scheduler; every sampled token arrives at once, and what has all of its tokens
// ends.
class Simulation {
 public:
  static constexpr int32_t kPlenty = 20'000;  // blocks

  explicit Simulation(SchedulerConfig config = kConfig, int32_t capacity = kPlenty)
      : config_(config), has_memory_(capacity == kPlenty) {
    KvCacheConfig cache;
    KvGroupConfig group;
    group.block_size = 16;
    group.capacity = capacity;
    cache.groups = {group};
    cache.enable_prefix_caching = false;
    cache.max_tokens_in_flight = config.max_num_batched_tokens;
    KvCacheSpec spec;
    spec.groups.push_back({{}, 0, group.block_size, {KvPlaneSpec{16, 16}}});
    memory_ = std::make_unique<TestKvMemory>(spec, cache.groups);
    kv_ = std::make_unique<KvCacheManager>(cache, *memory_);
    scheduler_ = std::make_unique<Scheduler>(config, *kv_);
  }

  Sequence& add(const Load& load, int32_t priority = 0) {
    auto request = std::make_unique<RequestState>();
    request->request.priority = priority;
    request->request.tenant = load.tenant;
    request->arrival = next_arrival_++;
    auto sequence = std::make_unique<Sequence>();
    sequence->id = request->arrival;
    sequence->request = request.get();
    sequence->prompt_size = between(load.min_prompt, load.max_prompt);
    sequence->tokens = iota_prompt(sequence->prompt_size);
    sequence->max_output = between(load.min_output, load.max_output);
    Sequence& added = *sequence;
    request->samples.push_back(std::move(sequence));
    live_[added.id] = std::move(request);
    ++waiting_[load.tenant.id];
    scheduler_->add(added);
    return added;
  }
  // Keeps so many of them waiting.
  void fill(const Load& load, int count) {
    while (waiting_[load.tenant.id] < count) add(load);
  }

  void step() {
    const Schedule schedule = scheduler_->schedule(false);
    std::vector<Sequence*> ended;
    int32_t prefill = 0;
    for (const ScheduledSequence& s : schedule.sequences) {
      Sequence& sequence = *s.sequence;
      const TenantId tenant = sequence.request->request.tenant.id;
      if (started_.insert(sequence.id).second) {
        --waiting_[tenant];
        starts.push_back(sequence.id);
      }
      if (s.num_tokens > 1) prefill += s.num_tokens;
      served[tenant] += s.num_tokens;
      kv_->settle(sequence, s.position + s.num_tokens);
      if (s.sample) sequence.tokens.push_back(1);
      if (sequence.num_output() >= sequence.max_output) ended.push_back(&sequence);
    }
    // Work conserving: with memory for all, nobody waits beside an empty seat unless this step has read all that it
    // may.
    const bool seats = static_cast<int32_t>(scheduler_->running().size()) < config_.max_num_seqs;
    if (has_memory_ && seats && !scheduler_->waiting().empty()) {
      EXPECT_GE(prefill, std::min(config_.prefill_pack_tokens, config_.max_prefill_tokens_beside_decode));
    }
    EXPECT_TRUE(schedule.starved.empty());
    for (Sequence* sequence : ended) {
      scheduler_->remove(*sequence);
      kv_->release(*sequence);
      live_.erase(sequence->id);
    }
  }
  int between(int low, int high) {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return low + static_cast<int>((state_ >> 33) % static_cast<uint64_t>(high - low + 1));
  }
  double share(TenantId tenant) const {
    double all = 0.0;
    for (const auto& [id, tokens] : served) all += static_cast<double>(tokens);
    return static_cast<double>(served.at(tenant)) / all;
  }
  size_t num_live() const { return live_.size(); }
  Scheduler& scheduler() { return *scheduler_; }

  std::map<TenantId, int64_t> served;  // tokens
  std::vector<uint64_t> starts;        // ids, in order

 private:
  SchedulerConfig config_;
  bool has_memory_;
  std::unique_ptr<TestKvMemory> memory_;
  std::unique_ptr<KvCacheManager> kv_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<uint64_t, std::unique_ptr<RequestState>> live_;
  std::map<TenantId, int> waiting_;
  std::set<uint64_t> started_;
  uint64_t next_arrival_ = 0;
  uint64_t state_ = 42;
};

// Long prompts with short answers against short prompts with long answers.
constexpr Load kReader{{1, 1.0}, 100, 400, 1, 20};
constexpr Load kWriter{{2, 1.0}, 5, 20, 40, 160};

struct ShareCase {
  double weight_1, weight_2;
  Load first, second;
};

class FairShareTest : public ::testing::TestWithParam<ShareCase> {};

TEST_P(FairShareTest, TokensGoByWeightWheneverBothWait) {
  Simulation simulation;
  Load first = GetParam().first;
  Load second = GetParam().second;
  first.tenant = {1, GetParam().weight_1};
  second.tenant = {2, GetParam().weight_2};
  const double wanted = GetParam().weight_1 / (GetParam().weight_1 + GetParam().weight_2);
  // In every long interval, not only in the mean of all.
  for (int interval = 0; interval < 10; ++interval) {
    simulation.served.clear();
    for (int i = 0; i < 4000; ++i) {
      simulation.fill(first, 30);
      simulation.fill(second, 5);  // however many more the first has waiting
      simulation.step();
    }
    EXPECT_NEAR(simulation.share(1), wanted, 0.05 * wanted) << "interval " << interval;
    EXPECT_NEAR(simulation.share(2), 1.0 - wanted, 0.05 * (1.0 - wanted)) << "interval " << interval;
  }
}

INSTANTIATE_TEST_SUITE_P(Shares, FairShareTest,
                         ::testing::Values(ShareCase{1, 1, kWriter, kWriter}, ShareCase{3, 1, kWriter, kWriter},
                                           ShareCase{1, 1, kReader, kWriter}, ShareCase{3, 1, kReader, kWriter},
                                           ShareCase{1, 3, kReader, kWriter}, ShareCase{1, 1, kReader, kReader}));

TEST(FairScheduling, WithoutTenantsTheFirstToComeIsTheFirstServed) {
  Simulation simulation;
  for (int i = 0; i < 200; ++i) simulation.add({{0, 1.0}, 1, 100, 1, 50});
  while (simulation.num_live() > 0) simulation.step();
  EXPECT_TRUE(std::ranges::is_sorted(simulation.starts));
}

TEST(FairScheduling, ANewTenantIsTheNextToBeStarted) {
  Simulation simulation;
  for (int i = 0; i < 1000; ++i) simulation.add(kWriter);
  for (int i = 0; i < 300; ++i) simulation.step();
  ASSERT_GT(simulation.num_live(), 900U);
  const size_t before = simulation.starts.size();
  const Sequence& newcomer = simulation.add({{3, 1.0}, 50, 50, 5, 5});
  const uint64_t id = newcomer.id;
  while (simulation.starts.size() < before + 3) simulation.step();
  // Level with the flood it may be served after one of it: a round.
  EXPECT_TRUE(simulation.starts[before] == id || simulation.starts[before + 1] == id);
}

TEST(FairScheduling, ATenantThatWasIdleDoesNotKeepTheOthersOut) {
  Simulation simulation;
  for (int i = 0; i < 3000; ++i) {
    simulation.fill(kWriter, 10);
    simulation.step();
  }
  simulation.served.clear();
  Load late = kWriter;
  late.tenant = {3, 1.0};
  for (int i = 0; i < 4000; ++i) {
    simulation.fill(kWriter, 10);
    simulation.fill(late, 10);
    simulation.step();
  }
  EXPECT_NEAR(simulation.share(3), 0.5, 0.025) << "equal from here on, whatever was before";
}

TEST(FairScheduling, NobodyStarvesAmongManyTenants) {
  Simulation simulation;
  std::map<TenantId, int> last_start;
  size_t seen = 0;
  std::map<uint64_t, TenantId> tenants;
  for (int i = 0; i < 20'000; ++i) {
    for (TenantId tenant = 1; tenant <= 40; ++tenant) {
      // The first ten send without end, the others now and then.
      if (tenant > 10 && simulation.between(1, 400) > 1) continue;
      if (tenant <= 10 && i % 20 != 0) continue;
      const Sequence& added = simulation.add({{tenant, 1.0}, 5, 60, 5, 60});
      tenants[added.id] = tenant;
    }
    simulation.step();
    for (; seen < simulation.starts.size(); ++seen) last_start[tenants.at(simulation.starts[seen])] = i;
  }
  for (TenantId tenant = 1; tenant <= 40; ++tenant) {
    EXPECT_GT(last_start[tenant], 18'000) << "tenant " << tenant << " has not been started for long";
  }
}

TEST(FairScheduling, PriorityComesBeforeShares) {
  Simulation simulation({1, 64, 64, 64});
  simulation.add({{1, 1.0}, 8, 8, 50, 50});
  simulation.step();  // it has had tokens
  const uint64_t other = simulation.add({{2, 1.0}, 8, 8, 1, 1}).id;
  const uint64_t urgent = simulation.add({{1, 1.0}, 8, 8, 1, 1}, -1).id;
  while (simulation.num_live() > 0) simulation.step();
  EXPECT_EQ(simulation.starts[1], urgent);
  EXPECT_EQ(simulation.starts[2], other);
}

TEST(FairScheduling, WhatWasPreemptedResumesBeforeOthersBegin) {
  Simulation simulation({8, 64, 64, 64}, 6);  // 96 tokens of KV
  const Sequence& kept = simulation.add({{1, 1.0}, 32, 32, 40, 40});
  Sequence& victim = simulation.add({{1, 1.0}, 32, 32, 20, 20});
  const uint64_t first = kept.id;
  while (victim.state != SequenceState::preempted) simulation.step();
  const uint64_t newcomer = simulation.add({{2, 1.0}, 40, 40, 1, 1}).id;
  EXPECT_EQ(simulation.scheduler().waiting().first(), &victim) << "though its tenant has had more";
  EXPECT_EQ(simulation.scheduler().waiting().size(), 2U);
  while (simulation.num_live() > 0) simulation.step();
  EXPECT_EQ(simulation.starts.front(), first);
  EXPECT_EQ(simulation.starts.back(), newcomer);
}

TEST(FairScheduling, EachTokenIsPaidOnce) {
  WaitingQueue queue;
  RequestState request;
  request.request.tenant = {1, 1.0};
  Sequence sequence;
  sequence.request = &request;
  RequestState other_request;
  other_request.request.tenant = {2, 1.0};
  other_request.arrival = 1;
  Sequence other;
  other.request = &other_request;
  sequence.state = other.state = SequenceState::waiting;
  queue.insert(sequence);
  queue.insert(other);
  queue.charge(sequence, 90, 100);  // ninety were in the prefix cache
  queue.charge(other, 0, 11);
  EXPECT_EQ(queue.first(), &sequence) << "ten against eleven";
  queue.charge(sequence, 0, 100);  // anew, after a preemption
  EXPECT_EQ(queue.first(), &sequence);
  queue.charge(sequence, 100, 102);
  EXPECT_EQ(queue.first(), &other);
}

}  // namespace
}  // namespace inferneo
