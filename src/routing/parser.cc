#include "routing/parser.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/config/suggest.h"
#include "routing/fields.h"

namespace inferneo {
namespace {

enum class Shape : uint8_t { single, or_list, bracketed, range };

struct OperatorRow {
  std::string_view word;  // or symbol
  std::string_view second;
  TestOperator op;
  Shape shape;
  bool ignore_case;
  bool negated;
  bool may_be_negated;  // by a `not` before it
};
constexpr OperatorRow kOperators[] = {
    {"contains", "", TestOperator::contains, Shape::or_list, false, false, true},
    {"icontains", "", TestOperator::contains, Shape::or_list, true, false, true},
    {"starts", "with", TestOperator::starts_with, Shape::or_list, false, false, true},
    {"istarts", "with", TestOperator::starts_with, Shape::or_list, true, false, true},
    {"ends", "with", TestOperator::ends_with, Shape::or_list, false, false, true},
    {"iends", "with", TestOperator::ends_with, Shape::or_list, true, false, true},
    {"matches", "", TestOperator::matches, Shape::or_list, false, false, true},
    {"==", "", TestOperator::equals, Shape::or_list, false, false, false},
    {"equals", "", TestOperator::equals, Shape::or_list, false, false, false},
    {"iequals", "", TestOperator::equals, Shape::or_list, true, false, false},
    {"!=", "", TestOperator::equals, Shape::single, false, true, false},
    {"in", "", TestOperator::equals, Shape::bracketed, false, false, true},
    {"iin", "", TestOperator::equals, Shape::bracketed, true, false, true},
    {"<", "", TestOperator::less, Shape::single, false, false, false},
    {"<=", "", TestOperator::less_equal, Shape::single, false, false, false},
    {">", "", TestOperator::greater, Shape::single, false, false, false},
    {">=", "", TestOperator::greater_equal, Shape::single, false, false, false},
    {"between", "", TestOperator::between, Shape::range, false, false, true},
};
constexpr std::string_view kKeywords[] = {"and", "or", "not", "true", "false", "with"};

std::vector<std::string_view> operator_words() {
  std::vector<std::string_view> words = {"and", "or"};
  for (const OperatorRow& row : kOperators) {
    if (row.word.front() >= 'a') words.push_back(row.word);
  }
  return words;
}

std::vector<std::string_view> condition_words() {
  std::vector<std::string_view> words = {"not", "true", "false"};
  for (const FieldInfo& info : routing_fields()) words.push_back(info.name);
  return words;
}

// Without the comma that follows a message in a list of configuration keys.
std::string nearest_hint(std::string_view word, const std::vector<std::string_view>& known) {
  const std::string_view nearest = nearest_word(word, known);
  return nearest.empty() ? std::string() : fmt::format("did you mean '{}'?", nearest);
}

bool is_value(const RoutingToken& token) {
  return token.kind == TokenKind::text || token.kind == TokenKind::number || token.kind == TokenKind::regex ||
         token.is_word("true") || token.is_word("false");
}

// Recursive descent; the depth is bounded, and each step takes a token or returns.
class Parser {
 public:
  Parser(const std::vector<RoutingToken>& tokens, ConditionFault& fault) : tokens_(tokens), fault_(fault) {}

  std::optional<SyntaxNode> run() {
    if (peek().kind == TokenKind::end) {
      return fail(peek(), "an empty condition", "write `true` for a rule that always matches");
    }
    auto condition = parse_any();
    if (!condition) return std::nullopt;
    if (peek().kind == TokenKind::end) return condition;
    return fail_after_condition();
  }

 private:
  const RoutingToken& peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  const RoutingToken& take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }

  std::nullopt_t fail(const RoutingToken& token, std::string message, std::string hint = {}) {
    fault_ = {token.begin, token.end, std::move(message), std::move(hint)};
    return std::nullopt;
  }

  std::string shown(const RoutingToken& token) const {
    switch (token.kind) {
      case TokenKind::word:
      case TokenKind::symbol:
        return fmt::format("'{}'", token.value);
      case TokenKind::text:
        return "a text";
      case TokenKind::number:
        return "a number";
      case TokenKind::regex:
        return "a regular expression";
      case TokenKind::end:
        return "the end";
    }
    return "something";
  }

  std::nullopt_t fail_after_condition() {
    const RoutingToken& token = peek();
    if (token.is_symbol(")")) return fail(token, "')' closes nothing", "remove it");
    std::string hint = "conditions are joined by `and` and `or`";
    if (token.kind == TokenKind::word) {
      if (std::string near = nearest_hint(token.value, operator_words()); !near.empty()) hint = std::move(near);
    }
    return fail(token, fmt::format("unexpected {} after a condition", shown(token)), std::move(hint));
  }

  // One or more of `next`, with `word` between them.
  template <typename Next>
  std::optional<SyntaxNode> parse_joined(std::string_view word, ConditionNodeKind kind, Next next) {
    auto first = next();
    if (!first || !peek().is_word(word)) return first;
    SyntaxNode node{.kind = kind, .begin = first->begin, .end = first->end};
    node.children.push_back(std::move(*first));
    while (peek().is_word(word)) {
      take();
      if (is_value(peek()) && !peek().is_word("true") && !peek().is_word("false")) {
        return fail(peek(), "a value is no condition", "repeat the field: prompt contains 'a' and prompt contains 'b'");
      }
      auto child = next();
      if (!child) return std::nullopt;
      node.end = child->end;
      node.children.push_back(std::move(*child));
    }
    return node;
  }

  std::optional<SyntaxNode> parse_any() {
    return parse_joined("or", ConditionNodeKind::any_of, [this] { return parse_all(); });
  }

  std::optional<SyntaxNode> parse_all() {
    return parse_joined("and", ConditionNodeKind::all_of, [this] { return parse_negation(); });
  }

  std::optional<SyntaxNode> parse_negation() {
    const RoutingToken& token = peek();
    if (!token.is_word("not") && !token.is_symbol("(")) return parse_constant_or_test();
    if (++depth_ > kMaxConditionDepth) {
      return fail(token, fmt::format("nested deeper than {}", kMaxConditionDepth), "split it into several rules");
    }
    take();
    auto inner = token.is_symbol("(") ? parse_any() : parse_negation();
    --depth_;
    if (!inner) return std::nullopt;
    if (token.is_word("not")) {
      SyntaxNode node{.kind = ConditionNodeKind::negation, .begin = token.begin, .end = inner->end};
      node.children.push_back(std::move(*inner));
      return node;
    }
    if (!peek().is_symbol(")")) {
      if (peek().kind == TokenKind::end) return fail(token, "'(' is never closed", "add ')'");
      return fail_after_condition();
    }
    inner->begin = token.begin;
    inner->end = take().end;
    return inner;
  }

  std::optional<SyntaxNode> parse_constant_or_test() {
    const RoutingToken& token = peek();
    if (token.is_word("true") || token.is_word("false")) {
      take();
      if (!count_value(token)) return std::nullopt;
      return SyntaxNode{.begin = token.begin, .end = token.end, .value = token.value == "true"};
    }
    if (token.kind != TokenKind::word || !is_field_word(token.value)) {
      return fail(token, fmt::format("expected a field, found {}", shown(token)),
                  token.kind == TokenKind::end ? "a condition begins with a field: prompt contains 'code'"
                                               : nearest_hint(token.value, condition_words()));
    }
    SyntaxTest test;
    test.field = take();
    if (!parse_argument(test) || !parse_comparison(test)) return std::nullopt;
    if (test.operands.empty() && !count_value(token)) return std::nullopt;
    SyntaxNode node{.kind = ConditionNodeKind::test, .begin = token.begin, .end = tokens_[at_ - 1].end};
    node.test = std::move(test);
    return node;
  }

  static bool is_field_word(std::string_view word) {
    for (const std::string_view keyword : kKeywords) {
      if (word == keyword) return false;
    }
    for (const OperatorRow& row : kOperators) {
      if (word == row.word) return false;
    }
    return true;
  }

  bool parse_argument(SyntaxTest& test) {
    const bool square = peek().is_symbol("[");
    if (!square && !peek().is_symbol("(")) return true;
    test.bracket = square ? '[' : '(';
    take();
    if (peek().kind != TokenKind::text) {
      fail(peek(), fmt::format("expected a text, found {}", shown(peek())),
           square ? "write header['x-tier']" : "write load('model') or loaded('model')");
      return false;
    }
    test.argument = take();
    if (!peek().is_symbol(square ? "]" : ")")) {
      fail(peek(), fmt::format("expected '{}', found {}", square ? ']' : ')', shown(peek())));
      return false;
    }
    take();
    return true;
  }

  const OperatorRow* find_operator(const RoutingToken& token) const {
    if (token.kind != TokenKind::word && token.kind != TokenKind::symbol) return nullptr;
    for (const OperatorRow& row : kOperators) {
      if (row.word == token.value) return &row;
    }
    return nullptr;
  }

  bool parse_comparison(SyntaxTest& test) {
    const bool negated = peek().is_word("not");
    const OperatorRow* row = find_operator(peek(negated ? 1 : 0));
    if (row == nullptr) return true;  // the field stands alone; the type checker knows whether it may
    test.op_begin = peek().begin;
    if (negated) take();
    if (negated && !row->may_be_negated) {
      fail(peek(), fmt::format("'not' does not go with '{}'", row->word), "write `not` before the field");
      return false;
    }
    test.op_end = take().end;
    test.op = row->op;
    test.ignore_case = row->ignore_case;
    test.negated = negated || row->negated;
    test.op_text = std::string(row->word);
    if (!row->second.empty()) {
      if (!peek().is_word(row->second)) {
        fail(peek(), fmt::format("expected '{}' after '{}'", row->second, row->word),
             fmt::format("write {} {}", row->word, row->second));
        return false;
      }
      test.op_end = take().end;
      test.op_text += fmt::format(" {}", row->second);
    }
    return parse_operands(test, row->shape);
  }

  bool parse_operands(SyntaxTest& test, Shape shape) {
    if (shape == Shape::bracketed) return parse_bracketed(test);
    if (!parse_value(test)) return false;
    if (shape == Shape::range) {
      if (!peek().is_word("and")) {
        fail(peek(), fmt::format("expected 'and', found {}", shown(peek())), "write between LOW and HIGH");
        return false;
      }
      take();
      return parse_value(test);
    }
    while (peek().is_word("or") && is_value(peek(1)) && peek(1).kind != TokenKind::word) {
      if (shape == Shape::single) {
        fail(peek(1), "a value is no condition",
             test.negated ? "write not in ('a', 'b')" : "repeat the field on both sides of `or`");
        return false;
      }
      take();
      if (!parse_value(test)) return false;
    }
    return true;
  }

  bool parse_bracketed(SyntaxTest& test) {
    if (!peek().is_symbol("(")) {
      fail(peek(), fmt::format("expected '(', found {}", shown(peek())), "write in ('a', 'b')");
      return false;
    }
    do {
      take();
      if (!parse_value(test)) return false;
    } while (peek().is_symbol(","));
    if (!peek().is_symbol(")")) {
      fail(peek(), fmt::format("expected ',' or ')', found {}", shown(peek())));
      return false;
    }
    take();
    return true;
  }

  bool parse_value(SyntaxTest& test) {
    if (!is_value(peek())) {
      const bool bare = peek().kind == TokenKind::word;
      fail(peek(), fmt::format("expected a value after '{}', found {}", test.op_text, shown(peek())),
           bare ? fmt::format("texts stand in quotes: '{}'", peek().value) : std::string());
      return false;
    }
    test.operands.push_back(take());
    return count_value(test.operands.back());
  }

  bool count_value(const RoutingToken& token) {
    if (++values_ <= kMaxConditionValues) return true;
    fail(token, fmt::format("more than {} values", kMaxConditionValues), "split it into several rules");
    return false;
  }

  const std::vector<RoutingToken>& tokens_;
  ConditionFault& fault_;
  size_t at_ = 0;
  size_t values_ = 0;
  int depth_ = 0;
};

}  // namespace

std::optional<SyntaxNode> parse_condition(const std::vector<RoutingToken>& tokens, ConditionFault& fault) {
  return Parser(tokens, fault).run();
}

}  // namespace inferneo
