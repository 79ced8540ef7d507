// Byte pair encoding under every option of tokenizer.json, beside the Python package `tokenizers`
// (tools/make_bpe_goldens.py), and vocabularies that no training would make.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include "fixtures.h"

namespace inferneo {
namespace {

using Json = nlohmann::ordered_json;

Json tree_of(Json model) {
  return {{"version", "1.0"},          {"truncation", nullptr},
          {"padding", nullptr},        {"added_tokens", Json::array()},
          {"normalizer", nullptr},     {"pre_tokenizer", nullptr},
          {"post_processor", nullptr}, {"decoder", nullptr},
          {"model", std::move(model)}};
}

Result<std::shared_ptr<const Tokenizer>> load(Json model, int indent = -1) {
  return load_tokenizer({tree_of(std::move(model)).dump(indent), "", ""});
}

TEST(BpeGolden, EncodesAsTheReferenceDoes) {
  const Json models = Json::parse(read_fixture(".", "bpe_options.json"));
  size_t tokens = 0;
  for (const Json& item : models) {
    const auto tokenizer = load(item["model"], tokens % 2 == 0 ? -1 : 2);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message << item["model"];
    for (const Json& pair : item["cases"]) {
      const auto ids = pair[1].get<std::vector<Token>>();
      ASSERT_EQ((*tokenizer)->encode(pair[0].get<std::string>(), false).value(), ids) << pair[0] << item["model"];
      tokens += ids.size();
    }
  }
  EXPECT_GT(models.size(), 30U);
  EXPECT_GT(tokens, 4'000U);
}

// More tokens and merges than their bytes in the file let expect, so that every table grows while it is read.
TEST(BpeGolden, ALargeVocabularyOfShortTokensIsFoundWhole) {
  std::vector<std::string> words;
  std::string merges;
  const std::string letters = "abcdefghijklmnopqrstuvwxyz";
  for (char letter : letters) words.emplace_back(1, letter);
  for (size_t of = 0; of < 26 + 26 * 26; ++of) {  // of every letter and every two, one more
    for (char letter : letters) {
      merges += fmt::format(R"({}"{} {}")", merges.empty() ? "" : ",", words[of], letter);
      words.push_back(words[of] + letter);
    }
  }
  std::string vocab;
  for (size_t id = 0; id < words.size(); ++id) vocab += fmt::format(R"({}"{}":{})", id == 0 ? "" : ",", words[id], id);
  const auto tokenizer = load_tokenizer(
      {fmt::format(R"({{"version":"1.0","model":{{"type":"BPE","vocab":{{{}}},"merges":[{}]}}}})", vocab, merges), "",
       ""});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->vocab_size(), static_cast<int>(words.size()));
  for (size_t id = 0; id < words.size(); ++id) {
    const std::vector<Token> alone = {static_cast<Token>(id)};
    ASSERT_EQ((*tokenizer)->token_to_id(words[id]), alone[0]);
    ASSERT_EQ((*tokenizer)->decode(alone, false).value(), words[id]);
    // Of three letters the last two may be merged first.
    if (words[id].size() < 3) {
      ASSERT_EQ((*tokenizer)->encode(words[id], false).value(), alone) << words[id];
    }
  }
  const Token abc = *(*tokenizer)->token_to_id("abc");
  EXPECT_EQ((*tokenizer)->encode("abc", false).value(), std::vector<Token>{abc});
}

TEST(BpeGolden, ATokenThatStandsTwiceHasItsLastId) {
  const auto tokenizer =
      load_tokenizer({R"({"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"b":1,"a":7},"merges":[]}})", "", ""});
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.error().message;
  EXPECT_EQ((*tokenizer)->encode("ab", false).value(), (std::vector<Token>{7, 1}));
  const std::vector<Token> all = {0, 7, 1};
  EXPECT_EQ((*tokenizer)->decode(all, false).value(), "a b");
}

TEST(BpeGolden, WhatDoesNotFitTogetherIsNamed) {
  const auto refused = [](const std::string& model) {
    const auto loaded = load_tokenizer({R"({"version":"1.0","model":)" + model + "}", "", ""});
    EXPECT_FALSE(loaded.ok()) << model;
    return loaded.ok() ? "" : loaded.error().message;
  };
  using testing::HasSubstr;
  EXPECT_THAT(refused(R"({"type":"BPE","vocab":{"a":0,"b":0},"merges":[]})"),
              HasSubstr("`a` and `b` have the same id 0"));
  EXPECT_THAT(refused(R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a","b"]]})"),
              HasSubstr("token `ab` of a merge is not in the vocabulary"));
  EXPECT_THAT(refused(R"({"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b","a c"]})"),
              HasSubstr("token `c` of a merge is not in the vocabulary"));
  EXPECT_THAT(refused(R"({"type":"BPE","continuing_subword_prefix":"##","vocab":{"a":0,"b":1},"merges":[["a","b"]]})"),
              HasSubstr("does not have the continuing_subword_prefix"));
  EXPECT_THAT(refused(R"({"type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]})"), HasSubstr("more than two tokens"));
}

}  // namespace
}  // namespace inferneo
