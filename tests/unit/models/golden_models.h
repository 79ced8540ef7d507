// The golden models of tests/golden/models (tools/make_goldens.py): where they lie and what transformers computes.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "formats/model_directory.h"
#include "formats/safetensors.h"
#include "models/transformers/loader.h"
#include "tensor/memory.h"

namespace inferneo {

// INFERNEO_TEST_ROOT: of a tree that is not where the tests were compiled.
inline std::string golden_root() {
  const char* root = std::getenv("INFERNEO_TEST_ROOT");
  return std::string(root != nullptr ? root : INFERNEO_SOURCE_DIR) + "/tests/golden/models";
}

inline std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(golden_root())) {
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline Result<ModelDirectory> open_model(const std::string& path) {
  return ModelDirectory::open(std::filesystem::path(path).filename().string(), path, {path});
}

struct Expected {
  std::vector<Token> prompt;
  std::vector<float> logits;  // [prompt, vocab]
  std::vector<Token> greedy_tokens;
  std::vector<float> greedy_margins;
  float rounded_error = 0.0F;  // of transformers in the model's type; 0 for f32
};

template <typename T>
std::vector<T> copy_tensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsTensor* tensor = file.find(name);
  INFERNEO_CHECK(tensor != nullptr, name);
  const T* data = reinterpret_cast<const T*>(tensor->bytes.data());
  return {data, data + tensor->num_elements()};
}

inline Result<Expected> read_expected(MemoryLedger& ledger, const ModelDirectory& directory) {
  ASSIGN_OR_RETURN(const auto mapping, directory.map(ledger, "expected", "expected.safetensors"));
  ASSIGN_OR_RETURN(const SafetensorsFile file, SafetensorsFile::parse(mapping->bytes(), "expected.safetensors"));
  Expected expected{copy_tensor<Token>(file, "prompt"), copy_tensor<float>(file, "logits"),
                    copy_tensor<Token>(file, "greedy_tokens"), copy_tensor<float>(file, "greedy_margins")};
  if (file.find("rounded_error") != nullptr) expected.rounded_error = copy_tensor<float>(file, "rounded_error")[0];
  return expected;
}

}  // namespace inferneo
