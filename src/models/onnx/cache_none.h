// Graphs without a cache: a slot keeps the tokens themselves, and every token of the answer computes the whole text
// again. A part of onnx_forward.h.
#pragma once

#include "models/onnx/onnx_forward.h"

namespace inferneo::onnx {

class NoCacheForward final : public OnnxForward {
 public:
  NoCacheForward(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens)
      : OnnxForward(session, graph, slot_tokens) {}

 protected:
  std::vector<std::vector<Item>> batches(std::vector<Item> items) override;
  Status compute(std::span<const Item> items) override;
};

}  // namespace inferneo::onnx
