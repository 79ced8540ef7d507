// Products with quantised weights by tensor cores. See args.h for what they compute and quant_layout.h for the weights.
//
// A group's codes go into the tensor cores as bf16, exactly, with inputs rounded to bf16; the f32 sum over the 32 inputs
// of a group is multiplied with the group's scale and added up in f32, groups ascending within a warp; the channel's
// unit comes last. Where groups have no scales, as with fp8, the tensor cores add up the groups as well. So no weight is
// rounded. The minima of int4 go off times the sum of the group's inputs,
// which a product with ones gives. In the kernel for a few rows the weights are the first operand, 16 channels of them,
// and the rows are the columns of the second; in the tiles it is the other way round. Tile shapes give the same bits.
#pragma once

#include "kernels/cuda/products.cuh"
#include "kernels/cuda/quant_weights.cuh"

namespace inferneo::cuda {

// ---- a few rows -----------------------------------------------------------------------------------------------------
// One span of one panel, as a lane holds it.
template <Elem kWeight>
struct LaneSpan {
  Words4 words[is_byte(kWeight) ? 2 : 1];
  Words2 scales;  // of the two groups, channels lane / 4 and lane / 4 + 8; fp8: not there

  INFERNEO_DEVICE void load(const uint8_t* panel, const QuantPanels& layout, int64_t span) {
    const uint8_t* at = panel + span * layout.span_bytes() + lane() * 16;
    words[0] = load_stream16(at);
    if constexpr (is_byte(kWeight)) words[1] = load_stream16(at + 512);
    if constexpr (has_group_scales(kWeight)) {
      scales = load_stream8(panel + layout.scales_at() + span * kSpanScaleBytes + lane() / 4 * 8);
    }
  }
  INFERNEO_DEVICE void zero() {
    words[0] = Words4{0, 0, 0, 0};
    if constexpr (is_byte(kWeight)) words[1] = Words4{0, 0, 0, 0};
    scales = Words2{0, 0};
  }
  // The first operands of the two mma's of a group: channels are rows.
  INFERNEO_DEVICE void unpack(int group, uint32_t (&a)[2][4]) const {
    uint32_t low[4];
    uint32_t high[4];
    if constexpr (is_byte(kWeight)) {
      unpack_channel<kWeight>(words[group].x, words[group].y, low);
      unpack_channel<kWeight>(words[group].z, words[group].w, high);
    } else {
      unpack_channel<kWeight>(group == 0 ? words[0].x : words[0].z, 0, low);
      unpack_channel<kWeight>(group == 0 ? words[0].y : words[0].w, 0, high);
    }
    INFERNEO_UNROLL
    for (int i = 0; i < 2; ++i) {
      a[i][0] = low[2 * i];
      a[i][1] = high[2 * i];
      a[i][2] = low[2 * i + 1];
      a[i][3] = high[2 * i + 1];
    }
  }
};

// A warp takes two panels (a gate panel and its up panel where the product is gated) and every k_split-th piece of
// kAhead spans of them; the next piece is loaded before the one at hand is used. Warps that share panels are added up
// in order. kRows: 1, where what belongs to other rows is left out, or a multiple of 8.
template <Elem kWeight, int kRows>
struct QuantGemv {
  static constexpr int kAhead = is_byte(kWeight) ? 1 : 2;
  static constexpr int kTiles = (kRows + 7) / 8;
  static constexpr int kStep = kRows == 1 ? 2 : 1;  // of the sums: 0 and 2 are those of the first row
  static constexpr int kSums = 2 * kTiles * 4;
  using Piece = LaneSpan<kWeight>[kAhead][2];

  const GemvArgs& args;
  QuantPanels layout;
  const uint8_t* panels[2];
  bool has_second;
  int64_t num_spans;
  float ratios[2][2];
  float acc[2][kTiles][4];

  INFERNEO_DEVICE void load(int64_t first, Piece& piece) const {
    INFERNEO_UNROLL
    for (int s = 0; s < kAhead; ++s) {
      INFERNEO_UNROLL
      for (int p = 0; p < 2; ++p) {
        if (first + s < num_spans && (p == 0 || has_second)) {
          piece[s][p].load(panels[p], layout, first + s);
        } else {
          piece[s][p].zero();
        }
      }
    }
  }

  // Eight inputs of this lane's row of a tile and quarter of a group; zeros where there are none.
  INFERNEO_DEVICE Words4 load_inputs(int64_t span, int group, int tile) const {
    const int64_t k = span * kQuantSpan + group * kQuantInputs + lane() % 4 * 8;
    const int row = tile * 8 + lane() / 4;
    if (row >= args.m.rows || k >= args.m.k) return Words4{0, 0, 0, 0};
    return load16(static_cast<const uint16_t*>(args.m.x) + row * args.m.x_stride + k);
  }

  INFERNEO_DEVICE void add_group(const LaneSpan<kWeight> (&span)[2], int group, const Words4 (&x)[kTiles]) {
    float inputs[kTiles][4];
    if constexpr (kWeight == Elem::i4) {
      const uint32_t ones[4] = {0x3f803f80U, 0x3f803f80U, 0x3f803f80U, 0x3f803f80U};
      INFERNEO_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        mma_bf16_first(inputs[t], ones, x[t].x, x[t].y);
        mma_bf16(inputs[t], ones, x[t].z, x[t].w);
      }
    }
    INFERNEO_UNROLL
    for (int p = 0; p < 2; ++p) {
      uint32_t a[2][4];
      span[p].unpack(group, a);
      if constexpr (has_group_scales(kWeight)) {
        add_scaled(group == 0 ? span[p].scales.x : span[p].scales.y, p, a, x, inputs);
      } else {
        INFERNEO_UNROLL
        for (int t = 0; t < kTiles; ++t) {
          mma_bf16(acc[p][t], a[0], x[t].x, x[t].y);
          mma_bf16(acc[p][t], a[1], x[t].z, x[t].w);
        }
      }
    }
  }

  // `bits`: the scales of the panel's two channels.
  INFERNEO_DEVICE void add_scaled(uint32_t bits, int p, const uint32_t (&a)[2][4], const Words4 (&x)[kTiles],
                                  const float (&inputs)[kTiles][4]) {
    const ChannelScale scales[2] = {unpack_scale<kWeight>(bits & 0xffffU, ratios[p][0]),
                                    unpack_scale<kWeight>(bits >> 16, ratios[p][1])};
    INFERNEO_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      float sums[4];
      mma_bf16_first(sums, a[0], x[t].x, x[t].y);
      mma_bf16(sums, a[1], x[t].z, x[t].w);
      INFERNEO_UNROLL
      for (int e = 0; e < 4; e += kStep) {
        acc[p][t][e] += scales[e / 2].scale * sums[e];
        if constexpr (kWeight == Elem::i4) acc[p][t][e] -= scales[e / 2].minimum * inputs[t][e];
      }
    }
  }

  INFERNEO_DEVICE void add(int64_t first, const Piece& piece) {
    INFERNEO_UNROLL
    for (int s = 0; s < kAhead; ++s) {
      if (first + s >= num_spans) continue;  // the whole warp
      INFERNEO_UNROLL
      for (int g = 0; g < 2; ++g) {
        Words4 x[kTiles];
        INFERNEO_UNROLL
        for (int t = 0; t < kTiles; ++t) x[t] = load_inputs(first + s, g, t);
        add_group(piece[s], g, x);
      }
    }
  }

  // The sums of warps [warp - slice, warp - slice + k_split), in order.
  INFERNEO_DEVICE void gather(int slice, float* shared) {
    float* mine = shared + (warp() * 32 + lane()) * kSums;
    INFERNEO_UNROLL
    for (int i = 0; i < kSums; i += kStep) mine[i] = acc[i / (kTiles * 4)][i / 4 % kTiles][i % 4];
    sync_block();
    if (slice != 0) return;
    for (int s = 1; s < args.k_split; ++s) {
      const float* other = mine + s * 32 * kSums;
      INFERNEO_UNROLL
      for (int i = 0; i < kSums; i += kStep) acc[i / (kTiles * 4)][i / 4 % kTiles][i % 4] += other[i];
    }
  }

  INFERNEO_DEVICE void write(const int64_t (&first_channels)[2]) const {
    const MatmulArgs& m = args.m;
    INFERNEO_UNROLL
    for (int e = 0; e < 4; e += kStep) {
      const int channel = lane() / 4 + e / 2 * 8;
      const int64_t n0 = first_channels[0] + channel;
      const int64_t n1 = first_channels[1] + channel;
      const float unit0 = unit_of<kWeight>(panels[0], layout, channel);
      const float unit1 = unit_of<kWeight>(panels[1], layout, channel);
      INFERNEO_UNROLL
      for (int t = 0; t < kTiles; ++t) {
        const int row = t * 8 + lane() % 4 * 2 + e % 2;
        if (row >= m.rows) continue;
        const float sum0 = unit0 * acc[0][t][e];
        const float sum1 = unit1 * acc[1][t][e];
        if (args.gated_out != nullptr) {
          const float gate = sum0 + (m.bias != nullptr ? m.bias[n0] : 0.0F);
          const float up = sum1 + (m.bias != nullptr ? m.bias[n1] : 0.0F);
          store_elem(args.gated_out, args.gated_elem, row * args.gated_stride + n0, activate(args.act, gate) * up);
          continue;
        }
        if (n0 < m.n) put_product(m, row, n0, sum0);
        if (has_second && n1 < m.n) put_product(m, row, n1, sum1);
      }
    }
  }
};

template <Elem kWeight, int kRows>
INFERNEO_DEVICE void quant_gemv(const GemvArgs& args) {
  using Gemv = QuantGemv<kWeight, kRows>;
  INFERNEO_SHARED float shared[kGemvWarps * 32 * Gemv::kSums];
  const MatmulArgs& m = args.m;
  const bool gated = args.gated_out != nullptr;
  const QuantPanels layout{m.k, kWeight};
  const int64_t num_panels = QuantPanels::count(m.n);
  const int64_t pair = static_cast<int64_t>(block_x()) * (kGemvWarps / args.k_split) + warp() / args.k_split;
  const int slice = warp() % args.k_split;
  const int64_t index[2] = {gated ? pair : 2 * pair, gated ? num_panels + pair : 2 * pair + 1};
  const bool works = index[0] < num_panels;
  Gemv gemv{args, layout, {}, works && (gated || index[1] < num_panels), works ? layout.num_spans() : 0, {}, {}};
  INFERNEO_UNROLL
  for (int p = 0; p < 2; ++p) {
    const int64_t panel = p == 0 ? (works ? index[0] : 0) : gemv.has_second ? index[1] : 0;
    gemv.panels[p] = static_cast<const uint8_t*>(m.weight) + panel * layout.panel_bytes();
    if constexpr (kWeight == Elem::i4) {
      gemv.ratios[p][0] = ratio_of(gemv.panels[p], layout, lane() / 4);
      gemv.ratios[p][1] = ratio_of(gemv.panels[p], layout, lane() / 4 + 8);
    }
  }
  typename Gemv::Piece now;
  typename Gemv::Piece next;
  const int64_t step = int64_t{Gemv::kAhead} * args.k_split;
  int64_t first = int64_t{Gemv::kAhead} * slice;
  // The first weights are on their way while the kernel before makes the input.
  gemv.load(first, now);
  wait_for_earlier();
  while (first < gemv.num_spans) {
    gemv.load(first + step, next);
    gemv.add(first, now);
    first += step;
    if (first >= gemv.num_spans) break;
    gemv.load(first + step, now);
    gemv.add(first, next);
    first += step;
  }
  if (args.k_split > 1) gemv.gather(slice, shared);
  if (slice != 0 || !works) return;
  gemv.write({index[0] * kQuantPanel, gated ? m.n + index[0] * kQuantPanel : index[1] * kQuantPanel});
}

INFERNEO_EARLY_KERNEL(inferneo_gemv_i8_1, GemvArgs, kGemvThreads) { quant_gemv<Elem::i8, 1>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_i8_8, GemvArgs, kGemvThreads) { quant_gemv<Elem::i8, 8>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_i8_16, GemvArgs, kGemvThreads) { quant_gemv<Elem::i8, 16>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_i4_1, GemvArgs, kGemvThreads) { quant_gemv<Elem::i4, 1>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_i4_8, GemvArgs, kGemvThreads) { quant_gemv<Elem::i4, 8>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_i4_16, GemvArgs, kGemvThreads) { quant_gemv<Elem::i4, 16>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_e4m3_1, GemvArgs, kGemvThreads) { quant_gemv<Elem::e4m3, 1>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_e4m3_8, GemvArgs, kGemvThreads) { quant_gemv<Elem::e4m3, 8>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_e4m3_16, GemvArgs, kGemvThreads) { quant_gemv<Elem::e4m3, 16>(args); }

// ---- tiles ----------------------------------------------------------------------------------------------------------
// A block computes BM x BN; a warp WM x WN of it, WN whole panels. A stage is a span: rows of the input in eight chunks
// of 16 bytes, chunk c of row r at c ^ 4 (r % 2), so that two rows of four chunks touch all banks; then the panels'
// integers and scales as they are. A lane reads eight inputs of a row at once, in the order that the weights have.
template <Elem kWeight, int BM, int BN, int WM, int WN, int STAGES>
struct QuantGemm {
  static constexpr int kThreads = (BM / WM) * (BN / WN) * 32;
  static constexpr int kPanels = BN / kQuantPanel;
  static constexpr int kWarpPanels = WN / kQuantPanel;
  static constexpr int kSpanBytes = is_byte(kWeight) ? 1024 : 512;
  static constexpr int kScaleBytes = has_group_scales(kWeight) ? kSpanScaleBytes : 0;
  static constexpr int kInputBytes = BM * 128;
  static constexpr int kStageBytes = kInputBytes + kPanels * (kSpanBytes + kScaleBytes);
  static constexpr int kSharedBytes = STAGES * kStageBytes;

  static INFERNEO_DEVICE uint8_t* chunk_at(uint8_t* rows, int row, int chunk) {
    return rows + (row * 8 + (chunk ^ ((row & 1) << 2))) * 16;
  }

  struct Source {
    ExpertRows rows;
    QuantPanels layout;
    const uint8_t* panel;  // the block's first
    int num_panels;        // that are there, at most kPanels
    int m0;
  };

  static INFERNEO_DEVICE void load_stage(const MatmulArgs& args, const Source& from, uint8_t* stage, int64_t span) {
    const auto* x = static_cast<const uint16_t*>(args.x);
    for (int i = thread(); i < BM * 8; i += kThreads) {
      const int row = i / 8;
      const int64_t k = span * kQuantSpan + i % 8 * 8;
      const bool valid = from.m0 + row < from.rows.count && k < args.k;
      int64_t at = 0;
      if (valid) {
        at = from.rows.first + from.m0 + row;
        if (args.row_index != nullptr) at = args.row_index[at];
        at = at * args.x_stride + k;
      }
      copy_async16(chunk_at(stage, row, i % 8), x + at, valid);
    }
    const int64_t panel_bytes = from.layout.panel_bytes();
    uint8_t* codes = stage + kInputBytes;
    for (int i = thread(); i < kPanels * (kSpanBytes / 16); i += kThreads) {
      const int panel = i / (kSpanBytes / 16);
      const bool valid = panel < from.num_panels;
      const uint8_t* at = from.panel + panel * panel_bytes + span * kSpanBytes + i % (kSpanBytes / 16) * 16;
      copy_async16(codes + i * 16, valid ? at : from.panel, valid);
    }
    if constexpr (!has_group_scales(kWeight)) return;
    uint8_t* scales = codes + kPanels * kSpanBytes;
    for (int i = thread(); i < kPanels * (kSpanScaleBytes / 16); i += kThreads) {
      const int panel = i / (kSpanScaleBytes / 16);
      const bool valid = panel < from.num_panels;
      const uint8_t* at = from.panel + panel * panel_bytes + from.layout.scales_at() + span * kSpanScaleBytes +
                          i % (kSpanScaleBytes / 16) * 16;
      copy_async16(scales + i * 16, valid ? at : from.panel, valid);
    }
  }

  struct State {
    float acc[WM / 16][WN / 8][4];
    float ratios[kWarpPanels][2][2];  // of channels lane % 4 * 2 + {0, 1}, then of those and 8
  };

  static INFERNEO_DEVICE void add_group(uint8_t* stage, int group, int wm0, int wn0, State& state) {
    uint32_t a[WM / 16][2][4];
    INFERNEO_UNROLL
    for (int i = 0; i < WM / 16; ++i) {
      const int row = wm0 + i * 16 + lane() / 4;
      const Words4 low = load16(chunk_at(stage, row, group * 4 + lane() % 4));
      const Words4 high = load16(chunk_at(stage, row + 8, group * 4 + lane() % 4));
      a[i][0][0] = low.x, a[i][0][1] = high.x, a[i][0][2] = low.y, a[i][0][3] = high.y;
      a[i][1][0] = low.z, a[i][1][1] = high.z, a[i][1][2] = low.w, a[i][1][3] = high.w;
    }
    float inputs[WM / 16][4];  // of int4: the sums of the group's inputs, of each row
    if constexpr (kWeight == Elem::i4) {
      INFERNEO_UNROLL
      for (int i = 0; i < WM / 16; ++i) {
        mma_bf16_first(inputs[i], a[i][0], 0x3f803f80U, 0x3f803f80U);
        mma_bf16(inputs[i], a[i][1], 0x3f803f80U, 0x3f803f80U);
      }
    }
    INFERNEO_UNROLL
    for (int p = 0; p < kWarpPanels; ++p) {
      const int panel = wn0 / kQuantPanel + p;
      const uint8_t* codes = stage + kInputBytes + panel * kSpanBytes;
      uint32_t b[2][4];  // of channels lane / 4 and lane / 4 + 8
      if constexpr (is_byte(kWeight)) {
        const Words4 words = load16(codes + group * 512 + lane() * 16);
        unpack_channel<kWeight>(words.x, words.y, b[0]);
        unpack_channel<kWeight>(words.z, words.w, b[1]);
      } else {
        const Words2 words = load8(codes + lane() * 16 + group * 8);
        unpack_channel<kWeight>(words.x, 0, b[0]);
        unpack_channel<kWeight>(words.y, 0, b[1]);
      }
      Words4 scales{0, 0, 0, 0};
      if constexpr (has_group_scales(kWeight)) {
        scales = load16(stage + kInputBytes + kPanels * kSpanBytes + panel * kSpanScaleBytes + lane() % 4 * 16);
      }
      INFERNEO_UNROLL
      for (int h = 0; h < 2; ++h) {
        if constexpr (has_group_scales(kWeight)) {
          add_scaled(scales, group, p, h, a, b[h], inputs, state);
        } else {
          INFERNEO_UNROLL
          for (int i = 0; i < WM / 16; ++i) {
            mma_bf16(state.acc[i][p * 2 + h], a[i][0], b[h][0], b[h][1]);
            mma_bf16(state.acc[i][p * 2 + h], a[i][1], b[h][2], b[h][3]);
          }
        }
      }
    }
  }

  // Half h of a panel. The sums' columns are channels lane % 4 * 2 and the next, and in the second half those and 8;
  // `scales`: of these four and of both groups.
  static INFERNEO_DEVICE void add_scaled(const Words4& scales, int group, int p, int h,
                                         const uint32_t (&a)[WM / 16][2][4], const uint32_t (&b)[4],
                                         const float (&inputs)[WM / 16][4], State& state) {
    const uint32_t pairs[2] = {group == 0 ? scales.x : scales.y, group == 0 ? scales.z : scales.w};
    ChannelScale s[2];
    INFERNEO_UNROLL
    for (int c = 0; c < 2; ++c) {
      s[c] = unpack_scale<kWeight>(h == 0 ? pairs[c] & 0xffffU : pairs[c] >> 16, state.ratios[p][h][c]);
    }
    INFERNEO_UNROLL
    for (int i = 0; i < WM / 16; ++i) {
      float sums[4];
      mma_bf16_first(sums, a[i][0], b[0], b[1]);
      mma_bf16(sums, a[i][1], b[2], b[3]);
      INFERNEO_UNROLL
      for (int e = 0; e < 4; ++e) {
        float& acc = state.acc[i][p * 2 + h][e];
        acc += s[e % 2].scale * sums[e];
        if constexpr (kWeight == Elem::i4) acc -= s[e % 2].minimum * inputs[i][e];
      }
    }
  }

  static INFERNEO_DEVICE void write(const MatmulArgs& args, const Source& from, int64_t n0, int wm0, int wn0,
                                    const State& state) {
    INFERNEO_UNROLL
    for (int j = 0; j < WN / 8; ++j) {
      INFERNEO_UNROLL
      for (int c = 0; c < 2; ++c) {
        const int channel = wn0 + j * 8 + lane() % 4 * 2 + c;
        if (n0 + channel >= args.n) continue;
        const uint8_t* panel = from.panel + channel / kQuantPanel * from.layout.panel_bytes();
        const float unit = unit_of<kWeight>(panel, from.layout, channel % kQuantPanel);
        INFERNEO_UNROLL
        for (int i = 0; i < WM / 16; ++i) {
          INFERNEO_UNROLL
          for (int h = 0; h < 2; ++h) {
            const int row = from.m0 + wm0 + i * 16 + lane() / 4 + h * 8;
            if (row < from.rows.count) {
              put_product(args, from.rows.first + row, n0 + channel, unit * state.acc[i][j][h * 2 + c]);
            }
          }
        }
      }
    }
  }

  static INFERNEO_DEVICE void run(const MatmulArgs& args) {
    Source from{expert_rows(args), {args.k, kWeight}, nullptr, 0, block_y() * BM};
    if (from.m0 >= from.rows.count) return;  // the whole block
    const int64_t first_panel = static_cast<int64_t>(block_x()) * kPanels;
    from.panel = static_cast<const uint8_t*>(args.weight) +
                 (args.expert_begin != nullptr ? block_z() * args.expert_stride : 0) +
                 first_panel * from.layout.panel_bytes();
    from.num_panels = static_cast<int>(min_of(int64_t{kPanels}, QuantPanels::count(args.n) - first_panel));
    uint8_t* shared = dynamic_shared();
    const auto num_spans = static_cast<int>(from.layout.num_spans());
    const int wm0 = warp() / (BN / WN) * WM;
    const int wn0 = warp() % (BN / WN) * WN;
    State state{};
    if constexpr (kWeight == Elem::i4) {
      INFERNEO_UNROLL
      for (int i = 0; i < kWarpPanels * 4; ++i) {
        const int panel = wn0 / kQuantPanel + i / 4;
        if (panel >= from.num_panels) continue;
        state.ratios[i / 4][i / 2 % 2][i % 2] = ratio_of(from.panel + panel * from.layout.panel_bytes(), from.layout,
                                                         i / 2 % 2 * 8 + lane() % 4 * 2 + i % 2);
      }
    }
    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < num_spans) load_stage(args, from, shared + s * kStageBytes, s);
      copy_commit();
    }
    for (int span = 0; span < num_spans; ++span) {
      copy_wait<STAGES - 2>();
      sync_block();  // the stage is there, and everybody has done with the one that is loaded next
      const int next = span + STAGES - 1;
      if (next < num_spans) load_stage(args, from, shared + next % STAGES * kStageBytes, next);
      copy_commit();
      uint8_t* stage = shared + span % STAGES * kStageBytes;
      INFERNEO_UNROLL
      for (int g = 0; g < 2; ++g) add_group(stage, g, wm0, wn0, state);
    }
    write(args, from, static_cast<int64_t>(block_x()) * BN, wm0, wn0, state);
  }
};

template <Elem kWeight>
using QuantSmall = QuantGemm<kWeight, 16, 32, 16, 16, 8>;
template <Elem kWeight>
using QuantMiddle = QuantGemm<kWeight, 64, 64, 32, 32, 4>;
template <Elem kWeight>
using QuantLarge = QuantGemm<kWeight, 128, 128, 64, 32, 4>;

INFERNEO_KERNEL(inferneo_gemm_i8_small, MatmulArgs, QuantSmall<Elem::i8>::kThreads) {
  QuantSmall<Elem::i8>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_i8_middle, MatmulArgs, QuantMiddle<Elem::i8>::kThreads) {
  QuantMiddle<Elem::i8>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_i8_large, MatmulArgs, QuantLarge<Elem::i8>::kThreads) {
  QuantLarge<Elem::i8>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_i4_small, MatmulArgs, QuantSmall<Elem::i4>::kThreads) {
  QuantSmall<Elem::i4>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_i4_middle, MatmulArgs, QuantMiddle<Elem::i4>::kThreads) {
  QuantMiddle<Elem::i4>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_i4_large, MatmulArgs, QuantLarge<Elem::i4>::kThreads) {
  QuantLarge<Elem::i4>::run(args);
}

INFERNEO_KERNEL(inferneo_gemm_e4m3_small, MatmulArgs, QuantSmall<Elem::e4m3>::kThreads) {
  QuantSmall<Elem::e4m3>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_e4m3_middle, MatmulArgs, QuantMiddle<Elem::e4m3>::kThreads) {
  QuantMiddle<Elem::e4m3>::run(args);
}
INFERNEO_KERNEL(inferneo_gemm_e4m3_large, MatmulArgs, QuantLarge<Elem::e4m3>::kThreads) {
  QuantLarge<Elem::e4m3>::run(args);
}

}  // namespace inferneo::cuda
