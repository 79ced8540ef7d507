// The pieces that replies of both APIs are made of, in OpenAI's shapes with vLLM's additions.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/json_writer.h"
#include "serving/inference_service.h"

namespace inferneo {

// {"id":...,"object":...,"created":...,"model":...  without the closing brace, for whatever follows.
std::string reply_prefix(std::string_view id, std::string_view object, int64_t created, std::string_view model);

void write_usage(JsonWriter& json, const Usage& usage);

// What closes a chunk's choices and the chunk: with include_usage also "usage", null unless it is given.
std::string chunk_end(bool include_usage, const std::optional<Usage>& so_far);

std::string_view finish_reason_name(FinishReason reason, bool called_tools);

// null, the stop string, or the stop token's id as a number.
void write_stop_reason(JsonWriter& json, const std::string& stop_reason, const std::vector<std::string>& stops);

// The value of a chat choice's "logprobs". as_ids: tokens are shown as "token_id:17".
void write_chat_logprobs(JsonWriter& json, const std::vector<TokenLogprobText>& tokens, bool as_ids);

// A token of a completion; the first of an echoed prompt has no logprob.
struct CompletionToken {
  TokenLogprobText token;
  bool has_logprob = true;
};
// The value of a completion choice's "logprobs". text_offset, in characters, is carried from chunk to chunk.
void write_completion_logprobs(JsonWriter& json, const std::vector<CompletionToken>& tokens, bool as_ids,
                               int64_t& text_offset);

// vLLM's "prompt_logprobs": a list with null for the first token, then {"id": {"logprob", "rank", "decoded_token"}}.
void write_prompt_logprobs(JsonWriter& json, const PromptInfo& prompt);

// The prompt's tokens with their logprobs, the first one included, as an echo shows them.
std::vector<CompletionToken> echoed_tokens(const PromptInfo& prompt);

}  // namespace inferneo
