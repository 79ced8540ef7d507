// The C++ face of rust/text: tokenizer, incremental detokenizer, chat template, grammar compiler of one model.
//
// Exact Hugging Face behaviour (`tokenizers`, jinja templates as `transformers` renders them). Objects are immutable
// and thread-safe, but StreamDecoder, which belongs to one sequence. Built from bytes, never from paths. Law: text of a
// user never becomes a control token; the chat template's own text does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/cache_counts.h"
#include "base/result.h"
#include "inferneo/sampling_params.h"
#include "text/grammar.h"

namespace inferneo {

// Turns a growing sequence of tokens into text: what has been returned never changes, is always valid UTF-8, and its
// concatenation (finish() included) equals the batch decode of all tokens.
class StreamDecoder {
 public:
  virtual ~StreamDecoder() = default;
  virtual Result<std::string> push(Token token) = 0;  // may be empty while a character is incomplete
  virtual Result<std::string> finish() = 0;           // what is left, lossily
};

struct ChatInput {
  std::string messages;         // JSON array of messages, validated at the API's edge; opaque below it
  std::string tools;            // JSON array, or empty
  std::string template_kwargs;  // JSON object, or empty
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  std::string chat_template = {};  // Jinja, instead of the model's own; what is a control token is still the model's
  std::string system_prompt = {};  // begins a conversation that has no system message; text, as a user's is
  std::string cache_salt = {};     // see Tokenizer::encode_salted()
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  // Text of a user: strings that look like special tokens stay text. add_special_tokens adds what the model's
  // post-processor adds (BOS and the like).
  virtual Result<std::vector<Token>> encode(std::string_view text, bool add_special_tokens) const = 0;
  // The same. What is remembered of the text, to be quick the next time, is shared within equal salts alone, so that
  // nobody learns from the time that it takes whether somebody else has sent it. encode() is the empty salt.
  virtual Result<std::vector<Token>> encode_salted(std::string_view text, bool add_special_tokens,
                                                   std::string_view salt) const {
    (void)salt;
    return encode(text, add_special_tokens);
  }
  // Text that may hold control tokens, such as a template's own output.
  virtual Result<std::vector<Token>> encode_with_control(std::string_view text, bool add_special_tokens) const = 0;
  virtual Result<std::string> decode(std::span<const Token> tokens, bool skip_special_tokens) const = 0;
  virtual std::unique_ptr<StreamDecoder> new_stream(bool skip_special_tokens) const = 0;

  virtual int32_t vocab_size() const = 0;  // added tokens included; ids are below it
  virtual std::optional<Token> token_to_id(std::string_view token) const = 0;
  virtual std::string token_bytes(Token token) const = 0;  // raw bytes that the token stands for (logprobs' `bytes`)
  virtual bool is_special(Token token) const = 0;

  virtual bool has_chat_template() const = 0;
  virtual std::string chat_template_source() const = 0;  // to pick a tool-call parser
  virtual Result<std::vector<Token>> apply_chat_template(const ChatInput& chat) const = 0;
  virtual Result<std::string> render_chat_template(const ChatInput& chat) const = 0;

  virtual CacheCounts cache_counts() const { return {}; }  // of remembered texts; hits and misses are bytes of text

  // logits_width >= vocab_size(): the width of the mask. eos: what may follow a finished grammar.
  virtual Result<std::shared_ptr<const GrammarCompiled>> compile_grammar(const GrammarSpec& grammar,
                                                                         int32_t logits_width,
                                                                         std::span<const Token> eos) const = 0;
};

// invalid_argument when it does not compile; the message has the line. What a chat makes of it shows when it is
// rendered.
Status check_chat_template(std::string_view source);

// How much a tokenizer may remember of the texts that it has tokenized (rust/text/src/token_cache.rs).
struct TokenCacheOptions {
  size_t max_bytes = 0;                             // 0: nothing
  std::function<bool(size_t bytes)> may_take = {};  // asked, by any thread, before it takes so many in all; none: yes
};

struct TokenizerFiles {
  std::string tokenizer_json;         // required
  std::string tokenizer_config_json;  // may be empty
  std::string chat_template_jinja;    // chat_template.jinja, or an override by the operator; may be empty
  TokenCacheOptions cache = {};
};
Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const TokenizerFiles& files);

}  // namespace inferneo
