#include "models/onnx/cache_copied.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "formats/onnx/tensor_scan.h"

namespace inferneo::onnx {

size_t CopiedCacheForward::staging(const OnnxGraph& graph, int32_t slot_tokens, const ForwardLimits& limits) {
  const size_t slot = static_cast<size_t>(slot_tokens) * graph.cache_bytes_per_token();
  const auto batch = static_cast<size_t>(std::min(kMaxBatch, limits.max_num_seqs));
  return std::max(slot, std::min(kMaxStaging, slot * batch));
}

std::vector<std::vector<OnnxForward::Item>> CopiedCacheForward::batches(std::vector<Item> items) {
  // Of similar length together, so that little is padded.
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.position < b.position; });
  const size_t staging = staging_bytes(limits_);
  std::vector<std::vector<Item>> calls;
  for (const Item& item : items) {
    bool joins = !calls.empty() &&
                 calls.back().size() < static_cast<size_t>(std::min(kMaxBatch, limits_.max_num_seqs)) &&
                 (pads() || calls.back().front().position == item.position);
    if (joins) {
      const size_t rows = calls.back().size() + 1;
      joins = rows * static_cast<size_t>(item.position) * graph_.cache_bytes_per_token() <= staging;
    }
    if (!joins) calls.emplace_back();
    calls.back().push_back(item);
  }
  return calls;
}

// `to` is [items, heads, past, head_dim]; an item's tokens are the last of `past`.
void CopiedCacheForward::gather(std::span<const Item> items, const std::byte* plane, int32_t past,
                                std::byte* to) const {
  const size_t row = graph_.plane_bytes_per_token() / static_cast<size_t>(graph_.kv_heads);  // one head's token
  const size_t head_in_slot = static_cast<size_t>(slot_tokens_) * row;
  for (const Item& item : items) {
    const std::byte* const slot = plane + static_cast<size_t>(item.slot) * slot_bytes();
    const size_t held = static_cast<size_t>(item.position) * row;
    const size_t padding = static_cast<size_t>(past - item.position) * row;
    for (size_t head = 0; head < static_cast<size_t>(graph_.kv_heads); ++head) {
      std::memset(to, 0, padding);  // masked, and zero so that nothing times nothing is nothing
      std::memcpy(to + padding, slot + head * head_in_slot, held);
      to += padding + held;
    }
  }
}

Status CopiedCacheForward::scatter(std::span<const Item> items, const OnnxOutput& present, const std::string& name,
                                   int32_t past, std::byte* plane) const {
  const size_t num_tokens = items.front().tokens.size();
  const auto length = static_cast<int64_t>(static_cast<size_t>(past) + num_tokens);
  ASSIGN_OR_RETURN(const std::vector<int64_t> shape, present.shape());
  const std::vector<int64_t> expected = {static_cast<int64_t>(items.size()), graph_.kv_heads, length, graph_.head_dim};
  if (shape != expected) {
    return make_error(ErrorCode::malformed, fmt::format("output '{}' is {} where {} was expected", shown_name(name),
                                                        shape_text(shape), shape_text(expected)));
  }
  ASSIGN_OR_RETURN(const std::byte* from, present.data());
  const size_t row = graph_.plane_bytes_per_token() / static_cast<size_t>(graph_.kv_heads);
  const size_t head_in_slot = static_cast<size_t>(slot_tokens_) * row;
  for (const Item& item : items) {
    std::byte* const slot = plane + static_cast<size_t>(item.slot) * slot_bytes();
    for (size_t head = 0; head < static_cast<size_t>(graph_.kv_heads); ++head) {
      std::memcpy(slot + head * head_in_slot + static_cast<size_t>(item.position) * row,
                  from + static_cast<size_t>(past) * row, num_tokens * row);
      from += static_cast<size_t>(length) * row;
    }
  }
  return ok_status();
}

Status CopiedCacheForward::compute(std::span<const Item> items) {
  const auto num_tokens = static_cast<int32_t>(items.front().tokens.size());
  int32_t past = 0;
  for (const Item& item : items) past = std::max(past, item.position);
  std::vector<int32_t> left;
  for (const Item& item : items) left.push_back(past - item.position);
  inputs_.clear();
  outputs_.clear();
  add_text_inputs(items, past + num_tokens, left, inputs_);
  outputs_.push_back(logits_output(items.size(), static_cast<size_t>(num_tokens)));
  bool cached = past > 0;
  if (graph_.use_cache_branch.present()) {
    OnnxTensor branch;
    branch.name = graph_.use_cache_branch.name.c_str();
    branch.type = ElementType::boolean;
    branch.shape = {1};
    branch.rank = 1;
    branch.data = &cached;
    branch.bytes = 1;
    inputs_.push_back(branch);
  }
  const size_t plane_bytes = items.size() * static_cast<size_t>(past) * graph_.plane_bytes_per_token();
  std::byte* at = staging_;
  const auto add = [&](const std::string& name, const std::byte* plane) {
    gather(items, plane, past, at);
    inputs_.push_back(cache_tensor(name, items.size(), past, at));
    at += plane_bytes;
  };
  for (size_t l = 0; l < graph_.layers.size(); ++l) {
    const CacheLayer& layer = graph_.layers[l];
    add(layer.past_key, planes_[2 * l]);
    add(layer.past_value, planes_[2 * l + 1]);
    for (const std::string* name : {&layer.present_key, &layer.present_value}) {
      OnnxTensor output;
      output.name = name->c_str();
      outputs_.push_back(output);
    }
  }
  ASSIGN_OR_RETURN(const std::vector<OnnxOutput> presents, session_.run(inputs_, outputs_));
  for (size_t i = 0; i < presents.size(); ++i) {
    RETURN_IF_ERROR(scatter(items, presents[i], outputs_[i + 1].name, past, planes_[i]));
  }
  return ok_status();
}

}  // namespace inferneo::onnx
