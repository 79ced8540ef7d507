// Arguments of the CUDA kernels: one plain struct per kernel, passed by value, the same for the host that launches and
// the device that runs. Pointers are device addresses unless they say otherwise; strides count elements.
//
// Semantics are those of kernels/op_args.h, matmul_args.h and attention_args.h: sums, norms and softmax in f32, inputs
// of bf16 weights rounded to bf16 once, inputs of f16 and f32 weights f32. Inputs of quantised weights are rounded to
// bf16 too, not to 8 bits as on the host. What differs is the layout: weights are plain rows [N, K], or the panels of
// quant_layout.h, and vectors that a matrix product reads ("operands") are written in the type that it reads.
//
// Operands and weights have rows of padded_cols() elements, so that every row begins at a multiple of 16 bytes; the
// padding is zero.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define INFERNEO_BOTH __host__ __device__
#else
#define INFERNEO_BOTH
#endif

namespace inferneo::cuda {

// i8, i4 and e4m3 are quantised weights (quant_layout.h); i8 and e4m3 are types of caches, too.
enum class Elem : uint8_t { f32, bf16, f16, i8, i4, e4m3 };

// A byte is a code, which means nothing without its scale.
INFERNEO_BOTH constexpr bool is_byte(Elem elem) { return elem == Elem::i8 || elem == Elem::e4m3; }
// Not of i4, whose elements share bytes.
INFERNEO_BOTH constexpr int64_t elem_bytes(Elem elem) { return elem == Elem::f32 ? 4 : is_byte(elem) ? 1 : 2; }
INFERNEO_BOTH constexpr int64_t padded_cols(int64_t cols) { return (cols + 7) / 8 * 8; }
// What a product with such weights reads.
INFERNEO_BOTH constexpr Elem operand_of(Elem weight) {
  return weight == Elem::f32 || weight == Elem::f16 ? Elem::f32 : Elem::bf16;
}

// hidden[r] = scale * table[token] (+ positions_table[position]). A token below zero is -1 - i: sampled[i].
struct EmbedArgs {
  const void* table;           // [vocab, padded dim], or panels of quantised rows
  const void* position_table;  // [positions, padded dim] or null
  const int32_t* tokens;       // [rows]
  const int32_t* sampled;      // tokens chosen by earlier steps
  const int32_t* positions;    // [rows]
  float* out;                  // [rows, dim]
  int64_t dim;
  int32_t rows;
  int32_t vocab;
  int32_t num_positions;
  float scale;
  Elem elem;
  Elem position_elem;
};

enum class Norm : uint8_t { rms, layer };

// Row r reads x[row_index ? row_index[r] : r]. Either `out` gets the normed row as an operand (or f32), or it is added,
// times residual_scale, to `residual`.
struct NormArgs {
  const float* x;  // [*, dim]
  int64_t x_stride;
  const int32_t* row_index;  // [rows] or null
  const float* weight;       // [dim] or null
  const float* bias;         // [dim] or null
  void* out;                 // [rows, out_width]; what is behind dim is zeroed
  int64_t out_stride;
  int64_t out_width;
  float* residual;  // [rows, dim] or null
  int64_t residual_stride;
  int64_t dim;
  int32_t rows;
  float eps;
  float weight_offset;
  float residual_scale;
  Norm kind;
  Elem out_elem;
};

enum class Act : uint8_t { silu, gelu_tanh, gelu_erf, relu };

// out = act(gate) * up, an operand. Row r of x holds gate, and `up` stands up_offset elements behind it; up_offset 0:
// no gate, out = act(x).
struct ActivationArgs {
  const float* x;
  int64_t x_stride;
  int64_t up_offset;
  void* out;  // [rows, out_stride]; the tail is zeroed
  int64_t out_stride;
  int64_t dim;
  int32_t rows;
  Act kind;
  Elem out_elem;
};

// x as an operand: conversion and padding only.
struct ConvertArgs {
  const float* x;
  int64_t x_stride;
  void* out;
  int64_t out_stride;
  int64_t dim;
  int32_t rows;
  Elem out_elem;
};

// Cosines and sines of a step's positions. Dynamic NTK (original_max > 0): from that position on the base grows.
struct RopeTableArgs {
  const int32_t* positions;  // [rows]
  const float* inverse;      // [half]
  float* cosines;            // [rows, half]
  float* sines;              // [rows, half]
  double theta;
  double factor;
  int32_t rows;
  int32_t half;
  int32_t dynamic_original_max;  // 0: static frequencies
  float attention_factor;
};

// What lies inside a block of the cache: [layer][kv_head]{K [block_size][padded head_dim], V the same}, each region a
// multiple of 64 bytes. i8 and e4m3 have after the values of a region, at the next multiple of 64 bytes, an f32 scale
// per token, as kernels/kv_layout.h says; their dimensions stand in fours as 0 2 1 3, as tensor cores take them
// (quant_layout.h).
struct KvLayout {
  int32_t num_layers;
  int32_t num_kv_heads;
  int32_t head_dim;
  int32_t block_size;
  Elem elem;

  INFERNEO_BOTH constexpr bool has_scales() const { return is_byte(elem); }
  // A multiple of 16 bytes.
  INFERNEO_BOTH constexpr int64_t row_elements() const {
    return has_scales() ? (head_dim + 15) / 16 * 16 : padded_cols(head_dim);
  }
  INFERNEO_BOTH constexpr int64_t scales_at() const {
    return (block_size * row_elements() * elem_bytes(elem) + 63) / 64 * 64;
  }
  INFERNEO_BOTH constexpr int64_t region_bytes() const {
    return scales_at() + (has_scales() ? (int64_t{block_size} * 4 + 63) / 64 * 64 : 0);
  }
  INFERNEO_BOTH constexpr int64_t bytes_per_block() const { return 2 * region_bytes() * num_kv_heads * num_layers; }
  INFERNEO_BOTH constexpr int64_t k_offset(int32_t layer, int32_t head) const {
    return 2 * region_bytes() * (static_cast<int64_t>(layer) * num_kv_heads + head);
  }
  INFERNEO_BOTH constexpr int64_t v_offset(int32_t layer, int32_t head) const {
    return k_offset(layer, head) + region_bytes();
  }
  // Where dimension d of a row stands in it.
  INFERNEO_BOTH constexpr int32_t place_of(int32_t d) const {
    return has_scales() ? d / 4 * 4 + d % 2 * 2 + d / 2 % 2 : d;
  }
};

// The batch as kernels see it, of one KV group.
struct BatchView {
  const int32_t* positions;    // [rows]
  const int32_t* sequence_of;  // [rows]
  const int32_t* table_begin;  // [sequences] where a sequence's blocks begin in `tables`
  const int32_t* tables;       // ragged
};

// Behind the product with q, k and v: norms over heads, rotation, and the keys and values into the cache. q stays in
// place, in f32. A warp per (row, head).
struct QkvArgs {
  float* qkv;  // [rows, (heads + 2 kv_heads) * head_dim]
  int64_t stride;
  const float* q_norm;  // [head_dim] or null: no norm over heads
  const float* k_norm;
  const float* cosines;  // [rows, half] or null: no rotation
  const float* sines;
  BatchView batch;
  KvLayout layout;
  uint8_t* plane;
  int32_t layer;
  int32_t rows;
  int32_t num_heads;
  int32_t half;
  float norm_eps;
  float norm_offset;
  Norm norm_kind;
};

// A piece of attention: rows of num_queries queries times the heads of a group, over tokens [token_begin, token_end).
struct AttentionItem {
  int32_t sequence;
  int32_t row;  // of the first query, in the batch
  int32_t num_queries;
  int32_t position;  // of the first query
  int32_t kv_head;
  int32_t token_begin;
  int32_t token_end;
  int32_t job;  // of the merge, -1: this item sees all of its tokens
};

// Items [first_item, first_item + num_items) of one tile, whose partial results the one that ends last merges.
struct AttentionJob {
  int32_t first_item;
  int32_t num_items;
};

struct AttentionArgs {
  const float* q;  // [rows, heads * head_dim] within qkv
  int64_t q_stride;
  void* out;  // operand [rows, out_stride]; the tail is zeroed by who owns it
  int64_t out_stride;
  const AttentionItem* items;
  const AttentionJob* jobs;
  const int32_t* counts;  // {items}
  float* partials;        // [items][kAttentionRows][head_dim + 2] as {max, sum, acc[head_dim]}
  int32_t* arrived;       // [jobs] zero before and after
  BatchView batch;
  KvLayout layout;
  const uint8_t* plane;
  int64_t partial_stride;  // floats of an item
  int32_t layer;
  int32_t num_heads;
  int32_t window;  // 0: all
  int32_t rows;    // of the batch, for the plain kernel
  float scale;
  float softcap;  // 0: none
  Elem out_elem;
};

inline constexpr int32_t kAttentionTile = 64;     // tokens that a block looks at together
inline constexpr int32_t kDecodeRows = 16;        // (query, head) rows of a decode item
inline constexpr int32_t kPrefillRows = 64;       // of a prefill item
inline constexpr int32_t kMaxHeadDim = 256;       // of the tensor-core kernels
inline constexpr int32_t kMaxPlainHeadDim = 512;  // of the plain one

// out[r] = (accumulate ? out[r] : 0) + scale * (x[r] W^T + bias).
// Experts: expert e takes rows [expert_begin[e], expert_begin[e + 1]) of out, whose inputs are x[row_index[r]] (or
// x[r]), with the weights at weight + e * expert_stride elements.
struct MatmulArgs {
  const void* x;  // operand [*, x_stride]
  int64_t x_stride;
  const void* weight;     // [n, weight_stride]; quantised: panels of 16 rows
  int64_t weight_stride;  // quantised: bytes of a panel, and expert_stride counts bytes too
  const float* bias;      // [n] or null
  float* out;
  int64_t out_stride;
  const int32_t* row_index;     // or null
  const int32_t* expert_begin;  // [experts + 1] or null
  int64_t expert_stride;
  int64_t n;
  int64_t k;
  int32_t rows;
  float scale;
  bool accumulate;
  Elem weight_elem;
};

// The product of a few rows. gated: weight holds gate rows [0, n) and up rows [n, 2n), and out is an operand of
// act(gate) * up.
struct GemvArgs {
  MatmulArgs m;
  void* gated_out;  // operand [rows, gated_stride] or null
  int64_t gated_stride;
  int32_t k_split;  // warps that share a row: 1, 2, 4 or 8
  Act act;
  Elem gated_elem;
};

inline constexpr int32_t kMaxGemvRows = 4;
inline constexpr int32_t kMaxQuantGemvRows = 16;  // of quantised weights: the columns of two mma

// out += scale * bias, for products made by a library.
struct BiasArgs {
  float* out;
  int64_t out_stride;
  const float* bias;
  int64_t n;
  int32_t rows;
  float scale;
};

struct MoeRouteArgs {
  const float* logits;  // [rows, experts]
  int32_t* ids;         // [rows, top_k]
  float* weights;       // [rows, top_k]
  int32_t rows;
  int32_t num_experts;
  int32_t top_k;
  bool renormalize;
};

// As kernels::moe_group. One block.
struct MoeGroupArgs {
  const int32_t* ids;      // [rows, top_k]
  int32_t* expert_begin;   // [experts + 1]
  int32_t* token_of_slot;  // [rows * top_k]
  int32_t* slots;          // [rows, top_k]
  int32_t rows;
  int32_t num_experts;
  int32_t top_k;
};

struct MoeCombineArgs {
  const float* y;  // [rows * top_k, dim]
  const int32_t* slots;
  const float* weights;
  float* out;  // [rows, dim]
  int64_t dim;
  int32_t rows;
  int32_t top_k;
  float scale;
  bool accumulate;
};

// x = softcap * tanh(x / softcap), in place.
struct SoftcapArgs {
  float* x;
  int64_t count;
  float softcap;
};

// ---- sampling -------------------------------------------------------------------------------------------------------
inline constexpr int32_t kMaxTopLogprobs = 20;
inline constexpr int32_t kScanParts = 16;  // blocks that look at one row

// A change of one logit, in the order of logits_processors(): ban, bias, repetition, presence, frequency.
struct LogitEdit {
  int32_t token;
  int32_t count;  // in the output; 0: no presence and frequency penalty
  float bias;
  uint32_t flags;  // kEditBan, kEditRepeat
};
inline constexpr uint32_t kEditBan = 1;
inline constexpr uint32_t kEditRepeat = 2;

struct SampleRow {
  uint64_t seed;
  int64_t position;  // that the token will have
  int32_t edit_begin;
  int32_t edit_count;
  int32_t mask_begin;  // of its words in `masks`; -1: none
  int32_t mask_words;
  int32_t top_k;         // 0: all
  int32_t num_logprobs;  // -1: none wanted
  float temperature;     // 0: greedy
  float top_p;
  float min_p;
  float typical_p;
  float repetition;
  float presence;
  float frequency;
  int32_t padding;
};

enum SampleStatus : int32_t { kSampleOk = 0, kSampleNan = 1, kSampleInfinite = 2, kSampleNothing = 3 };

struct SampleResult {
  int32_t token;
  int32_t status;
  int32_t num_top;
  float logprob;
  int32_t top_tokens[kMaxTopLogprobs];
  float top_logprobs[kMaxTopLogprobs];
};

struct RowPart {  // of a row's scan
  float max;
  float sum;  // of exp(x - max)
  int32_t argmax;
  int32_t has_nan;
};

struct SampleArgs {
  float* logits;  // [rows, vocab], changed
  int64_t vocab;
  const SampleRow* samples;  // [rows]
  const LogitEdit* edits;
  float* edited;  // [edits] the logits as they came, for logprobs
  const uint32_t* masks;
  RowPart* raw;           // [rows, kScanParts] of the row as it came
  RowPart* parts;         // [rows, kScanParts] of the row as it is drawn from
  SampleResult* results;  // [rows]
  int32_t* sampled;       // [rows] the tokens for the steps that run ahead
  int32_t rows;
  bool processed;  // second scan, behind the processors
};

// ---- measuring ------------------------------------------------------------------------------------------------------
struct CopyArgs {
  const void* from;
  void* to;
  int64_t bytes;  // a multiple of 16
};
// Pseudo-random values in (-range, range), the same for the same seed.
struct FillArgs {
  void* out;
  int64_t count;
  uint64_t seed;
  float range;
  Elem elem;
};

}  // namespace inferneo::cuda
