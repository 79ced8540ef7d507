#include "routing/fields.h"

#include <algorithm>
#include <array>

#include "base/result.h"
#include "routing/language.h"
#include "routing/text_match.h"

namespace inferneo {
namespace {

// In the order of the enum.
constexpr std::array<FieldInfo, kNumFields> kFields = {{
    {Field::prompt, "prompt", FieldType::text, 0, "prompt contains 'code' or 'function'",
     "a chat's last user message, or the prompt of a completion"},
    {Field::conversation, "conversation", FieldType::passages, 0, "conversation icontains 'invoice'",
     "all messages of a chat, each for itself"},
    {Field::model, "model", FieldType::text, 0, "model == 'auto'", "the model that was asked for; empty when absent"},
    {Field::user, "user", FieldType::text, 0, "user in ('alice', 'bob')", "the request's `user`; empty when absent"},
    {Field::header, "header", FieldType::text, '[', "header['x-tier'] == 'gold'",
     "an HTTP header, its name in any case; empty when absent"},
    {Field::language, "language", FieldType::choice, 0, "language == 'python'",
     "the programming language of the prompt, where it shows"},
    {Field::prompt_length, "prompt_length", FieldType::number, 0, "prompt_length > 1000",
     "characters (code points) of the prompt"},
    {Field::prompt_tokens, "prompt_tokens", FieldType::number, 0, "prompt_tokens > 2000",
     "tokens of the prompt, as the default model counts them"},
    {Field::max_tokens, "max_tokens", FieldType::number, 0, "max_tokens < 64",
     "the request's limit; absent: no comparison is true"},
    {Field::turns, "turns", FieldType::number, 0, "turns > 4", "messages of the user in the conversation"},
    {Field::load, "load", FieldType::number, '(', "load('code-llama') < 0.8",
     "share of the model's places in use, above 1 when requests wait"},
    {Field::has_tools, "has_tools", FieldType::flag, 0, "has_tools", "the request offers tools"},
    {Field::stream, "stream", FieldType::flag, 0, "not stream", "the answer is streamed"},
    {Field::embedding, "embedding", FieldType::flag, 0, "embedding and user == 'search'",
     "vectors of texts are asked for; without it a rule sees no such request"},
    {Field::tensors, "tensors", FieldType::flag, 0, "tensors and model == 'classifier'",
     "tensors are sent to a graph; without it a rule sees no such request"},
    {Field::loaded, "loaded", FieldType::flag, '(', "loaded('code-llama')", "the model is in memory and ready"},
    {Field::time, "time", FieldType::time, 0, "time between '22:00' and '06:00'", "the server's local time of day"},
}};

}  // namespace

std::span<const FieldInfo> routing_fields() { return kFields; }

const FieldInfo& field_info(Field field) { return kFields[static_cast<size_t>(field)]; }

const FieldInfo* find_field(std::string_view name) {
  const auto found = std::find_if(kFields.begin(), kFields.end(),
                                  [&](const FieldInfo& info) { return equal_ignoring_case(info.name, name); });
  return found == kFields.end() ? nullptr : &*found;
}

std::string_view field_type_name(FieldType type) {
  switch (type) {
    case FieldType::text:
      return "text";
    case FieldType::passages:
      return "texts";
    case FieldType::choice:
      return "language";
    case FieldType::number:
      return "number";
    case FieldType::flag:
      return "flag";
    case FieldType::time:
      return "time of day";
  }
  return "unknown";
}

std::string_view text_value(Field field, std::string_view argument, const RequestFacts& facts) {
  switch (field) {
    case Field::prompt:
      return facts.prompt;
    case Field::model:
      return facts.model;
    case Field::user:
      return facts.user;
    case Field::header:
      return facts.view == nullptr ? std::string_view() : facts.view->header(argument);
    case Field::language:
      return detect_language(facts.prompt);
    default:
      return {};
  }
}

std::optional<double> number_value(Field field, std::string_view argument, const RequestFacts& facts) {
  std::optional<int64_t> count;
  switch (field) {
    case Field::prompt_length:
      count = static_cast<int64_t>(count_code_points(facts.prompt));
      break;
    case Field::prompt_tokens:
      if (facts.view != nullptr) count = facts.view->prompt_tokens();
      break;
    case Field::max_tokens:
      count = facts.max_tokens;
      break;
    case Field::turns:
      count = facts.turns;
      break;
    case Field::load:
      return facts.view == nullptr ? std::nullopt : facts.view->load(argument);
    default:
      break;
  }
  if (!count) return std::nullopt;
  return static_cast<double>(*count);
}

bool flag_value(Field field, std::string_view argument, const RequestFacts& facts) {
  switch (field) {
    case Field::has_tools:
      return facts.has_tools;
    case Field::stream:
      return facts.stream;
    case Field::embedding:
      return facts.embedding;
    case Field::tensors:
      return facts.tensors;
    case Field::loaded:
      return facts.view != nullptr && facts.view->loaded(argument);
    default:
      return false;
  }
}

int minute_value(const RequestFacts& facts) { return facts.view == nullptr ? 0 : facts.view->minute_of_day(); }

size_t count_code_points(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0U) != 0x80U ? 1 : 0;
  return count;
}

}  // namespace inferneo
