#include "models/onnx/cache_none.h"

#include <algorithm>
#include <cstring>

namespace inferneo::onnx {

std::vector<std::vector<OnnxForward::Item>> NoCacheForward::batches(std::vector<Item> items) {
  std::vector<std::vector<Item>> calls;
  for (const Item& item : items) calls.push_back({item});
  return calls;
}

Status NoCacheForward::compute(std::span<const Item> items) {
  const Item& item = items.front();
  auto* const slot =
      reinterpret_cast<Token*>(planes_[0]) + static_cast<size_t>(item.slot) * static_cast<size_t>(slot_tokens_);
  std::copy(item.tokens.begin(), item.tokens.end(), slot + item.position);
  if (!item.wanted) return ok_status();
  Item text;
  text.tokens = {slot, static_cast<size_t>(item.position) + item.tokens.size()};
  inputs_.clear();
  outputs_.clear();
  add_text_inputs({&text, 1}, static_cast<int32_t>(text.tokens.size()), {}, inputs_);
  outputs_.push_back(logits_output(1, text.tokens.size()));
  const Result<std::vector<OnnxOutput>> made = session_.run(inputs_, outputs_);
  if (!made.ok()) return made.error();
  if (abilities_.last_logits || item.position == 0) return ok_status();
  // Those of the item's own tokens come first, as they do where there is a cache.
  auto* const logits = static_cast<std::byte*>(outputs_[0].data);
  const size_t row = outputs_[0].bytes / text.tokens.size();
  std::memmove(logits, logits + static_cast<size_t>(item.position) * row, item.tokens.size() * row);
  return ok_status();
}

}  // namespace inferneo::onnx
