#include "routing/rule_program.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <numeric>

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

uint8_t index_of(Field field) { return field == Field::conversation ? 1 : 0; }

TextIndex::Passages passages_of(size_t index, const RequestFacts& facts) {
  return index == 0 ? TextIndex::Passages(&facts.prompt, 1) : TextIndex::Passages(facts.conversation);
}

}  // namespace

uint32_t RuleProgram::Sources::add(Field field, const std::string& argument) {
  const auto [at, added] = numbers.try_emplace(Source{field, argument}, static_cast<uint32_t>(list.size()));
  if (added) list.push_back(at->first);
  return at->second;
}

// ---- compiling

void RuleProgram::add(const Condition& condition) {
  const size_t begin = tests_.size();
  labels_.clear();
  emit(condition.root(), {kTrue, kFalse});
  for (size_t i = begin; i < tests_.size(); ++i) {
    for (int32_t* target : {&tests_[i].on_true, &tests_[i].on_false}) {
      if (*target >= 0) *target = labels_[static_cast<size_t>(*target)];
    }
  }
  begins_.push_back(static_cast<uint32_t>(begin));
  guards_.push_back(guards_of(condition.root()));
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
  const uint8_t index = index_of(test.field);
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

// Of a conjunction the guards of one part are enough: the fewest. A disjunction needs those of all.
RuleProgram::Guards RuleProgram::guards_of(const ConditionNode& node) {
  if (node.kind == ConditionNodeKind::test) return guards_of(node.test);
  if (node.kind == ConditionNodeKind::constant && !node.value) return std::vector<Guard>{};
  const bool all = node.kind == ConditionNodeKind::all_of;
  if (!all && node.kind != ConditionNodeKind::any_of) return std::nullopt;
  Guards result;
  if (!all) result.emplace();
  for (const ConditionNode& child : node.children) {
    Guards guards = guards_of(child);
    if (all) {
      if (guards && (!result || guards->size() < result->size())) result = std::move(guards);
      continue;
    }
    if (!guards) return std::nullopt;
    result->insert(result->end(), guards->begin(), guards->end());
  }
  return result;
}

RuleProgram::Guards RuleProgram::guards_of(const ConditionTest& test) {
  if (test.negated || !is_long_text(test.field)) return std::nullopt;
  if (test.op != TestOperator::contains && test.op != TestOperator::matches) return std::nullopt;
  const uint8_t index = index_of(test.field);
  std::vector<Guard> guards;
  for (const std::string& text : test.texts)
    guards.push_back({index, indices_[index].add_literal(text, test.ignore_case)});
  for (const auto& regex : test.regexes) {
    const std::vector<uint32_t> literals = indices_[index].guards_of(indices_[index].add_regex(regex));
    if (literals.empty()) return std::nullopt;
    for (const uint32_t literal : literals) guards.push_back({index, literal});
  }
  return guards;
}

void RuleProgram::build_watches() {
  const size_t words = words_of(size());
  unguarded_.assign(words, 0);
  std::array<std::vector<std::pair<size_t, uint32_t>>, 2> pairs;  // a literal's bit, a condition
  for (Watch& watch : watches_) watch.guarded.assign(words, 0);
  for (uint32_t condition = 0; condition < size(); ++condition) {
    const uint64_t bit = uint64_t{1} << (condition % 64);
    if (!guards_[condition]) unguarded_[condition / 64] |= bit;
    for (const Guard& guard : guards_[condition].value_or(std::vector<Guard>{})) {
      watches_[guard.index].guarded[condition / 64] |= bit;
      pairs[guard.index].emplace_back(indices_[guard.index].bit_of(guard.literal), condition);
    }
  }
  guards_.clear();
  for (size_t i = 0; i < watches_.size(); ++i) {
    std::sort(pairs[i].begin(), pairs[i].end());
    watches_[i].begin.assign(indices_[i].end_of_literals() + 1, 0);
    for (const auto& [bit, condition] : pairs[i]) {
      ++watches_[i].begin[bit + 1];
      watches_[i].conditions.push_back(condition);
    }
    std::partial_sum(watches_[i].begin.begin(), watches_[i].begin.end(), watches_[i].begin.begin());
  }
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
    test.operand = static_cast<uint32_t>(index_word_[test.index] * 64 + indices_[test.index].bit_of(test.operand));
  }
  build_watches();
  askable_word_ = num_words_;
  num_words_ += unguarded_.size();
  for (Sources* sources : {&text_sources_, &number_sources_}) {
    sources->known_word = num_words_;
    num_words_ += words_of(sources->list.size());
  }
}

// ---- evaluating

void RuleProgram::begin(RoutingScratch& scratch) const {
  scratch.words.assign(num_words_, 0);
  std::copy(unguarded_.begin(), unguarded_.end(), scratch.words.begin() + static_cast<std::ptrdiff_t>(askable_word_));
  if (scratch.texts.size() < text_sources_.list.size()) scratch.texts.resize(text_sources_.list.size());
  if (scratch.numbers.size() < number_sources_.list.size()) scratch.numbers.resize(number_sources_.list.size());
}

bool RuleProgram::is_scanned(size_t index, const RoutingScratch& scratch) const {
  return indices_[index].is_scanned(scratch.words.data() + index_word_[index]);
}

// Reads one text; what its literals guard is askable then.
void RuleProgram::scan(size_t index, const RequestFacts& facts, RoutingScratch& scratch) const {
  uint64_t* const words = scratch.words.data() + index_word_[index];
  uint64_t* const askable = scratch.words.data() + askable_word_;
  const Watch& watch = watches_[index];
  indices_[index].scan(passages_of(index, facts), words);
  for (size_t word = 1; word < indices_[index].end_of_literals() / 64; ++word) {
    for (uint64_t seen = words[word]; seen != 0; seen &= seen - 1) {
      const size_t literal = word * 64 + static_cast<size_t>(std::countr_zero(seen));
      for (uint32_t i = watch.begin[literal]; i < watch.begin[literal + 1]; ++i) {
        askable[watch.conditions[i] / 64] |= uint64_t{1} << (watch.conditions[i] % 64);
      }
    }
  }
}

size_t RuleProgram::first_match(const std::vector<uint64_t>& asked, const RequestFacts& facts,
                                RoutingScratch& scratch) const {
  begin(scratch);
  for (size_t word = 0; word < asked.size(); ++word) {
    for (uint64_t left = asked[word]; left != 0;) {
      const uint64_t askable = scratch.words[askable_word_ + word];
      uint64_t unknown = 0;  // until a text is read, which is not done before it is needed
      for (size_t i = 0; i < watches_.size(); ++i) {
        if (!is_scanned(i, scratch)) unknown |= watches_[i].guarded[word];
      }
      left &= askable | unknown;
      const uint64_t next = left & -left;
      if ((next & askable) != 0) {
        const size_t condition = word * 64 + static_cast<size_t>(std::countr_zero(next));
        if (matches(condition, facts, scratch)) return condition;
        left ^= next;
        continue;
      }
      for (size_t i = 0; i < watches_.size(); ++i) {
        if ((watches_[i].guarded[word] & next) != 0 && !is_scanned(i, scratch)) scan(i, facts, scratch);
      }
    }
  }
  return size();
}

inline bool RuleProgram::holds(const Test& test, const RequestFacts& facts, RoutingScratch& scratch) const {
  switch (test.kind) {
    case Kind::constant:
      return test.operand != 0;
    case Kind::literal:
      if (!is_scanned(test.index, scratch)) scan(test.index, facts, scratch);
      return (scratch.words[test.operand / 64] >> (test.operand % 64) & 1) != 0;
    case Kind::regex:
      if (!is_scanned(test.index, scratch)) scan(test.index, facts, scratch);
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

bool RuleProgram::matches(size_t condition, const RequestFacts& facts, RoutingScratch& scratch) const {
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
