// What a condition may ask about, one row per field: the parser, the type checker, the evaluators, the errors and the
// documentation follow from this table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "routing/request_facts.h"

namespace inferneo {

enum class Field : uint8_t {
  prompt,
  conversation,
  model,
  user,
  header,
  language,
  prompt_length,
  prompt_tokens,
  max_tokens,
  turns,
  load,
  has_tools,
  stream,
  embedding,
  tensors,
  loaded,
  time,
};
inline constexpr size_t kNumFields = 17;

enum class FieldType : uint8_t {
  text,      // contains, matches, starts with, ends with, ==, in
  passages,  // several texts: contains, matches
  choice,    // a word of a closed list: ==, in
  number,    // comparisons, between
  flag,      // stands alone
  time,      // between, comparisons
};

struct FieldInfo {
  Field field;
  std::string_view name;
  FieldType type;
  char bracket;              // '[' or '(': takes a text, as header['name'] and load('model'); 0: takes none
  std::string_view example;  // a condition
  std::string_view help;
};

std::span<const FieldInfo> routing_fields();
const FieldInfo& field_info(Field field);
const FieldInfo* find_field(std::string_view name);  // in any case; nullptr: there is none
std::string_view field_type_name(FieldType type);

// ---- the value of a field, from the facts; `argument` is what stands in its brackets
std::string_view text_value(Field field, std::string_view argument, const RequestFacts& facts);
// None: the request does not say, and no comparison with it is true.
std::optional<double> number_value(Field field, std::string_view argument, const RequestFacts& facts);
bool flag_value(Field field, std::string_view argument, const RequestFacts& facts);
int minute_value(const RequestFacts& facts);

// Code points: bytes that begin one. A byte that is no UTF-8 counts as the middle of one.
size_t count_code_points(std::string_view text);

}  // namespace inferneo
