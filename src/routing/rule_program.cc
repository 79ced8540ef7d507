#include "routing/rule_program.h"

#include <algorithm>
#include <limits>

#include "routing/text_match.h"

namespace inferneo {
namespace {

// True the first time that it is asked of a bit.
bool is_new(uint64_t* words, uint32_t bit) {
  const uint64_t mask = uint64_t{1} << (bit % 64);
  const bool known = (words[bit / 64] & mask) != 0;
  words[bit / 64] |= mask;
  return !known;
}

bool is_long_text(Field field) { return field == Field::prompt || field == Field::conversation; }

TextIndex::Passages passages_of(uint8_t index, const RequestFacts& facts) {
  return index == 0 ? TextIndex::Passages(&facts.prompt, 1) : TextIndex::Passages(facts.conversation);
}

}  // namespace

uint32_t RuleProgram::Sources::add(Field field, const std::string& argument) {
  const auto [at, added] = numbers.try_emplace(Source{field, argument}, static_cast<uint32_t>(list.size()));
  if (added) list.push_back(at->first);
  return at->second;
}

// ---- compiling

uint32_t RuleProgram::add(const Condition& condition) {
  const size_t begin = tests_.size();
  labels_.clear();
  emit(condition.root(), {kTrue, kFalse});
  for (size_t i = begin; i < tests_.size(); ++i) {
    for (int32_t* target : {&tests_[i].on_true, &tests_[i].on_false}) {
      if (*target >= 0) *target = labels_[static_cast<size_t>(*target)];
    }
  }
  begins_.push_back(static_cast<uint32_t>(begin));
  return static_cast<uint32_t>(begins_.size() - 1);
}

int32_t RuleProgram::new_label() {
  labels_.push_back(0);
  return static_cast<int32_t>(labels_.size() - 1);
}

void RuleProgram::emit(const ConditionNode& node, Labels to) {
  switch (node.kind) {
    case ConditionNodeKind::constant: {
      Test test;
      test.operand = node.value ? 1 : 0;
      test.on_true = to.first;
      test.on_false = to.second;
      tests_.push_back(test);
      return;
    }
    case ConditionNodeKind::test:
      return emit_test(node.test, to);
    case ConditionNodeKind::negation:
      return emit(node.children.front(), {to.second, to.first});
    case ConditionNodeKind::all_of:
    case ConditionNodeKind::any_of:
      break;
  }
  const bool all = node.kind == ConditionNodeKind::all_of;
  for (size_t i = 0; i + 1 < node.children.size(); ++i) {
    const int32_t next = new_label();
    emit(node.children[i], all ? Labels{next, to.second} : Labels{to.first, next});
    place(next);
  }
  emit(node.children.back(), to);
}

// Any of its values.
void RuleProgram::emit_test(const ConditionTest& test, Labels to) {
  if (test.negated) std::swap(to.first, to.second);
  std::vector<Test> tests = tests_of(test);
  for (size_t i = 0; i < tests.size(); ++i) {
    const bool last = i + 1 == tests.size();
    const int32_t next = last ? to.second : new_label();
    tests[i].on_true = to.first;
    tests[i].on_false = next;
    tests_.push_back(tests[i]);
    if (!last) place(next);
  }
}

std::vector<RuleProgram::Test> RuleProgram::tests_of(const ConditionTest& test) {
  std::vector<Test> tests;
  const uint8_t index = test.field == Field::conversation ? 1 : 0;
  for (const std::string& text : test.texts) {
    if (is_long_text(test.field) && test.op == TestOperator::contains) {
      tests.push_back(
          {.kind = Kind::literal, .index = index, .operand = indices_[index].add_literal(text, test.ignore_case)});
    } else {
      tests.push_back(text_test(test, text, nullptr));
    }
  }
  for (const auto& regex : test.regexes) {
    if (is_long_text(test.field)) {
      tests.push_back({.kind = Kind::regex, .index = index, .operand = indices_[index].add_regex(regex)});
    } else {
      tests.push_back(text_test(test, {}, regex));
    }
  }
  for (const ConditionTest::Interval& interval : test.intervals) tests.push_back(number_test(test, interval));
  if (test.op == TestOperator::is_set) tests.push_back(number_test(test, {1, 1}));
  return tests;
}

RuleProgram::Test RuleProgram::number_test(const ConditionTest& test, ConditionTest::Interval interval) {
  number_tests_.push_back({number_sources_.add(test.field, test.argument), interval});
  return {.kind = Kind::number, .operand = static_cast<uint32_t>(number_tests_.size() - 1)};
}

RuleProgram::Test RuleProgram::text_test(const ConditionTest& test, std::string text,
                                         std::shared_ptr<const RoutingRegex> regex) {
  text_tests_.push_back(
      {text_sources_.add(test.field, test.argument), test.op, test.ignore_case, std::move(text), std::move(regex)});
  return {.kind = Kind::text, .operand = static_cast<uint32_t>(text_tests_.size() - 1)};
}

void RuleProgram::build() {
  num_words_ = 0;
  for (size_t i = 0; i < indices_.size(); ++i) {
    indices_[i].build();
    index_word_[i] = num_words_;
    num_words_ += indices_[i].num_words();
  }
  for (Test& test : tests_) {
    if (test.kind != Kind::literal) continue;
    const TextIndex& index = indices_[test.index];
    test.flag = static_cast<uint8_t>(index.flag_of(test.operand));
    test.operand = static_cast<uint32_t>(index_word_[test.index] * 64 + index.bit_of(test.operand));
  }
  for (Sources* sources : {&text_sources_, &number_sources_}) {
    sources->known_word = num_words_;
    num_words_ += words_of(sources->list.size());
  }
}

// ---- evaluating

void RuleProgram::begin(RoutingScratch& scratch) const {
  scratch.words.assign(num_words_, 0);
  if (scratch.texts.size() < text_sources_.list.size()) scratch.texts.resize(text_sources_.list.size());
  if (scratch.numbers.size() < number_sources_.list.size()) scratch.numbers.resize(number_sources_.list.size());
}

void RuleProgram::scan_for(const Test& test, const RequestFacts& facts, RoutingScratch& scratch) const {
  indices_[test.index].scan(test.flag, passages_of(test.index, facts), scratch.words.data() + index_word_[test.index]);
}

inline bool RuleProgram::holds(const Test& test, const RequestFacts& facts, RoutingScratch& scratch) const {
  switch (test.kind) {
    case Kind::constant:
      return test.operand != 0;
    case Kind::literal: {
      const uint64_t* words = scratch.words.data();
      if ((words[index_word_[test.index]] & test.flag) == 0) [[unlikely]] {
        scan_for(test, facts, scratch);
      }
      return (words[test.operand / 64] >> (test.operand % 64) & 1) != 0;
    }
    case Kind::regex:
      return indices_[test.index].has_match(test.operand, passages_of(test.index, facts),
                                            scratch.words.data() + index_word_[test.index], scratch.hits);
    case Kind::text:
      return text_holds(text_tests_[test.operand], facts, scratch);
    case Kind::number: {
      const NumberTest& number = number_tests_[test.operand];
      return number.interval.holds(number_of(number.source, facts, scratch));
    }
  }
  return false;
}

bool RuleProgram::matches(uint32_t condition, const RequestFacts& facts, RoutingScratch& scratch) const {
  auto at = static_cast<int32_t>(begins_[condition]);
  while (at >= 0) {
    const Test& test = tests_[static_cast<size_t>(at)];
    at = holds(test, facts, scratch) ? test.on_true : test.on_false;
  }
  return at == kTrue;
}

bool RuleProgram::text_holds(const TextTest& test, const RequestFacts& facts, RoutingScratch& scratch) const {
  std::string_view& value = scratch.texts[test.source];
  if (is_new(scratch.words.data() + text_sources_.known_word, test.source)) {
    const Source& source = text_sources_.list[test.source];
    value = text_value(source.field, source.argument, facts);
  }
  switch (test.op) {
    case TestOperator::contains:
      return contains(value, test.text, test.ignore_case);
    case TestOperator::starts_with:
      return starts_with(value, test.text, test.ignore_case);
    case TestOperator::ends_with:
      return ends_with(value, test.text, test.ignore_case);
    case TestOperator::matches:
      return test.regex->matches(value);
    default:
      return equal_texts(value, test.text, test.ignore_case);
  }
}

// NaN, which no interval holds, for what the request does not say.
double RuleProgram::number_of(uint32_t source, const RequestFacts& facts, RoutingScratch& scratch) const {
  double& value = scratch.numbers[source];
  if (is_new(scratch.words.data() + number_sources_.known_word, source)) {
    const auto& [field, argument] = number_sources_.list[source];
    switch (field_info(field).type) {
      case FieldType::flag:
        value = flag_value(field, argument, facts) ? 1 : 0;
        break;
      case FieldType::time:
        value = minute_value(facts);
        break;
      default:
        value = number_value(field, argument, facts).value_or(std::numeric_limits<double>::quiet_NaN());
    }
  }
  return value;
}

}  // namespace inferneo
