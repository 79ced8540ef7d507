#include "routing/fault.h"

#include <fmt/format.h>

#include <algorithm>

#include "routing/fields.h"

namespace inferneo {
namespace {

constexpr size_t kBefore = 48;  // characters shown of the text, before the place and after it
constexpr size_t kAfter = 32;

bool continues(char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80U; }

bool ends_line(char c) { return c == '\n' || c == '\r'; }

// Control characters and broken UTF-8 would move the caret or break the reader's screen.
std::string printable(std::string_view text) {
  if (find_invalid_utf8(text) != std::string_view::npos) {
    std::string ascii(text);
    std::replace_if(
        ascii.begin(), ascii.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
    return printable(ascii);
  }
  std::string shown(text);
  std::replace_if(
      shown.begin(), shown.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }, ' ');
  return shown;
}

// The length of the sequence that begins here, 0 when it is none: RFC 3629, table of section 4.
size_t sequence_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  const auto follows = [&](size_t i, unsigned low = 0x80, unsigned high = 0xBF) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const bool second = follows(1, first == 0xE0 ? 0xA0 : 0x80, first == 0xED ? 0x9F : 0xBF);
    return second && follows(2) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const bool second = follows(1, first == 0xF0 ? 0x90 : 0x80, first == 0xF4 ? 0x8F : 0xBF);
    return second && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

size_t character_offset(std::string_view text, size_t byte) { return count_code_points(text.substr(0, byte)); }

Error fault_error(std::string_view text, const ConditionFault& fault) {
  const size_t begin = std::min(fault.begin, text.size());
  size_t from = begin;
  for (size_t shown = 0; from > 0 && shown < kBefore && !ends_line(text[from - 1]); ++shown) {
    do {
      --from;
    } while (from > 0 && continues(text[from]));
  }
  size_t to = begin;
  for (size_t shown = 0; to < text.size() && shown < kAfter && !ends_line(text[to]); ++shown) {
    do {
      ++to;
    } while (to < text.size() && continues(text[to]));
  }
  const size_t end = std::clamp(fault.end, begin, to);
  const size_t carets = std::max<size_t>(1, count_code_points(text.substr(begin, end - begin)));
  const std::string before = printable(text.substr(from, begin - from));
  return make_error(
      ErrorCode::invalid_argument,
      fmt::format("{} at character {}{}{}\n  {}{}\n  {}{}", fault.message, character_offset(text, begin) + 1,
                  fault.hint.empty() ? "" : ", ", fault.hint, before, printable(text.substr(begin, to - begin)),
                  std::string(count_code_points(before), ' '), std::string(carets, '^')),
      "condition");
}

size_t find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = sequence_length(text.substr(at, 4));
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

}  // namespace inferneo
