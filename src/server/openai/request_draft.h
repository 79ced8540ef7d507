// A chat or completions request on its way from JSON to native types.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "server/http_message.h"
#include "server/json.h"
#include "serving/inference_service.h"

namespace inferneo {

enum class Api : uint8_t { chat = 1, completions = 2 };

enum class ToolChoice : uint8_t { none, automatic, required, named };

// Limits of a single request; the body's size bounds the rest.
inline constexpr int kMaxSamples = 16;
inline constexpr int kMaxTopLogprobs = 20;
inline constexpr size_t kMaxStops = 16;
inline constexpr size_t kMaxStopBytes = 1024;
inline constexpr size_t kMaxListedTokens = 1024;  // stop_token_ids, logit_bias
inline constexpr size_t kMaxPrompts = 256;
inline constexpr size_t kMaxTools = 128;
inline constexpr size_t kMaxGrammarBytes = 256 * 1024;  // each prompt of a request has its own copy

struct RequestDraft {
  Api api = Api::chat;
  GenerateRequest request;  // its prompt is set last
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;  // in every chunk, not only in the last one
  bool has_stream_options = false;
  std::optional<int64_t> max_tokens;  // as given; 0 is legal with echo
  std::optional<int64_t> best_of;
  bool wants_logprobs = false;      // chat: the flag; completions: the number is in sampling.logprobs
  std::optional<int> top_logprobs;  // chat
  bool include_reasoning = true;
  bool token_ids_as_text = false;  // tokens in logprobs are shown as "token_id:17"
  std::string grammar_source;      // the field that set the grammar: there can be only one

  // chat
  std::string messages;  // checked and normalised, a JSON array
  std::string tools;     // a JSON array, or empty
  std::string template_kwargs;
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  ToolChoice tool_choice = ToolChoice::automatic;
  std::string named_tool;
  bool parallel_tool_calls = true;
  std::vector<std::string> tool_names;

  // completions: one generation for each
  std::vector<std::variant<std::string, std::vector<Token>>> prompts;
};

// A `content`: a string, or text parts, which are joined by newlines, since most templates take a string only.
Result<std::string> read_text_content(const Json& content, const std::string& field);

// Reads the fields that both APIs share, and refuses the ones that nobody knows. Null stands for absent.
Status read_shared_fields(const Json& body, RequestDraft& draft);

// The fields that an API knows, in the order in which they are read.
std::vector<std::string_view> request_field_names(Api api);

// Sets the constraint on the output; a second one is an error that names both fields.
Status set_grammar(RequestDraft& draft, std::string_view field, GrammarSpec grammar);

// The same error with the field's name in this request, where the engine has its own (prompt, grammar).
Error as_sent(Error error, const RequestDraft& draft);

// The whole way. The chat's draft still lacks its parser family, which is the model's. `with_traits`: what rules may
// ask of the messages is gathered too.
Result<RequestDraft> parse_chat_request(std::string_view body, bool with_traits = false);
Result<RequestDraft> parse_completion_request(std::string_view body);

}  // namespace inferneo
