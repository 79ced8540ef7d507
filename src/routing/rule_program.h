// Many conditions as one straight program: each test names where to go on when it is true and when it is false, always
// forwards, so that an evaluation cannot loop and needs no stack. What the tests share (a literal, a header, a model's
// load) is known once per decision. Conditions that cannot be true without one of some literals of a long text, which
// most rules' are, are asked only when one of these is there: the others cost a decision nothing.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
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
  // Appends a condition; they are numbered from 0. Only before build().
  void add(const Condition& condition);
  void build();

  size_t size() const { return begins_.size(); }
  // The first condition that is true of those whose bits are set in `asked` [words_of(size())]; size(): none is.
  size_t first_match(const std::vector<uint64_t>& asked, const RequestFacts& facts, RoutingScratch& scratch) const;

  const TextIndex& prompt_index() const { return indices_[0]; }

 private:
  enum class Kind : uint8_t { constant, literal, regex, text, number };
  static constexpr int32_t kTrue = -1;
  static constexpr int32_t kFalse = -2;
  struct Test {
    Kind kind = Kind::constant;
    uint8_t index = 0;     // literal, regex: 0 prompt, 1 conversation
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
  // One of these literals is there where the condition is true. None known: nothing is known of it.
  struct Guard {
    uint8_t index = 0;
    uint32_t literal = 0;
    bool operator==(const Guard&) const = default;
  };
  using Guards = std::optional<std::vector<Guard>>;
  // What the scan of one text says of which conditions to ask.
  struct Watch {
    std::vector<uint64_t> guarded = {};     // the conditions that have guards here
    std::vector<uint32_t> begin = {};       // [literals' bits + 1]: into conditions
    std::vector<uint32_t> conditions = {};  // that a literal guards, literal by literal
  };

  void emit(const ConditionNode& node, Labels to);
  void emit_test(const ConditionTest& test, Labels to);
  std::vector<Test> tests_of(const ConditionTest& test);
  Test text_test(const ConditionTest& test, std::string text, std::shared_ptr<const RoutingRegex> regex);
  Test number_test(const ConditionTest& test, ConditionTest::Interval interval);
  Guards guards_of(const ConditionNode& node);
  Guards guards_of(const ConditionTest& test);
  void build_watches();
  int32_t new_label();
  void place(int32_t label) { labels_[static_cast<size_t>(label)] = static_cast<int32_t>(tests_.size()); }

  void begin(RoutingScratch& scratch) const;
  bool matches(size_t condition, const RequestFacts& facts, RoutingScratch& scratch) const;
  bool is_scanned(size_t index, const RoutingScratch& scratch) const;
  void scan(size_t index, const RequestFacts& facts, RoutingScratch& scratch) const;
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
  std::vector<Guards> guards_;  // of each condition, until build()
  std::array<Watch, 2> watches_;
  std::vector<uint64_t> unguarded_;  // the conditions without guards
  size_t askable_word_ = 0;          // of scratch: those and the ones a guard of which has been seen
  size_t num_words_ = 0;
  std::vector<int32_t> labels_;  // of the condition that is being compiled: the test at which each stands
};

}  // namespace inferneo
