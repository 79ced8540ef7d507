#include "models/onnx/cache_shared.h"

#include <algorithm>
#include <array>

namespace inferneo::onnx {
namespace {

constexpr std::array<Token, 1> kFillerToken = {0};

}  // namespace

Status SharedCacheForward::bind_staging() {
  filled_.assign(static_cast<size_t>(num_slots_), 0);
  return ok_status();
}

// Slots [first, last) may be computed along.
bool SharedCacheForward::can_fill(int32_t first, int32_t last) const {
  const int32_t full = std::min(slot_tokens_, limits_.max_length);
  return last - first <= kMaxFillers &&
         std::all_of(filled_.begin() + first, filled_.begin() + last, [&](int32_t filled) { return filled < full; });
}

std::vector<std::vector<OnnxForward::Item>> SharedCacheForward::batches(std::vector<Item> items) {
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.slot < b.slot; });
  std::vector<std::vector<Item>> calls;
  for (const Item& item : items) {
    const bool joins = !calls.empty() && can_fill(calls.back().back().slot + 1, item.slot) &&
                       item.slot - calls.back().front().slot < std::min(kMaxBatch, limits_.max_num_seqs);
    if (!joins) calls.emplace_back();
    std::vector<Item>& call = calls.back();
    while (!call.empty() && call.back().slot + 1 < item.slot) {
      Item filler;
      filler.slot = call.back().slot + 1;
      filler.position = filled_[static_cast<size_t>(filler.slot)];
      filler.tokens = kFillerToken;
      filler.filler = true;
      call.push_back(filler);
    }
    call.push_back(item);
  }
  return calls;
}

Status SharedCacheForward::compute(std::span<const Item> items) {
  const auto num_tokens = static_cast<int32_t>(items.front().tokens.size());
  int32_t longest = 0;
  for (const Item& item : items) {
    longest = std::max(longest, item.position + num_tokens);
    if (!item.filler) filled_[static_cast<size_t>(item.slot)] = item.position + num_tokens;
  }
  inputs_.clear();
  outputs_.clear();
  add_text_inputs(items, longest, {}, inputs_);
  outputs_.push_back(logits_output(items.size(), static_cast<size_t>(num_tokens)));
  const size_t offset = static_cast<size_t>(items.front().slot) * slot_bytes();
  for (size_t l = 0; l < graph_.layers.size(); ++l) {
    const CacheLayer& layer = graph_.layers[l];
    std::byte* const keys = planes_[2 * l] + offset;
    std::byte* const values = planes_[2 * l + 1] + offset;
    inputs_.push_back(cache_tensor(layer.past_key, items.size(), slot_tokens_, keys));
    inputs_.push_back(cache_tensor(layer.past_value, items.size(), slot_tokens_, values));
    outputs_.push_back(cache_tensor(layer.present_key, items.size(), slot_tokens_, keys));
    outputs_.push_back(cache_tensor(layer.present_value, items.size(), slot_tokens_, values));
  }
  const Result<std::vector<OnnxOutput>> made = session_.run(inputs_, outputs_);
  return made.ok() ? ok_status() : Status(made.error());
}

}  // namespace inferneo::onnx
