#include "text/tokenizer.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <mutex>
#include <utility>

#include "text/rust_call.h"
#include "text/rust_grammar.h"

namespace inferneo {
namespace {

using rust_text::Collector;
using rust_text::slice_of;

struct TextDelete {
  void operator()(rust_text::TextHandle* handle) const { rust_text::inferneo_text_free(handle); }
};
struct StreamDelete {
  void operator()(rust_text::StreamHandle* handle) const { rust_text::inferneo_text_stream_free(handle); }
};
using SharedText = std::shared_ptr<rust_text::TextHandle>;

class RustStream final : public StreamDecoder {
 public:
  RustStream(SharedText text, rust_text::StreamHandle* stream) : text_(std::move(text)), stream_(stream) {}

  Result<std::string> push(Token token) override {
    Collector out;
    const int32_t code =
        rust_text::inferneo_text_stream_push(stream_.get(), text_.get(), static_cast<uint32_t>(token), out.output());
    RETURN_IF_ERROR(out.status(code));
    return out.take_text();
  }

  Result<std::string> finish() override {
    Collector out;
    RETURN_IF_ERROR(out.status(rust_text::inferneo_text_stream_finish(stream_.get(), out.output())));
    return out.take_text();
  }

 private:
  SharedText text_;
  std::unique_ptr<rust_text::StreamHandle, StreamDelete> stream_;
};

// Lets the cache of texts grow as it is used, as far as it may.
class CacheGrowth {
 public:
  CacheGrowth(SharedText text, TokenCacheOptions options) : text_(std::move(text)), options_(std::move(options)) {}

  // Before a text of so many bytes is tokenized.
  void prepare(size_t text_bytes) const {
    const size_t limit = limit_.load(std::memory_order_relaxed);
    if (limit >= options_.max_bytes) return;
    const bool is_full = limit == 0 || rust_text::inferneo_text_cache_counts(text_.get()).bytes > limit / 2;
    // The largest entry is a sixteenth of the limit, and a text may have a token for every few bytes.
    const size_t wanted =
        std::min(std::max({kFirst, is_full ? limit * 2 : limit, text_bytes * 32}), options_.max_bytes);
    const std::unique_lock only(growing_, std::try_to_lock);
    if (!only || wanted <= limit_.load(std::memory_order_relaxed)) return;
    if (options_.may_take && !options_.may_take(wanted)) return;
    rust_text::inferneo_text_cache_limit(text_.get(), wanted);
    limit_.store(wanted, std::memory_order_relaxed);
  }

 private:
  static constexpr size_t kFirst = size_t{1} << 20;
  const SharedText text_;
  const TokenCacheOptions options_;
  mutable std::mutex growing_;  // of several threads one does it, and the others go on
  mutable std::atomic<size_t> limit_{0};
};

class RustTokenizer final : public Tokenizer {
 public:
  RustTokenizer(rust_text::TextHandle* handle, TokenCacheOptions cache)
      : text_(handle, TextDelete{}), cache_(text_, std::move(cache)) {
    Collector out;
    has_template_ = rust_text::inferneo_text_template_source(text_.get(), out.output()) == rust_text::kOk;
    if (has_template_) template_source_ = out.take_text();
  }

  Result<std::vector<Token>> encode(std::string_view text, bool add_special_tokens) const override {
    return encode_text(text, add_special_tokens, false, {});
  }

  Result<std::vector<Token>> encode_salted(std::string_view text, bool add_special_tokens,
                                           std::string_view salt) const override {
    return encode_text(text, add_special_tokens, false, salt);
  }

  Result<std::vector<Token>> encode_with_control(std::string_view text, bool add_special_tokens) const override {
    return encode_text(text, add_special_tokens, true, {});
  }

  Result<std::string> decode(std::span<const Token> tokens, bool skip_special_tokens) const override {
    Collector out;
    RETURN_IF_ERROR(
        out.status(rust_text::inferneo_text_decode(text_.get(), slice_of(tokens), skip_special_tokens, out.output())));
    return out.take_text();
  }

  std::unique_ptr<StreamDecoder> new_stream(bool skip_special_tokens) const override {
    rust_text::StreamHandle* stream = rust_text::inferneo_text_stream_new(text_.get(), skip_special_tokens);
    INFERNEO_CHECK(stream != nullptr, "a decode stream can always be made");
    return std::make_unique<RustStream>(text_, stream);
  }

  int32_t vocab_size() const override {
    return static_cast<int32_t>(rust_text::inferneo_text_vocab_size(text_.get()));  // ids are checked to be < 2^24
  }

  std::optional<Token> token_to_id(std::string_view token) const override {
    const int64_t id = rust_text::inferneo_text_token_to_id(text_.get(), slice_of(token));
    if (id < 0) return std::nullopt;
    return static_cast<Token>(id);
  }

  std::string token_bytes(Token token) const override {
    Collector out;
    const int32_t code = rust_text::inferneo_text_token_bytes(text_.get(), static_cast<uint32_t>(token), out.output());
    return code == rust_text::kOk ? out.take_text() : std::string();
  }

  bool is_special(Token token) const override {
    return rust_text::inferneo_text_is_special(text_.get(), static_cast<uint32_t>(token));
  }

  CacheCounts cache_counts() const override {
    const rust_text::CacheCounts counts = rust_text::inferneo_text_cache_counts(text_.get());
    return {counts.hits, counts.misses, counts.evictions, counts.bytes};
  }

  bool has_chat_template() const override { return has_template_; }
  std::string chat_template_source() const override { return template_source_; }

  Result<std::vector<Token>> apply_chat_template(const ChatInput& chat) const override {
    Collector out;
    cache_.prepare(chat.messages.size());
    const rust_text::Chat input = to_rust(chat);
    RETURN_IF_ERROR(out.status(rust_text::inferneo_text_apply_chat(text_.get(), &input, out.output())));
    return out.take_tokens();
  }

  Result<std::string> render_chat_template(const ChatInput& chat) const override {
    Collector out;
    const rust_text::Chat input = to_rust(chat);
    RETURN_IF_ERROR(out.status(rust_text::inferneo_text_render_chat(text_.get(), &input, out.output())));
    return out.take_text();
  }

  Result<std::shared_ptr<const GrammarCompiled>> compile_grammar(const GrammarSpec& grammar, int32_t logits_width,
                                                                 std::span<const Token> eos) const override {
    return compile_rust_grammar(text_.get(), grammar, logits_width, eos);
  }

 private:
  Result<std::vector<Token>> encode_text(std::string_view text, bool add_special_tokens, bool control,
                                         std::string_view salt) const {
    Collector out;
    cache_.prepare(text.size());
    RETURN_IF_ERROR(out.status(rust_text::inferneo_text_encode(text_.get(), slice_of(text), add_special_tokens, control,
                                                               slice_of(salt), out.output())));
    return out.take_tokens();
  }

  static rust_text::Chat to_rust(const ChatInput& chat) {
    return {slice_of(chat.messages),      slice_of(chat.tools),         slice_of(chat.template_kwargs),
            slice_of(chat.chat_template), slice_of(chat.system_prompt), slice_of(chat.cache_salt),
            chat.add_generation_prompt,   chat.continue_final_message};
  }

  SharedText text_;
  CacheGrowth cache_;
  bool has_template_ = false;
  std::string template_source_;
};

}  // namespace

Status check_chat_template(std::string_view source) {
  Collector out;
  return out.status(rust_text::inferneo_text_check_template(slice_of(source), out.output()));
}

Result<std::shared_ptr<const Tokenizer>> load_tokenizer(const TokenizerFiles& files) {
  Collector out;
  rust_text::TextHandle* handle = nullptr;
  RETURN_IF_ERROR(
      out.status(rust_text::inferneo_text_load(slice_of(files.tokenizer_json), slice_of(files.tokenizer_config_json),
                                               slice_of(files.chat_template_jinja), &handle, out.output())));
  return std::shared_ptr<const Tokenizer>(std::make_shared<RustTokenizer>(handle, files.cache));
}

}  // namespace inferneo
