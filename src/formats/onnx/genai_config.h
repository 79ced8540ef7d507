// genai_config.json: what onnxruntime-genai, and our own runner, read beside a decoder's graph. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "formats/generation_config.h"

namespace inferneo {

struct GenaiDecoder {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t context_length = 0;  // the longest sequence, prompt and answer
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;  // of the cache
  bool position_ids = false;
  bool shared_cache = false;  // past and present may be one buffer
};

std::string genai_config_text(const GenaiDecoder& decoder, const GenerationConfig& generation);

}  // namespace inferneo
