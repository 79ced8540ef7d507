#include "routing/condition.h"

#include <fmt/format.h>

#include "routing/checker.h"
#include "routing/lexer.h"
#include "routing/parser.h"

namespace inferneo {
namespace {

Error report(std::string_view text, ConditionFault found, ConditionFault* fault) {
  Error error = fault_error(text, found);
  if (fault != nullptr) *fault = std::move(found);
  return error;
}

}  // namespace

Result<Condition> Condition::parse(std::string_view text, ConditionFault* fault) {
  ConditionFault found;
  if (text.size() > kMaxConditionBytes) {
    found = {kMaxConditionBytes, kMaxConditionBytes, fmt::format("more than {} bytes", kMaxConditionBytes),
             "split it into several rules"};
    return report(text, std::move(found), fault);
  }
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    return report(text, {at, at + 1, "a byte that is no UTF-8", {}}, fault);
  }
  const std::vector<RoutingToken> tokens = tokenize_condition(text, found);
  if (tokens.empty()) return report(text, std::move(found), fault);
  const std::optional<SyntaxNode> syntax = parse_condition(tokens, found);
  if (!syntax) return report(text, std::move(found), fault);
  auto compiled = std::make_shared<Compiled>();
  compiled->text = std::string(text);
  if (!check_condition(text, *syntax, compiled->root, found)) return report(text, std::move(found), fault);
  return Condition(std::move(compiled));
}

bool Condition::matches(const RequestFacts& facts) const { return evaluate_node(root(), facts); }

}  // namespace inferneo
