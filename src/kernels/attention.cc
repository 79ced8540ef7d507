// The threaded attention: tiles of queries per key/value head; few sequences with long contexts are cut along it.
#include <algorithm>

#include "kernels/ops.h"

namespace inferneo::kernels {
namespace {

constexpr int64_t kRowBlock = 512;
constexpr size_t kMaxPartialFloats = size_t{4} << 20;  // beyond it attention is not cut along the context

int32_t queries_per_tile(int32_t group) { return std::max(1, kAttentionRows / group); }

size_t thread_scratch_floats(int32_t group, int32_t head_dim) {
  const int32_t rows = queries_per_tile(group) * group;
  return (attention_item_scratch(rows, head_dim) + 15) / 16 * 16;
}

// Finds tile `index` of the batch: tiles count through the sequences in order.
AttentionItem tile_at(const AttentionArgs& args, int64_t index, int32_t tile_queries) {
  const SequenceRows* sequence = args.sequences.data();
  for (;; ++sequence) {
    const int64_t tiles = (sequence->num_tokens + tile_queries - 1) / tile_queries;
    if (index < tiles) break;
    index -= tiles;
  }
  AttentionItem item;
  item.sequence = sequence;
  item.query_begin = static_cast<int32_t>(index) * tile_queries;
  item.num_queries = std::min(tile_queries, sequence->num_tokens - item.query_begin);
  item.split_begin = first_split(args, item);
  item.split_end = end_split(item);
  return item;
}

// Every split of every (tile, head) is a piece of work of its own; partial results are merged in order afterwards.
void attention_split(Context& context, const AttentionArgs& args, int64_t tiles, int32_t tile_queries,
                     int64_t partial_stride, float* partials, size_t thread_floats) {
  const int32_t heads = args.layout.num_kv_heads;
  float* scratch = reinterpret_cast<float*>(context.scratch.data());
  int64_t max_splits = 0;
  for (int64_t t = 0; t < tiles; ++t) {
    const AttentionItem item = tile_at(args, t, tile_queries);
    max_splits = std::max<int64_t>(max_splits, item.split_end - item.split_begin);
  }
  const auto item_at = [&](int64_t pair) {
    AttentionItem item = tile_at(args, pair / heads, tile_queries);
    item.kv_head = static_cast<int32_t>(pair % heads);
    item.partial = partials + pair * partial_stride;
    return item;
  };
  context.session.for_chunks(tiles * heads * max_splits, [&](int64_t chunk, int thread) {
    AttentionItem item = item_at(chunk / max_splits);
    const int32_t split = item.split_begin + static_cast<int32_t>(chunk % max_splits);
    if (split >= item.split_end) return;
    item.split_begin = split;
    item.split_end = split + 1;
    context.ops.attention(args, item, scratch + static_cast<size_t>(thread) * thread_floats);
  });
  context.session.for_chunks(tiles * heads, [&](int64_t pair, int thread) {
    context.ops.attention_merge(args, item_at(pair), scratch + static_cast<size_t>(thread) * thread_floats);
  });
}

}  // namespace

size_t scratch_bytes(const ScratchNeeds& needs) {
  const int64_t rows = std::min(kRowBlock, round_up(std::max<int64_t>(1, needs.max_rows), 16));
  const size_t packed = static_cast<size_t>(rows * matmul_row_bytes(needs.max_cols));
  const size_t partial = static_cast<size_t>(needs.num_threads * kMatmulPartialFloats) * sizeof(float);
  const size_t matmul_bytes = std::max(packed + partial + 64, 2 * partial);
  if (needs.num_kv_heads <= 0) return matmul_bytes;
  const int32_t group = needs.num_heads / needs.num_kv_heads;
  const size_t threads = static_cast<size_t>(needs.num_threads) * thread_scratch_floats(group, needs.head_dim);
  const int64_t splits = needs.max_context / kAttentionSplit + 1;
  // Cutting along the context is for fewer (tile, head) pairs than 2 * threads.
  const int64_t pairs = int64_t{2} * needs.num_threads;
  const size_t partials = static_cast<size_t>(pairs * splits * queries_per_tile(group) * group * (needs.head_dim + 2));
  const size_t wanted = needs.num_threads > 1 ? threads + partials : threads;
  return std::max(matmul_bytes, std::min(wanted, threads + kMaxPartialFloats) * sizeof(float));
}

void kv_write(Context& context, const KvWriteArgs& args) {
  count_cost(context, args);
  const int64_t heads = args.layout.num_kv_heads;
  int64_t tokens = 0;
  for (const SequenceRows& rows : args.sequences) tokens += rows.num_tokens;
  if (tokens * heads * args.layout.head_dim <= 4096) {
    for (const SequenceRows& rows : args.sequences) {
      for (int32_t h = 0; h < heads; ++h) context.ops.kv_write(args, rows, h);
    }
    return;
  }
  const int64_t pieces = static_cast<int64_t>(args.sequences.size()) * heads;
  context.session.for_chunks(pieces, [&](int64_t piece, int) {
    context.ops.kv_write(args, args.sequences[static_cast<size_t>(piece / heads)], static_cast<int32_t>(piece % heads));
  });
}

void attention(Context& context, const AttentionArgs& args) {
  const KvLayout& kv = args.layout;
  INFERNEO_CHECK(kv.num_kv_heads > 0 && args.num_heads % kv.num_kv_heads == 0, "heads do not divide into groups");
  const int32_t group = args.num_heads / kv.num_kv_heads;
  const int32_t tile_queries = queries_per_tile(group);
  const int threads = context.session.num_threads();
  int64_t tiles = 0;
  int64_t splits = 0;
  for (const SequenceRows& sequence : args.sequences) {
    tiles += (sequence.num_tokens + tile_queries - 1) / tile_queries;
    splits = std::max<int64_t>(splits, (sequence.position + sequence.num_tokens - 1) / kAttentionSplit + 1);
  }
  if (tiles == 0) return;
  count_cost(context, args);
  const size_t thread_floats = thread_scratch_floats(group, kv.head_dim);
  const size_t threads_floats = static_cast<size_t>(threads) * thread_floats;
  INFERNEO_CHECK(context.scratch.size() >= threads_floats * sizeof(float), "scratch memory is too small for attention");
  float* scratch = reinterpret_cast<float*>(context.scratch.data());

  const int64_t pairs = tiles * kv.num_kv_heads;
  const int64_t partial_stride = splits * tile_queries * group * (kv.head_dim + 2);
  const size_t partial_floats = static_cast<size_t>(pairs * partial_stride);
  if (splits > 1 && threads > 1 && pairs < int64_t{2} * threads &&
      (threads_floats + partial_floats) * sizeof(float) <= context.scratch.size()) {
    attention_split(context, args, tiles, tile_queries, partial_stride, scratch + threads_floats, thread_floats);
    return;
  }
  context.session.for_chunks(pairs, [&](int64_t pair, int thread) {
    AttentionItem item = tile_at(args, pair / kv.num_kv_heads, tile_queries);
    item.kv_head = static_cast<int32_t>(pair % kv.num_kv_heads);
    context.ops.attention(args, item, scratch + static_cast<size_t>(thread) * thread_floats);
  });
}

}  // namespace inferneo::kernels
