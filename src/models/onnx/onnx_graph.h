// What the inputs and outputs of a decoder's graph are for: found by their names, checked by their types and shapes.
//
// Names: those of genai_config.json where there is one, else what exporters write: input_ids, attention_mask,
// position_ids, past_key_values.N.key (or past_key_N, past.N.key), present.N.key, logits.
// Pure. Errors: malformed or unsupported, naming the input or output with its type and shape.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/onnx/onnx_session.h"

namespace inferneo::onnx {

// As genai_config.json gives them; empty: by the usual names. Templates of layers hold "%d".
struct OnnxNames {
  std::string input_ids = {};
  std::string attention_mask = {};
  std::string position_ids = {};
  std::string logits = {};
  std::string past_key = {};
  std::string past_value = {};
  std::string present_key = {};
  std::string present_value = {};
};

// Sizes that a file beside the graph states; 0: it does not.
struct OnnxSizes {
  int32_t vocab_size = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
};

enum class CacheKind : uint8_t {
  shared,  // GroupQueryAttention writes into the buffer that it reads: past and present are one
  copied,  // present is a new tensor, longer than past
  none,    // the whole text every time
};

struct OnnxPortRef {
  std::string name;  // empty: the graph has none
  ElementType type = ElementType::int64;
  bool present() const { return !name.empty(); }
};
struct CacheLayer {
  std::string past_key, past_value, present_key, present_value;
};

struct OnnxGraph {
  OnnxPortRef input_ids, attention_mask, position_ids;
  OnnxPortRef use_cache_branch;  // of graphs that hold both branches in one
  OnnxPortRef logits;            // [batch, tokens or 1, vocab]
  OnnxPortRef first_logits;      // int64 [1], optional: of the tokens before this one no logits are computed
  std::vector<CacheLayer> layers;
  ElementType cache_type = ElementType::float32;
  CacheKind cache = CacheKind::none;
  int32_t vocab_size = 0;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;

  size_t cache_bytes_per_token() const;  // of one sequence, all layers
  size_t plane_bytes_per_token() const;  // of one layer's keys or values
};

Result<OnnxGraph> discover_graph(std::span<const OnnxPort> inputs, std::span<const OnnxPort> outputs,
                                 const OnnxFacts& facts, const OnnxNames& names, const OnnxSizes& sizes);

}  // namespace inferneo::onnx
