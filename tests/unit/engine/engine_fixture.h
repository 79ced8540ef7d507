// What the engine's tests share: a recording sink, KV memory that can refuse, and a step loop driven by hand.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/scripted_runner.h"
#include "engine/step_loop.h"
#include "engine/tier_traffic.h"

namespace inferneo {

// Records a request's events and that they come in order: tokens, end of each sample, one on_done.
class RecordingSink final : public TokenSink {
 public:
  void on_prompt_logprobs(std::vector<TokenLogprobs> logprobs) override {
    EXPECT_FALSE(prompt_logprobs.has_value());
    EXPECT_TRUE(tokens.empty());
    prompt_logprobs = std::move(logprobs);
  }
  void on_prompt_rows(std::vector<float> numbers) override {
    EXPECT_TRUE(rows.empty());
    rows = std::move(numbers);
  }
  void on_token(int32_t sample, Token token, const TokenLogprobs* logprobs, bool is_stop_token) override {
    EXPECT_FALSE(finished.contains(sample)) << "a token after the end of its sample";
    tokens[sample].push_back(token);
    EXPECT_TRUE(logprobs == nullptr || logprobs->token == token);
    if (is_stop_token) stop_token_seen[sample] = token;
    if (throw_on_token) throw std::string("sink");
  }
  void on_sample_finished(int32_t sample, FinishReason reason, std::optional<Token> stop_token) override {
    EXPECT_FALSE(finished.contains(sample)) << "a sample ended twice";
    EXPECT_EQ(outcomes, 0);
    finished[sample] = reason;
    if (stop_token) stop_tokens[sample] = *stop_token;
  }
  void on_done(const RequestOutcome& o) override {
    ++outcomes;
    outcome = o;
  }

  std::map<int32_t, std::vector<Token>> tokens;
  std::map<int32_t, FinishReason> finished;
  std::map<int32_t, Token> stop_tokens;
  std::map<int32_t, Token> stop_token_seen;
  std::optional<std::vector<TokenLogprobs>> prompt_logprobs;
  std::vector<float> rows;
  RequestOutcome outcome;
  int outcomes = 0;
  bool throw_on_token = false;
};

// Bytes for every block from the start; what is committed is only counted, and may be limited over all groups.
class TestKvMemory final : public KvMemory {
 public:
  TestKvMemory(const KvCacheSpec& spec, const std::vector<KvGroupConfig>& groups) {
    for (size_t g = 0; g < groups.size(); ++g) {
      const size_t bytes = spec.groups[g].planes[0].bytes_per_block * static_cast<size_t>(groups[g].capacity);
      storage_.emplace_back(bytes + 64);
      committed.push_back(0);
      binding.bases.push_back({storage_.back().data()});
      binding.capacity_blocks.push_back(groups[g].capacity);
    }
  }
  Status commit(int32_t group, int32_t num_blocks) override {
    int32_t total = num_blocks;
    for (size_t g = 0; g < committed.size(); ++g) total += static_cast<int32_t>(g) == group ? 0 : committed[g];
    if (total > limit) return make_error(ErrorCode::out_of_memory, "test limit");
    committed[static_cast<size_t>(group)] = std::max(committed[static_cast<size_t>(group)], num_blocks);
    return ok_status();
  }
  void shrink(int32_t group, int32_t num_blocks) override {
    int32_t& blocks = committed[static_cast<size_t>(group)];
    blocks = std::min(blocks, num_blocks);
  }

  std::vector<int32_t> committed;  // [groups]
  int32_t limit = 1 << 30;         // blocks over all groups
  KvBinding binding;

 private:
  std::vector<std::vector<std::byte>> storage_;
};

// A level below the prefix cache that is driven by hand: what was stored is kept here, fetches are answered when and
// how the test says.
class ScriptedTier final : public KvTier {
 public:
  using Id = std::pair<KvKey, int32_t>;
  bool contains(const KvKey& key, int32_t group) const override { return kept.contains({key, group}); }
  bool wants(const KvKey& key, int32_t group) const override { return takes && !kept.contains({key, group}); }
  bool store(const KvTierBlock& block, std::span<const std::span<const std::byte>> planes) override {
    if (room == 0) return false;
    --room;
    std::vector<std::byte>& bytes = kept[{block.key, block.group}];
    for (const std::span<const std::byte> plane : planes) bytes.insert(bytes.end(), plane.begin(), plane.end());
    ++num_stored;
    return true;
  }
  void wait_for_room(Duration) override { room = 1 << 30; }
  void fetch(uint64_t id, std::vector<KvTierBlock> blocks) override {
    ++num_fetches;
    asked.push_back({id, std::move(blocks), 0});
    if (answers_at_once) deliver(1 << 30);
  }
  void cancel(uint64_t id) override {
    cancelled.push_back(id);
    if (answers_after_cancel) return;
    std::erase_if(asked, [&](const Asked& a) { return a.id == id; });
    std::erase_if(come, [&](const KvFetched& c) { return c.fetch == id; });
  }
  std::vector<KvFetched> take(size_t) override { return std::exchange(come, {}); }
  PrefixTierStats stats() const override { return {}; }

  // So many blocks of the oldest fetches come.
  void deliver(int count) {
    for (; count > 0 && !asked.empty(); --count) {
      Asked& first = asked.front();
      const KvTierBlock& block = first.blocks[first.next];
      const auto it = kept.find({block.key, block.group});
      KvFetched fetched{.fetch = first.id, .index = static_cast<int32_t>(first.next), .bytes = {}, .last = false};
      if (it != kept.end()) fetched.bytes = it->second;
      fetched.last = it == kept.end() || ++first.next == first.blocks.size();
      const bool last = fetched.last;
      come.push_back(std::move(fetched));
      if (last) asked.erase(asked.begin());
    }
  }

  struct Asked {
    uint64_t id = 0;
    std::vector<KvTierBlock> blocks;
    size_t next = 0;
  };
  std::map<Id, std::vector<std::byte>> kept;
  std::vector<Asked> asked;  // not answered yet, the oldest first
  std::vector<KvFetched> come;
  std::vector<uint64_t> cancelled;
  bool takes = true;   // false: off
  int room = 1 << 30;  // blocks
  bool answers_at_once = true;
  bool answers_after_cancel = false;  // which no tier may; the engine bears it
  int num_stored = 0;
  int num_fetches = 0;
};

struct HarnessOptions {
  Script script;
  std::vector<int32_t> capacity = {64};  // blocks per group
  SchedulerConfig scheduler;
  int32_t context_limit = 512;
  bool prefix_caching = true;
  int32_t grow_step = 1;
  PrefixCache::HashFunction hash = &PrefixCache::default_hash;
  SpeculationConfig speculation;
  std::optional<Duration> inter_token_target;
  std::optional<Script> draft;                 // a draft model's
  std::vector<int32_t> draft_capacity = {64};  // blocks per group of its cache
  int32_t draft_context = 512;
  ScriptedTier* tier = nullptr;  // a level below the prefix cache; null: there is none
};

// A step loop on a scripted runner, without threads.
class Harness {
 public:
  explicit Harness(HarnessOptions options = {}) : options_(std::move(options)) {
    Script script = options_.script;
    script.is_committed = [this](int32_t group, int32_t block) {
      return block < memory->committed[static_cast<size_t>(group)];
    };
    script.sleep = [this](Duration cost) { clock.advance(cost); };
    runner = std::make_unique<ScriptedRunner>(script);
    const KvCacheConfig cache =
        cache_of(*runner, options_.capacity, options_.scheduler.max_num_batched_tokens * runner->max_in_flight());
    memory = std::make_unique<TestKvMemory>(runner->kv_spec(), cache.groups);
    EXPECT_TRUE(
        runner->bind(memory->binding, options_.scheduler.max_num_seqs, options_.scheduler.max_num_batched_tokens).ok());
    kv = std::make_unique<KvCacheManager>(cache, *memory);
    if (options_.draft) make_draft();
    loop = std::make_unique<StepLoop>(StepLoopConfig{options_.scheduler, options_.context_limit, Duration{0},
                                                     options_.speculation, options_.inter_token_target},
                                      *runner, *kv, clock, StepLoopEvents{}, draft.get());
    if (options_.tier == nullptr || kv->prefix_cache() == nullptr) return;
    traffic = std::make_unique<TierTraffic>("model", *options_.tier, *kv, runner->kv_spec(), memory->binding);
    loop->use_tier(traffic.get());
  }

  KvCacheConfig cache_of(const ScriptedRunner& of, const std::vector<int32_t>& capacity, int32_t in_flight) const {
    KvCacheConfig cache;
    cache.enable_prefix_caching = options_.prefix_caching;
    cache.max_tokens_in_flight = in_flight;
    cache.hash = options_.hash;
    for (size_t g = 0; g < capacity.size(); ++g) {
      KvGroupConfig group;
      group.block_size = of.kv_spec().groups[g].block_size;
      group.window = of.kv_spec().groups[g].window;
      group.capacity = capacity[g];
      group.bytes_per_block = of.kv_spec().groups[g].planes[0].bytes_per_block;
      group.grow_step = options_.grow_step;
      cache.groups.push_back(group);
    }
    return cache;
  }

  void make_draft() {
    Script script = *options_.draft;
    script.is_committed = [this](int32_t group, int32_t block) {
      return block < draft_memory->committed[static_cast<size_t>(group)];
    };
    script.sleep = [this](Duration cost) { clock.advance(cost); };
    auto made = std::make_unique<ScriptedRunner>(script);
    const KvCacheConfig cache = cache_of(*made, options_.draft_capacity, DraftModel::kMaxTokens);
    auto held = std::make_unique<TestKvMemory>(made->kv_spec(), cache.groups);
    EXPECT_TRUE(made->bind(held->binding, DraftModel::kMaxSequences, DraftModel::kMaxTokens).ok());
    draft_runner = made.get();
    draft_memory = held.get();
    draft = std::make_unique<DraftModel>(std::move(made), std::move(held), cache,
                                         DraftLimits{options_.draft_context, options_.script.vocab_size}, clock);
  }

  std::shared_ptr<RecordingSink> add(Request request) {
    auto sink = std::make_shared<RecordingSink>();
    request.sink = sink;
    if (request.id == 0) request.id = ++last_id;
    loop->add(std::move(request), clock.now());
    return sink;
  }
  std::shared_ptr<RecordingSink> add(std::vector<Token> prompt, int max_tokens) {
    Request request;
    request.prompt = std::move(prompt);
    request.sampling.max_tokens = max_tokens;
    return add(std::move(request));
  }

  // Steps until no request is live, checking every law after every step.
  void run(int max_steps = 10000) {
    while (loop->num_live() + loop->num_in_flight() > 0 && max_steps-- > 0) {
      ASSERT_TRUE(step_and_check());
    }
    ASSERT_EQ(loop->num_live(), 0U) << "requests are stuck";
    check_idle();
  }
  bool step_and_check() {
    const Status stepped = loop->step();
    EXPECT_TRUE(stepped.ok()) << stepped.error().message;
    if (loop->waits_for_fetch()) clock.advance(std::chrono::milliseconds(5));
    return stepped.ok() && check();
  }
  bool check() {
    const Status whole = loop->check_integrity();
    EXPECT_TRUE(whole.ok()) << whole.error().message;
    for (const std::string& violation : runner->violations()) ADD_FAILURE() << violation;
    if (draft != nullptr) {
      for (const std::string& violation : draft_runner->violations()) ADD_FAILURE() << "draft: " << violation;
    }
    return whole.ok() && runner->violations().empty() && (draft == nullptr || draft_runner->violations().empty());
  }
  void check_idle() {
    EXPECT_TRUE(kv->idle());
    for (int32_t g = 0; g < kv->num_groups(); ++g) {
      EXPECT_EQ(kv->pool(g).num_free() + kv->pool(g).num_cached(), kv->pool(g).total());
    }
    EXPECT_TRUE(draft == nullptr || draft->kv().idle());
    EXPECT_EQ(traffic == nullptr ? 0U : traffic->num_fetching(), 0U);
    EXPECT_TRUE(loop->scheduler().running().empty());
    EXPECT_TRUE(loop->scheduler().waiting().empty());
  }

  HarnessOptions options_;
  ManualClock clock;
  std::unique_ptr<ScriptedRunner> runner;
  std::unique_ptr<TestKvMemory> memory;
  std::unique_ptr<KvCacheManager> kv;
  std::unique_ptr<DraftModel> draft;  // null: there is none
  ScriptedRunner* draft_runner = nullptr;
  TestKvMemory* draft_memory = nullptr;
  std::unique_ptr<TierTraffic> traffic;  // null: there is no tier
  std::unique_ptr<StepLoop> loop;
  RequestId last_id = 0;
};

inline std::vector<Token> iota_prompt(int size, Token first = 1) {
  std::vector<Token> prompt;
  for (int i = 0; i < size; ++i) prompt.push_back(1 + (first + i * 7) % 250);
  return prompt;
}

// What the default script says after `prompt`: the reference for any history of paging, sharing and preemption.
inline std::vector<Token> reference(const std::vector<Token>& prompt, int count, uint64_t seed = 0, int vocab = 256) {
  std::vector<Token> tokens = prompt;
  for (int i = 0; i < count; ++i) {
    ScriptedToken context;
    context.context_hash = ScriptedRunner::context_hash(tokens);
    context.seed = seed;
    context.vocab_size = vocab;
    tokens.push_back(ScriptedRunner::default_token(context));
  }
  return {tokens.begin() + static_cast<std::ptrdiff_t>(prompt.size()), tokens.end()};
}

}  // namespace inferneo
