#include "server/openai/reply_format.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>

namespace inferneo {
namespace {

// What the OpenAI API writes for a probability of zero, which JSON cannot.
constexpr double kLowestLogprob = -9999.0;

void write_logprob(JsonWriter& json, float logprob) {
  json.key("logprob").number(std::isnan(logprob) ? logprob : std::max<double>(logprob, kLowestLogprob));
}

double finite_logprob(float logprob) { return std::max<double>(logprob, kLowestLogprob); }

std::string shown_token(const TokenLogprobText& token, bool as_ids) {
  return as_ids ? "token_id:" + std::to_string(token.token) : token.text;
}

void write_chat_token(JsonWriter& json, const TokenLogprobText& token, bool as_ids) {
  json.field("token", shown_token(token, as_ids));
  write_logprob(json, token.logprob);
  json.key("bytes").begin_array();
  for (const char byte : token.bytes) json.integer(static_cast<unsigned char>(byte));
  json.end_array();
}

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U; });
}

void write_top_of(JsonWriter& json, const TokenLogprobText& token, bool as_ids) {
  json.begin_object();
  std::set<std::string> seen;  // two tokens may look alike; the more probable one stays
  for (const TokenLogprobText& top : token.top) {
    const std::string text = shown_token(top, as_ids);
    if (seen.insert(text).second) json.key(text).number(finite_logprob(top.logprob));
  }
  const std::string text = shown_token(token, as_ids);
  if (seen.insert(text).second) json.key(text).number(finite_logprob(token.logprob));
  json.end_object();
}

}  // namespace

std::string reply_prefix(std::string_view id, std::string_view object, int64_t created, std::string_view model) {
  JsonWriter json;
  json.begin_object().field("id", id).field("object", object).field("created", created).field("model", model);
  return json.take();
}

void write_usage(JsonWriter& json, const Usage& usage) {
  json.begin_object();
  json.field("prompt_tokens", usage.prompt_tokens);
  json.field("completion_tokens", usage.completion_tokens);
  json.field("total_tokens", static_cast<int64_t>(usage.prompt_tokens) + usage.completion_tokens);
  json.key("prompt_tokens_details").begin_object().field("cached_tokens", usage.cached_tokens).end_object();
  if (usage.draft_tokens > 0 || usage.from_cache) {
    json.key("completion_tokens_details").begin_object();
    if (usage.draft_tokens > 0) {
      json.field("accepted_prediction_tokens", usage.accepted_tokens);
      json.field("rejected_prediction_tokens", usage.draft_tokens - usage.accepted_tokens);
    }
    if (usage.from_cache) json.field("cached_tokens", usage.cached_completion_tokens);
    json.end_object();
  }
  json.end_object();
}

std::string chunk_end(bool include_usage, const std::optional<Usage>& so_far) {
  if (!include_usage) return "]}\n\n";
  JsonWriter usage;
  if (so_far) {
    write_usage(usage, *so_far);
  } else {
    usage.null();
  }
  return "],\"usage\":" + usage.take() + "}\n\n";
}

std::string_view finish_reason_name(FinishReason reason, bool called_tools) {
  switch (reason) {
    case FinishReason::stop:
      return called_tools ? "tool_calls" : "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::cancelled:
      return "abort";
    case FinishReason::failed:
      return "error";
  }
  return "error";
}

void write_stop_reason(JsonWriter& json, const std::string& stop_reason, const std::vector<std::string>& stops) {
  json.key("stop_reason");
  if (stop_reason.empty()) {
    json.null();
  } else if (std::find(stops.begin(), stops.end(), stop_reason) == stops.end() &&
             std::all_of(stop_reason.begin(), stop_reason.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    json.raw(stop_reason);
  } else {
    json.string(stop_reason);
  }
}

void write_chat_logprobs(JsonWriter& json, const std::vector<TokenLogprobText>& tokens, bool as_ids) {
  json.begin_object().key("content").begin_array();
  for (const TokenLogprobText& token : tokens) {
    json.begin_object();
    write_chat_token(json, token, as_ids);
    json.key("top_logprobs").begin_array();
    for (const TokenLogprobText& top : token.top) {
      json.begin_object();
      write_chat_token(json, top, as_ids);
      json.end_object();
    }
    json.end_array().end_object();
  }
  json.end_array().key("refusal").null().end_object();
}

void write_completion_logprobs(JsonWriter& json, const std::vector<CompletionToken>& tokens, bool as_ids,
                               int64_t& text_offset) {
  json.begin_object().key("text_offset").begin_array();
  for (const CompletionToken& entry : tokens) {
    json.integer(text_offset);
    text_offset += count_characters(entry.token.text);
  }
  json.end_array().key("token_logprobs").begin_array();
  for (const CompletionToken& entry : tokens) {
    if (entry.has_logprob) {
      json.number(finite_logprob(entry.token.logprob));
    } else {
      json.null();
    }
  }
  json.end_array().key("tokens").begin_array();
  for (const CompletionToken& entry : tokens) json.string(shown_token(entry.token, as_ids));
  json.end_array().key("top_logprobs").begin_array();
  for (const CompletionToken& entry : tokens) {
    if (entry.has_logprob) {
      write_top_of(json, entry.token, as_ids);
    } else {
      json.null();
    }
  }
  json.end_array().end_object();
}

void write_prompt_logprobs(JsonWriter& json, const PromptInfo& prompt) {
  const size_t without = prompt.tokens.size() - std::min(prompt.tokens.size(), prompt.logprobs.size());
  json.begin_array();
  for (size_t i = 0; i < std::max<size_t>(without, prompt.tokens.empty() ? 0 : 1); ++i) json.null();
  for (size_t i = without == 0 ? 1 : 0; i < prompt.logprobs.size(); ++i) {
    const TokenLogprobText& token = prompt.logprobs[i];
    json.begin_object();
    bool shown = false;
    const auto write = [&](const TokenLogprobText& entry, int rank) {
      json.key(std::to_string(entry.token)).begin_object();
      write_logprob(json, entry.logprob);
      if (rank > 0) json.field("rank", rank);
      json.field("decoded_token", entry.text).end_object();
      shown = shown || entry.token == token.token;
    };
    for (size_t k = 0; k < token.top.size(); ++k) write(token.top[k], static_cast<int>(k) + 1);
    if (!shown) write(token, 0);
    json.end_object();
  }
  json.end_array();
}

std::vector<CompletionToken> echoed_tokens(const PromptInfo& prompt) {
  std::vector<CompletionToken> tokens;
  if (prompt.tokens.empty()) return tokens;
  size_t first = 0;
  if (prompt.logprobs.size() == prompt.tokens.size()) {
    tokens.push_back(CompletionToken{prompt.logprobs.front(), false});
    first = 1;
  } else {
    // The first token has no logprob and so no entry; its text is what the others leave of the prompt.
    size_t rest = 0;
    for (const TokenLogprobText& token : prompt.logprobs) rest += token.bytes.size();
    TokenLogprobText token;
    token.token = prompt.tokens.front();
    if (rest <= prompt.echo_text.size()) token.text = prompt.echo_text.substr(0, prompt.echo_text.size() - rest);
    tokens.push_back(CompletionToken{std::move(token), false});
  }
  for (size_t i = first; i < prompt.logprobs.size(); ++i) tokens.push_back(CompletionToken{prompt.logprobs[i], true});
  return tokens;
}

}  // namespace inferneo
