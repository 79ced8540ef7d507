// The C ABI of rust/text (rust/text/src/lib.rs must agree with it). Private to this room.
//
// Results and error messages leave through Output's callback, which copies what it is given; nothing changes owner but
// handles. A return of 0 is success, else one of Code, and the callback got the message.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferneo::rust_text {

enum Code : int32_t {
  kOk = 0,
  kInvalidArgument = 1,
  kMalformed = 2,
  kUnsupported = 3,
  kInternal = 4,
  kPayloadTooLarge = 5,
};

struct Slice {
  const void* data;
  size_t len;  // bytes, or tokens where the function says so
};

struct Output {
  void (*sink)(void* context, const uint8_t* data, size_t len);
  void* context;
};

struct Chat {
  Slice messages;
  Slice tools;
  Slice kwargs;
  Slice chat_template;
  Slice system_prompt;
  Slice salt;
  bool add_generation_prompt;
  bool continue_final_message;
};

// Of the cache of texts and their tokens: bytes of text, entries, bytes.
struct CacheCounts {
  uint64_t hits;
  uint64_t misses;
  uint64_t evictions;
  uint64_t bytes;
};

struct TextHandle;
struct StreamHandle;
struct GrammarHandle;
struct MatcherHandle;

extern "C" {
int32_t inferneo_text_load(Slice tokenizer_json, Slice config_json, Slice chat_template, TextHandle** handle,
                           Output out);
void inferneo_text_free(TextHandle* handle);
int32_t inferneo_text_encode(const TextHandle* handle, Slice text, bool add_special_tokens, bool control, Slice salt,
                             Output out);
void inferneo_text_cache_limit(const TextHandle* handle, size_t bytes);
CacheCounts inferneo_text_cache_counts(const TextHandle* handle);
int32_t inferneo_text_decode(const TextHandle* handle, Slice tokens, bool skip_special_tokens, Output out);
size_t inferneo_text_vocab_size(const TextHandle* handle);
int64_t inferneo_text_token_to_id(const TextHandle* handle, Slice token);
int32_t inferneo_text_token_bytes(const TextHandle* handle, uint32_t token, Output out);
bool inferneo_text_is_special(const TextHandle* handle, uint32_t token);
int32_t inferneo_text_template_source(const TextHandle* handle, Output out);
int32_t inferneo_text_check_template(Slice source, Output out);
int32_t inferneo_text_render_chat(const TextHandle* handle, const Chat* chat, Output out);
int32_t inferneo_text_apply_chat(const TextHandle* handle, const Chat* chat, Output out);

StreamHandle* inferneo_text_stream_new(const TextHandle* handle, bool skip_special_tokens);
int32_t inferneo_text_stream_push(StreamHandle* stream, const TextHandle* handle, uint32_t token, Output out);
int32_t inferneo_text_stream_finish(StreamHandle* stream, Output out);
void inferneo_text_stream_free(StreamHandle* stream);

int32_t inferneo_text_compile_grammar(const TextHandle* handle, int32_t kind, Slice text, const Slice* choices,
                                      size_t num_choices, size_t logits_width, Slice eos, GrammarHandle** compiled,
                                      Output out);
void inferneo_text_grammar_free(GrammarHandle* compiled);
int32_t inferneo_text_matcher_new(const GrammarHandle* compiled, MatcherHandle** matcher, Output out);
void inferneo_text_matcher_free(MatcherHandle* matcher);
int32_t inferneo_text_matcher_fill_mask(MatcherHandle* matcher, uint32_t* mask, size_t words, Output out);
int32_t inferneo_text_matcher_accept(MatcherHandle* matcher, uint32_t token, Output out);
int32_t inferneo_text_matcher_rollback(MatcherHandle* matcher, size_t count, Output out);
int32_t inferneo_text_matcher_foresee(MatcherHandle* matcher, size_t max_tokens, Output out);
bool inferneo_text_matcher_is_finished(const MatcherHandle* matcher);
}

}  // namespace inferneo::rust_text
