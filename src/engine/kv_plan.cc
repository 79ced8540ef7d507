#include "engine/kv_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "engine/draft_model.h"
#include "tensor/memory.h"

namespace inferneo {
namespace {

constexpr double kShareOfWhatIsLeft = 0.9;  // the rest is for workspaces that are booked after this
constexpr int32_t kTypicalWindows = 4;      // a typical context, in windows, where layers differ in their window

size_t bytes_for(const KvCacheConfig& cache, int32_t num_tokens) {
  size_t bytes = 0;
  for (const KvGroupConfig& group : cache.groups) {
    bytes +=
        static_cast<size_t>(max_blocks_held(group, num_tokens, cache.max_tokens_in_flight)) * group.bytes_per_block;
  }
  return bytes;
}

bool fits(const KvCacheConfig& cache, int32_t num_tokens) {
  return std::ranges::all_of(cache.groups, [&](const KvGroupConfig& group) {
    return max_blocks_held(group, num_tokens, cache.max_tokens_in_flight) <= group.capacity;
  });
}

// The largest value in [0, limit] for which a monotone predicate holds; it holds for 0.
template <typename Predicate>
int32_t largest(int32_t limit, Predicate holds) {
  int32_t low = 0;
  while (low < limit) {
    const int32_t middle = low + (limit - low + 1) / 2;
    if (holds(middle)) {
      low = middle;
    } else {
      limit = middle - 1;
    }
  }
  return low;
}

Error bad(std::string message, std::string param) {
  return make_error(ErrorCode::invalid_argument, std::move(message), std::move(param));
}

Status check_config(const EngineCoreConfig& config, const ModelSpec& model, const KvCacheSpec& spec) {
  if (config.max_num_seqs < 1) return bad("max_num_seqs must be at least 1", "max_num_seqs");
  if (config.max_num_batched_tokens < config.max_num_seqs) {
    return bad(fmt::format("max_num_batched_tokens ({}) must be at least max_num_seqs ({}), or sequences would starve",
                           config.max_num_batched_tokens, config.max_num_seqs),
               "max_num_batched_tokens");
  }
  if (config.max_prefill_tokens_beside_decode < 1) {
    return bad("max_prefill_tokens_beside_decode must be at least 1", "max_prefill_tokens_beside_decode");
  }
  if (config.prefill_pack_tokens < 1) return bad("prefill_pack_tokens must be at least 1", "prefill_pack_tokens");
  if (config.max_model_len < 0) return bad("max_model_len must not be negative", "max_model_len");
  if (model.max_position > 0 && config.max_model_len > model.max_position) {
    return bad(fmt::format("max_model_len {} exceeds the model's longest context of {} tokens", config.max_model_len,
                           model.max_position),
               "max_model_len");
  }
  if (model.max_position <= 0 && config.max_model_len == 0) {
    return bad("the model does not state its longest context: give max_model_len", "max_model_len");
  }
  if (spec.groups.empty()) return bad("the runner describes no KV cache group", "");
  if (!config.num_kv_blocks.empty() && config.num_kv_blocks.size() != spec.groups.size()) {
    return bad(fmt::format("num_kv_blocks has {} entries, the model has {} KV groups", config.num_kv_blocks.size(),
                           spec.groups.size()),
               "num_kv_blocks");
  }
  for (const KvGroupSpec& group : spec.groups) {
    if (group.block_size < 1 || group.window < 0) return bad("the runner describes an impossible KV group", "");
  }
  return ok_status();
}

KvCacheConfig make_cache(const EngineCoreConfig& config, const KvCacheSpec& spec, int max_in_flight) {
  KvCacheConfig cache;
  cache.enable_prefix_caching = config.enable_prefix_caching && config.enable_paged_attention && !spec.slots;
  cache.max_tokens_in_flight = config.max_num_batched_tokens * std::max(1, max_in_flight);
  for (const KvGroupSpec& group : spec.groups) {
    KvGroupConfig g;
    g.block_size = group.block_size;
    g.window = group.window;
    g.bytes_per_block = 0;
    size_t largest_plane = 1;
    for (const KvPlaneSpec& plane : group.planes) {
      g.bytes_per_block += plane.bytes_per_block;
      largest_plane = std::max(largest_plane, plane.bytes_per_block);
    }
    g.bytes_per_block = std::max<size_t>(1, g.bytes_per_block);
    g.grow_step = static_cast<int32_t>(std::clamp<size_t>(kHugePage / largest_plane, 1, 4096));
    cache.groups.push_back(g);
  }
  return cache;
}

// Each group gets what one longest sequence needs; what is left is split as typical contexts need it.
void share_bytes(KvCacheConfig& cache, size_t max_bytes, int32_t longest) {
  int32_t typical = longest;
  for (const KvGroupConfig& group : cache.groups) {
    if (group.window > 0) typical = std::min<int64_t>(typical, int64_t{kTypicalWindows} * group.window);
  }
  const double spare = static_cast<double>(max_bytes - std::min(max_bytes, bytes_for(cache, longest)));
  const double contexts = spare / static_cast<double>(bytes_for(cache, std::max(1, typical)));
  for (KvGroupConfig& group : cache.groups) {
    const double more = contexts * max_blocks_held(group, std::max(1, typical), cache.max_tokens_in_flight);
    const double blocks = max_blocks_held(group, longest, cache.max_tokens_in_flight) + more;
    group.capacity = static_cast<int32_t>(std::clamp(blocks, 1.0, 2e9));
  }
}

}  // namespace

Result<KvPlan> plan_kv(const EngineCoreConfig& config, const ModelSpec& model, const KvCacheSpec& spec,
                       int max_in_flight, size_t available_bytes) {
  RETURN_IF_ERROR(check_config(config, model, spec));
  KvPlan plan;
  plan.cache = make_cache(config, spec, max_in_flight);
  const bool whole_sequences = spec.slots || !config.enable_paged_attention;
  int32_t longest = config.max_model_len > 0 ? config.max_model_len : model.max_position;
  for (const KvGroupSpec& group : spec.groups) {
    if (!whole_sequences || group.block_size >= longest) continue;
    if (config.max_model_len > 0) {
      return bad(
          fmt::format("with one block per sequence a block must hold max_model_len {} tokens, the runner's holds {}",
                      longest, group.block_size),
          spec.slots ? "max_model_len" : "enable_paged_attention");
    }
    longest = std::min(longest, group.block_size);
  }

  if (!config.num_kv_blocks.empty()) {
    for (size_t g = 0; g < plan.cache.groups.size(); ++g) {
      if (config.num_kv_blocks[g] < 1) return bad("num_kv_blocks must be at least 1", "num_kv_blocks");
      plan.cache.groups[g].capacity = config.num_kv_blocks[g];
    }
    plan.context_limit = largest(longest, [&](int32_t n) { return fits(plan.cache, n); });
  } else {
    const size_t left = static_cast<size_t>(kShareOfWhatIsLeft * static_cast<double>(available_bytes));
    const size_t useful = bytes_for(plan.cache, longest) * static_cast<size_t>(config.max_num_seqs);
    const size_t max_bytes = config.max_kv_bytes > 0 ? config.max_kv_bytes : std::min(left, useful);
    plan.context_limit = largest(longest, [&](int32_t n) { return bytes_for(plan.cache, n) <= max_bytes; });
    share_bytes(plan.cache, max_bytes, plan.context_limit);
  }
  if (plan.context_limit < 2) {
    return make_error(
        ErrorCode::out_of_memory,
        fmt::format("{}: no room for a KV cache: a block takes {} bytes; raise max_memory_gb or max_kv_bytes",
                    config.model, bytes_for(plan.cache, 1)));
  }
  plan.max_model_len = config.max_model_len > 0 ? config.max_model_len : plan.context_limit;
  const double minimum = static_cast<double>(config.min_kv_bytes) / static_cast<double>(bytes_for(plan.cache, longest));
  for (KvGroupConfig& group : plan.cache.groups) {
    const double blocks = minimum * max_blocks_held(group, longest, plan.cache.max_tokens_in_flight);
    group.min_blocks = static_cast<int32_t>(std::min<double>(group.capacity, blocks));
  }
  return plan;
}

double draft_share(const KvCacheSpec& model, const KvCacheSpec& draft) {
  const auto bytes_per_token = [](const KvCacheSpec& spec) {
    double bytes = 0.0;
    for (const KvGroupSpec& group : spec.groups) {
      for (const KvPlaneSpec& plane : group.planes) {
        bytes += static_cast<double>(plane.bytes_per_block) / std::max(1, group.block_size);
      }
    }
    return std::max(bytes, 1e-9);
  };
  const double of_draft = bytes_per_token(draft);
  return of_draft / (of_draft + bytes_per_token(model));
}

Result<KvPlan> plan_draft_kv(const EngineCoreConfig& config, const KvPlan& of_model, const ModelSpec& draft,
                             const KvCacheSpec& spec, int max_in_flight, size_t available_bytes) {
  EngineCoreConfig own = config;
  own.max_num_seqs = std::min(config.max_num_seqs, DraftModel::kMaxSequences);
  own.max_num_batched_tokens = DraftModel::kMaxTokens;
  own.max_model_len = of_model.context_limit;
  if (draft.max_position > 0) own.max_model_len = std::min(own.max_model_len, draft.max_position);
  own.min_kv_bytes = 0;
  own.num_kv_blocks.clear();
  Result<KvPlan> plan = plan_kv(own, draft, spec, max_in_flight, available_bytes);
  if (plan.ok()) return plan;
  Error error = std::move(plan).error();
  error.message = fmt::format("its draft model: {}", error.message);
  return error;
}

}  // namespace inferneo
