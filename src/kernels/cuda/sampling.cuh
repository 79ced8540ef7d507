// From rows of logits to tokens, as models/sampling does it on the host: processors, temperature, typical_p, top_k,
// top_p, min_p, one Philox draw of (seed, position).
//
// Nothing is sorted: each filter keeps what comes first in an order, and its end is found by a radix search over the
// order's keys (four passes of 256 counters). Weights exp((x - max) / T) are counted in units of 2^-40 as integers, so
// that sums do not depend on the order in which threads add: a row's token depends on its row and parameters alone.
// Against the host, weights differ in the last bits, so a draw that falls on the border of two tokens may choose the
// other one.
#pragma once

#include "kernels/cuda/device.cuh"

namespace inferneo::cuda {

inline constexpr int kChooseThreads = 512;
inline constexpr int kChooseWarps = kChooseThreads / 32;

// Larger floats have larger keys; -0 and 0 are the same.
INFERNEO_DEVICE uint32_t ordered(float x) {
  const uint32_t bits = float_to_bits(x + 0.0F);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}

struct Span {
  int64_t begin;
  int64_t end;
};
INFERNEO_DEVICE Span part_of(int64_t vocab, int part) {
  const int64_t size = (vocab + kScanParts - 1) / kScanParts;
  return {min_of(part * size, vocab), min_of((part + 1) * size, vocab)};
}

// The better of two candidates for the largest: ties to the lower id; -1 is nobody.
INFERNEO_DEVICE bool beats(float x, int32_t id, float y, int32_t other) {
  return id >= 0 && (other < 0 || x > y || (x == y && id < other));
}

// A block per (part, row).
INFERNEO_KERNEL(inferneo_row_scan, SampleArgs, 256) {
  INFERNEO_SHARED float values[8];
  INFERNEO_SHARED int32_t ids[8];
  INFERNEO_SHARED float scratch[32];
  const int row = block_y();
  const float* x = args.logits + row * args.vocab;
  const Span span = part_of(args.vocab, block_x());
  float best = kNegativeInfinity;
  int32_t best_id = -1;
  bool has_nan = false;
  for (int64_t i = span.begin + thread(); i < span.end; i += num_threads()) {
    const float value = x[i];
    has_nan = has_nan || value != value;
    if (beats(value, static_cast<int32_t>(i), best, best_id)) {
      best = value;
      best_id = static_cast<int32_t>(i);
    }
  }
  for (int mask = 16; mask > 0; mask >>= 1) {
    const float other = shuffle_xor(best, mask);
    const int32_t other_id = shuffle_xor(best_id, mask);
    if (beats(other, other_id, best, best_id)) {
      best = other;
      best_id = other_id;
    }
  }
  if (lane() == 0) {
    values[warp()] = best;
    ids[warp()] = best_id;
  }
  has_nan = any_in_block(has_nan);
  for (int w = 0; w < num_threads() / 32; ++w) {
    if (beats(values[w], ids[w], best, best_id)) {
      best = values[w];
      best_id = ids[w];
    }
  }
  float sum = 0.0F;
  if (best > kNegativeInfinity) {
    for (int64_t i = span.begin + thread(); i < span.end; i += num_threads()) sum += expf(x[i] - best);
  }
  sum = block_sum(sum, scratch);
  if (thread() != 0) return;
  RowPart* parts = args.processed ? args.parts : args.raw;
  parts[row * kScanParts + block_x()] = RowPart{best, sum, best_id, has_nan ? 1 : 0};
}

struct RowSummary {
  float max;
  float log_sum;  // of exp(x - max)
  int32_t argmax;
  bool has_nan;
};
INFERNEO_DEVICE RowSummary summarize(const RowPart* parts) {
  RowSummary summary{kNegativeInfinity, 0.0F, -1, false};
  for (int p = 0; p < kScanParts; ++p) {
    summary.has_nan = summary.has_nan || parts[p].has_nan != 0;
    if (beats(parts[p].max, parts[p].argmax, summary.max, summary.argmax)) {
      summary.max = parts[p].max;
      summary.argmax = parts[p].argmax;
    }
  }
  float sum = 0.0F;
  for (int p = 0; p < kScanParts; ++p) {
    if (parts[p].max > kNegativeInfinity) sum += parts[p].sum * expf(parts[p].max - summary.max);
  }
  summary.log_sum = logf(sum);
  return summary;
}

INFERNEO_DEVICE float as_logprob(float logprob) {
  constexpr float kLowest = -9999.0F;  // as models/sampling/sampler.h has it
  return logprob > kLowest ? (logprob < 0.0F ? logprob : 0.0F) : kLowest;
}

// Mask, then bans, biases and penalties, each logit by the block whose part it lies in. A block per (part, row).
INFERNEO_KERNEL(inferneo_process, SampleArgs, 256) {
  const int row = block_y();
  const SampleRow& sample = args.samples[row];
  float* x = args.logits + row * args.vocab;
  const Span span = part_of(args.vocab, block_x());
  if (sample.mask_begin >= 0) {
    for (int64_t i = span.begin + thread(); i < span.end; i += num_threads()) {
      const int64_t word = i / 32;
      const uint32_t bits = word < sample.mask_words ? args.masks[sample.mask_begin + word] : 0;
      if ((bits >> (i % 32) & 1U) == 0) x[i] = kNegativeInfinity;
    }
  }
  sync_block();
  for (int e = thread(); e < sample.edit_count; e += num_threads()) {
    const LogitEdit& edit = args.edits[sample.edit_begin + e];
    if (edit.token < span.begin || edit.token >= span.end) continue;
    float value = x[edit.token];
    args.edited[sample.edit_begin + e] = value;
    if ((edit.flags & kEditBan) != 0) value = kNegativeInfinity;
    value += edit.bias;
    if ((edit.flags & kEditRepeat) != 0) value = value < 0.0F ? value * sample.repetition : value / sample.repetition;
    if (edit.count > 0) {
      value -= sample.presence;
      value -= sample.frequency * static_cast<float>(edit.count);
    }
    x[edit.token] = value;
  }
}

// ---- the search for the end of a filter -----------------------------------------------------------------------------
struct Search {
  uint64_t histogram[256];
  uint64_t below;  // weight of what comes before the key found
  uint32_t key;
};

// The smallest key such that what has it or a lower one weighs at least `target` (which is at most the whole weight):
// key_of(i), and weight_of(i), which is zero for what does not take part.
template <typename Key, typename Weight>
INFERNEO_DEVICE void search(int64_t count, uint64_t target, Search& shared, Key key_of, Weight weight_of) {
  uint32_t prefix = 0;
  uint64_t below = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int i = thread(); i < 256; i += kChooseThreads) shared.histogram[i] = 0;
    sync_block();
    for (int64_t i = thread(); i < count; i += kChooseThreads) {
      const uint64_t weight = weight_of(i);
      if (weight == 0) continue;
      const uint32_t key = key_of(i);
      const bool matches = shift == 24 || key >> (shift + 8) == prefix >> (shift + 8);
      if (matches) atomic_add(&shared.histogram[key >> shift & 255U], weight);
    }
    sync_block();
    if (thread() == 0) {
      uint32_t digit = 0;
      while (digit < 255 && below + shared.histogram[digit] < target) below += shared.histogram[digit++];
      shared.key = prefix | digit << shift;
      shared.below = below;
    }
    sync_block();
    prefix = shared.key;
    below = shared.below;
    sync_block();
  }
}

INFERNEO_DEVICE uint64_t block_total(uint64_t value, uint64_t* scratch) {
  for (int mask = 16; mask > 0; mask >>= 1) value += shuffle_xor(value, mask);
  sync_block();
  if (lane() == 0) scratch[warp()] = value;
  sync_block();
  uint64_t total = 0;
  for (int w = 0; w < kChooseWarps; ++w) total += scratch[w];
  return total;
}
INFERNEO_DEVICE double block_total(double value, double* scratch) {
  for (int mask = 16; mask > 0; mask >>= 1) value += shuffle_xor(value, mask);
  sync_block();
  if (lane() == 0) scratch[warp()] = value;
  sync_block();
  double total = 0.0;
  for (int w = 0; w < kChooseWarps; ++w) total += scratch[w];
  return total;
}

// What is left of a row, narrowed filter by filter.
struct Kept {
  const float* x;
  float max;
  float scale;            // 1 / temperature
  uint32_t order_limit;   // of ~ordered(x): lower is better
  uint32_t id_limit;      // of those at the order's limit
  uint32_t typical_limit;  // of the distance's bits
  float lowest_weight;
  double log_total;  // for the distance
  double entropy;
  bool typical;

  INFERNEO_DEVICE float weight(int64_t i) const { return expf((x[i] - max) * scale); }
  INFERNEO_DEVICE uint32_t order(int64_t i) const { return ~ordered(x[i]); }
  INFERNEO_DEVICE uint32_t distance(int64_t i) const {
    const double information = log_total - static_cast<double>(x[i] - max) * static_cast<double>(scale);
    return float_to_bits(static_cast<float>(fabs(information - entropy)));
  }
  INFERNEO_DEVICE bool holds(int64_t i) const {
    if (x[i] == kNegativeInfinity) return false;
    if (typical && distance(i) > typical_limit) return false;
    const uint32_t at = order(i);
    if (at > order_limit || (at == order_limit && static_cast<uint32_t>(i) > id_limit)) return false;
    return weight(i) >= lowest_weight;
  }
  // In units of 2^-40.
  INFERNEO_DEVICE uint64_t units(int64_t i) const {
    return holds(i) ? static_cast<uint64_t>(weight(i) * 1099511627776.0F + 0.5F) : 0;
  }
};

struct ChooseShared {
  Search search;
  uint64_t totals[kChooseWarps];
  double sums[kChooseWarps];
  float values[32];
  int32_t token;
};

// Keeps the best by (logit, lower id) until their `weight_of` reaches target.
template <typename Weight>
INFERNEO_DEVICE void keep_best(Kept& kept, int64_t vocab, uint64_t target, Search& shared, Weight weight_of) {
  search(vocab, target, shared, [&](int64_t i) { return kept.order(i); }, weight_of);
  const uint32_t limit = shared.key;
  const uint64_t needed = target - shared.below;
  sync_block();
  const auto tied = [&](int64_t i) { return kept.order(i) == limit ? weight_of(i) : uint64_t{0}; };
  search(vocab, needed, shared, [](int64_t i) { return static_cast<uint32_t>(i); }, tied);
  kept.order_limit = limit;
  kept.id_limit = shared.key;
  sync_block();
}

INFERNEO_DEVICE uint64_t total_units(const Kept& kept, int64_t vocab, ChooseShared& shared) {
  uint64_t sum = 0;
  for (int64_t i = thread(); i < vocab; i += kChooseThreads) sum += kept.units(i);
  return block_total(sum, shared.totals);
}

INFERNEO_DEVICE uint64_t units_of_share(float share, uint64_t total) {
  const double exact = static_cast<double>(share) * static_cast<double>(total);
  const auto target = static_cast<uint64_t>(ceil(exact));
  return target < 1 ? 1 : target > total ? total : target;
}

INFERNEO_DEVICE void keep_typical(Kept& kept, int64_t vocab, float mass, ChooseShared& shared) {
  double total = 0.0;
  for (int64_t i = thread(); i < vocab; i += kChooseThreads) {
    if (kept.x[i] > kNegativeInfinity) total += static_cast<double>(kept.weight(i));
  }
  total = block_total(total, shared.sums);
  kept.log_total = log(total);
  double entropy = 0.0;
  for (int64_t i = thread(); i < vocab; i += kChooseThreads) {
    const float weight = kept.x[i] > kNegativeInfinity ? kept.weight(i) : 0.0F;
    if (weight <= 0.0F) continue;
    entropy += static_cast<double>(weight) / total *
               (kept.log_total - static_cast<double>(kept.x[i] - kept.max) * static_cast<double>(kept.scale));
  }
  kept.entropy = block_total(entropy, shared.sums);
  const uint64_t units = total_units(kept, vocab, shared);
  search(vocab, units_of_share(mass, units), shared.search, [&](int64_t i) { return kept.distance(i); },
         [&](int64_t i) { return kept.units(i); });
  kept.typical_limit = shared.search.key;
  kept.typical = true;
  sync_block();
}

INFERNEO_DEVICE void keep_top_k(Kept& kept, int64_t vocab, int k, ChooseShared& shared) {
  uint64_t count = 0;
  for (int64_t i = thread(); i < vocab; i += kChooseThreads) count += kept.holds(i) ? 1 : 0;
  count = block_total(count, shared.totals);
  if (count <= static_cast<uint64_t>(k)) return;
  keep_best(kept, vocab, static_cast<uint64_t>(k), shared.search,
            [&](int64_t i) { return static_cast<uint64_t>(kept.holds(i) ? 1 : 0); });
}

INFERNEO_DEVICE void keep_min_p(Kept& kept, int64_t vocab, float p, ChooseShared& shared) {
  float best = 0.0F;
  for (int64_t i = thread(); i < vocab; i += kChooseThreads) {
    if (kept.holds(i)) best = max_of(best, kept.weight(i));
  }
  best = warp_max(best);
  sync_block();
  if (lane() == 0) shared.values[warp()] = best;
  sync_block();
  for (int w = 0; w < kChooseWarps; ++w) best = max_of(best, shared.values[w]);
  kept.lowest_weight = p * best;
  sync_block();
}

// Philox4x32-10 (Salmon et al. 2011), stream 0, as models/sampling/philox.cc. In [0, 1).
INFERNEO_DEVICE double uniform_of(uint64_t seed, uint64_t position) {
  uint32_t c0 = static_cast<uint32_t>(position);
  uint32_t c1 = static_cast<uint32_t>(position >> 32);
  uint32_t c2 = 0;
  uint32_t c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed);
  uint32_t k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53U} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  const uint64_t bits = (static_cast<uint64_t>(c0) << 32 | c1) >> 11;
  return static_cast<double>(bits) * (1.0 / 9007199254740992.0);
}

// Tokens by id: each warp adds up a piece of the row, then the warp whose piece holds the draw walks through it.
INFERNEO_DEVICE int32_t draw(const Kept& kept, int64_t vocab, double u, ChooseShared& shared) {
  const int64_t piece = ((vocab + kChooseWarps - 1) / kChooseWarps + 31) / 32 * 32;
  const int64_t begin = min_of(warp() * piece, vocab);
  const int64_t end = min_of(begin + piece, vocab);
  uint64_t sum = 0;
  for (int64_t i = begin + lane(); i < end; i += 32) sum += kept.units(i);
  for (int mask = 16; mask > 0; mask >>= 1) sum += shuffle_xor(sum, mask);
  sync_block();
  if (lane() == 0) shared.totals[warp()] = sum;
  sync_block();
  uint64_t total = 0;
  uint64_t before = 0;
  for (int w = 0; w < kChooseWarps; ++w) {
    if (w < warp()) before += shared.totals[w];
    total += shared.totals[w];
  }
  auto target = static_cast<uint64_t>(u * static_cast<double>(total));
  if (target >= total) target = total > 0 ? total - 1 : 0;
  if (target >= before && target < before + sum) {
    for (int64_t first = begin; first < end; first += 32) {
      const int64_t i = first + lane();
      const uint64_t mine = i < end ? kept.units(i) : 0;
      uint64_t upto = mine;
      for (int by = 1; by < 32; by <<= 1) {
        const uint64_t other = shuffle_up(upto, by);
        if (lane() >= by) upto += other;
      }
      const bool here = mine > 0 && target < before + upto && target >= before + upto - mine;
      const uint32_t found = ballot(here);
      if (here) shared.token = static_cast<int32_t>(i);
      if (found != 0) break;
      before += shuffle(upto, 31);
    }
  }
  sync_block();
  return shared.token;
}

// The best tokens of the row as it came, best first; before the processors change it. A block per row.
INFERNEO_KERNEL(inferneo_top_logprobs, SampleArgs, kChooseThreads) {
  INFERNEO_SHARED ChooseShared shared;
  INFERNEO_SHARED int32_t count;
  INFERNEO_SHARED int32_t ids[kMaxTopLogprobs];
  const int row = block_x();
  const int wanted = args.samples[row].num_logprobs;
  SampleResult& result = args.results[row];
  if (thread() == 0) {
    result.num_top = 0;
    count = 0;
  }
  sync_block();
  if (wanted <= 0) return;
  const RowSummary raw = summarize(args.raw + row * kScanParts);
  if (raw.has_nan || raw.argmax < 0) return;
  Kept kept{args.logits + row * args.vocab, raw.max, 1.0F, 0xffffffffU, 0xffffffffU, 0, 0.0F, 0.0, 0.0, false};
  keep_top_k(kept, args.vocab, wanted, shared);
  for (int64_t i = thread(); i < args.vocab; i += kChooseThreads) {
    if (!kept.holds(i)) continue;
    const int32_t at = atomic_fetch_add(&count, 1);
    if (at < kMaxTopLogprobs) ids[at] = static_cast<int32_t>(i);
  }
  sync_block();
  const int found = min_of(count, kMaxTopLogprobs);
  if (thread() < found) {
    const int32_t id = ids[thread()];
    const float value = kept.x[id];
    int rank = 0;
    for (int other = 0; other < found; ++other) {
      if (other != thread() && beats(kept.x[ids[other]], ids[other], value, id)) ++rank;
    }
    result.top_tokens[rank] = id;
    result.top_logprobs[rank] = as_logprob(value - raw.max - raw.log_sum);
  }
  if (thread() == 0) result.num_top = found;
}

INFERNEO_DEVICE int32_t choose_token(const SampleArgs& args, const SampleRow& sample, const RowSummary& last, int row,
                                     ChooseShared& shared) {
  if (sample.temperature <= 0.0F) return last.argmax;
  if (thread() == 0) shared.token = last.argmax;
  Kept kept{args.logits + row * args.vocab, last.max, 1.0F / sample.temperature, 0xffffffffU, 0xffffffffU, 0, 0.0F,
            0.0, 0.0, false};
  if (sample.typical_p < 1.0F) keep_typical(kept, args.vocab, sample.typical_p, shared);
  if (sample.top_k > 0 && sample.top_k < args.vocab) keep_top_k(kept, args.vocab, sample.top_k, shared);
  if (sample.top_p < 1.0F) {
    const uint64_t total = total_units(kept, args.vocab, shared);
    keep_best(kept, args.vocab, units_of_share(sample.top_p, total), shared.search,
              [&](int64_t i) { return kept.units(i); });
  }
  if (sample.min_p > 0.0F) keep_min_p(kept, args.vocab, sample.min_p, shared);
  return draw(kept, args.vocab, uniform_of(sample.seed, static_cast<uint64_t>(sample.position)), shared);
}

// A block per row.
INFERNEO_KERNEL(inferneo_choose, SampleArgs, kChooseThreads) {
  INFERNEO_SHARED ChooseShared shared;
  const int row = block_x();
  const SampleRow sample = args.samples[row];
  SampleResult& result = args.results[row];
  const RowSummary raw = summarize(args.raw + row * kScanParts);
  const RowSummary last = args.processed ? summarize(args.parts + row * kScanParts) : raw;
  int32_t status = kSampleOk;
  if (raw.has_nan || last.has_nan) {
    status = kSampleNan;
  } else if (raw.max > 3.4028234e38F || last.max > 3.4028234e38F) {
    status = kSampleInfinite;
  } else if (last.argmax < 0 || last.max == kNegativeInfinity) {
    status = kSampleNothing;
  }
  const int32_t token = status == kSampleOk ? choose_token(args, sample, last, row, shared) : 0;
  if (thread() != 0) return;
  result.token = token;
  result.status = status;
  args.sampled[row] = token;
  if (sample.num_logprobs <= 0) result.num_top = 0;  // the others' is there: inferneo_top_logprobs
  if (sample.num_logprobs < 0) return;
  float value = args.logits[row * args.vocab + token];
  for (int e = 0; args.processed && e < sample.edit_count; ++e) {
    if (args.edits[sample.edit_begin + e].token == token) value = args.edited[sample.edit_begin + e];
  }
  result.logprob = as_logprob(value - raw.max - raw.log_sum);
}

}  // namespace inferneo::cuda
