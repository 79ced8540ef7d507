#include "routing/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "base/config/suggest.h"
#include "routing/language.h"
#include "routing/text_match.h"

namespace inferneo {
namespace {

constexpr int kMinutesOfDay = 24 * 60;

bool takes(FieldType type, TestOperator op) {
  switch (op) {
    case TestOperator::is_set:
      return type == FieldType::flag;
    case TestOperator::contains:
    case TestOperator::matches:
      return type == FieldType::text || type == FieldType::passages;
    case TestOperator::starts_with:
    case TestOperator::ends_with:
      return type == FieldType::text;
    case TestOperator::equals:
      return type != FieldType::passages && type != FieldType::time;
    case TestOperator::less:
    case TestOperator::less_equal:
    case TestOperator::greater:
    case TestOperator::greater_equal:
    case TestOperator::between:
      return type == FieldType::number || type == FieldType::time;
  }
  return false;
}

// 'HH:MM' as minutes of the day; 24:00 is the day's end.
std::optional<int> minutes_of(std::string_view text) {
  const auto digit = [&](size_t i) { return text[i] >= '0' && text[i] <= '9' ? text[i] - '0' : -1000; };
  if (text.size() != 5 || text[2] != ':') return std::nullopt;
  const int hours = digit(0) * 10 + digit(1);
  const int minutes = digit(3) * 10 + digit(4);
  if (hours < 0 || minutes < 0 || minutes > 59 || hours * 60 + minutes > kMinutesOfDay) return std::nullopt;
  return hours * 60 + minutes;
}

class Checker {
 public:
  Checker(std::string_view text, ConditionFault& fault) : text_(text), fault_(fault) {}

  bool check(const SyntaxNode& syntax, ConditionNode& node) {
    node.kind = syntax.kind;
    node.begin = syntax.begin;
    node.end = syntax.end;
    node.value = syntax.value;
    node.children.resize(syntax.children.size());
    for (size_t i = 0; i < syntax.children.size(); ++i) {
      if (!check(syntax.children[i], node.children[i])) return false;
    }
    return !syntax.test || check_test(*syntax.test, node.test);
  }

 private:
  bool fail(size_t begin, size_t end, std::string message, std::string hint = {}) {
    fault_ = {begin, end, std::move(message), std::move(hint)};
    return false;
  }
  bool fail(const RoutingToken& token, std::string message, std::string hint = {}) {
    return fail(token.begin, token.end, std::move(message), std::move(hint));
  }

  bool check_test(const SyntaxTest& syntax, ConditionTest& test) {
    const FieldInfo* info = find_field(syntax.field.value);
    if (info == nullptr) return fail_unknown_field(syntax.field);
    test.field = info->field;
    test.op = syntax.op;
    test.ignore_case = syntax.ignore_case;
    test.negated = syntax.negated;
    if (!check_argument(syntax, *info, test)) return false;
    if (!takes(info->type, syntax.op)) return fail_operator(syntax, *info);
    switch (info->type) {
      case FieldType::text:
      case FieldType::passages:
        return syntax.op == TestOperator::matches ? check_regexes(syntax, test) : check_texts(syntax, test);
      case FieldType::choice:
        return check_languages(syntax, test);
      case FieldType::number:
        return check_numbers(syntax, *info, test);
      case FieldType::flag:
        return check_flag(syntax, *info, test);
      case FieldType::time:
        return check_times(syntax, test);
    }
    return false;
  }

  bool fail_unknown_field(const RoutingToken& token) {
    std::vector<std::string_view> names;
    for (const FieldInfo& info : routing_fields()) names.push_back(info.name);
    const std::string_view nearest = nearest_word(token.value, names);
    return fail(token, fmt::format("unknown field '{}'", token.value),
                nearest.empty() ? fmt::format("there are {}", fmt::join(names, ", "))
                                : fmt::format("did you mean '{}'?", nearest));
  }

  bool check_argument(const SyntaxTest& syntax, const FieldInfo& info, ConditionTest& test) {
    if (syntax.bracket != info.bracket) {
      if (info.bracket == 0) return fail(syntax.field, fmt::format("'{}' takes no brackets", info.name));
      return fail(syntax.field, fmt::format("'{}' needs a name in brackets", info.name),
                  fmt::format("write {}", info.example));
    }
    if (!syntax.argument) return true;
    if (syntax.argument->value.empty() || syntax.argument->value.size() > 256) {
      return fail(*syntax.argument, "a name of 1 to 256 bytes is needed here", fmt::format("write {}", info.example));
    }
    test.argument = info.field == Field::header ? lower_ascii(syntax.argument->value) : syntax.argument->value;
    return true;
  }

  bool fail_operator(const SyntaxTest& syntax, const FieldInfo& info) {
    std::string hint = fmt::format("for example: {}", info.example);
    if (syntax.op == TestOperator::is_set) {
      return fail(syntax.field,
                  fmt::format("'{}' is a {} and no condition by itself", info.name, field_type_name(info.type)),
                  std::move(hint));
    }
    return fail(
        syntax.op_begin, syntax.op_end,
        fmt::format("'{}' does not go with '{}', which is a {}", syntax.op_text, info.name, field_type_name(info.type)),
        std::move(hint));
  }

  bool fail_operand(const RoutingToken& token, std::string_view wanted, const FieldInfo& info) {
    return fail(token, fmt::format("'{}' is compared with {}", info.name, wanted),
                fmt::format("for example: {}", info.example));
  }

  bool check_texts(const SyntaxTest& syntax, ConditionTest& test) {
    for (const RoutingToken& operand : syntax.operands) {
      if (operand.kind == TokenKind::regex) {
        return fail(operand, fmt::format("'{}' takes texts", syntax.op_text),
                    fmt::format("regular expressions go with `matches`: {} matches /.../", syntax.field.value));
      }
      if (operand.kind != TokenKind::text) return fail_operand(operand, "texts", field_info(test.field));
      if (operand.value.empty() && syntax.op != TestOperator::equals) {
        return fail(operand, fmt::format("every text {} the empty one", syntax.op_text),
                    "write a text of one character or more");
      }
      test.texts.push_back(operand.value);
    }
    return true;
  }

  bool check_languages(const SyntaxTest& syntax, ConditionTest& test) {
    for (const RoutingToken& operand : syntax.operands) {
      if (operand.kind != TokenKind::text) return fail_operand(operand, "texts", field_info(test.field));
      const std::string_view language = language_of_tag(operand.value);
      if (language.empty() && !operand.value.empty()) {  // '' is what no language was found in
        const std::string_view nearest = nearest_word(operand.value, language_names());
        return fail(operand, fmt::format("no language '{}' is told apart", operand.value),
                    nearest.empty() ? fmt::format("there are {}", fmt::join(language_names(), ", "))
                                    : fmt::format("did you mean '{}'?", nearest));
      }
      test.texts.emplace_back(language);
    }
    return true;
  }

  bool check_regexes(const SyntaxTest& syntax, ConditionTest& test) {
    for (const RoutingToken& operand : syntax.operands) {
      if (operand.kind != TokenKind::regex) {
        return fail(operand, "'matches' takes a regular expression", "write it between slashes: /^def\\s/");
      }
      RoutingRegex::Fault fault;
      auto regex = RoutingRegex::compile(operand.value, operand.flags, fault);
      if (!regex) {
        // RE2 names the part; where it stands in the text is where it is first found.
        const std::string_view source = text_.substr(operand.begin, operand.end - operand.begin);
        const size_t part = fault.part.empty() ? std::string_view::npos : source.find(fault.part);
        const size_t begin = operand.begin + (part == std::string_view::npos ? 0 : part);
        const size_t end = part == std::string_view::npos ? operand.end : begin + fault.part.size();
        return fail(begin, end, fmt::format("bad regular expression: {}", fault.message));
      }
      test.regexes.push_back(std::move(regex));
    }
    return true;
  }

  bool check_numbers(const SyntaxTest& syntax, const FieldInfo& info, ConditionTest& test) {
    if (syntax.ignore_case) return fail_operator(syntax, info);
    for (const RoutingToken& operand : syntax.operands) {
      if (operand.kind != TokenKind::number) return fail_operand(operand, "numbers", info);
    }
    if (syntax.op != TestOperator::between) {
      for (const RoutingToken& operand : syntax.operands) {
        test.intervals.push_back(interval_of(syntax.op, operand.number, operand.number));
      }
      if (test.negated) complement(test);
      return true;
    }
    if (syntax.operands[0].number > syntax.operands[1].number) {
      return fail(syntax.operands[0], "no number is between these", "write the smaller one first");
    }
    test.intervals = {interval_of(syntax.op, syntax.operands[0].number, syntax.operands[1].number)};
    if (test.negated) complement(test);
    return true;
  }

  // Of a number that may be absent, `!=` is as false as `==`: so it is the gaps between the intervals, no negation.
  static void complement(ConditionTest& test) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    std::sort(test.intervals.begin(), test.intervals.end(), [](const auto& a, const auto& b) { return a.low < b.low; });
    std::vector<ConditionTest::Interval> gaps;
    double from = -kInfinity;
    for (const ConditionTest::Interval& interval : test.intervals) {
      const double to = std::nextafter(interval.low, -kInfinity);
      if (from <= to) gaps.push_back({from, to});
      from = std::max(from, std::nextafter(interval.high, kInfinity));
    }
    gaps.push_back({from, kInfinity});
    test.intervals = std::move(gaps);
    test.negated = false;
  }

  static ConditionTest::Interval interval_of(TestOperator op, double low, double high) {
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    switch (op) {
      case TestOperator::less:
        return {-kInfinity, std::nextafter(high, -kInfinity)};
      case TestOperator::less_equal:
        return {-kInfinity, high};
      case TestOperator::greater:
        return {std::nextafter(low, kInfinity), kInfinity};
      case TestOperator::greater_equal:
        return {low, kInfinity};
      default:
        return {low, high};
    }
  }

  bool check_flag(const SyntaxTest& syntax, const FieldInfo& info, ConditionTest& test) {
    if (syntax.op == TestOperator::is_set) return true;
    const bool plain = syntax.operands.size() == 1 && syntax.operands[0].kind == TokenKind::word && !syntax.ignore_case;
    if (!plain) return fail_operand(syntax.operands.front(), "true or false", info);
    test.op = TestOperator::is_set;
    if (syntax.operands[0].value == "false") test.negated = !test.negated;
    return true;
  }

  bool check_times(const SyntaxTest& syntax, ConditionTest& test) {
    int minutes[2] = {0, 0};
    for (size_t i = 0; i < syntax.operands.size(); ++i) {
      const RoutingToken& operand = syntax.operands[i];
      const auto read = operand.kind == TokenKind::text ? minutes_of(operand.value) : std::nullopt;
      if (!read) return fail(operand, "not a time of day", "times are written '08:30', from '00:00' to '24:00'");
      minutes[i] = *read;
    }
    if (syntax.op != TestOperator::between) {
      test.intervals = {interval_of(syntax.op, minutes[0], minutes[0])};
      return true;
    }
    // From the first minute to the one before the last, over midnight if need be.
    const double from = minutes[0];
    const double to = minutes[1] - 1;
    if (minutes[0] == minutes[1]) return fail(syntax.operands[1], "no time is between these", "write two that differ");
    if (from <= to) {
      test.intervals = {{from, to}};
    } else {
      test.intervals = {{from, kMinutesOfDay - 1}, {0, to}};
    }
    return true;
  }

  const std::string_view text_;
  ConditionFault& fault_;
};

}  // namespace

bool check_condition(std::string_view text, const SyntaxNode& syntax, ConditionNode& node, ConditionFault& fault) {
  return Checker(text, fault).check(syntax, node);
}

}  // namespace inferneo
