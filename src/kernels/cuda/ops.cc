#include "kernels/cuda/ops.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "kernels/cuda/quant_layout.h"

namespace inferneo::cuda {
namespace {

constexpr unsigned kRowThreads = 256;
constexpr unsigned kWarpsPerBlock = 4;           // of kernels that have a warp per piece
constexpr int32_t kWarpsPerMultiprocessor = 16;  // that keep enough reads in flight
constexpr int32_t kMostSplit = 8;

unsigned blocks_of(int64_t count, int64_t per_block) {
  return static_cast<unsigned>((count + per_block - 1) / per_block);
}

// What a grid's second dimension, which stands for rows, may be. A step of more tokens is launched in pieces.
constexpr int32_t kMostGridRows = 65535;
template <typename Launch>
Status in_pieces(int32_t rows, Launch launch) {
  for (int32_t first = 0; first < rows; first += kMostGridRows) {
    RETURN_IF_ERROR(launch(first, std::min(kMostGridRows, rows - first)));
  }
  return ok_status();
}

// Tile shapes of gemm.cuh and quant.cuh, smallest first. Those of a type give the same bits: the choice is one of
// speed.
struct TileKernel {
  const char* name;
  int32_t rows;
  int32_t cols;
  unsigned threads;
  unsigned shared_bytes;
};
using TileKernels = std::array<TileKernel, 3>;
constexpr TileKernels kBf16Tiles = {{{"inferneo_gemm_small", 16, 32, 128, 6 * (16 + 32) * 128},
                                     {"inferneo_gemm_middle", 64, 64, 128, 4 * (64 + 64) * 128},
                                     {"inferneo_gemm_large", 128, 128, 256, 3 * (128 + 128) * 128}}};
// Of a stage: rows of 128 bytes, and panels of 1,024 or 512 bytes with 64 bytes of scales, but for fp8.
constexpr TileKernels kInt8Tiles = {{{"inferneo_gemm_i8_small", 16, 32, 64, 8 * (16 * 128 + 2 * 1088)},
                                     {"inferneo_gemm_i8_middle", 64, 64, 128, 4 * (64 * 128 + 4 * 1088)},
                                     {"inferneo_gemm_i8_large", 128, 128, 256, 4 * (128 * 128 + 8 * 1088)}}};
constexpr TileKernels kFp8Tiles = {{{"inferneo_gemm_e4m3_small", 16, 32, 64, 8 * (16 * 128 + 2 * 1024)},
                                    {"inferneo_gemm_e4m3_middle", 64, 64, 128, 4 * (64 * 128 + 4 * 1024)},
                                    {"inferneo_gemm_e4m3_large", 128, 128, 256, 4 * (128 * 128 + 8 * 1024)}}};
constexpr TileKernels kInt4Tiles = {{{"inferneo_gemm_i4_small", 16, 32, 64, 8 * (16 * 128 + 2 * 576)},
                                     {"inferneo_gemm_i4_middle", 64, 64, 128, 4 * (64 * 128 + 4 * 576)},
                                     {"inferneo_gemm_i4_large", 128, 128, 256, 4 * (128 * 128 + 8 * 576)}}};

const TileKernels& tiles_of(Elem weight) {
  if (weight == Elem::i8) return kInt8Tiles;
  if (weight == Elem::e4m3) return kFp8Tiles;
  return weight == Elem::i4 ? kInt4Tiles : kBf16Tiles;
}

// Rows of a product that the kernels for a few rows take.
int32_t most_gemv_rows(Elem weight) { return is_quantised(weight) ? kMaxQuantGemvRows : kMaxGemvRows; }

const char* gemv_kernel(Elem weight, int32_t rows) {
  switch (weight) {
    case Elem::i8:
      return rows == 1 ? "inferneo_gemv_i8_1" : rows <= 8 ? "inferneo_gemv_i8_8" : "inferneo_gemv_i8_16";
    case Elem::i4:
      return rows == 1 ? "inferneo_gemv_i4_1" : rows <= 8 ? "inferneo_gemv_i4_8" : "inferneo_gemv_i4_16";
    case Elem::e4m3:
      return rows == 1 ? "inferneo_gemv_e4m3_1" : rows <= 8 ? "inferneo_gemv_e4m3_8" : "inferneo_gemv_e4m3_16";
    case Elem::f16:
      return "inferneo_gemv_f16";
    case Elem::bf16:
      return rows == 1 ? "inferneo_gemv_bf16_1" : rows == 2 ? "inferneo_gemv_bf16_2" : "inferneo_gemv_bf16_4";
    case Elem::f32:
      break;
  }
  return "inferneo_gemv_f32";
}

const char* plain_attention_kernel(Elem cache) {
  switch (cache) {
    case Elem::f16:
      return "inferneo_attention_plain_f16";
    case Elem::bf16:
      return "inferneo_attention_plain_bf16";
    case Elem::i8:
      return "inferneo_attention_plain_i8";
    case Elem::e4m3:
      return "inferneo_attention_plain_e4m3";
    case Elem::f32:
    case Elem::i4:  // no cache's
      break;
  }
  return "inferneo_attention_plain_f32";
}

constexpr int kTilePad = 64;  // of inferneo_gemm_plain

}  // namespace

Status Ops::embed(const EmbedArgs& args) {
  return launch("inferneo_embed", {{static_cast<unsigned>(args.rows), 1, 1}, kRowThreads, 0}, args);
}

Status Ops::norm(const NormArgs& args) {
  return launch("inferneo_norm", {{static_cast<unsigned>(args.rows), 1, 1}, kRowThreads, 0}, args);
}

Status Ops::activation(const ActivationArgs& args) {
  return launch("inferneo_activation",
                {{blocks_of(args.out_stride, kRowThreads), static_cast<unsigned>(args.rows), 1}, kRowThreads, 0}, args);
}

Status Ops::convert(const ConvertArgs& args) {
  return in_pieces(args.rows, [&](int32_t first, int32_t rows) {
    ConvertArgs piece = args;
    piece.x += first * args.x_stride;
    piece.out = static_cast<std::byte*>(args.out) + first * args.out_stride * elem_bytes(args.out_elem);
    piece.rows = rows;
    return launch("inferneo_convert",
                  {{blocks_of(args.out_stride, kRowThreads), static_cast<unsigned>(rows), 1}, kRowThreads, 0}, piece);
  });
}

Status Ops::softcap(const SoftcapArgs& args) {
  return launch("inferneo_softcap", {{blocks_of(args.count, kRowThreads), 1, 1}, kRowThreads, 0}, args);
}

Status Ops::rope_table(const RopeTableArgs& args) {
  return launch("inferneo_rope_table", {{static_cast<unsigned>(args.rows), 1, 1}, 64, 0}, args);
}

Status Ops::qkv_post(const QkvArgs& args) {
  const int64_t warps = int64_t{args.rows} * (args.num_heads + 2 * args.layout.num_kv_heads);
  return launch("inferneo_qkv_post", {{blocks_of(warps, kWarpsPerBlock), 1, 1}, kWarpsPerBlock * 32, 0}, args);
}

// Depends on the matrix alone, so that a row's sum has one order. `pieces` of the sum can be given to other warps.
int32_t Ops::k_split(int64_t pairs, int64_t pieces) const {
  const int64_t wanted = int64_t{device_.facts().multiprocessors} * kWarpsPerMultiprocessor;
  int32_t split = 1;
  while (split < kMostSplit && pairs * split < wanted && pieces >= 2 * split) split *= 2;
  return split;
}

Status Ops::gemv(const GemvArgs& args) {
  // What a warp takes two of: rows of the weight, or panels of them; and how many inputs of them at a time.
  const bool quantised = is_quantised(args.m.weight_elem);
  const int64_t units = quantised ? QuantPanels::count(args.m.n) : args.m.n;
  const int64_t piece = !quantised ? 256 : is_byte(args.m.weight_elem) ? kQuantSpan : 2 * kQuantSpan;
  const int64_t pairs = args.gated_out != nullptr ? units : (units + 1) / 2;
  GemvArgs split = args;
  split.k_split = k_split(pairs, args.m.k / piece);
  const int64_t pairs_per_block = 8 / split.k_split;
  return launch(gemv_kernel(args.m.weight_elem, args.m.rows), {{blocks_of(pairs, pairs_per_block), 1, 1}, 256, 0},
                split);
}

Status Ops::tiles(const MatmulArgs& args, int32_t rows, int32_t experts) {
  const auto layers = static_cast<unsigned>(experts);
  if (args.weight_elem == Elem::f32 || args.weight_elem == Elem::f16) {
    return launch("inferneo_gemm_plain", {{blocks_of(args.n, kTilePad), blocks_of(rows, kTilePad), layers}, 256, 0},
                  args);
  }
  // The largest tile that still gives every multiprocessor one.
  const TileKernels& kernels = tiles_of(args.weight_elem);
  const TileKernel* kernel = kernels.data();
  for (const TileKernel& larger : kernels) {
    const int64_t blocks =
        int64_t{blocks_of(args.n, larger.cols)} * blocks_of(rows, larger.rows) * std::max(1, experts / 4);
    if (rows > larger.rows / 2 && blocks >= device_.facts().multiprocessors / 2) kernel = &larger;
  }
  return launch(
      kernel->name,
      {{blocks_of(args.n, kernel->cols), blocks_of(rows, kernel->rows), layers}, kernel->threads, kernel->shared_bytes},
      args);
}

Status Ops::matmul(const MatmulArgs& args) {
  if (args.rows <= most_gemv_rows(args.weight_elem) && !options_.invariant) {
    GemvArgs few{};
    few.m = args;
    return gemv(few);
  }
  if (args.weight_elem == Elem::bf16 && options_.blas != nullptr && !options_.invariant) {
    ASSIGN_OR_RETURN(const bool done, options_.blas->matmul(args, options_.blas_workspace, options_.stream));
    if (done && args.bias == nullptr) return ok_status();
    if (done) {
      return in_pieces(args.rows, [&](int32_t first, int32_t rows) {
        const BiasArgs bias{args.out + first * args.out_stride, args.out_stride, args.bias, args.n, rows, args.scale};
        return launch("inferneo_bias",
                      {{blocks_of(args.n, kRowThreads), static_cast<unsigned>(rows), 1}, kRowThreads, 0}, bias);
      });
    }
  }
  return tiles(args, args.rows, 1);
}

Result<bool> Ops::gated_matmul(const GemvArgs& args) {
  if (args.m.rows > most_gemv_rows(args.m.weight_elem) || options_.invariant) return false;
  if (args.gated_stride != args.m.n) return false;
  if (is_quantised(args.m.weight_elem) && args.m.n % kQuantPanel != 0) return false;  // up begins within a panel
  RETURN_IF_ERROR(gemv(args));
  return true;
}

Status Ops::expert_matmul(const MatmulArgs& args, int32_t num_experts) { return tiles(args, args.rows, num_experts); }

Status Ops::moe_route(const MoeRouteArgs& args) {
  return launch("inferneo_moe_route", {{blocks_of(args.rows, kWarpsPerBlock), 1, 1}, kWarpsPerBlock * 32, 0}, args);
}

Status Ops::moe_group(const MoeGroupArgs& args) { return launch("inferneo_moe_group", {{1, 1, 1}, 256, 0}, args); }

Status Ops::moe_combine(const MoeCombineArgs& args) {
  return launch("inferneo_moe_combine",
                {{blocks_of(args.dim, kRowThreads), static_cast<unsigned>(args.rows), 1}, kRowThreads, 0}, args);
}

Status Ops::attention_items(const AttentionArgs& args, bool decode, int32_t blocks) {
  constexpr std::array<std::array<const char*, 3>, 6> kKernels = {
      {{"inferneo_attention_prefill_64", "inferneo_attention_prefill_128", "inferneo_attention_prefill_256"},
       {"inferneo_attention_decode_64", "inferneo_attention_decode_128", "inferneo_attention_decode_256"},
       {"inferneo_attention_prefill_64_i8", "inferneo_attention_prefill_128_i8", "inferneo_attention_prefill_256_i8"},
       {"inferneo_attention_decode_64_i8", "inferneo_attention_decode_128_i8", "inferneo_attention_decode_256_i8"},
       {"inferneo_attention_prefill_64_e4m3", "inferneo_attention_prefill_128_e4m3",
        "inferneo_attention_prefill_256_e4m3"},
       {"inferneo_attention_decode_64_e4m3", "inferneo_attention_decode_128_e4m3",
        "inferneo_attention_decode_256_e4m3"}}};
  const KvLayout& kv = args.layout;
  const size_t width = kv.head_dim <= 64 ? 0 : kv.head_dim <= 128 ? 1 : 2;
  const size_t kind = (kv.elem == Elem::e4m3 ? 4U : kv.elem == Elem::i8 ? 2U : 0U) + (decode ? 1U : 0U);
  const auto shared = static_cast<unsigned>(attention_shared_bytes(kv.head_dim, kv.elem, decode));
  return launch(kKernels[kind][width], {{static_cast<unsigned>(blocks), 1, 1}, 128, shared}, args);
}

Status Ops::attention_plain(const AttentionArgs& args) {
  const int64_t warps = int64_t{args.rows} * args.num_heads;
  return launch(plain_attention_kernel(args.layout.elem),
                {{blocks_of(warps, kWarpsPerBlock), 1, 1}, kWarpsPerBlock * 32, 0}, args);
}

Status Ops::sample(const SampleArgs& args, const Sampling& wanted) {
  const LaunchShape by_part{{kScanParts, static_cast<unsigned>(args.rows), 1}, kRowThreads, 0};
  const LaunchShape by_row{{static_cast<unsigned>(args.rows), 1, 1}, 512, 0};
  SampleArgs step = args;
  step.processed = false;
  RETURN_IF_ERROR(launch("inferneo_row_scan", by_part, step));
  if (wanted.top_logprobs) RETURN_IF_ERROR(launch("inferneo_top_logprobs", by_row, step));
  if (wanted.processes) {
    RETURN_IF_ERROR(launch("inferneo_process", by_part, step));
    step.processed = true;
    RETURN_IF_ERROR(launch("inferneo_row_scan", by_part, step));
  }
  return launch("inferneo_choose", by_row, step);
}

Status Ops::copy(const CopyArgs& args) {
  const auto blocks = static_cast<unsigned>(device_.facts().multiprocessors) * 4;
  return launch("inferneo_copy", {{blocks, 1, 1}, 512, 0}, args);
}

Status Ops::fill(const FillArgs& args) {
  const auto blocks = static_cast<unsigned>(device_.facts().multiprocessors) * 8;
  return launch("inferneo_fill", {{blocks, 1, 1}, 256, 0}, args);
}

}  // namespace inferneo::cuda
