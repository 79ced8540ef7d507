// Matrix products with weights [N, K]: tensor cores for bf16, plain tiles for f32 and f16, and a product of a few rows
// that reads each weight once at full width. See args.h for what they compute.
//
// Every output is summed along K in one fixed order that depends on neither the number of rows nor the tile: in the
// tensor-core kernel one mma after the other, ascending; its tile shapes therefore give the same bits.
#pragma once

#include "kernels/cuda/products.cuh"

namespace inferneo::cuda {

// ---- tensor cores ---------------------------------------------------------------------------------------------------
// A block computes BM x BN; a warp WM x WN of it. Stages of 64 columns of both operands lie in shared memory, in rows of
// eight 16-byte chunks, chunk c of row r at c ^ (r % 8), so that eight rows of one chunk touch all banks.
template <int BM, int BN, int WM, int WN, int STAGES>
struct MmaGemm {
  static constexpr int kThreads = (BM / WM) * (BN / WN) * 32;
  static constexpr int kStageBytes = (BM + BN) * 128;
  static constexpr int kSharedBytes = STAGES * kStageBytes;

  static INFERNEO_DEVICE uint8_t* chunk_at(uint8_t* rows, int row, int chunk) {
    return rows + (row * 8 + (chunk ^ (row & 7))) * 16;
  }

  static INFERNEO_DEVICE void load_stage(const MatmulArgs& args, const ExpertRows& rows, int m0, int64_t n0,
                                         uint8_t* stage, int64_t k0) {
    const auto* x = static_cast<const uint16_t*>(args.x);
    for (int i = thread(); i < BM * 8; i += kThreads) {
      const int row = i / 8;
      const int64_t k = k0 + (i % 8) * 8;
      const bool valid = m0 + row < rows.count && k < args.k;
      int64_t from = 0;
      if (valid) {
        from = rows.first + m0 + row;
        if (args.row_index != nullptr) from = args.row_index[from];
        from = from * args.x_stride + k;
      }
      copy_async16(chunk_at(stage, row, i % 8), x + from, valid);
    }
    const auto* weight =
        static_cast<const uint16_t*>(args.weight) + (args.expert_begin != nullptr ? block_z() * args.expert_stride : 0);
    for (int i = thread(); i < BN * 8; i += kThreads) {
      const int row = i / 8;
      const int64_t k = k0 + (i % 8) * 8;
      const bool valid = n0 + row < args.n && k < args.k;
      copy_async16(chunk_at(stage + BM * 128, row, i % 8), valid ? weight + (n0 + row) * args.weight_stride + k : weight,
                   valid);
    }
  }

  static INFERNEO_DEVICE void run(const MatmulArgs& args) {
    const ExpertRows rows = expert_rows(args);
    const int m0 = block_y() * BM;
    if (m0 >= rows.count) return;  // the whole block
    const int64_t n0 = static_cast<int64_t>(block_x()) * BN;
    uint8_t* shared = dynamic_shared();
    const int num_k = static_cast<int>((args.k + 63) / 64);
    const int wm0 = warp() / (BN / WN) * WM;
    const int wn0 = warp() % (BN / WN) * WN;
    float acc[WM / 16][WN / 8][4] = {};

    for (int s = 0; s < STAGES - 1; ++s) {
      if (s < num_k) load_stage(args, rows, m0, n0, shared + s * kStageBytes, s * 64);
      copy_commit();
    }
    for (int kt = 0; kt < num_k; ++kt) {
      copy_wait<STAGES - 2>();
      sync_block();  // the stage is there, and everybody has done with the one that is loaded next
      const int next = kt + STAGES - 1;
      if (next < num_k) load_stage(args, rows, m0, n0, shared + next % STAGES * kStageBytes, int64_t{64} * next);
      copy_commit();
      uint8_t* a_rows = shared + kt % STAGES * kStageBytes;
      uint8_t* b_rows = a_rows + BM * 128;
      INFERNEO_UNROLL
      for (int k32 = 0; k32 < 2; ++k32) {
        uint32_t a[WM / 16][2][4];
        INFERNEO_UNROLL
        for (int i = 0; i < WM / 16; ++i) {
          INFERNEO_UNROLL
          for (int k16 = 0; k16 < 2; ++k16) {
            const int row = wm0 + i * 16 + lane() % 16;
            load_matrix_x4(a[i][k16], chunk_at(a_rows, row, k32 * 4 + k16 * 2 + lane() / 16));
          }
        }
        INFERNEO_UNROLL
        for (int j = 0; j < WN / 8; ++j) {
          uint32_t b[4];  // 8 channels x 32 inputs
          load_matrix_x4(b, chunk_at(b_rows, wn0 + j * 8 + lane() % 8, k32 * 4 + lane() / 8));
          INFERNEO_UNROLL
          for (int i = 0; i < WM / 16; ++i) {
            mma_bf16(acc[i][j], a[i][0], b[0], b[1]);
            mma_bf16(acc[i][j], a[i][1], b[2], b[3]);
          }
        }
      }
    }
    INFERNEO_UNROLL
    for (int i = 0; i < WM / 16; ++i) {
      INFERNEO_UNROLL
      for (int j = 0; j < WN / 8; ++j) {
        INFERNEO_UNROLL
        for (int e = 0; e < 4; ++e) {
          const int m = m0 + wm0 + i * 16 + lane() / 4 + e / 2 * 8;
          const int64_t n = n0 + wn0 + j * 8 + lane() % 4 * 2 + e % 2;
          if (m < rows.count && n < args.n) put_product(args, rows.first + m, n, acc[i][j][e]);
        }
      }
    }
  }
};

using GemmSmall = MmaGemm<16, 32, 16, 8, 6>;
using GemmMiddle = MmaGemm<64, 64, 32, 32, 4>;
using GemmLarge = MmaGemm<128, 128, 64, 32, 3>;

INFERNEO_KERNEL(inferneo_gemm_small, MatmulArgs, GemmSmall::kThreads) { GemmSmall::run(args); }
INFERNEO_KERNEL(inferneo_gemm_middle, MatmulArgs, GemmMiddle::kThreads) { GemmMiddle::run(args); }
INFERNEO_KERNEL(inferneo_gemm_large, MatmulArgs, GemmLarge::kThreads) { GemmLarge::run(args); }

// ---- f32 and f16 weights --------------------------------------------------------------------------------------------
inline constexpr int kPlainTile = 64;
inline constexpr int kPlainDepth = 16;

// 64 x 64 outputs, 4 x 4 per thread.
INFERNEO_KERNEL(inferneo_gemm_plain, MatmulArgs, 256) {
  INFERNEO_SHARED float a[kPlainDepth][kPlainTile + 4];
  INFERNEO_SHARED float b[kPlainDepth][kPlainTile + 4];
  const ExpertRows rows = expert_rows(args);
  const int m0 = block_y() * kPlainTile;
  if (m0 >= rows.count) return;
  const int64_t n0 = static_cast<int64_t>(block_x()) * kPlainTile;
  const int64_t weight_from = args.expert_begin != nullptr ? block_z() * args.expert_stride : 0;
  const Elem x_elem = operand_of(args.weight_elem);
  const int tm = thread() / 16 * 4;
  const int tn = thread() % 16 * 4;
  float acc[4][4] = {};
  for (int64_t k0 = 0; k0 < args.k; k0 += kPlainDepth) {
    for (int i = thread(); i < kPlainTile * kPlainDepth; i += 256) {
      const int row = i / kPlainDepth;
      const int64_t k = k0 + i % kPlainDepth;
      float value = 0.0F;
      if (m0 + row < rows.count && k < args.k) {
        int64_t from = rows.first + m0 + row;
        if (args.row_index != nullptr) from = args.row_index[from];
        value = load_elem(args.x, x_elem, from * args.x_stride + k);
      }
      a[i % kPlainDepth][row] = value;
      value = 0.0F;
      if (n0 + row < args.n && k < args.k) {
        value = load_elem(args.weight, args.weight_elem, weight_from + (n0 + row) * args.weight_stride + k);
      }
      b[i % kPlainDepth][row] = value;
    }
    sync_block();
    for (int k = 0; k < kPlainDepth; ++k) {
      INFERNEO_UNROLL
      for (int i = 0; i < 4; ++i) {
        INFERNEO_UNROLL
        for (int j = 0; j < 4; ++j) acc[i][j] += a[k][tm + i] * b[k][tn + j];
      }
    }
    sync_block();
  }
  INFERNEO_UNROLL
  for (int i = 0; i < 4; ++i) {
    INFERNEO_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int m = m0 + tm + i;
      const int64_t n = n0 + tn + j;
      if (m < rows.count && n < args.n) put_product(args, rows.first + m, n, acc[i][j]);
    }
  }
}

// ---- a few rows -----------------------------------------------------------------------------------------------------
// Eight consecutive elements as floats.
template <Elem kElem>
struct Eight {
  Words4 words[kElem == Elem::f32 ? 2 : 1];

  INFERNEO_DEVICE void load_weight(const void* base, int64_t i) {
    const auto* at = static_cast<const uint8_t*>(base) + i * elem_bytes(kElem);
    words[0] = load_stream16(at);
    if constexpr (kElem == Elem::f32) words[1] = load_stream16(at + 16);
  }
  INFERNEO_DEVICE void load_input(const void* base, int64_t i) {
    const auto* at = static_cast<const uint8_t*>(base) + i * elem_bytes(kElem);
    words[0] = load16(at);
    if constexpr (kElem == Elem::f32) words[1] = load16(at + 16);
  }
  INFERNEO_DEVICE void zero() {
    words[0] = Words4{0, 0, 0, 0};
    if constexpr (kElem == Elem::f32) words[1] = Words4{0, 0, 0, 0};
  }
  INFERNEO_DEVICE void unpack(float (&v)[8]) const {
    if constexpr (kElem == Elem::f32) {
      v[0] = bits_to_float(words[0].x), v[1] = bits_to_float(words[0].y);
      v[2] = bits_to_float(words[0].z), v[3] = bits_to_float(words[0].w);
      v[4] = bits_to_float(words[1].x), v[5] = bits_to_float(words[1].y);
      v[6] = bits_to_float(words[1].z), v[7] = bits_to_float(words[1].w);
    } else {
      const uint32_t pairs[4] = {words[0].x, words[0].y, words[0].z, words[0].w};
      INFERNEO_UNROLL
      for (int i = 0; i < 4; ++i) {
        if constexpr (kElem == Elem::bf16) {
          v[2 * i] = low_bf16(pairs[i]);
          v[2 * i + 1] = high_bf16(pairs[i]);
        } else {
          v[2 * i] = from_f16(static_cast<uint16_t>(pairs[i] & 0xffffU));
          v[2 * i + 1] = from_f16(static_cast<uint16_t>(pairs[i] >> 16));
        }
      }
    }
  }
};

// A warp takes two rows of the weight (a gate row and its up row where the product is gated) and every k_split-th chunk
// of 256 columns of them; warps of one pair add up in order. Two chunks are loaded before the first is used.
template <Elem kWeight, int kRows>
INFERNEO_DEVICE void gemv(const GemvArgs& args) {
  INFERNEO_SHARED float partial[kGemvWarps][2 * kRows];
  constexpr Elem kInput = operand_of(kWeight);
  const MatmulArgs& m = args.m;
  const bool gated = args.gated_out != nullptr;
  const int64_t pair = static_cast<int64_t>(block_x()) * (kGemvWarps / args.k_split) + warp() / args.k_split;
  const int slice = warp() % args.k_split;
  const int64_t row0 = gated ? pair : 2 * pair;
  const int64_t row1 = gated ? m.n + pair : 2 * pair + 1;
  const bool has0 = row0 < m.n;
  const bool has1 = gated ? has0 : row1 < m.n;
  float acc[kRows][2] = {};

  const int64_t step = int64_t{256} * args.k_split;
  const int64_t from0 = has0 ? row0 * m.weight_stride : 0;
  const int64_t from1 = has1 ? row1 * m.weight_stride : 0;
  Eight<kWeight> w[2][2];
  const auto load_weights = [&](int64_t k0) {
    INFERNEO_UNROLL
    for (int c = 0; c < 2; ++c) {
      const int64_t k = k0 + c * step;
      if (k < m.k && has0) {
        w[c][0].load_weight(m.weight, from0 + k);
      } else {
        w[c][0].zero();
      }
      if (k < m.k && has1) {
        w[c][1].load_weight(m.weight, from1 + k);
      } else {
        w[c][1].zero();
      }
    }
  };
  // The first weights are on their way while the kernel before makes the input.
  int64_t k0 = slice * 256 + lane() * 8;
  load_weights(k0);
  wait_for_earlier();
  while (k0 < m.k) {
    INFERNEO_UNROLL
    for (int c = 0; c < 2; ++c) {
      const int64_t k = k0 + c * step;
      if (k >= m.k) continue;
      float wide[2][8];
      w[c][0].unpack(wide[0]);
      w[c][1].unpack(wide[1]);
      INFERNEO_UNROLL
      for (int r = 0; r < kRows; ++r) {
        Eight<kInput> in;
        in.load_input(m.x, min_of(r, m.rows - 1) * m.x_stride + k);
        float x[8];
        in.unpack(x);
        INFERNEO_UNROLL
        for (int i = 0; i < 8; ++i) {
          acc[r][0] += wide[0][i] * x[i];
          acc[r][1] += wide[1][i] * x[i];
        }
      }
    }
    k0 += 2 * step;
    if (k0 < m.k) load_weights(k0);
  }
  INFERNEO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    acc[r][0] = warp_sum(acc[r][0]);
    acc[r][1] = warp_sum(acc[r][1]);
  }
  if (args.k_split > 1) {
    if (lane() == 0) {
      INFERNEO_UNROLL
      for (int r = 0; r < kRows; ++r) {
        partial[warp()][2 * r] = acc[r][0];
        partial[warp()][2 * r + 1] = acc[r][1];
      }
    }
    sync_block();
    INFERNEO_UNROLL
    for (int r = 0; r < kRows; ++r) {
      acc[r][0] = 0.0F;
      acc[r][1] = 0.0F;
      for (int s = 0; s < args.k_split; ++s) {
        acc[r][0] += partial[warp() - slice + s][2 * r];
        acc[r][1] += partial[warp() - slice + s][2 * r + 1];
      }
    }
  }
  if (slice != 0 || lane() != 0 || !has0) return;
  INFERNEO_UNROLL
  for (int r = 0; r < kRows; ++r) {
    if (r >= m.rows) continue;
    if (gated) {
      const float bias0 = m.bias != nullptr ? m.bias[row0] : 0.0F;
      const float bias1 = m.bias != nullptr ? m.bias[row1] : 0.0F;
      const float value = activate(args.act, acc[r][0] + bias0) * (acc[r][1] + bias1);
      store_elem(args.gated_out, args.gated_elem, r * args.gated_stride + pair, value);
    } else {
      put_product(m, r, row0, acc[r][0]);
      if (has1) put_product(m, r, row1, acc[r][1]);
    }
  }
}

template <Elem kWeight>
INFERNEO_DEVICE void gemv_rows(const GemvArgs& args) {
  if (args.m.rows <= 1) {
    gemv<kWeight, 1>(args);
  } else if (args.m.rows == 2) {
    gemv<kWeight, 2>(args);
  } else {
    gemv<kWeight, kMaxGemvRows>(args);
  }
}

// One kernel per number of rows, so that one row does not pay for the registers of four.
INFERNEO_EARLY_KERNEL(inferneo_gemv_bf16_1, GemvArgs, kGemvThreads) { gemv<Elem::bf16, 1>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_bf16_2, GemvArgs, kGemvThreads) { gemv<Elem::bf16, 2>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_bf16_4, GemvArgs, kGemvThreads) { gemv<Elem::bf16, 4>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_f32, GemvArgs, kGemvThreads) { gemv_rows<Elem::f32>(args); }
INFERNEO_EARLY_KERNEL(inferneo_gemv_f16, GemvArgs, kGemvThreads) { gemv_rows<Elem::f16>(args); }

// ---- experts --------------------------------------------------------------------------------------------------------
// Softmax over experts and the best of them, ties to the lower id. A warp per token.
INFERNEO_KERNEL(inferneo_moe_route, MoeRouteArgs, 128) {
  const int row = block_x() * (num_threads() / 32) + warp();
  if (row >= args.rows) return;
  const float* logits = args.logits + static_cast<int64_t>(row) * args.num_experts;
  int32_t* ids = args.ids + static_cast<int64_t>(row) * args.top_k;
  float* weights = args.weights + static_cast<int64_t>(row) * args.top_k;
  float largest = kNegativeInfinity;
  for (int e = lane(); e < args.num_experts; e += 32) largest = max_of(largest, logits[e]);
  largest = warp_max(largest);
  float sum = 0.0F;
  for (int e = lane(); e < args.num_experts; e += 32) sum += expf(logits[e] - largest);
  sum = warp_sum(sum);
  float last = 0.0F;  // the one chosen before: what follows is worse, or equal with a higher id
  int last_id = -1;
  float chosen = 0.0F;
  for (int j = 0; j < args.top_k; ++j) {
    float best = kNegativeInfinity;
    int best_id = args.num_experts;
    for (int e = lane(); e < args.num_experts; e += 32) {
      const bool left = last_id < 0 || logits[e] < last || (logits[e] == last && e > last_id);
      if (left && (logits[e] > best || best_id == args.num_experts)) {
        best = logits[e];
        best_id = e;
      }
    }
    for (int mask = 16; mask > 0; mask >>= 1) {
      const float other = shuffle_xor(best, mask);
      const int other_id = shuffle_xor(best_id, mask);
      const bool is_better = other_id < args.num_experts && (best_id == args.num_experts || other > best ||
                                                             (other == best && other_id < best_id));
      if (is_better) {
        best = other;
        best_id = other_id;
      }
    }
    last = best;
    last_id = best_id;
    const float weight = expf(best - largest) / sum;
    chosen += weight;
    if (lane() == 0) {
      // Logits that are not numbers choose nobody: any expert will do, since the row's result is refused later.
      ids[j] = min_of(best_id, args.num_experts - 1);
      weights[j] = weight;
    }
  }
  sync_warp();
  if (!args.renormalize) return;
  for (int j = lane(); j < args.top_k; j += 32) weights[j] /= chosen;
}

// One block. A thread per expert counts, one adds up, a thread per expert fills: tokens stay in order.
INFERNEO_KERNEL(inferneo_moe_group, MoeGroupArgs, 256) {
  const int pairs = args.rows * args.top_k;
  for (int e = thread(); e < args.num_experts; e += num_threads()) {
    int count = 0;
    for (int i = 0; i < pairs; ++i) count += args.ids[i] == e ? 1 : 0;
    args.expert_begin[e + 1] = count;
  }
  sync_block();
  if (thread() == 0) {
    args.expert_begin[0] = 0;
    for (int e = 0; e < args.num_experts; ++e) args.expert_begin[e + 1] += args.expert_begin[e];
  }
  sync_block();
  for (int e = thread(); e < args.num_experts; e += num_threads()) {
    int slot = args.expert_begin[e];
    for (int i = 0; i < pairs; ++i) {
      if (args.ids[i] != e) continue;
      args.token_of_slot[slot] = i / args.top_k;
      args.slots[i] = slot++;
    }
  }
}

INFERNEO_KERNEL(inferneo_moe_combine, MoeCombineArgs, 256) {
  const int row = block_y();
  const int64_t c = static_cast<int64_t>(block_x()) * num_threads() + thread();
  if (c >= args.dim) return;
  float sum = 0.0F;
  for (int j = 0; j < args.top_k; ++j) {
    const int64_t slot = args.slots[row * args.top_k + j];
    sum += args.weights[row * args.top_k + j] * args.y[slot * args.dim + c];
  }
  float* out = args.out + row * args.dim + c;
  *out = (args.accumulate ? *out : 0.0F) + args.scale * sum;
}

}  // namespace inferneo::cuda
