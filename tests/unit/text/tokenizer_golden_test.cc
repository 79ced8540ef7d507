// Exact agreement with the Python packages `tokenizers` and `transformers`, per tokenizer family.
#include <gmock/gmock.h>

#include "fixtures.h"

namespace inferneo {
namespace {

class TokenizerGolden : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    tokenizer_ = load_fixture(GetParam());
    ASSERT_NE(tokenizer_, nullptr);
    cases_ = load_cases(GetParam());
  }

  std::string stream(const std::vector<Token>& tokens, bool skip) const {
    auto decoder = tokenizer_->new_stream(skip);
    std::string text;
    for (Token token : tokens) text += decoder->push(token).value();
    return text + decoder->finish().value();
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  nlohmann::ordered_json cases_;
};

ChatInput chat_of(const nlohmann::ordered_json& chat) {
  nlohmann::ordered_json kwargs = chat["kwargs"];
  ChatInput input;
  input.messages = chat["messages"].dump();
  if (kwargs.contains("tools")) input.tools = kwargs["tools"].dump();
  input.add_generation_prompt = kwargs["add_generation_prompt"].get<bool>();
  input.continue_final_message = kwargs.value("continue_final_message", false);
  for (const char* known : {"tools", "add_generation_prompt", "continue_final_message"}) kwargs.erase(known);
  input.template_kwargs = kwargs.dump();
  return input;
}

TEST_P(TokenizerGolden, EncodesAsTheReferenceDoes) {
  for (const auto& item : cases_["encode"]) {
    const auto text = item["text"].get<std::string>();
    const auto ids = item["ids"].get<std::vector<Token>>();
    EXPECT_EQ(tokenizer_->encode_with_control(text, false).value(), ids) << item["text"];
    EXPECT_EQ(tokenizer_->encode_with_control(text, true).value(), item["full"].get<std::vector<Token>>())
        << item["text"];
    if (item.contains("user") && item["user"].is_null()) continue;  // the reference breaks the law here; see below
    const auto user = item.contains("user") ? item["user"].get<std::vector<Token>>() : ids;
    EXPECT_EQ(tokenizer_->encode(text, false).value(), user) << item["text"];
  }
}

TEST_P(TokenizerGolden, UserTextNeverBecomesControl) {
  std::vector<Token> control;
  for (const auto& name : cases_["control"]) {
    control.push_back(tokenizer_->token_to_id(name.get<std::string>()).value());
  }
  // Of the model's own vocabulary, <unk> may stand for what it does not know; every other control token is forbidden.
  const auto unk = tokenizer_->token_to_id(GetParam() == "bert" ? "[UNK]" : "<unk>");
  if (unk) std::erase(control, *unk);
  for (const auto& item : cases_["encode"]) {
    const auto tokens = tokenizer_->encode(item["text"].get<std::string>(), false).value();
    for (Token token : tokens) EXPECT_THAT(control, testing::Not(testing::Contains(token))) << item["text"];
  }
}

TEST_P(TokenizerGolden, DecodesAndStreamsAsTheReferenceDoes) {
  for (const auto& item : cases_["decode"]) {
    const auto ids = item["ids"].get<std::vector<Token>>();
    EXPECT_EQ(tokenizer_->decode(ids, false).value(), item["text"].get<std::string>()) << item["ids"];
    EXPECT_EQ(tokenizer_->decode(ids, true).value(), item["skipped"].get<std::string>()) << item["ids"];
    EXPECT_EQ(stream(ids, false), item["text"].get<std::string>()) << item["ids"];
    EXPECT_EQ(stream(ids, true), item["skipped"].get<std::string>()) << item["ids"];
  }
}

TEST_P(TokenizerGolden, ChatTemplatesRenderAndTokenizeAsTheReferenceDoes) {
  int agreed = 0;
  for (const auto& item : cases_["chat"]) {
    const ChatInput chat = chat_of(item);
    const auto text = tokenizer_->render_chat_template(chat);
    const auto tokens = tokenizer_->apply_chat_template(chat);
    if (item.contains("error")) {
      EXPECT_FALSE(text.ok()) << item["messages"] << *text;
      if (!text.ok()) {
        EXPECT_EQ(text.error().code, ErrorCode::invalid_argument);
      }
      continue;
    }
    ASSERT_TRUE(text.ok()) << text.error().message << item["messages"];
    EXPECT_EQ(*text, item["text"].get<std::string>());
    ASSERT_TRUE(tokens.ok());
    EXPECT_EQ(*tokens, item["ids"].get<std::vector<Token>>()) << *text;
    ++agreed;
  }
  EXPECT_GE(agreed, 5);
}

TEST_P(TokenizerGolden, KnowsItsVocabulary) {
  EXPECT_EQ(tokenizer_->vocab_size(), cases_["vocab_size"].get<int>());
  EXPECT_FALSE(tokenizer_->token_to_id("no such token at all").has_value());
  for (const auto& name : cases_["control"]) {
    const Token id = tokenizer_->token_to_id(name.get<std::string>()).value();
    EXPECT_EQ(tokenizer_->token_bytes(id), name.get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGolden, testing::ValuesIn(families()),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace inferneo
