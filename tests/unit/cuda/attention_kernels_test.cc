// Paged attention on the device against softmax in double precision over the rounded queries and keys: decode with
// split contexts, prompts, chunks, windows, soft caps, groups, every width of head, and the cache's writes. Blocks are
// handed out in a shuffled order; what nobody has written is NaN.
//
// Tolerance: queries, keys and values are rounded before the reference sees them, so what is left is the rounding of
// the softmax weights (relative 2^-8 for bf16, times the sum of |value|, which is at most the largest one), of sums in
// f32, and of the output. Of a cache of 8 bits the reference sees the codes times the scales that the cache holds; the
// kernels round the weights after the values' scales have gone into them, which is no more.
#include "kernel_data.h"
#include "kernels/cuda/attention_plan.h"

namespace inferneo::cuda::testing {
namespace {

struct AttentionCase {
  int32_t num_heads = 4;
  int32_t num_kv_heads = 2;
  int32_t head_dim = 64;
  int32_t block_size = 16;
  int32_t window = 0;
  float softcap = 0.0F;
  Elem elem = Elem::bf16;
  bool invariant = false;
  int32_t multiprocessors = 4;
  int32_t shared_bytes = 227 << 10;
  // position and number of tokens of each sequence
  std::vector<std::pair<int32_t, int32_t>> sequences = {};
};

class AttentionKernels : public DeviceTest {
 protected:
  void check(const AttentionCase& c) {
    Numbers numbers(static_cast<uint32_t>(c.head_dim * 31 + c.num_heads + c.window));
    const KvLayout layout{2, c.num_kv_heads, c.head_dim, c.block_size, c.elem};
    const int32_t layer = 1;
    int32_t rows = 0;
    int32_t blocks = 0;
    for (const auto& [position, count] : c.sequences) {
      rows += count;
      blocks += (position + count + c.block_size - 1) / c.block_size;
    }
    std::vector<int32_t> free(static_cast<size_t>(blocks));
    for (int32_t b = 0; b < blocks; ++b) free[static_cast<size_t>(b)] = b;
    std::shuffle(free.begin(), free.end(), std::mt19937(1));

    // Keys and values of all tokens, as they were before this step, in the cache.
    std::vector<uint8_t> plane(static_cast<size_t>(blocks * layout.bytes_per_block()), 0xff);
    std::vector<int32_t> tables;
    std::vector<int32_t> table_begin;
    std::vector<int32_t> positions;
    std::vector<int32_t> sequence_of;
    std::vector<AttentionRows> batch;
    const int64_t qkv_width = int64_t{c.num_heads + 2 * c.num_kv_heads} * c.head_dim;
    std::vector<float> qkv = numbers.floats(rows * qkv_width, 2.0);
    // keys[sequence][token][kv_head * head_dim + d]
    std::vector<std::vector<double>> keys(c.sequences.size());
    std::vector<std::vector<double>> values(c.sequences.size());
    const int64_t kv_width = int64_t{c.num_kv_heads} * c.head_dim;
    int32_t row = 0;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
      const auto [position, count] = c.sequences[s];
      table_begin.push_back(static_cast<int32_t>(tables.size()));
      batch.push_back({position, row, count});
      const int32_t end = position + count;
      for (int32_t b = 0; b < (end + c.block_size - 1) / c.block_size; ++b) {
        tables.push_back(free.back());
        free.pop_back();
      }
      keys[s].resize(static_cast<size_t>(end * kv_width));
      values[s].resize(static_cast<size_t>(end * kv_width));
      for (int32_t t = 0; t < end; ++t) {
        for (int32_t h = 0; h < c.num_kv_heads; ++h) {
          std::vector<float> key = numbers.floats(c.head_dim, 2.0);
          std::vector<float> value = numbers.floats(c.head_dim);
          if (t >= position) {
            const float* x = qkv.data() + (row + t - position) * qkv_width + (c.num_heads + h) * c.head_dim;
            key.assign(x, x + c.head_dim);
            value.assign(x + kv_width, x + kv_width + c.head_dim);
          }
          const CacheRow stored_key = CacheRow::of(c.elem, key);
          const CacheRow stored_value = CacheRow::of(c.elem, value);
          std::copy_n(stored_key.values.begin(), c.head_dim, keys[s].begin() + t * kv_width + h * c.head_dim);
          std::copy_n(stored_value.values.begin(), c.head_dim, values[s].begin() + t * kv_width + h * c.head_dim);
          if (t >= position) continue;
          const int64_t block = tables[static_cast<size_t>(table_begin[s] + t / c.block_size)];
          uint8_t* at = plane.data() + block * layout.bytes_per_block();
          stored_key.put(layout, at + layout.k_offset(layer, h), t % c.block_size);
          stored_value.put(layout, at + layout.v_offset(layer, h), t % c.block_size);
        }
      }
      for (int32_t i = 0; i < count; ++i) {
        positions.push_back(position + i);
        sequence_of.push_back(static_cast<int32_t>(s));
      }
      // Blocks behind the window have been taken back: nobody may follow their entries.
      if (c.window > 0) {
        for (int32_t b = 0; b < (position - c.window + 1) / c.block_size; ++b) {
          tables[static_cast<size_t>(table_begin[s] + b)] = -1;
        }
      }
      row += count;
    }

    const Array<float> qkv_on(*this, qkv);
    const Array<uint8_t> plane_on(*this, plane);
    const Array<int32_t> tables_on(*this, tables);
    const Array<int32_t> begin_on(*this, table_begin);
    const Array<int32_t> positions_on(*this, positions);
    const Array<int32_t> sequence_on(*this, sequence_of);
    const BatchView view{positions_on.get(), sequence_on.get(), begin_on.get(), tables_on.get()};
    Ops on = ops();
    QkvArgs post{};
    post.qkv = qkv_on.get();
    post.stride = qkv_width;
    post.batch = view;
    post.layout = layout;
    post.plane = plane_on.get();
    post.layer = layer;
    post.rows = rows;
    post.num_heads = c.num_heads;
    ASSERT_TRUE(on.qkv_post(post).ok());

    const AttentionShape shape{c.num_heads, c.num_kv_heads,    c.head_dim,  c.window,
                               c.elem,      c.multiprocessors, c.invariant, c.shared_bytes};
    AttentionPlan plan;
    plan_attention(shape, batch, plan);
    const int64_t q_width = int64_t{c.num_heads} * c.head_dim;
    const Array<float> out(*this, static_cast<size_t>(rows * q_width));
    const Array<AttentionItem> decode(*this, plan.decode);
    const Array<AttentionItem> prefill(*this, plan.prefill);
    const Array<AttentionJob> jobs(*this, plan.jobs);
    const Array<int32_t> counts(*this, std::vector<int32_t>{static_cast<int32_t>(plan.decode.size()),
                                                            static_cast<int32_t>(plan.prefill.size())});
    AttentionArgs args{};
    args.partial_stride = int64_t{kDecodeRows} * (c.head_dim + 2);
    const Array<float> partials(*this,
                                std::max<size_t>(plan.decode.size(), 1) * static_cast<size_t>(args.partial_stride));
    const Array<int32_t> arrived(*this, std::vector<int32_t>(std::max<size_t>(plan.jobs.size(), 1), 0));
    args.q = qkv_on.get();
    args.q_stride = qkv_width;
    args.out = out.get();
    args.out_stride = q_width;
    args.jobs = jobs.get();
    args.partials = partials.get();
    args.arrived = arrived.get();
    args.batch = view;
    args.layout = layout;
    args.plane = plane_on.get();
    args.layer = layer;
    args.num_heads = c.num_heads;
    args.window = c.window;
    args.rows = rows;
    args.scale = 0.3F;
    args.softcap = c.softcap;
    args.out_elem = Elem::f32;
    if (!shape.has_tiles()) {
      ASSERT_TRUE(on.attention_plain(args).ok());
    } else {
      args.items = decode.get();
      args.counts = counts.get();
      // Fewer blocks than items: they walk.
      const auto walkers = [](size_t items, int32_t most) { return std::min(most, static_cast<int32_t>(items)); };
      if (!plan.decode.empty()) {
        ASSERT_TRUE(on.attention_items(args, true, walkers(plan.decode.size(), 7)).ok());
      }
      args.items = prefill.get();
      args.counts = counts.get() + 1;
      if (!plan.prefill.empty()) {
        ASSERT_TRUE(on.attention_items(args, false, walkers(plan.prefill.size(), 5)).ok());
      }
    }
    const std::vector<float> got = out.download();
    for (const int32_t count : arrived.download()) EXPECT_EQ(count, 0);  // ready for the next layer

    Worst worst;
    const bool rounds = c.elem == Elem::bf16 || shape.has_tiles();
    const int32_t group = c.num_heads / c.num_kv_heads;
    for (int32_t r = 0; r < rows; ++r) {
      const auto s = static_cast<size_t>(sequence_of[static_cast<size_t>(r)]);
      const int32_t position = positions[static_cast<size_t>(r)];
      const int32_t begin = c.window > 0 ? std::max(0, position - c.window + 1) : 0;
      for (int32_t h = 0; h < c.num_heads; ++h) {
        std::vector<double> scores;
        double largest = -1e300;
        for (int32_t t = begin; t <= position; ++t) {
          double dot = 0.0;
          for (int32_t d = 0; d < c.head_dim; ++d) {
            const float q = qkv[static_cast<size_t>(r * qkv_width + h * c.head_dim + d)];
            dot += (rounds ? stored(Elem::bf16, q) : q) *
                   keys[s][static_cast<size_t>(t * kv_width + h / group * c.head_dim + d)];
          }
          dot *= 0.3F;
          if (c.softcap > 0.0F) dot = c.softcap * std::tanh(dot / c.softcap);
          scores.push_back(dot);
          largest = std::max(largest, dot);
        }
        double sum = 0.0;
        for (double& score : scores) sum += score = std::exp(score - largest);
        for (int32_t d = 0; d < c.head_dim; ++d) {
          double want = 0.0;
          double magnitude = 0.0;
          for (int32_t t = begin; t <= position; ++t) {
            const double v = values[s][static_cast<size_t>(t * kv_width + h / group * c.head_dim + d)];
            want += scores[static_cast<size_t>(t - begin)] / sum * v;
            magnitude += scores[static_cast<size_t>(t - begin)] / sum * std::abs(v);
          }
          const double weights = rounds ? std::exp2(-8) : 0.0;
          worst.add(got[static_cast<size_t>(r * q_width + h * c.head_dim + d)], want,
                    magnitude * (weights + 4e-5) + 1e-7, r, h * c.head_dim + d);
        }
      }
    }
    worst.expect("heads of " + std::to_string(c.head_dim));
  }

  // 8 bits: every width of head in both kernels, split contexts, windows, blocks whose scales are not aligned to 16
  // bytes, heads that fill no whole chunk, and the plain kernel where the tiles do not fit.
  void check_bytes(Elem elem) {
    for (const int32_t head_dim : {64, 128, 256, 80, 24, 8}) {
      AttentionCase c;
      c.elem = elem;
      c.head_dim = head_dim;
      c.sequences = {{0, 1}, {63, 1}, {64, 1}, {200, 1}, {0, 70}, {33, 41}};
      check(c);
    }
    AttentionCase c;
    c.elem = elem;
    c.multiprocessors = 8;
    c.sequences = {{1500, 1}, {3, 1}, {700, 2}};
    check(c);
    c.window = 37;
    c.softcap = 5.0F;
    c.block_size = 6;
    c.num_heads = 6;
    c.sequences = {{0, 90}, {150, 40}, {99, 1}, {5, 1}};
    check(c);
    c.invariant = true;
    check(c);
    AttentionCase plain;
    plain.elem = elem;
    for (const int32_t head_dim : {264, 300}) {
      plain.head_dim = head_dim;
      plain.sequences = {{0, 20}, {40, 1}, {31, 5}};
      check(plain);
    }
  }

 private:
  // A row of one head as a cache has it.
  struct CacheRow {
    Elem elem;
    float scale = 1.0F;          // of bytes
    std::vector<uint8_t> codes;  // of bytes
    std::vector<double> values;

    static CacheRow of(Elem elem, const std::vector<float>& row) {
      CacheRow made{elem, 1.0F, {}, {}};
      if (!is_byte(elem)) {
        for (const float v : row) made.values.push_back(stored(elem, v));
        return made;
      }
      float largest = 0.0F;
      for (const float v : row) largest = std::max(largest, std::abs(v));
      made.scale = largest / (elem == Elem::i8 ? 127.0F : kLargestE4m3);
      for (const float v : row) {
        const float scaled = v / made.scale;
        made.codes.push_back(elem == Elem::i8 ? static_cast<uint8_t>(static_cast<int8_t>(std::nearbyint(scaled)))
                                              : f32_to_e4m3(scaled));
        const float code = elem == Elem::i8 ? std::nearbyint(scaled) : e4m3_to_f32(made.codes.back());
        made.values.push_back(double{code} * made.scale);
      }
      return made;
    }
    void put(const KvLayout& layout, uint8_t* region, int64_t slot) const {
      for (int32_t d = 0; d < layout.row_elements(); ++d) {
        const bool padding = d >= layout.head_dim;
        const double value = padding ? 0.0 : values[static_cast<size_t>(d)];
        const int64_t at = slot * layout.row_elements() + layout.place_of(d);
        if (is_byte(elem)) {
          region[at] = padding ? 0 : codes[static_cast<size_t>(d)];
        } else {
          put_element(region, elem, at, value);
        }
      }
      if (is_byte(elem)) reinterpret_cast<float*>(region + layout.scales_at())[slot] = scale;
    }
  };
  static void put_element(uint8_t* base, Elem elem, int64_t at, double value) {
    const auto narrow = static_cast<float>(value);
    if (elem == Elem::f32) {
      reinterpret_cast<float*>(base)[at] = narrow;
    } else {
      reinterpret_cast<uint16_t*>(base)[at] = elem == Elem::bf16 ? f32_to_bf16(narrow) : f32_to_f16(narrow);
    }
  }
};

TEST_F(AttentionKernels, Decode) {
  for (const int32_t head_dim : {64, 128, 256, 80, 24}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.sequences = {{0, 1}, {63, 1}, {64, 1}, {200, 1}};
    check(c);
  }
}

TEST_F(AttentionKernels, DecodeSplitOverTheContext) {
  AttentionCase c;
  c.head_dim = 64;
  c.multiprocessors = 8;
  c.sequences = {{1500, 1}, {3, 1}, {700, 2}};
  check(c);
  c.window = 600;
  check(c);
}

// As long as a GPU is worth it, split as its multiprocessors want it.
TEST_F(AttentionKernels, LongContexts) {
  AttentionCase c;
  c.head_dim = is_emulated() ? 64 : 128;
  c.num_heads = 8;
  c.multiprocessors = device_->facts().multiprocessors;
  if (is_emulated()) {
    c.sequences = {{2100, 1}, {0, 150}};
  } else {
    c.sequences = {{64999, 1}, {5, 1}, {20000, 2}, {0, 600}, {3000, 40}};
  }
  check(c);
}

TEST_F(AttentionKernels, DecodeOfManyHeadsPerKey) {
  AttentionCase c;
  c.num_heads = 16;
  c.num_kv_heads = 1;
  c.sequences = {{90, 1}, {10, 1}};
  check(c);
  c.num_heads = 24;  // more than a decode item has rows: the other kernel
  check(c);
  c.num_heads = 7;
  c.sequences = {{40, 2}, {70, 3}};  // drafts that are verified
  check(c);
}

TEST_F(AttentionKernels, Prompts) {
  for (const int32_t head_dim : {64, 128, 256, 40}) {
    AttentionCase c;
    c.head_dim = head_dim;
    c.sequences = {{0, 70}, {33, 41}, {0, 9}};
    check(c);
  }
}

TEST_F(AttentionKernels, WindowsAndSoftCaps) {
  AttentionCase c;
  c.window = 37;
  c.softcap = 5.0F;
  c.sequences = {{0, 90}, {150, 40}, {99, 1}, {5, 1}};
  check(c);
  c.num_heads = 6;
  c.num_kv_heads = 2;
  c.block_size = 24;
  check(c);
}

TEST_F(AttentionKernels, OtherCaches) {
  for (const Elem elem : {Elem::f32, Elem::f16}) {
    for (const int32_t head_dim : {8, 100, 300}) {
      AttentionCase c;
      c.elem = elem;
      c.head_dim = head_dim;
      c.window = head_dim == 100 ? 20 : 0;
      c.sequences = {{0, 20}, {40, 1}, {31, 5}};
      check(c);
    }
  }
  AttentionCase wide;  // bf16, and no tiles
  wide.head_dim = 264;
  wide.sequences = {{12, 4}};
  check(wide);
}

TEST_F(AttentionKernels, Int8Caches) { check_bytes(Elem::i8); }

TEST_F(AttentionKernels, Fp8Caches) { check_bytes(Elem::e4m3); }

TEST_F(AttentionKernels, InvariantShapesUseOneKernel) {
  AttentionCase c;
  c.invariant = true;
  c.sequences = {{90, 1}, {10, 20}};
  check(c);
}

// GPUs with less shared memory than Hopper: the prompts' kernel decodes, or the plain one does everything.
TEST_F(AttentionKernels, FitIntoLessSharedMemory) {
  AttentionCase c;
  c.head_dim = 128;
  c.shared_bytes = 99 << 10;
  c.sequences = {{90, 1}, {10, 20}};
  check(c);
  c.head_dim = 256;
  check(c);
}

TEST(AttentionPlan, ChoosesKernelsThatTheSharedMemoryHolds) {
  // width of the heads, bytes that a block may have; whether the kernels for prompts and for decoding fit
  const struct {
    int32_t head_dim, shared_bytes;
    bool tiles, decode;
    Elem elem = Elem::bf16;
  } rows[] = {{64, 99 << 10, true, true},
              {128, 99 << 10, true, false},
              {256, 99 << 10, false, false},
              {128, 163 << 10, true, true},
              {256, 163 << 10, true, false},
              {128, 227 << 10, true, true},
              {256, 227 << 10, true, true},
              {128, 99 << 10, true, true, Elem::i8},
              {256, 99 << 10, false, false, Elem::i8},
              {256, 227 << 10, true, true, Elem::i8},
              {128, 99 << 10, true, true, Elem::e4m3},
              {256, 99 << 10, false, false, Elem::e4m3},
              {256, 227 << 10, true, true, Elem::e4m3}};
  for (const auto& row : rows) {
    AttentionShape shape{8, 2, row.head_dim};
    shape.elem = row.elem;
    shape.shared_bytes = row.shared_bytes;
    EXPECT_EQ(shape.has_tiles(), row.tiles) << row.head_dim << " with " << row.shared_bytes;
    const AttentionRows one{700, 0, 1};
    AttentionPlan plan;
    plan_attention(shape, {&one, 1}, plan);
    EXPECT_EQ(!plan.decode.empty(), row.decode) << row.head_dim << " with " << row.shared_bytes;
    EXPECT_EQ(!plan.prefill.empty(), row.tiles && !row.decode) << row.head_dim << " with " << row.shared_bytes;
  }
}

TEST(AttentionPlan, CoversEveryTokenOnceAndKeepsItsLimits) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    AttentionShape shape;
    shape.num_kv_heads = 1 + static_cast<int32_t>(random() % 4);
    shape.num_heads = shape.num_kv_heads * (1 + static_cast<int32_t>(random() % 20));
    shape.head_dim = 64;
    shape.window = random() % 2 == 0 ? 0 : 1 + static_cast<int32_t>(random() % 500);
    shape.multiprocessors = 1 + static_cast<int32_t>(random() % 132);
    shape.invariant = random() % 4 == 0;
    std::vector<AttentionRows> rows;
    int32_t row = 0;
    const int32_t count = 1 + static_cast<int32_t>(random() % 9);
    for (int32_t s = 0; s < count; ++s) {
      const int32_t tokens = random() % 3 == 0 ? 1 + static_cast<int32_t>(random() % 200) : 1;
      rows.push_back({static_cast<int32_t>(random() % 5000), row, tokens});
      row += tokens;
    }
    AttentionPlan plan;
    plan_attention(shape, rows, plan);
    const AttentionLimits limits = attention_limits(shape, count, row);
    EXPECT_LE(plan.decode.size(), static_cast<size_t>(limits.decode_items));
    EXPECT_LE(plan.prefill.size(), static_cast<size_t>(limits.prefill_items));
    EXPECT_LE(plan.jobs.size(), static_cast<size_t>(limits.jobs));
    // tokens seen by each (row, head)
    std::map<std::pair<int32_t, int32_t>, std::vector<std::pair<int32_t, int32_t>>> seen;
    for (const auto* items : {&plan.decode, &plan.prefill}) {
      for (const AttentionItem& item : *items) {
        const int32_t most = items == &plan.decode ? kDecodeRows : kPrefillRows;
        EXPECT_LE(item.num_queries * shape.group(), most);
        for (int32_t q = 0; q < item.num_queries; ++q) {
          seen[{item.row + q, item.kv_head}].emplace_back(item.token_begin, item.token_end);
        }
      }
    }
    for (const AttentionRows& sequence : rows) {
      for (int32_t i = 0; i < sequence.num_tokens; ++i) {
        for (int32_t h = 0; h < shape.num_kv_heads; ++h) {
          auto ranges = seen[{sequence.row + i, h}];
          std::sort(ranges.begin(), ranges.end());
          const int32_t position = sequence.position + i;
          const int32_t first = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
          ASSERT_FALSE(ranges.empty());
          EXPECT_LE(ranges.front().first, first);
          EXPECT_GT(ranges.back().second, position);
          for (size_t k = 1; k < ranges.size(); ++k) EXPECT_EQ(ranges[k].first, ranges[k - 1].second);
        }
      }
    }
  }
}

}  // namespace
}  // namespace inferneo::cuda::testing
