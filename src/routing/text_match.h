// Texts compared as bytes, or with letters taken as equal in either case. Case is that of ASCII; `matches /.../i` folds
// the whole of Unicode.
#pragma once

#include <algorithm>
#include <array>
#include <string>
#include <string_view>

namespace inferneo {

inline constexpr char lower_ascii(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

inline std::string lower_ascii(std::string_view text) {
  std::string lowered(text);
  std::transform(lowered.begin(), lowered.end(), lowered.begin(), [](char c) { return lower_ascii(c); });
  return lowered;
}

inline bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return lower_ascii(x) == lower_ascii(y); });
}

inline bool equal_texts(std::string_view a, std::string_view b, bool ignore_case) {
  return ignore_case ? equal_ignoring_case(a, b) : a == b;
}

inline bool starts_with(std::string_view text, std::string_view beginning, bool ignore_case) {
  return text.size() >= beginning.size() && equal_texts(text.substr(0, beginning.size()), beginning, ignore_case);
}

inline bool ends_with(std::string_view text, std::string_view end, bool ignore_case) {
  return text.size() >= end.size() && equal_texts(text.substr(text.size() - end.size()), end, ignore_case);
}

inline bool contains(std::string_view text, std::string_view part, bool ignore_case) {
  if (!ignore_case) return text.find(part) != std::string_view::npos;
  const auto same = [](char x, char y) { return lower_ascii(x) == lower_ascii(y); };
  return std::search(text.begin(), text.end(), part.begin(), part.end(), same) != text.end();
}

}  // namespace inferneo
