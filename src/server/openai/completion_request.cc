#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "server/json_fields.h"
#include "server/openai/request_draft.h"

namespace inferneo {
namespace {

constexpr int kDefaultMaxTokens = 16;  // OpenAI's, and so everybody's, for this API
constexpr size_t kMaxPromptTokens = 4 * 1024 * 1024;

Status read_prompts(const Json& body, RequestDraft& draft) {
  const auto found = body.find("prompt");
  if (found == body.end() || found->is_null()) return field_error("prompt", "is required");
  const Json& prompt = *found;
  if (prompt.is_string()) {
    draft.prompts.emplace_back(prompt.get<std::string>());
    return ok_status();
  }
  if (!prompt.is_array() || prompt.empty()) {
    return field_error("prompt", "must be a string, a list of strings, a list of token ids or a list of such lists");
  }
  if (prompt.front().is_number()) {
    ASSIGN_OR_RETURN(std::vector<Token> tokens, read_token_ids(prompt, "prompt", kMaxPromptTokens));
    draft.prompts.emplace_back(std::move(tokens));
    return ok_status();
  }
  if (prompt.size() > kMaxPrompts) {
    return field_error("prompt", fmt::format("must not hold more than {} prompts", kMaxPrompts));
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string name = fmt::format("prompt[{}]", i);
    if (prompt[i].is_string()) {
      draft.prompts.emplace_back(prompt[i].get<std::string>());
      continue;
    }
    ASSIGN_OR_RETURN(std::vector<Token> tokens, read_token_ids(prompt[i], name, kMaxPromptTokens));
    if (tokens.empty()) return field_error(name, "must not be empty");
    draft.prompts.emplace_back(std::move(tokens));
  }
  return ok_status();
}

}  // namespace

Result<RequestDraft> parse_completion_request(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, parse_json_object(body));
  RequestDraft draft;
  draft.api = Api::completions;
  draft.request.sampling.max_tokens = kDefaultMaxTokens;
  RETURN_IF_ERROR(read_shared_fields(json, draft));
  RETURN_IF_ERROR(read_prompts(json, draft));
  draft.request.traits.stream = draft.stream;
  SamplingParams& sampling = draft.request.sampling;
  // Scoring: the prompt's tokens come back with their logprobs, as the sampled ones do.
  if (sampling.echo && sampling.logprobs && !sampling.prompt_logprobs) sampling.prompt_logprobs = sampling.logprobs;
  return draft;
}

}  // namespace inferneo
