// The tokenizer fixtures of tests/golden/tokenizers, made by tools/make_tokenizer_goldens.py.
#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "text/tokenizer.h"

namespace inferneo {

inline std::string read_fixture(const std::string& family, const std::string& file) {
  std::ifstream in(std::string(INFERNEO_SOURCE_DIR) + "/tests/golden/tokenizers/" + family + "/" + file);
  EXPECT_TRUE(in.good()) << family << "/" << file;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

inline TokenizerFiles fixture_files(const std::string& family) {
  return {read_fixture(family, "tokenizer.json"), read_fixture(family, "tokenizer_config.json"), ""};
}

inline std::shared_ptr<const Tokenizer> load_fixture(const std::string& family) {
  auto tokenizer = load_tokenizer(fixture_files(family));
  EXPECT_TRUE(tokenizer.ok()) << family;
  return tokenizer.ok() ? *tokenizer : nullptr;
}

inline nlohmann::ordered_json load_cases(const std::string& family) {
  return nlohmann::ordered_json::parse(read_fixture(family, "cases.json"));
}

inline const std::vector<std::string>& families() {
  static const std::vector<std::string> names = {"gpt2",    "llama3", "qwen2",   "llama2",
                                                 "mistral", "gemma",  "unigram", "bert"};
  return names;
}

}  // namespace inferneo
