// What a condition says, before anybody has asked whether it makes sense: the parser's output, the type checker's
// input.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "routing/lexer.h"

namespace inferneo {

enum class ConditionNodeKind : uint8_t { constant, test, all_of, any_of, negation };

enum class TestOperator : uint8_t {
  is_set,  // a field that stands alone
  contains,
  starts_with,
  ends_with,
  matches,
  equals,
  less,
  less_equal,
  greater,
  greater_equal,
  between,
};

struct SyntaxTest {
  RoutingToken field;
  char bracket = 0;  // '[', '(' or none
  std::optional<RoutingToken> argument = {};
  TestOperator op = TestOperator::is_set;
  std::string op_text = {};  // as people call it: "contains", "=="
  size_t op_begin = 0;
  size_t op_end = 0;
  bool ignore_case = false;
  bool negated = false;  // `not in`, `!=`
  std::vector<RoutingToken> operands = {};
};

struct SyntaxNode {
  ConditionNodeKind kind = ConditionNodeKind::constant;
  size_t begin = 0;  // bytes of the text
  size_t end = 0;
  bool value = false;                     // constant
  std::vector<SyntaxNode> children = {};  // all_of, any_of: at least two; negation: one
  std::optional<SyntaxTest> test = {};
};

}  // namespace inferneo
