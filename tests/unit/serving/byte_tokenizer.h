// A tokenizer for tests: token t < 256 is the byte t, 256 is end-of-sequence. No chat template, no grammars.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/tokenizer.h"

namespace inferneo {

class ByteTokenizer final : public Tokenizer {
 public:
  static constexpr Token kEos = 256;

  Result<std::vector<Token>> encode(std::string_view text, bool) const override {
    std::vector<Token> tokens;
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  Result<std::vector<Token>> encode_with_control(std::string_view text, bool add) const override {
    return encode(text, add);
  }
  Result<std::string> decode(std::span<const Token> tokens, bool) const override {
    std::string text;
    for (const Token token : tokens) {
      if (token < 256) text += static_cast<char>(token);
    }
    return text;
  }
  std::unique_ptr<StreamDecoder> new_stream(bool) const override { return std::make_unique<Stream>(); }
  int32_t vocab_size() const override { return 257; }
  std::optional<Token> token_to_id(std::string_view) const override { return std::nullopt; }
  std::string token_bytes(Token token) const override {
    return token < 256 ? std::string(1, static_cast<char>(token)) : std::string();
  }
  bool is_special(Token token) const override { return token == kEos; }
  bool has_chat_template() const override { return false; }
  std::string chat_template_source() const override { return {}; }
  Result<std::vector<Token>> apply_chat_template(const ChatInput&) const override {
    return make_error(ErrorCode::unsupported, "no template");
  }
  Result<std::string> render_chat_template(const ChatInput&) const override {
    return make_error(ErrorCode::unsupported, "no template");
  }
  Result<std::shared_ptr<const GrammarCompiled>> compile_grammar(const GrammarSpec&, int32_t,
                                                                 std::span<const Token>) const override {
    return make_error(ErrorCode::invalid_argument, "no grammars", "response_format");
  }

 private:
  struct Stream final : StreamDecoder {
    Result<std::string> push(Token token) override {
      return token < 256 ? std::string(1, static_cast<char>(token)) : std::string();
    }
    Result<std::string> finish() override { return std::string(); }
  };
};

}  // namespace inferneo
