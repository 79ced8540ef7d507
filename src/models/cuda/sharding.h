// Tensor parallelism: what each of several GPUs ("ranks") computes and keeps of one model. Pure.
//
// Attention is split by groups of heads (a key-value head and the query heads that read it), feed-forward by columns of
// its hidden layer, of every expert. So the products into them need nothing from other ranks, and those out of them
// (attention_output, down) give each rank a part of a sum: the ranks' parts are added up twice a layer. Everything else
// is kept by every rank: embeddings, norms, routers. What only logits need, rank 0 alone keeps, and it alone samples:
// no logits travel and there is one layout of them; what it costs is that one GPU reads the whole output head. Biases
// behind a sum belong to rank 0, so that they are added once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "models/decoder_spec.h"
#include "tensor/quantization.h"

namespace inferneo::cuda {

struct Rank {
  int32_t index = 0;
  int32_t size = 1;  // ranks that share the model
};

// Of one of a spec's tensors, rows and columns [begin, begin + count), counted within its binding.
struct TensorSlice {
  size_t tensor = 0;  // in DecoderSpec::tensors
  int64_t row_begin = 0;
  int64_t rows = 0;
  int64_t col_begin = 0;
  int64_t cols = 0;  // 0: a vector
};

struct Shard {
  DecoderSpec spec;  // what the rank computes, as if it were a model of its own; its `tensors` are empty
  std::vector<TensorSlice> slices;
};

// invalid_argument, with the numbers that do not divide: heads, key-value heads or a feed-forward that `size` ranks
// cannot share equally, and quantised matrices whose inputs would be cut within a group that shares a scale.
// unsupported: norms over all heads at once.
Status check_sharding(const DecoderSpec& spec, int32_t size, Quantization quantization);

// Of a spec that passes. One rank: the whole.
Shard make_shard(const DecoderSpec& spec, Rank rank);

}  // namespace inferneo::cuda
