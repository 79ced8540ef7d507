#include <cstring>
#include <set>

#include "kernel_test_support.h"

namespace inferneo::kernels {
namespace {

using testing::GuardedOutput;
using testing::kBf16Epsilon;
using testing::kF32Epsilon;
using testing::Random;
using testing::random_floats;
using testing::stored_as;
using testing::Workbench;

struct Case {
  DType dtype;
  int32_t heads, kv_heads, head_dim, block_size, window;
  float softcap;
  std::vector<std::pair<int32_t, int32_t>> sequences;  // {tokens in the cache, tokens of this step}
};

// A cache in NaN-poisoned memory with shuffled blocks; blocks before a window are given back (-1) and poisoned again.
class Cache {
 public:
  Cache(const Case& c, uint64_t seed) : case_(c) {
    layout_ = KvLayout{c.dtype, 3, c.kv_heads, c.head_dim, c.block_size};
    int32_t blocks = 0;
    for (const auto& [past, now] : c.sequences) blocks += (past + now + c.block_size - 1) / c.block_size;
    num_blocks_ = blocks + 3;
    memory_.assign(layout_.bytes_per_block() * static_cast<size_t>(num_blocks_), std::byte{0xff});
    Random random(seed);
    std::vector<int32_t> ids(static_cast<size_t>(num_blocks_));
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
    for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[static_cast<size_t>(random.below(int64_t(i)))]);
    size_t next = 0;
    for (const auto& [past, now] : c.sequences) {
      std::vector<int32_t>& table = tables_.emplace_back();
      for (int32_t t = 0; t < past + now; t += c.block_size) table.push_back(ids[next++]);
      k_.push_back(random_floats(random, int64_t{past + now} * c.kv_heads * c.head_dim));
      v_.push_back(random_floats(random, int64_t{past + now} * c.kv_heads * c.head_dim));
      q_.push_back(random_floats(random, int64_t{now} * c.heads * c.head_dim, -2.0F, 2.0F));
    }
  }
  const KvLayout& layout() const { return layout_; }
  const std::vector<float>& q(size_t s) const { return q_[s]; }
  SequenceRows rows(size_t s, int32_t position, int32_t row, int32_t count) const {
    return SequenceRows{tables_[s].data(), position, row, count};
  }
  void write(const OpTable& ops, Workbench& bench) {
    for (size_t s = 0; s < tables_.size(); ++s) {
      stored_k_.push_back(stored(k_[s]));
      stored_v_.push_back(stored(v_[s]));
      const int32_t total = case_.sequences[s].first + case_.sequences[s].second;
      const SequenceRows all = rows(s, 0, 0, total);
      Context context = bench.context(ops);
      const int64_t stride = int64_t{case_.kv_heads} * case_.head_dim;
      kv_write(context, KvWriteArgs{.k = k_[s].data(),
                                    .k_stride = stride,
                                    .v = v_[s].data(),
                                    .v_stride = stride,
                                    .layout = layout_,
                                    .plane = memory_.data(),
                                    .layer = 1,
                                    .sequences = std::span(&all, 1)});
      forget_before_window(s);
    }
  }
  const std::byte* plane() const { return memory_.data(); }
  // The first key of a token of the first sequence, before write().
  void spoil(int32_t token, float value) {
    k_[0][static_cast<size_t>(token) * static_cast<size_t>(case_.kv_heads * case_.head_dim)] = value;
  }

  // Attention of one head of one query in f64 over the stored values: [head_dim].
  std::vector<double> want(size_t s, int32_t query, int32_t head) const {
    const int32_t position = case_.sequences[s].first + query;
    const int32_t kv_head = head / (case_.heads / case_.kv_heads);
    const int32_t first = case_.window > 0 ? std::max(0, position - case_.window + 1) : 0;
    double sum = 0.0;
    std::vector<double> result(static_cast<size_t>(case_.head_dim));
    for (int32_t t = first; t <= position; ++t) {
      double dot = 0.0;
      for (int32_t e = 0; e < case_.head_dim; ++e) {
        dot += static_cast<double>(query_at(s, query, head, e)) * static_cast<double>(at(stored_k_[s], t, kv_head, e));
      }
      dot *= scale();
      if (case_.softcap > 0.0F) dot = case_.softcap * std::tanh(dot / case_.softcap);
      const double p = std::exp(dot);
      sum += p;
      for (int32_t d = 0; d < case_.head_dim; ++d) {
        result[static_cast<size_t>(d)] += p * static_cast<double>(at(stored_v_[s], t, kv_head, d));
      }
    }
    for (double& value : result) value /= sum;
    return result;
  }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(case_.head_dim)); }
  // |v| <= 1: softmax weights rounded to bf16 (half an epsilon each), scores off by k f32 roundings.
  double tolerance() const {
    const double scores = 4.0 * (case_.head_dim + 8) * kF32Epsilon;
    return (case_.dtype == DType::bf16 ? kBf16Epsilon / 2 : 0.0) + scores + 300 * kF32Epsilon;
  }

 private:
  float query_at(size_t s, int32_t query, int32_t head, int32_t e) const {
    const float value = q_[s][static_cast<size_t>((query * case_.heads + head) * case_.head_dim + e)];
    return case_.dtype == DType::bf16 ? stored_as(DType::bf16, value) : value;
  }
  float at(const std::vector<float>& values, int32_t t, int32_t head, int32_t d) const {
    return values[static_cast<size_t>((t * case_.kv_heads + head) * case_.head_dim + d)];
  }
  // What the cache makes of the values.
  std::vector<float> stored(const std::vector<float>& values) const {
    std::vector<float> result;
    const auto dims = static_cast<size_t>(case_.head_dim);
    for (size_t first = 0; first < values.size(); first += dims) {  // a token's head
      float largest = 0.0F;
      for (size_t d = first; d < first + dims; ++d) largest = std::max(largest, std::abs(values[d]));
      const float scale = largest / (case_.dtype == DType::i8 ? 127.0F : kLargestE4m3);
      for (size_t d = first; d < first + dims; ++d) {
        if (!layout_.has_scales()) {
          result.push_back(stored_as(case_.dtype, values[d]));
          continue;
        }
        const float scaled = scale > 0.0F ? values[d] / scale : 0.0F;
        result.push_back(scale *
                         (case_.dtype == DType::i8 ? std::nearbyint(scaled) : e4m3_to_f32(f32_to_e4m3(scaled))));
      }
    }
    return result;
  }
  void forget_before_window(size_t s) {
    if (case_.window == 0) return;
    const int32_t needed = std::max(0, case_.sequences[s].first - case_.window + 1);
    for (int32_t b = 0; b < needed / case_.block_size; ++b) {
      int32_t& id = tables_[s][static_cast<size_t>(b)];
      std::memset(memory_.data() + static_cast<size_t>(id) * layout_.bytes_per_block(), 0xff,
                  layout_.bytes_per_block());
      id = -1;
    }
  }

  Case case_;
  KvLayout layout_;
  int32_t num_blocks_ = 0;
  std::vector<std::byte> memory_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<std::vector<float>> k_, v_, q_;
  std::vector<std::vector<float>> stored_k_, stored_v_;
};

// Attention of the given pieces {sequence, first query, count} in one call; rows in the order of the pieces.
struct Piece {
  size_t sequence;
  int32_t first, count;
};
GuardedOutput attend(const OpTable& ops, const Case& c, const Cache& cache, const std::vector<Piece>& pieces,
                     Workbench& bench) {
  std::vector<SequenceRows> rows;
  std::vector<float> q;
  int32_t row = 0;
  const int64_t width = int64_t{c.heads} * c.head_dim;
  for (const Piece& p : pieces) {
    rows.push_back(cache.rows(p.sequence, c.sequences[p.sequence].first + p.first, row, p.count));
    const auto& from = cache.q(p.sequence);
    q.insert(q.end(), from.begin() + p.first * width, from.begin() + (p.first + p.count) * width);
    row += p.count;
  }
  GuardedOutput out(row, width);
  Context context = bench.context(ops);
  attention(context, AttentionArgs{.q = q.data(),
                                   .q_stride = width,
                                   .out = out.data(),
                                   .out_stride = out.stride(),
                                   .num_heads = c.heads,
                                   .layout = cache.layout(),
                                   .plane = cache.plane(),
                                   .layer = 1,
                                   .scale = cache.scale(),
                                   .softcap = c.softcap,
                                   .window = c.window,
                                   .sequences = rows});
  out.check_guards();
  return out;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i8, DType::f8_e4m3}) {
    all.push_back({dtype, 4, 2, 64, 16, 0, 0.0F, {{0, 40}, {17, 1}, {300, 1}, {5, 3}}});
    all.push_back({dtype, 8, 1, 128, 32, 0, 30.0F, {{250, 9}, {600, 1}}});
    all.push_back({dtype, 3, 3, 13, 8, 20, 0.0F, {{0, 50}, {63, 1}, {40, 7}}});
    all.push_back({dtype, 6, 2, 8, 16, 5, 10.0F, {{0, 33}, {290, 2}}});
    all.push_back({dtype, 2, 2, 80, 64, 0, 0.0F, {{255, 2}, {0, 1}}});
    all.push_back({dtype, 5, 1, 20, 24, 0, 0.0F, {{70, 4}, {3, 1}}});
    all.push_back({dtype, 4, 4, 33, 4, 300, 0.0F, {{310, 6}}});
    all.push_back({dtype, 4, 2, 16, 700, 0, 0.0F, {{520, 20}, {0, 9}}});  // a slot: one block per sequence
  }
  return all;
}

std::string describe(const OpTable& ops, const Case& c) {
  return std::string(ops.name) + " " + std::string(dtype_name(c.dtype)) + " heads=" + std::to_string(c.heads) + "/" +
         std::to_string(c.kv_heads) + " dim=" + std::to_string(c.head_dim) + " block=" + std::to_string(c.block_size) +
         " window=" + std::to_string(c.window);
}

TEST(Attention, AgreesWithF64OverShuffledPoisonedBlocks) {
  Workbench bench(2);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const Case& c : cases()) {
      Cache cache(c, 7);
      cache.write(*ops, bench);
      for (size_t s = 0; s < c.sequences.size(); ++s) {
        GuardedOutput out = attend(*ops, c, cache, {{s, 0, c.sequences[s].second}}, bench);
        std::vector<std::vector<double>> want;  // [query * heads]
        for (int32_t i = 0; i < c.sequences[s].second * c.heads; ++i)
          want.push_back(cache.want(s, i / c.heads, i % c.heads));
        testing::expect_close(
            out,
            [&](int64_t r, int64_t i) {
              return want[static_cast<size_t>(r * c.heads + i / c.head_dim)][static_cast<size_t>(i % c.head_dim)];
            },
            [&](int64_t, int64_t) { return cache.tolerance(); }, describe(*ops, c));
      }
    }
  }
}

TEST(Attention, ARowIsTheSameBitForBitAloneBatchedChunkedAndCutAlongTheContext) {
  Workbench one(1);
  Workbench many(2);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const Case& c : cases()) {
      Cache cache(c, 8);
      cache.write(*ops, one);
      std::vector<Piece> together;
      for (size_t s = 0; s < c.sequences.size(); ++s) together.push_back({s, 0, c.sequences[s].second});
      GuardedOutput batch = attend(*ops, c, cache, together, one);
      GuardedOutput threaded = attend(*ops, c, cache, together, many);
      int64_t row = 0;
      for (const Piece& whole : together) {
        for (int32_t first = 0; first < whole.count;) {
          const int32_t count = std::min(whole.count - first, first % 3 == 0 ? 1 : 5);
          GuardedOutput chunk = attend(*ops, c, cache, {{whole.sequence, first, count}}, many);
          for (int32_t i = 0; i < count; ++i) {
            const size_t bytes = static_cast<size_t>(batch.cols()) * sizeof(float);
            ASSERT_EQ(std::memcmp(&chunk.at(i, 0), &batch.at(row, 0), bytes), 0)
                << describe(*ops, c) << " sequence " << whole.sequence << " query " << first + i;
            ASSERT_EQ(std::memcmp(&threaded.at(row, 0), &batch.at(row, 0), bytes), 0) << describe(*ops, c);
            ++row;
          }
          first += count;
        }
      }
    }
  }
}

void expect_half_the_memory_and_nan(DType dtype) {
  const KvLayout half{dtype, 4, 8, 64, 16};
  const KvLayout whole{DType::bf16, 4, 8, 64, 16};
  EXPECT_EQ(half.bytes_per_block() * 32, whole.bytes_per_block() * 17);  // a scale per 64 values
  Workbench bench(1);
  for (const OpTable* ops : testing::runnable_tables()) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
      const Case c{dtype, 2, 1, 16, 16, 0, 0.0F, {{0, 20}}};
      Cache cache(c, 9);
      cache.spoil(3, bad);
      cache.write(*ops, bench);
      GuardedOutput out = attend(*ops, c, cache, {{0, 0, 20}}, bench);
      for (int32_t row = 0; row < 20; ++row) {
        EXPECT_EQ(std::isnan(out.at(row, 0)), row >= 3) << describe(*ops, c) << " row " << row;
      }
    }
  }
}

TEST(Attention, ACacheOfEightBitsTakesHalfTheMemoryAndHandsNaNOn) {
  expect_half_the_memory_and_nan(DType::i8);
  expect_half_the_memory_and_nan(DType::f8_e4m3);
}

TEST(KvLayout, NoTwoElementsShareAPlaceAndAllLieInTheirRegion) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16, DType::i8, DType::f8_e4m3}) {
    for (const int32_t block_size : {1, 2, 7, 8, 16, 24, 64}) {
      for (const int32_t head_dim : {1, 8, 13, 64}) {
        const KvLayout kv{dtype, 2, 3, head_dim, block_size};
        std::set<int64_t> k_seen;
        std::set<int64_t> v_seen;
        for (int32_t t = 0; t < block_size; ++t) {
          for (int32_t d = 0; d < head_dim; ++d) {
            EXPECT_TRUE(k_seen.insert(kv.k_index(t, d)).second);
            EXPECT_TRUE(v_seen.insert(kv.v_index(t, d)).second);
          }
        }
        EXPECT_LE((*k_seen.rbegin() + 1) * kv.element_bytes(), static_cast<int64_t>(kv.k_scales()));
        EXPECT_LE((*v_seen.rbegin() + 1) * kv.element_bytes(), static_cast<int64_t>(kv.v_scales()));
        const size_t scales = kv.has_scales() ? static_cast<size_t>(block_size) * sizeof(float) : 0;
        EXPECT_LE(kv.k_scales() + scales, kv.k_bytes());
        EXPECT_LE(kv.v_scales() + scales, kv.v_bytes());
        EXPECT_EQ(kv.v_offset(1, 2) + kv.v_bytes(), kv.bytes_per_block());
      }
    }
  }
}

}  // namespace
}  // namespace inferneo::kernels
