// Conditions evaluated by walking their tree, whose depth the parser bounds. Reads the facts, writes nothing.
#include <algorithm>

#include "routing/condition.h"
#include "routing/text_match.h"

namespace inferneo {
namespace {

bool evaluate_text(const ConditionTest& test, std::string_view value) {
  if (test.op == TestOperator::matches) {
    return std::any_of(test.regexes.begin(), test.regexes.end(),
                       [&](const auto& regex) { return regex->matches(value); });
  }
  return std::any_of(test.texts.begin(), test.texts.end(), [&](const std::string& text) {
    switch (test.op) {
      case TestOperator::contains:
        return contains(value, text, test.ignore_case);
      case TestOperator::starts_with:
        return starts_with(value, text, test.ignore_case);
      case TestOperator::ends_with:
        return ends_with(value, text, test.ignore_case);
      default:
        return equal_texts(value, text, test.ignore_case);
    }
  });
}

bool within(const ConditionTest& test, double value) {
  return std::any_of(test.intervals.begin(), test.intervals.end(),
                     [&](const ConditionTest::Interval& interval) { return interval.holds(value); });
}

bool evaluate_plain(const ConditionTest& test, const RequestFacts& facts) {
  switch (field_info(test.field).type) {
    case FieldType::text:
    case FieldType::choice:
      return evaluate_text(test, text_value(test.field, test.argument, facts));
    case FieldType::passages:
      return std::any_of(facts.conversation.begin(), facts.conversation.end(),
                         [&](std::string_view passage) { return evaluate_text(test, passage); });
    case FieldType::number: {
      const std::optional<double> value = number_value(test.field, test.argument, facts);
      return value && within(test, *value);
    }
    case FieldType::flag:
      return flag_value(test.field, test.argument, facts);
    case FieldType::time:
      return within(test, minute_value(facts));
  }
  return false;
}

}  // namespace

bool evaluate_test(const ConditionTest& test, const RequestFacts& facts) {
  return evaluate_plain(test, facts) != test.negated;
}

bool evaluate_node(const ConditionNode& node, const RequestFacts& facts) {
  const auto holds = [&](const ConditionNode& child) { return evaluate_node(child, facts); };
  switch (node.kind) {
    case ConditionNodeKind::constant:
      return node.value;
    case ConditionNodeKind::test:
      return evaluate_test(node.test, facts);
    case ConditionNodeKind::all_of:
      return std::all_of(node.children.begin(), node.children.end(), holds);
    case ConditionNodeKind::any_of:
      return std::any_of(node.children.begin(), node.children.end(), holds);
    case ConditionNodeKind::negation:
      return !holds(node.children.front());
  }
  return false;
}

const ConditionNode* Condition::first_false(const RequestFacts& facts) const {
  const ConditionNode* node = &root();
  if (evaluate_node(*node, facts)) return nullptr;
  while (node->kind == ConditionNodeKind::all_of) {
    const auto found = std::find_if(node->children.begin(), node->children.end(),
                                    [&](const ConditionNode& child) { return !evaluate_node(child, facts); });
    if (found == node->children.end()) break;  // what changes by itself has changed meanwhile
    node = &*found;
  }
  return node;
}

}  // namespace inferneo
