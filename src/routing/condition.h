// A condition of the routing language: parsed once, type-checked, immutable, cheap to copy. docs/routing.md is for who
// writes them; parser.h has the grammar, fields.h the fields.
//
// Goals: a condition that was accepted cannot fail, loops over nothing but the text, and writes nothing. Bounded: its
// text, depth, values and the programs of its regular expressions. Not a programming language: no arithmetic, no
// variables, no calls.
#pragma once

#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "routing/fault.h"
#include "routing/fields.h"
#include "routing/regex.h"
#include "routing/syntax.h"

namespace inferneo {

inline constexpr size_t kMaxConditionBytes = size_t{8} * 1024;

struct ConditionTest {
  Field field = Field::prompt;
  TestOperator op = TestOperator::is_set;
  bool ignore_case = false;
  bool negated = false;                                           // `not in`, `!=`
  std::string argument = {};                                      // header: in lower case; load, loaded: the model
  std::vector<std::string> texts = {};                            // any of them
  std::vector<std::shared_ptr<const RoutingRegex>> regexes = {};  // any of them
  // Numbers, and minutes of the day: the closed intervals, any of which has the value.
  struct Interval {
    double low = -std::numeric_limits<double>::infinity();
    double high = std::numeric_limits<double>::infinity();
    bool holds(double value) const { return low <= value && value <= high; }
  };
  std::vector<Interval> intervals = {};
};

struct ConditionNode {
  ConditionNodeKind kind = ConditionNodeKind::constant;
  size_t begin = 0;  // bytes of the text
  size_t end = 0;
  bool value = false;                        // constant
  std::vector<ConditionNode> children = {};  // all_of, any_of, negation
  ConditionTest test = {};
};

class Condition {
 public:
  // invalid_argument: see fault_error(). `fault` (may be null) gets the same as data.
  static Result<Condition> parse(std::string_view text, ConditionFault* fault = nullptr);

  const std::string& text() const { return compiled_->text; }
  const ConditionNode& root() const { return compiled_->root; }
  std::string_view text_of(const ConditionNode& node) const {
    return std::string_view(text()).substr(node.begin, node.end - node.begin);
  }

  // By walking the tree; a rule set has a faster way for many conditions at once.
  bool matches(const RequestFacts& facts) const;
  // Why it does not match: the smallest part that is false and alone makes the whole false. Null: it matches.
  const ConditionNode* first_false(const RequestFacts& facts) const;

 private:
  struct Compiled {
    std::string text;
    ConditionNode root;
  };
  explicit Condition(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}
  std::shared_ptr<const Compiled> compiled_;
};

// ---- the evaluator
bool evaluate_node(const ConditionNode& node, const RequestFacts& facts);
bool evaluate_test(const ConditionTest& test, const RequestFacts& facts);

}  // namespace inferneo
