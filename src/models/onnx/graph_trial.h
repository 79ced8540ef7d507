// What a graph can do, found out by doing it: a few tokens, once in one go and once in parts, when a model is loaded.
//
// Exports differ in what they were traced with: some compute a wrong mask for several tokens behind a cache, some count
// positions through the padding. Nobody writes that into the file, so it is tried, on a few slots of memory of its own,
// and what does not give the same logits is not used.
// Errors: those of running the graph; malformed when even token by token gives something else than all at once.
#pragma once

#include <string>

#include "base/result.h"
#include "models/onnx/onnx_forward.h"
#include "tensor/ledger.h"

namespace inferneo::onnx {

struct GraphTrial {
  // Of the largest logit. Above rounding in f16 and in what kernels for other shapes add up in another order; far below
  // what a token too many or a wrong position makes.
  static constexpr double kSame = 0.02;

  GraphAbilities abilities;
  double largest_logit = 0.0;     // of all that was computed
  double step_difference = 0.0;   // token by token against all at once
  double chunk_difference = 0.0;  // two chunks
  double batch_difference = 0.0;  // three sequences in as few calls as their lengths allow
};

// `slot_tokens` as the runner will have it. Holds no turn: the caller has one.
Result<GraphTrial> try_graph(OnnxSession& session, const OnnxGraph& graph, int32_t slot_tokens, MemoryLedger& ledger,
                             const std::string& model);

}  // namespace inferneo::onnx
