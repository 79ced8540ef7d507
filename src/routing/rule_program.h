// Many conditions as one straight program: each test names where to go on when it is true and when it is false, always
// forwards, so that an evaluation cannot loop and needs no stack. What the tests share (a literal, a header, a model's
// load) is known once per decision.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "routing/condition.h"
#include "routing/text_index.h"

namespace inferneo {

// The working memory of decisions: one per thread, grown once and used again. Not thread-safe.
struct RoutingScratch {
  std::vector<uint64_t> words = {};
  std::vector<std::string_view> texts = {};
  std::vector<double> numbers = {};
  std::vector<int> hits = {};
};

class RuleProgram {
 public:
  // Appends a condition; the number is for matches(). Only before build().
  uint32_t add(const Condition& condition);
  void build();

  // One decision: begin() once, then matches() in any order, for the same facts.
  void begin(RoutingScratch& scratch) const;
  bool matches(uint32_t condition, const RequestFacts& facts, RoutingScratch& scratch) const;

  const TextIndex& prompt_index() const { return indices_[0]; }
  const TextIndex& conversation_index() const { return indices_[1]; }

 private:
  enum class Kind : uint8_t { constant, literal, regex, text, number };
  static constexpr int32_t kTrue = -1;
  static constexpr int32_t kFalse = -2;
  struct Test {
    Kind kind = Kind::constant;
    uint8_t index = 0;     // literal, regex: 0 prompt, 1 conversation
    uint8_t flag = 0;      // literal: of the index's first word, that its bit is known
    uint32_t operand = 0;  // literal: its number, after build() its bit of the scratch; regex: its number; text,
                           // number: of text_tests_, number_tests_; constant: 0 or 1
    int32_t on_true = 0;   // a test, kTrue or kFalse; while it is compiled, a label
    int32_t on_false = 0;
  };
  struct Source {
    Field field = Field::prompt;
    std::string argument = {};
    bool operator<(const Source& other) const {
      return field != other.field ? field < other.field : argument < other.argument;
    }
  };
  struct NumberTest {
    uint32_t source = 0;  // of number_sources_
    ConditionTest::Interval interval = {};
  };
  struct TextTest {
    uint32_t source = 0;  // of text_sources_
    TestOperator op = TestOperator::equals;
    bool ignore_case = false;
    std::string text = {};
    std::shared_ptr<const RoutingRegex> regex = {};  // of fields that have no index
  };
  struct Sources {
    std::vector<Source> list;
    std::map<Source, uint32_t> numbers;
    size_t known_word = 0;
    uint32_t add(Field field, const std::string& argument);
  };
  using Labels = std::pair<int32_t, int32_t>;  // on true, on false

  void emit(const ConditionNode& node, Labels to);
  void emit_test(const ConditionTest& test, Labels to);
  std::vector<Test> tests_of(const ConditionTest& test);
  Test text_test(const ConditionTest& test, std::string text, std::shared_ptr<const RoutingRegex> regex);
  Test number_test(const ConditionTest& test, ConditionTest::Interval interval);
  int32_t new_label();
  void place(int32_t label) { labels_[static_cast<size_t>(label)] = static_cast<int32_t>(tests_.size()); }

  void scan_for(const Test& test, const RequestFacts& facts, RoutingScratch& scratch) const;
  bool holds(const Test& test, const RequestFacts& facts, RoutingScratch& scratch) const;
  bool text_holds(const TextTest& test, const RequestFacts& facts, RoutingScratch& scratch) const;
  double number_of(uint32_t source, const RequestFacts& facts, RoutingScratch& scratch) const;

  std::vector<Test> tests_;
  std::vector<uint32_t> begins_;  // of each condition
  std::vector<TextTest> text_tests_;
  std::vector<NumberTest> number_tests_;
  Sources text_sources_;
  Sources number_sources_;
  std::array<TextIndex, 2> indices_;
  std::array<size_t, 2> index_word_{};
  size_t num_words_ = 0;
  std::vector<int32_t> labels_;  // of the condition that is being compiled: the test at which each stands
};

}  // namespace inferneo
