// What lies inside one block of the paged key/value cache. The engine counts blocks and bytes; only kernels read this.
//
// One plane per group of layers with equal window. Block b starts at plane + b * bytes_per_block() and holds, for every
// layer of the group and every key/value head, a K region and a V region, each a multiple of 64 bytes:
//   block   [layer][kv_head]{K, V}
//   K bf16  [block_size/tile][head_dim/2][tile][2]   K others  [block_size/tile][head_dim][tile]
//   V bf16  [block_size/2][head_dim][2]              V others  [block_size][head_dim]
// i8 and f8_e4m3 have after the values of a region, at the next multiple of 64 bytes, one f32 scale per token: an
// element is its value times that, and the scale is the token's largest magnitude over the largest code (127, 448).
// e4m3 could do without (peers leave it at one unless it is calibrated), and loses less with it: on the bundled models
// (docs/quantization.md) the KL divergence is 0.00052, 0.00077 and 0.0018, with a scale of one 0.00062, 0.00094 and
// 0.0027, since small values fall among the subnormal codes. And no key is too large, for 1/16 or 1/32 more memory.
// tile = min(kKvTileTokens, block_size): a register holds one or two dimensions of 16 tokens, so q.K needs no
// horizontal sum, and V's token pairs feed the bf16 dot product. block_size is rounded up to whole tiles inside a
// block, head_dim of bf16 K to even, block_size of bf16 V to even; a slot format (block_size = a whole sequence) uses
// the same formulas. Blocks of a multiple of kKvTileTokens take the fast paths; a slot format rounds its length up to
// one. Elements of tokens that were never written may hold anything, NaN included; no kernel lets them reach a result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace inferneo::kernels {

inline constexpr int32_t kKvTileTokens = 16;

struct KvLayout {
  DType dtype = DType::bf16;  // f32, bf16, f16, i8 or f8_e4m3
  int32_t num_layers = 0;     // of this group
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_size = 16;  // tokens

  [[gnu::always_inline]] int64_t element_bytes() const { return dtype == DType::f32 ? 4 : has_scales() ? 1 : 2; }
  [[gnu::always_inline]] bool has_scales() const { return dtype == DType::i8 || dtype == DType::f8_e4m3; }
  [[gnu::always_inline]] int64_t pair() const { return dtype == DType::bf16 ? 2 : 1; }
  [[gnu::always_inline]] int64_t tile() const { return block_size < kKvTileTokens ? block_size : kKvTileTokens; }
  [[gnu::always_inline]] int64_t padded_head_dim() const { return (head_dim + pair() - 1) / pair() * pair(); }  // of K

  // From the start of a region to its scales, where there are any.
  [[gnu::always_inline]] size_t k_scales() const {
    return align64(padded_tokens() * padded_head_dim() * element_bytes());
  }
  [[gnu::always_inline]] size_t v_scales() const {
    const int64_t tokens = (block_size + pair() - 1) / pair() * pair();
    return align64(tokens * head_dim * element_bytes());
  }
  [[gnu::always_inline]] size_t k_bytes() const { return k_scales() + scale_bytes(); }
  [[gnu::always_inline]] size_t v_bytes() const { return v_scales() + scale_bytes(); }
  [[gnu::always_inline]] size_t bytes_per_block() const {
    return (k_bytes() + v_bytes()) * static_cast<size_t>(num_kv_heads) * static_cast<size_t>(num_layers);
  }
  // Byte offsets of the regions of (layer of the group, head) from the start of a block.
  [[gnu::always_inline]] size_t k_offset(int32_t layer, int32_t head) const {
    return (static_cast<size_t>(layer) * static_cast<size_t>(num_kv_heads) + static_cast<size_t>(head)) *
           (k_bytes() + v_bytes());
  }
  [[gnu::always_inline]] size_t v_offset(int32_t layer, int32_t head) const {
    return k_offset(layer, head) + k_bytes();
  }

  // Index of an element within its region, in elements.
  [[gnu::always_inline]] int64_t k_index(int64_t token, int64_t dim) const {
    const int64_t t = tile();
    const int64_t first = token / t * t * padded_head_dim();
    return dtype == DType::bf16 ? first + (dim / 2) * t * 2 + (token % t) * 2 + dim % 2 : first + dim * t + token % t;
  }
  [[gnu::always_inline]] int64_t v_index(int64_t token, int64_t dim) const {
    return dtype == DType::bf16 ? (token / 2 * head_dim + dim) * 2 + token % 2 : token * head_dim + dim;
  }

 private:
  [[gnu::always_inline]] int64_t padded_tokens() const { return (block_size + tile() - 1) / tile() * tile(); }
  [[gnu::always_inline]] size_t scale_bytes() const { return has_scales() ? align64(padded_tokens() * 4) : 0; }
  [[gnu::always_inline]] static size_t align64(int64_t bytes) { return static_cast<size_t>((bytes + 63) / 64 * 64); }
};

}  // namespace inferneo::kernels
