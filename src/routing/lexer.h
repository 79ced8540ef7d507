// A condition's text as tokens. Spaces, tabs and line ends part them and mean nothing else.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "routing/fault.h"

namespace inferneo {

enum class TokenKind : uint8_t { word, text, number, regex, symbol, end };

struct RoutingToken {
  TokenKind kind = TokenKind::end;
  size_t begin = 0;  // bytes of the condition
  size_t end = 0;
  std::string value = {};  // word: in lower case; text: unescaped; regex: the pattern; symbol: itself
  std::string flags = {};  // regex
  double number = 0;

  bool is(TokenKind wanted, std::string_view text) const { return kind == wanted && value == text; }
  bool is_word(std::string_view text) const { return is(TokenKind::word, text); }
  bool is_symbol(std::string_view text) const { return is(TokenKind::symbol, text); }
};

// The tokens, the last of which is `end`; empty, with `fault` set, when the text has none.
std::vector<RoutingToken> tokenize_condition(std::string_view text, ConditionFault& fault);

}  // namespace inferneo
