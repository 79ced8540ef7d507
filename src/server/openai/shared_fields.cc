// One row per request field: which API has it, and how it is read, ignored or refused.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>

#include "server/json_fields.h"
#include "server/keep_alive.h"
#include "server/openai/request_draft.h"

namespace inferneo {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int32_t>::max();
constexpr uint8_t kChat = static_cast<uint8_t>(Api::chat);
constexpr uint8_t kCompletions = static_cast<uint8_t>(Api::completions);
constexpr uint8_t kBoth = kChat | kCompletions;

using Field = std::string_view;
using ReadField = Status (*)(const Json& value, Field field, RequestDraft& draft);

template <float SamplingParams::*Member>
Status number_into(const Json& value, Field field, RequestDraft& draft, NumberRange range) {
  ASSIGN_OR_RETURN(const double number, read_number(value, field, range));
  const auto narrow = static_cast<float>(number);
  // The smallest doubles are zero as floats.
  if (range.min_excluded && !(narrow > static_cast<float>(range.min))) return field_error(field, "is too small");
  draft.request.sampling.*Member = narrow;
  return ok_status();
}

template <float SamplingParams::*Member, int Min, int Max, bool MinExcluded = false>
Status number_field(const Json& value, Field field, RequestDraft& draft) {
  return number_into<Member>(value, field, draft, NumberRange{Min, Max, MinExcluded});
}

template <int SamplingParams::*Member, int64_t Min, int64_t Max>
Status integer_field(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(const int64_t number, read_integer(value, field, Min, Max));
  draft.request.sampling.*Member = static_cast<int>(number);
  return ok_status();
}

template <bool RequestDraft::*Member>
Status flag_field(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.*Member, read_bool(value, field));
  return ok_status();
}

template <bool SamplingParams::*Member>
Status sampling_flag(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.request.sampling.*Member, read_bool(value, field));
  return ok_status();
}

template <bool GenerateRequest::*Member>
Status request_flag(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.request.*Member, read_bool(value, field));
  return ok_status();
}

template <std::string GenerateRequest::*Member, size_t MaxBytes>
Status request_text(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.request.*Member, read_string(value, field, MaxBytes));
  return ok_status();
}

template <std::optional<int64_t> RequestDraft::*Member, int64_t Min>
Status count_field(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.*Member, read_integer(value, field, Min, kMaxInt));
  return ok_status();
}

Status read_max_completion_tokens(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.max_tokens, read_integer(value, field, 1, kMaxInt));
  return ok_status();
}

Status read_seed(const Json& value, Field field, RequestDraft& draft) {
  if (value.is_number_unsigned()) {
    draft.request.sampling.seed = value.get<uint64_t>();
    return ok_status();
  }
  ASSIGN_OR_RETURN(const int64_t seed, read_integer(value, field, std::numeric_limits<int64_t>::min(),
                                                    std::numeric_limits<int64_t>::max()));
  draft.request.sampling.seed = static_cast<uint64_t>(seed);
  return ok_status();
}

Status read_stop(const Json& value, Field field, RequestDraft& draft) {
  const Json list = value.is_array() ? value : Json::array({value});
  if (list.size() > kMaxStops) return field_error(field, fmt::format("must not have more than {} entries", kMaxStops));
  for (const Json& entry : list) {
    ASSIGN_OR_RETURN(std::string text, read_string(entry, field, kMaxStopBytes));
    if (text.empty()) return field_error(field, "must not hold an empty string");
    draft.request.sampling.stop.push_back(std::move(text));
  }
  return ok_status();
}

Status read_stop_token_ids(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.request.sampling.stop_token_ids, read_token_ids(value, field, kMaxListedTokens));
  return ok_status();
}

Status read_logit_bias(const Json& value, Field field, RequestDraft& draft) {
  if (!value.is_object()) return field_error(field, "must be an object of token ids and biases");
  if (value.size() > kMaxListedTokens) {
    return field_error(field, fmt::format("must not have more than {} entries", kMaxListedTokens));
  }
  for (const auto& [key, bias] : value.items()) {
    Token token = 0;
    const auto [end, ec] = std::from_chars(key.data(), key.data() + key.size(), token);
    if (ec != std::errc() || end != key.data() + key.size() || token < 0) {
      return field_error(field, "must have token ids as keys");
    }
    ASSIGN_OR_RETURN(const double number, read_number(bias, field, NumberRange{-100.0, 100.0}));
    draft.request.sampling.logit_bias.emplace_back(token, static_cast<float>(number));
  }
  return ok_status();
}

Status read_logprobs(const Json& value, Field field, RequestDraft& draft) {
  if (draft.api == Api::chat) return flag_field<&RequestDraft::wants_logprobs>(value, field, draft);
  ASSIGN_OR_RETURN(const int64_t count, read_integer(value, field, 0, kMaxTopLogprobs));
  draft.wants_logprobs = true;
  draft.request.sampling.logprobs = static_cast<int>(count);
  return ok_status();
}

Status read_top_logprobs(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(const int64_t count, read_integer(value, field, 0, kMaxTopLogprobs));
  draft.top_logprobs = static_cast<int>(count);
  return ok_status();
}

Status read_prompt_logprobs(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(const int64_t count, read_integer(value, field, 0, kMaxTopLogprobs));
  draft.request.sampling.prompt_logprobs = static_cast<int>(count);
  return ok_status();
}

Status read_priority(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(const int64_t priority, read_integer(value, field, -kMaxInt, kMaxInt));
  draft.request.priority = static_cast<int32_t>(priority);
  return ok_status();
}

Status read_num_speculative_tokens(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(const int64_t count, read_integer(value, field, 0, kMaxInt));
  draft.request.sampling.num_speculative_tokens = static_cast<int>(count);
  return ok_status();
}

// OpenAI's predicted output: {"type": "content", "content": text or a list of text parts}.
Status read_prediction(const Json& value, Field field, RequestDraft& draft) {
  const auto type = value.is_object() ? value.find("type") : value.end();
  if (!value.is_object() || type == value.end() || *type != "content" || !value.contains("content")) {
    return field_error(field, "must be an object with the type \"content\" and a `content`");
  }
  ASSIGN_OR_RETURN(draft.request.prediction, read_text_content(value["content"], std::string(field) + ".content"));
  return ok_status();
}

Status read_keep_alive_field(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(draft.request.keep_alive, read_keep_alive(value, field));
  return ok_status();
}

Status read_stream_options(const Json& value, Field field, RequestDraft& draft) {
  if (!value.is_object()) return field_error(field, "must be an object");
  draft.has_stream_options = true;
  for (const auto& [key, option] : value.items()) {
    if (option.is_null()) continue;
    const std::string name = fmt::format("{}.{}", field, key);
    if (key == "include_usage") {
      ASSIGN_OR_RETURN(draft.include_usage, read_bool(option, name));
    } else if (key == "continuous_usage_stats") {
      ASSIGN_OR_RETURN(draft.continuous_usage, read_bool(option, name));
    } else if (key == "include_obfuscation") {
      ASSIGN_OR_RETURN(const bool wanted, read_bool(option, name));
      if (wanted) return field_error(name, "is not supported; leave it out or set it to false");
    } else {
      return field_error(name, "is not known");
    }
  }
  return ok_status();
}

// --- constraints on the output -------------------------------------------------------------------------------------

GrammarSpec grammar_of(GrammarSpec::Kind kind, std::string text) {
  GrammarSpec grammar;
  grammar.kind = kind;
  grammar.text = std::move(text);
  return grammar;
}

// A schema as an object, or as a string that holds one.
Status read_json_schema(const Json& value, Field field, RequestDraft& draft) {
  Json schema = value;
  if (value.is_string()) {
    ASSIGN_OR_RETURN(schema, parse_nested_json(value.get_ref<const std::string&>(), field));
  }
  if (!schema.is_object() && !schema.is_boolean()) return field_error(field, "must be a JSON schema");
  return set_grammar(draft, field, grammar_of(GrammarSpec::Kind::json_schema, schema.dump()));
}

template <GrammarSpec::Kind Kind>
Status read_grammar_text(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(std::string text, read_string(value, field, 64 * 1024));
  if (text.empty()) return field_error(field, "must not be empty");
  return set_grammar(draft, field, grammar_of(Kind, std::move(text)));
}

Status read_choices(const Json& value, Field field, RequestDraft& draft) {
  if (!value.is_array() || value.empty()) return field_error(field, "must be a list of at least one string");
  if (value.size() > kMaxListedTokens) {
    return field_error(field, fmt::format("must not have more than {} entries", kMaxListedTokens));
  }
  GrammarSpec grammar;
  grammar.kind = GrammarSpec::Kind::choice;
  for (const Json& entry : value) {
    ASSIGN_OR_RETURN(std::string text, read_string(entry, field, 64 * 1024));
    grammar.choices.push_back(std::move(text));
  }
  return set_grammar(draft, field, std::move(grammar));
}

Status read_json_object_flag(const Json& value, Field field, RequestDraft& draft) {
  ASSIGN_OR_RETURN(const bool wanted, read_bool(value, field));
  if (!wanted) return ok_status();
  return set_grammar(draft, field, grammar_of(GrammarSpec::Kind::json_object, {}));
}

Status read_response_format(const Json& value, Field field, RequestDraft& draft) {
  const std::string type =
      value.is_object() && value.contains("type") && value["type"].is_string() ? value["type"].get<std::string>() : "";
  if (type == "text") return ok_status();
  if (type == "json_object") return set_grammar(draft, field, grammar_of(GrammarSpec::Kind::json_object, {}));
  if (type == "json_schema") {
    const auto holder = value.find("json_schema");
    if (holder == value.end() || !holder->is_object() || !holder->contains("schema")) {
      return field_error("response_format.json_schema", "must be an object with `name` and `schema`");
    }
    if (!(*holder)["schema"].is_object()) return field_error("response_format.json_schema.schema", "must be an object");
    return read_json_schema((*holder)["schema"], "response_format", draft);
  }
  return field_error("response_format.type", "must be text, json_object or json_schema");
}

struct StructuredRow {
  Field name;
  ReadField read;
};
constexpr std::array kStructured = {
    StructuredRow{"json", read_json_schema},
    StructuredRow{"regex", read_grammar_text<GrammarSpec::Kind::regex>},
    StructuredRow{"choice", read_choices},
    StructuredRow{"grammar", read_grammar_text<GrammarSpec::Kind::lark>},
    StructuredRow{"json_object", read_json_object_flag},
};

Status read_structured_outputs(const Json& value, Field field, RequestDraft& draft) {
  if (!value.is_object()) return field_error(field, "must be an object");
  for (const auto& [key, option] : value.items()) {
    if (option.is_null()) continue;
    const std::string name = fmt::format("{}.{}", field, key);
    const auto row = std::find_if(kStructured.begin(), kStructured.end(),
                                  [&key = key](const StructuredRow& r) { return r.name == key; });
    if (row == kStructured.end()) return field_error(name, "is not supported; use json, regex, choice or grammar");
    RETURN_IF_ERROR(row->read(option, name, draft));
  }
  return ok_status();
}

// --- fields without an effect ---------------------------------------------------------------------------------------

Status ignore(const Json&, Field, RequestDraft&) { return ok_status(); }

// What would change the answer and is not there: only the value that asks for nothing is taken.
Status refuse(const Json& value, Field field, RequestDraft&) {
  const bool asks_for_nothing = value == false || (value.is_structured() && value.empty());
  return asks_for_nothing ? ok_status() : Status(field_error(field, "is not supported by this server"));
}

Status refuse_templates(const Json&, Field field, RequestDraft&) {
  return field_error(field, "is refused: chat templates are the operator's, not the request's");
}

Status only_true(const Json& value, Field field, RequestDraft&) {
  ASSIGN_OR_RETURN(const bool wanted, read_bool(value, field));
  return wanted ? ok_status() : Status(field_error(field, "must be true; false is not supported"));
}

Status refuse_audio(const Json& value, Field field, RequestDraft&) {
  return value == Json::array({"text"}) ? ok_status() : Status(field_error(field, "may hold only \"text\""));
}

struct FieldRow {
  Field name;
  uint8_t apis;
  ReadField read;  // null: read by the API's own code
};

constexpr std::array kFields = {
    FieldRow{"model", kBoth, request_text<&GenerateRequest::model, 512>},
    FieldRow{"messages", kChat, nullptr},
    FieldRow{"prompt", kCompletions, nullptr},
    FieldRow{"tools", kChat, nullptr},
    FieldRow{"tool_choice", kChat, nullptr},
    FieldRow{"parallel_tool_calls", kChat, flag_field<&RequestDraft::parallel_tool_calls>},
    FieldRow{"chat_template_kwargs", kChat, nullptr},
    FieldRow{"reasoning_effort", kChat, nullptr},
    FieldRow{"add_generation_prompt", kChat, flag_field<&RequestDraft::add_generation_prompt>},
    FieldRow{"continue_final_message", kChat, flag_field<&RequestDraft::continue_final_message>},
    FieldRow{"include_reasoning", kChat, flag_field<&RequestDraft::include_reasoning>},
    FieldRow{"stream", kBoth, flag_field<&RequestDraft::stream>},
    FieldRow{"stream_options", kBoth, read_stream_options},
    FieldRow{"n", kBoth, integer_field<&SamplingParams::n, 1, kMaxSamples>},
    FieldRow{"best_of", kBoth, count_field<&RequestDraft::best_of, 1>},
    FieldRow{"max_tokens", kBoth, count_field<&RequestDraft::max_tokens, 0>},
    FieldRow{"max_completion_tokens", kChat, read_max_completion_tokens},  // after max_tokens: it wins
    FieldRow{"min_tokens", kBoth, integer_field<&SamplingParams::min_tokens, 0, kMaxInt>},
    FieldRow{"temperature", kBoth, number_field<&SamplingParams::temperature, 0, 2>},
    FieldRow{"top_p", kBoth, number_field<&SamplingParams::top_p, 0, 1, true>},
    FieldRow{"top_k", kBoth, integer_field<&SamplingParams::top_k, -1, kMaxInt>},
    FieldRow{"min_p", kBoth, number_field<&SamplingParams::min_p, 0, 1>},
    FieldRow{"typical_p", kBoth, number_field<&SamplingParams::typical_p, 0, 1, true>},
    FieldRow{"repetition_penalty", kBoth, number_field<&SamplingParams::repetition_penalty, 0, 100, true>},
    FieldRow{"presence_penalty", kBoth, number_field<&SamplingParams::presence_penalty, -2, 2>},
    FieldRow{"frequency_penalty", kBoth, number_field<&SamplingParams::frequency_penalty, -2, 2>},
    FieldRow{"logit_bias", kBoth, read_logit_bias},
    FieldRow{"seed", kBoth, read_seed},
    FieldRow{"stop", kBoth, read_stop},
    FieldRow{"stop_token_ids", kBoth, read_stop_token_ids},
    FieldRow{"ignore_eos", kBoth, sampling_flag<&SamplingParams::ignore_eos>},
    FieldRow{"logprobs", kBoth, read_logprobs},
    FieldRow{"top_logprobs", kChat, read_top_logprobs},
    FieldRow{"prompt_logprobs", kBoth, read_prompt_logprobs},
    FieldRow{"return_tokens_as_token_ids", kBoth, flag_field<&RequestDraft::token_ids_as_text>},
    FieldRow{"echo", kCompletions, sampling_flag<&SamplingParams::echo>},
    FieldRow{"echo", kChat, refuse},
    FieldRow{"add_special_tokens", kCompletions, request_flag<&GenerateRequest::add_special_tokens>},
    FieldRow{"add_special_tokens", kChat, refuse},
    FieldRow{"skip_special_tokens", kBoth, request_flag<&GenerateRequest::skip_special_tokens>},
    FieldRow{"priority", kBoth, read_priority},
    FieldRow{"prediction", kBoth, read_prediction},
    FieldRow{"num_speculative_tokens", kBoth, read_num_speculative_tokens},
    FieldRow{"keep_alive", kBoth, read_keep_alive_field},
    FieldRow{"answer_cache", kBoth, sampling_flag<&SamplingParams::answer_cache>},
    FieldRow{"cache_salt", kBoth, request_text<&GenerateRequest::cache_salt, 512>},
    FieldRow{"user", kBoth, request_text<&GenerateRequest::user, 512>},
    FieldRow{"response_format", kBoth, read_response_format},
    FieldRow{"structured_outputs", kBoth, read_structured_outputs},
    FieldRow{"guided_json", kBoth, read_json_schema},
    FieldRow{"guided_regex", kBoth, read_grammar_text<GrammarSpec::Kind::regex>},
    FieldRow{"guided_choice", kBoth, read_choices},
    FieldRow{"guided_grammar", kBoth, read_grammar_text<GrammarSpec::Kind::lark>},
    // OpenAI's fields for services that this server does not have: taken and ignored.
    FieldRow{"store", kBoth, ignore},
    FieldRow{"metadata", kBoth, ignore},
    FieldRow{"service_tier", kBoth, ignore},
    FieldRow{"safety_identifier", kBoth, ignore},
    FieldRow{"prompt_cache_key", kBoth, ignore},
    FieldRow{"prompt_cache_retention", kBoth, ignore},
    FieldRow{"verbosity", kChat, ignore},
    FieldRow{"request_id", kBoth, ignore},
    FieldRow{"guided_decoding_backend", kBoth, ignore},
    FieldRow{"guided_whitespace_pattern", kBoth, refuse},
    // Fields that would change the answer, and are not there.
    FieldRow{"suffix", kCompletions, refuse},
    FieldRow{"audio", kChat, refuse},
    FieldRow{"modalities", kChat, refuse_audio},
    FieldRow{"web_search_options", kChat, refuse},
    FieldRow{"functions", kChat, refuse},
    FieldRow{"function_call", kChat, refuse},
    FieldRow{"documents", kChat, refuse},
    FieldRow{"chat_template", kChat, refuse_templates},
    FieldRow{"use_beam_search", kBoth, refuse},
    FieldRow{"bad_words", kBoth, refuse},
    FieldRow{"logits_processors", kBoth, refuse},
    FieldRow{"truncate_prompt_tokens", kBoth, refuse},
    FieldRow{"include_stop_str_in_output", kBoth, refuse},
    FieldRow{"spaces_between_special_tokens", kBoth, only_true},
};

// What the request leaves open follows the model's own defaults, which are known further down.
void note_explicit_fields(const Json& body, ExplicitSampling& explicit_sampling) {
  const auto given = [&](const char* field) { return body.contains(field) && !body[field].is_null(); };
  explicit_sampling.temperature = given("temperature");
  explicit_sampling.top_p = given("top_p");
  explicit_sampling.top_k = given("top_k");
  explicit_sampling.min_p = given("min_p");
  explicit_sampling.repetition_penalty = given("repetition_penalty");
}

Status check_shared(RequestDraft& draft) {
  SamplingParams& sampling = draft.request.sampling;
  if (draft.best_of && *draft.best_of != sampling.n) {
    return field_error("best_of", "must equal n: ranking of several candidates is not supported");
  }
  if (draft.max_tokens) {
    if (*draft.max_tokens == 0 && !sampling.echo) {
      return field_error("max_tokens", "must be at least 1 (0 only together with echo)");
    }
    sampling.max_tokens = static_cast<int>(*draft.max_tokens);
  }
  if (sampling.max_tokens && sampling.min_tokens > *sampling.max_tokens) {
    return field_error("min_tokens", "must not be larger than max_tokens");
  }
  if (draft.has_stream_options && !draft.stream) return field_error("stream_options", "needs stream: true");
  if (draft.stream && sampling.prompt_logprobs) return field_error("prompt_logprobs", "cannot be streamed");
  return ok_status();
}

}  // namespace

Status set_grammar(RequestDraft& draft, std::string_view field, GrammarSpec grammar) {
  if (!draft.grammar_source.empty()) {
    return field_error(field,
                       fmt::format("and '{}' both constrain the output; give one of them", draft.grammar_source));
  }
  size_t bytes = grammar.text.size();
  for (const std::string& choice : grammar.choices) bytes += choice.size();
  if (bytes > kMaxGrammarBytes) {
    return field_error(field, fmt::format("makes a grammar of more than {} bytes", kMaxGrammarBytes));
  }
  draft.grammar_source = field;
  draft.request.sampling.grammar = std::move(grammar);
  return ok_status();
}

Error as_sent(Error error, const RequestDraft& draft) {
  if (error.param == "grammar") error.param = draft.grammar_source;
  if (error.param == "prompt" && draft.api == Api::chat) error.param = "messages";
  return error;
}

std::vector<std::string_view> request_field_names(Api api) {
  std::vector<std::string_view> names;
  for (const FieldRow& row : kFields) {
    if ((row.apis & static_cast<uint8_t>(api)) != 0) names.push_back(row.name);
  }
  return names;
}

Status read_shared_fields(const Json& body, RequestDraft& draft) {
  const auto api = static_cast<uint8_t>(draft.api);
  for (const auto& [key, value] : body.items()) {
    const bool known = std::any_of(kFields.begin(), kFields.end(), [&key = key, api](const FieldRow& row) {
      return row.name == key && (row.apis & api) != 0;
    });
    if (!known) return field_error(key.substr(0, 64), "is not a field of this request");
  }
  for (const FieldRow& row : kFields) {  // in the table's order, so that errors do not depend on the client's
    if (row.read == nullptr || (row.apis & api) == 0) continue;
    const auto value = body.find(row.name);
    if (value == body.end() || value->is_null()) continue;
    RETURN_IF_ERROR(row.read(*value, row.name, draft));
  }
  note_explicit_fields(body, draft.request.explicit_sampling);
  return check_shared(draft);
}

}  // namespace inferneo
