// generation_config.json: which tokens end or begin a text, and how the model's authors would sample.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "formats/config_reader.h"
#include "formats/model_directory.h"
#include "inferneo/sampling_params.h"

namespace inferneo {

struct GenerationConfig {
  std::vector<Token> eos_token_ids;  // from generation_config.json, else from config.json; may be empty
  std::optional<Token> bos_token_id;
  std::optional<Token> pad_token_id;

  // Defaults for what a request leaves open; absent: the file says nothing.
  std::optional<bool> do_sample;
  std::optional<float> temperature;
  std::optional<int> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> typical_p;
  std::optional<float> repetition_penalty;
  std::optional<int> max_new_tokens;
};

// `config` is config.json; `generation` generation_config.json, absent when the model has none. Token ids must lie in
// [0, vocab_size). Errors: malformed, naming file and field.
Result<GenerationConfig> read_generation_config(const ConfigReader& config,
                                                const std::optional<ConfigReader>& generation, int64_t vocab_size);

inline constexpr size_t kMaxConfigBytes = size_t{4} << 20;
// config.json of a directory; and a file that may be absent.
Result<ConfigReader> read_config(const ModelDirectory& directory, std::string_view file = "config.json");
Result<std::optional<ConfigReader>> read_optional_config(const ModelDirectory& directory, std::string_view file);

}  // namespace inferneo
