// GroupQueryAttention with past and present in one buffer: nothing is copied. A part of onnx_forward.h.
//
// One call takes slots that follow each other. A slot between two that decode may belong to a sequence that does not
// take part in this step: it is computed along, and writes to the position that its sequence will write next, before it
// is read. A slot that holds as much as its sequence may is never computed along, nor are more than a few in a row.
#pragma once

#include "models/onnx/onnx_forward.h"

namespace inferneo::onnx {

class SharedCacheForward final : public OnnxForward {
 public:
  SharedCacheForward(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens)
      : OnnxForward(session, graph, slot_tokens) {}

 protected:
  std::vector<std::vector<Item>> batches(std::vector<Item> items) override;
  Status compute(std::span<const Item> items) override;
  Status bind_staging() override;

 private:
  // More idle slots in a row than this cost more than another call.
  static constexpr int32_t kMaxFillers = 4;
  bool can_fill(int32_t first, int32_t last) const;

  std::vector<int32_t> filled_;  // [slots] positions that have been written since the slot's sequence began
};

}  // namespace inferneo::onnx
