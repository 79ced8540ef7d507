// Exact block ids, reference counts and eviction order of block pool, prefix cache, KV manager, plan and arena.
#include <gmock/gmock.h>

#include "engine/kv_arena.h"
#include "engine/kv_plan.h"
#include "engine_fixture.h"

namespace inferneo {
namespace {

using testing::ElementsAre;

TEST(BlockPool, OrderOfReuse) {
  BlockPool pool(6);
  EXPECT_EQ(pool.num_unreferenced(), 0);
  pool.grow(4);
  EXPECT_THAT(pool.eviction_order(), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(pool.take().block, 0);
  EXPECT_EQ(pool.take().block, 1);
  EXPECT_EQ(pool.take().block, 2);
  pool.set_content(0, 10);
  pool.set_content(1, 11);
  pool.release(1);  // a sequence's tail first
  pool.release(0);
  pool.release(2);  // nothing cached: reused before all others
  EXPECT_THAT(pool.eviction_order(), ElementsAre(2, 3, 1, 0));
  EXPECT_EQ(pool.num_free(), 2);
  EXPECT_EQ(pool.num_cached(), 2);
  pool.add_ref(1);  // a hit revives it
  pool.add_ref(1);
  EXPECT_EQ(pool.ref_count(1), 2);
  EXPECT_THAT(pool.eviction_order(), ElementsAre(2, 3, 0));
  pool.release(1);
  pool.release(1);
  EXPECT_THAT(pool.eviction_order(), ElementsAre(2, 3, 0, 1)) << "used last, evicted last";
  pool.take();
  pool.take();
  const BlockPool::Taken taken = pool.take();
  EXPECT_EQ(taken.block, 0);
  EXPECT_EQ(taken.evicted, 10U);
  EXPECT_EQ(pool.content(0), 0U);
  EXPECT_TRUE(pool.check_integrity().ok());
  pool.grow(6);
  EXPECT_THAT(pool.eviction_order(), ElementsAre(4, 5, 1));
  EXPECT_TRUE(pool.check_integrity().ok());
}

TEST(BlockPool, DropsOnlyUnreferencedBlocksAtTheEnd) {
  BlockPool pool(4);
  pool.grow(4);
  for (int i = 0; i < 4; ++i) pool.take();
  pool.set_content(3, 33);
  pool.release(3);
  pool.release(1);
  ASSERT_TRUE(pool.can_drop_last());
  EXPECT_EQ(pool.drop_last(), 33U);
  EXPECT_FALSE(pool.can_drop_last()) << "block 2 is in use";
  EXPECT_EQ(pool.total(), 3);
  EXPECT_EQ(pool.num_free() + pool.num_cached() + pool.num_referenced(), pool.total());
  EXPECT_TRUE(pool.check_integrity().ok());
}

TEST(PrefixCache, ComparesTokensAndParentsWhateverTheHash) {
  PrefixCache cache(1, [](uint64_t, std::span<const Token>) -> uint64_t { return 7; });
  const std::vector<Token> a = {1, 2};
  const std::vector<Token> b = {1, 3};
  const PrefixNodeId root = cache.root("");
  const PrefixNodeId other = cache.root("salt");
  EXPECT_NE(root, other);
  const PrefixNodeId ra = cache.find_or_insert(root, a);
  EXPECT_EQ(cache.find(root, b), 0U);
  EXPECT_EQ(cache.find(other, a), 0U);
  EXPECT_EQ(cache.find(ra, a), 0U);
  const PrefixNodeId raa = cache.find_or_insert(ra, a);
  EXPECT_EQ(cache.find_or_insert(ra, a), raa);
  cache.set_block(ra, 0, 4);
  cache.set_block(raa, 0, 5);
  cache.add_ref(other);
  cache.drop_block(ra, 0);
  EXPECT_EQ(cache.find(root, a), ra) << "kept for its child";
  EXPECT_EQ(cache.block(ra, 0), kNoBlock);
  EXPECT_TRUE(cache.check_integrity().ok());
  cache.drop_block(raa, 0);
  EXPECT_EQ(cache.find_root(""), 0U) << "the chain went with its last block";
  EXPECT_EQ(cache.num_nodes(), 1U);
  cache.release(other);
  EXPECT_EQ(cache.num_nodes(), 0U);
}

struct Kv {
  explicit Kv(std::vector<KvGroupConfig> groups, bool caching = true, int32_t in_flight = 64) {
    KvCacheSpec spec;
    for (const KvGroupConfig& g : groups) {
      spec.groups.push_back({{}, g.window, g.block_size, {KvPlaneSpec{16, 16}}});
    }
    memory = std::make_unique<TestKvMemory>(spec, groups);
    KvCacheConfig config;
    config.groups = std::move(groups);
    config.enable_prefix_caching = caching;
    config.max_tokens_in_flight = in_flight;
    manager = std::make_unique<KvCacheManager>(config, *memory);
  }
  Sequence& sequence(std::vector<Token> tokens, const std::string& salt = "") {
    auto state = std::make_unique<RequestState>();
    state->request.cache_salt = salt;
    auto s = std::make_unique<Sequence>();
    s->request = state.get();
    s->prompt_size = static_cast<int32_t>(tokens.size());
    s->tokens = std::move(tokens);
    state->samples.push_back(std::move(s));
    requests.push_back(std::move(state));
    return *requests.back()->samples[0];
  }
  bool compute(Sequence& s, int32_t n) {
    if (!manager->allocate(s, n)) return false;
    s.num_computed += n;
    manager->settle(s, s.num_computed);
    return true;
  }
  std::unique_ptr<TestKvMemory> memory;
  std::vector<std::unique_ptr<RequestState>> requests;
  std::unique_ptr<KvCacheManager> manager;
};

KvGroupConfig group(int32_t block_size, int32_t window, int32_t capacity, int32_t grow_step = 1) {
  KvGroupConfig g;
  g.block_size = block_size;
  g.window = window;
  g.capacity = capacity;
  g.grow_step = grow_step;
  return g;
}

TEST(KvCacheManager, PagesGrowsAndSharesByExactBlocks) {
  Kv kv({group(4, 0, 8, 2)});
  Sequence& a = kv.sequence(iota_prompt(10));
  EXPECT_EQ(kv.manager->acquire_prefix(a, nullptr), 0);
  ASSERT_TRUE(kv.compute(a, 10));
  EXPECT_THAT(a.block_tables[0], ElementsAre(0, 1, 2));
  EXPECT_EQ(kv.memory->committed[0], 4);
  Sequence& b = kv.sequence(iota_prompt(10));
  EXPECT_EQ(kv.manager->acquire_prefix(b, nullptr), 8);
  ASSERT_TRUE(kv.compute(b, 2));
  EXPECT_THAT(b.block_tables[0], ElementsAre(0, 1, 3));
  EXPECT_EQ(kv.manager->pool(0).ref_count(0), 2);
  Sequence& c = kv.sequence(iota_prompt(10), "other tenant");
  EXPECT_EQ(kv.manager->acquire_prefix(c, nullptr), 0);
  kv.manager->release(a);
  kv.manager->release(b);
  EXPECT_THAT(kv.manager->pool(0).eviction_order(), ElementsAre(3, 2, 1, 0))
      << "free ones, then the tail before the front";
  EXPECT_TRUE(kv.manager->idle());
  Sequence& d = kv.sequence(iota_prompt(8));
  EXPECT_EQ(kv.manager->acquire_prefix(d, nullptr), 4) << "the last token is always computed anew";
  kv.manager->release(d);
  EXPECT_TRUE(kv.manager->check_integrity().ok());
}

TEST(KvCacheManager, AFailedAllocationChangesNothing) {
  Kv kv({group(4, 0, 6), group(4, 0, 3)});
  Sequence& a = kv.sequence(iota_prompt(40));
  EXPECT_FALSE(kv.manager->could_hold(a, false));
  EXPECT_FALSE(kv.manager->allocate(a, 16));
  EXPECT_TRUE(a.block_tables[0].empty());
  EXPECT_TRUE(kv.manager->idle());
  kv.memory->limit = 5;  // refuses in the second group, after the first has got its blocks
  EXPECT_FALSE(kv.manager->allocate(a, 12));
  EXPECT_TRUE(kv.manager->idle());
  EXPECT_TRUE(kv.manager->check_integrity().ok());
  kv.memory->limit = 6;
  EXPECT_TRUE(kv.manager->allocate(a, 12));
  kv.manager->release(a);
  EXPECT_TRUE(kv.manager->check_integrity().ok());
}

TEST(KvCacheManager, EvictsOnlyWhenItCannotGrow) {
  Kv kv({group(4, 0, 4)});
  Sequence& a = kv.sequence(iota_prompt(9));
  kv.compute(a, 9);
  kv.manager->release(a);
  EXPECT_EQ(kv.manager->pool(0).num_cached(), 2);
  Sequence& b = kv.sequence(iota_prompt(9, 100));
  ASSERT_TRUE(kv.compute(b, 8));
  EXPECT_THAT(b.block_tables[0], ElementsAre(2, 3)) << "the free block, then a new one";
  ASSERT_TRUE(kv.compute(b, 1));
  EXPECT_THAT(b.block_tables[0], ElementsAre(2, 3, 1)) << "the older prefix loses its tail";
  Sequence& c = kv.sequence(iota_prompt(9));
  EXPECT_EQ(kv.manager->acquire_prefix(c, nullptr), 4);
  kv.manager->release(b);
  kv.manager->release(c);
  kv.manager->shrink_to_minimum();
  EXPECT_EQ(kv.memory->committed[0], 0);
  EXPECT_EQ(kv.manager->prefix_cache()->num_nodes(), 0U);
  EXPECT_TRUE(kv.manager->check_integrity().ok());
}

TEST(KvCacheManager, WindowedGroupsReleaseWhatFellOut) {
  Kv kv({group(4, 0, 20), group(4, 6, 20)});
  Sequence& a = kv.sequence(iota_prompt(30));
  ASSERT_TRUE(kv.compute(a, 10));
  EXPECT_THAT(a.block_tables[1], ElementsAre(-1, 1, 2)) << "position 10 looks back to 4";
  EXPECT_THAT(a.block_tables[0], ElementsAre(0, 1, 2));
  ASSERT_TRUE(kv.compute(a, 14));
  EXPECT_THAT(a.block_tables[1].back(), testing::Ge(0));
  EXPECT_EQ(std::ranges::count(a.block_tables[1], kNoBlock), 4) << "position 24 looks back to 18";
  EXPECT_EQ(kv.manager->pool(1).num_referenced(), 2);
  // A prefix of 24 tokens needs only the window's blocks of that group.
  Sequence& b = kv.sequence(iota_prompt(26));
  EXPECT_EQ(kv.manager->acquire_prefix(b, nullptr), 24);
  EXPECT_EQ(std::ranges::count(b.block_tables[1], kNoBlock), 4);
  EXPECT_EQ(kv.manager->pool(1).num_referenced(), 2);
  kv.manager->release(a);
  kv.manager->release(b);
  EXPECT_TRUE(kv.manager->idle());
  EXPECT_TRUE(kv.manager->check_integrity().ok());
}

TEST(KvCacheManager, AWindowWithAHoleShortensThePrefix) {
  Kv kv({group(4, 0, 20), group(4, 4, 4)}, true, 8);
  Sequence& a = kv.sequence(iota_prompt(40));
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(kv.compute(a, 8));
  kv.manager->release(a);
  // The windowed pool has 4 blocks, so most of its cached ones were evicted; the full group has kept all ten.
  int shortened = 0;
  for (int length = 5; length <= 40; ++length) {
    Sequence& b = kv.sequence(iota_prompt(length));
    const int32_t hit = kv.manager->acquire_prefix(b, nullptr);
    shortened += hit < (length - 1) / 4 * 4 ? 1 : 0;
    for (int32_t i = std::max(0, hit - 4) / 4; i < hit / 4; ++i) {
      EXPECT_NE(b.block_tables[1][static_cast<size_t>(i)], kNoBlock);
    }
    kv.manager->release(b);
    EXPECT_TRUE(kv.manager->check_integrity().ok());
  }
  EXPECT_GT(shortened, 10);
  EXPECT_LT(shortened, 36);
}

KvCacheSpec spec_of(std::vector<std::tuple<int32_t, int32_t, size_t>> groups) {
  KvCacheSpec spec;
  for (auto [block_size, window, bytes] : groups) {
    spec.groups.push_back({{}, window, block_size, {KvPlaneSpec{bytes, 64}, KvPlaneSpec{bytes, 64}}});
  }
  return spec;
}

ModelSpec model_of(int32_t max_position) {
  ModelSpec model;
  model.max_position = max_position;
  model.vocab_size = 10;
  return model;
}

TEST(KvPlan, FitsTheContextToMemory) {
  EngineCoreConfig config;
  const KvCacheSpec spec = spec_of({{16, 0, 1024}});
  config.max_kv_bytes = 2048 * 100;
  auto plan = plan_kv(config, model_of(100000), spec, 1, 1 << 30);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->cache.groups[0].capacity, 100);
  EXPECT_EQ(plan->max_model_len, 1600);
  EXPECT_EQ(plan->context_limit, 1600);
  config.max_model_len = 2000;
  plan = plan_kv(config, model_of(100000), spec, 1, 1 << 30);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->max_model_len, 2000);
  EXPECT_EQ(plan->context_limit, 1600);
  config.max_model_len = 0;
  config.max_kv_bytes = 0;
  plan = plan_kv(config, model_of(160), spec, 1, 1 << 30);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->cache.groups[0].capacity, 10 * config.max_num_seqs) << "no more than all sequences can use";
  EXPECT_EQ(plan->cache.groups[0].grow_step, 2048);
}

TEST(KvPlan, SharesBytesBetweenFullAndWindowedGroups) {
  EngineCoreConfig config;
  config.max_num_batched_tokens = 256;
  config.max_kv_bytes = size_t{64} << 20;
  const KvCacheSpec spec = spec_of({{16, 0, 1024}, {16, 512, 5120}});
  const auto plan = plan_kv(config, model_of(32768), spec, 1, size_t{1} << 30);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->context_limit, 32768);
  const KvGroupConfig& full = plan->cache.groups[0];
  const KvGroupConfig& windowed = plan->cache.groups[1];
  EXPECT_GE(full.capacity, 2048);
  EXPECT_GE(windowed.capacity, 512 / 16 * 20) << "many short contexts need blocks in both groups";
  const size_t bytes = static_cast<size_t>(full.capacity) * full.bytes_per_block +
                       static_cast<size_t>(windowed.capacity) * windowed.bytes_per_block;
  EXPECT_LE(bytes, config.max_kv_bytes);
  EXPECT_GT(bytes, config.max_kv_bytes - 100000);
}

TEST(KvArena, CommitsAndReturnsPagesThroughTheLedger) {
  MemoryLedger ledger(size_t{10} << 20);
  const KvCacheSpec spec = spec_of({{16, 0, 65536}, {16, 64, 65536}});
  auto arena = KvArena::reserve(ledger, "m", spec, {group(16, 0, 64), group(16, 64, 64)});
  ASSERT_TRUE(arena.ok());
  EXPECT_EQ(ledger.used(), 0U);
  ASSERT_TRUE(arena->commit(0, 1).ok());
  EXPECT_EQ(ledger.used(), 2 * kHugePage);
  ASSERT_TRUE(arena->commit(0, 33).ok());
  EXPECT_EQ(ledger.used(), 4 * kHugePage);
  const KvBinding binding = arena->binding();
  EXPECT_EQ(binding.capacity_blocks, (std::vector<int32_t>{64, 64}));
  for (std::byte* base : binding.bases[0]) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(base) % 64, 0U);
    base[33 * 65536 - 1] = std::byte{1};
  }
  EXPECT_EQ(arena->commit(1, 1).error().code, ErrorCode::out_of_memory) << "one plane fits, two do not";
  EXPECT_EQ(ledger.used(), 4 * kHugePage) << "a refused commit leaves nothing behind";
  arena->shrink(0, 5);
  EXPECT_EQ(ledger.used(), 2 * kHugePage);
  ASSERT_TRUE(arena->commit(1, 1).ok());
  KvCacheSpec crooked = spec;
  crooked.groups[0].planes[0].bytes_per_block = 1000;
  EXPECT_EQ(KvArena::reserve(ledger, "m", crooked, {group(16, 0, 64), group(16, 64, 64)}).error().code,
            ErrorCode::invalid_argument);
}

}  // namespace
}  // namespace inferneo
