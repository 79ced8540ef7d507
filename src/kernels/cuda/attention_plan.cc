#include "kernels/cuda/attention_plan.h"

#include <algorithm>

namespace inferneo::cuda {
namespace {

constexpr int32_t kItemsPerMultiprocessor = 2;  // blocks that a multiprocessor holds at a time

int32_t target_items(const AttentionShape& shape) { return kItemsPerMultiprocessor * shape.multiprocessors; }

bool decodes(const AttentionShape& shape, const AttentionRows& rows) {
  return shape.has_decode_tiles() && rows.num_tokens * shape.group() <= kDecodeRows;
}

struct Tiles {
  int32_t begin = 0;  // token
  int32_t end = 0;
  int32_t first = 0;  // tile
  int32_t count = 0;
};
Tiles tiles_of(const AttentionShape& shape, int32_t position, int32_t num_queries) {
  Tiles tiles;
  tiles.begin = shape.window > 0 ? std::max(0, position - shape.window + 1) : 0;
  tiles.end = position + num_queries;
  tiles.first = tiles.begin / kAttentionTile;
  tiles.count = (tiles.end + kAttentionTile - 1) / kAttentionTile - tiles.first;
  return tiles;
}

}  // namespace

// As PagedAttention::kSharedBytes: the queries, and stages of keys and values; of 8 bits one such stage, and stages of
// bytes with their scales.
int32_t attention_shared_bytes(int32_t head_dim, Elem elem, bool decode) {
  const int32_t width = head_dim <= 64 ? 64 : head_dim <= 128 ? 128 : 256;
  const int32_t rows = decode ? kDecodeRows : kPrefillRows;
  const int32_t stages = decode ? 3 : 2;
  const int32_t tiles = 2 * kAttentionTile * width * 2;
  const int32_t queries = rows * width * 2;
  return is_byte(elem) ? queries + tiles + stages * (tiles / 2 + 2 * kAttentionTile * 4) : queries + stages * tiles;
}

AttentionLimits attention_limits(const AttentionShape& shape, int32_t max_seqs, int32_t max_tokens) {
  if (!shape.has_tiles()) return {};
  AttentionLimits limits;
  // Splitting n tiles into pieces of t gives at most n / t more items than there are (sequence, head) pairs.
  limits.decode_items = max_seqs * shape.num_kv_heads + target_items(shape);
  limits.jobs = std::min(max_seqs * shape.num_kv_heads, target_items(shape));
  const int32_t queries = std::max(1, kPrefillRows / shape.group());
  limits.prefill_items = (max_tokens / queries + max_seqs) * shape.num_kv_heads;
  return limits;
}

void plan_attention(const AttentionShape& shape, std::span<const AttentionRows> sequences, AttentionPlan& plan) {
  plan.clear();
  if (!shape.has_tiles()) return;
  int64_t total = 0;
  for (const AttentionRows& rows : sequences) {
    if (decodes(shape, rows)) {
      total += int64_t{tiles_of(shape, rows.position, rows.num_tokens).count} * shape.num_kv_heads;
    }
  }
  const int64_t target = target_items(shape);
  const auto piece =
      static_cast<int32_t>(std::max<int64_t>(kLeastSplitTokens / kAttentionTile, (total + target - 1) / target));
  const int32_t tile_queries = std::max(1, kPrefillRows / shape.group());
  for (int32_t s = 0; s < static_cast<int32_t>(sequences.size()); ++s) {
    const AttentionRows& rows = sequences[static_cast<size_t>(s)];
    const bool decode = decodes(shape, rows);
    const int32_t step = decode ? rows.num_tokens : tile_queries;
    for (int32_t query = 0; query < rows.num_tokens; query += step) {
      const int32_t count = std::min(step, rows.num_tokens - query);
      const int32_t position = rows.position + query;
      const Tiles tiles = tiles_of(shape, position, count);
      const int32_t splits = decode ? (tiles.count + piece - 1) / piece : 1;
      for (int32_t head = 0; head < shape.num_kv_heads; ++head) {
        AttentionItem item{s, rows.row + query, count, position, head, tiles.begin, tiles.end, -1};
        if (!decode) {
          plan.prefill.push_back(item);
          continue;
        }
        if (splits > 1) {
          item.job = static_cast<int32_t>(plan.jobs.size());
          plan.jobs.push_back({static_cast<int32_t>(plan.decode.size()), splits});
        }
        for (int32_t i = 0; i < splits; ++i) {
          const int32_t first = tiles.first + tiles.count * i / splits;
          const int32_t last = tiles.first + tiles.count * (i + 1) / splits;
          item.token_begin = std::max(tiles.begin, first * kAttentionTile);
          item.token_end = std::min(tiles.end, last * kAttentionTile);
          plan.decode.push_back(item);
        }
      }
    }
  }
}

}  // namespace inferneo::cuda
