// Directories of tiny real models, one for each call, made from the golden ones of several architectures.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "support/temp_tree.h"

namespace inferneo::testing {

inline const std::vector<std::string>& tiny_architectures() {
  static const std::vector<std::string> kNames = {
      "llama3", "gemma2",  "gpt2",    "qwen2",    "qwen3", "mistral", "phi3_longrope_short",
      "olmo2",  "granite", "mixtral", "qwen3_moe"};
  return kNames;
}

// Words w0 ... w150, as the golden models' vocabulary of 151 entries has no text of its own.
inline std::string tiny_tokenizer_json() {
  std::string vocab = "\"<unk>\":0";
  for (int i = 1; i < 151; ++i) vocab += ",\"w" + std::to_string(i) + "\":" + std::to_string(i);
  return R"({"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,)"
         R"("pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,)"
         R"("model":{"type":"WordLevel","unk_token":"<unk>","vocab":{)" +
         vocab + "}}}";
}

// The model's own files, not links: what shares content does so by content alone.
inline std::string make_tiny_model(const TempTree& tree, const std::string& name, const std::string& architecture) {
  const std::filesystem::path from = std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/models/" + architecture;
  const std::filesystem::path to = tree.path(name);
  std::filesystem::create_directories(to);
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    const std::filesystem::path file = entry.path().filename();
    if (!file.string().starts_with("expected")) std::filesystem::copy_file(entry.path(), to / file);
  }
  std::ofstream(to / "tokenizer.json") << tiny_tokenizer_json();
  return to.string();
}

}  // namespace inferneo::testing
