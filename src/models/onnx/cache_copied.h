// Graphs whose present is a new tensor, longer than past (Optimum's exports): caches are copied from their slots before
// each call, shorter ones padded on the left and masked, and what is new is copied back. A part of onnx_forward.h.
//
// Without position_ids a graph counts positions itself, padding included for all we know, so only sequences of the same
// length go together.
#pragma once

#include "models/onnx/onnx_forward.h"

namespace inferneo::onnx {

class CopiedCacheForward final : public OnnxForward {
 public:
  CopiedCacheForward(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens)
      : OnnxForward(session, graph, slot_tokens) {}

  // Bytes of caches copied for one call at most.
  static size_t staging(const OnnxGraph& graph, int32_t slot_tokens, const ForwardLimits& limits);

 protected:
  std::vector<std::vector<Item>> batches(std::vector<Item> items) override;
  Status compute(std::span<const Item> items) override;
  size_t staging_bytes(const ForwardLimits& limits) const override { return staging(graph_, slot_tokens_, limits); }

 private:
  // Where a call has more than one row.
  static constexpr size_t kMaxStaging = size_t{256} << 20;
  bool pads() const { return graph_.position_ids.present() && graph_.attention_mask.present(); }
  void gather(std::span<const Item> items, const std::byte* plane, int32_t past, std::byte* to) const;
  Status scatter(std::span<const Item> items, const OnnxOutput& present, const std::string& name, int32_t past,
                 std::byte* plane) const;
};

}  // namespace inferneo::onnx
