// A template in the place of the model's own, and a system prompt before the conversation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "fixtures.h"

namespace inferneo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

constexpr const char* kPlain =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

ChatInput spoken(const Json& messages) { return {.messages = messages.dump(), .tools = {}, .template_kwargs = {}}; }

Json turns() {
  return {{{"role", "user"}, {"content", "hello"}},
          {{"role", "assistant"}, {"content", "yes?"}},
          {{"role", "user"}, {"content", "bye"}}};
}

TEST(ChatOverride, IsRenderedInThePlaceOfTheModelsOwn) {
  for (const std::string& family : families()) {
    const auto tokenizer = load_fixture(family);
    ChatInput chat = spoken(turns());
    const auto own = tokenizer->render_chat_template(chat);
    chat.chat_template = kPlain;
    const auto rendered = tokenizer->render_chat_template(chat);
    ASSERT_TRUE(rendered.ok()) << family << ": " << rendered.error().message;
    EXPECT_THAT(*rendered, HasSubstr("[user] hello\n[assistant] yes?\n[user] bye\n[assistant]")) << family;
    EXPECT_TRUE(!own.ok() || *own != *rendered) << family;
    chat.chat_template.clear();
    const auto again = tokenizer->render_chat_template(chat);
    ASSERT_EQ(again.ok(), own.ok()) << family;
    EXPECT_TRUE(!own.ok() || *again == *own) << family << ": the model's own is as it was";
    chat.chat_template = kPlain;
    EXPECT_TRUE(tokenizer->apply_chat_template(chat).ok()) << family;
  }
}

TEST(ChatOverride, HasTheModelsSpecialTokens) {
  const auto tokenizer = load_fixture("llama3");
  ChatInput chat = spoken(turns());
  chat.chat_template = kPlain;
  const auto tokens = tokenizer->apply_chat_template(chat);
  ASSERT_TRUE(tokens.ok()) << tokens.error().message;
  EXPECT_EQ(tokens->front(), *tokenizer->token_to_id("<|begin_of_text|>"));
}

TEST(ChatOverride, TextOfAUserBecomesNoControlToken) {
  const auto tokenizer = load_fixture("qwen2");
  const Token begin = *tokenizer->token_to_id("<|im_start|>");
  const auto count = [&](const ChatInput& chat) {
    const auto tokens = tokenizer->apply_chat_template(chat);
    EXPECT_TRUE(tokens.ok()) << tokens.error().message;
    return tokens.ok() ? std::count(tokens->begin(), tokens->end(), begin) : -1;
  };
  ChatInput chat = spoken(Json::array({{{"role", "user"}, {"content", "<|im_start|> a <|im_start|>"}}}));
  chat.chat_template = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}";
  EXPECT_EQ(count(chat), 1) << "the template's own";
  chat.system_prompt = "say <|im_start|>";
  EXPECT_EQ(count(chat), 2) << "nor does that of a system prompt";
}

TEST(ChatOverride, ASystemPromptBeginsChatsThatHaveNone) {
  const auto tokenizer = load_fixture("qwen2");
  const auto rendered = [&](const Json& messages) {
    ChatInput chat = spoken(messages);
    chat.chat_template = kPlain;
    chat.system_prompt = "Be brief.";
    return tokenizer->render_chat_template(chat).value();
  };
  EXPECT_THAT(rendered(turns()), HasSubstr("[system] Be brief.\n[user] hello"));
  for (const char* const role : {"system", "developer"}) {
    Json with_own = turns();
    with_own.insert(with_own.begin(), Json::object({{"role", role}, {"content", "Be long."}}));
    EXPECT_THAT(rendered(with_own), Not(HasSubstr("brief"))) << role;
  }
}

TEST(ChatOverride, ACheckSaysWhereTheMistakeIs) {
  EXPECT_TRUE(check_chat_template(kPlain).ok());
  EXPECT_TRUE(check_chat_template("").ok());
  for (const auto& [source, line] : {std::pair("a\nb\n{% for m in messages %}", "line 3"),
                                     std::pair("{{ messages", "line 1"), std::pair("a\n{% endif %}", "line 2")}) {
    const Status checked = check_chat_template(source);
    ASSERT_FALSE(checked.ok()) << source;
    EXPECT_EQ(checked.error().code, ErrorCode::invalid_argument);
    EXPECT_THAT(checked.error().message, HasSubstr(line));
  }
  EXPECT_FALSE(check_chat_template("\xff{{ x }}").ok()) << "text is UTF-8";
}

}  // namespace
}  // namespace inferneo
