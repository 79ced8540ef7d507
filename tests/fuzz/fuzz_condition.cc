// Whatever the text, it is a condition or an error that points into it; a condition is evaluated the same by its tree,
// by a rule set and by the trace, over requests that are made of the same bytes.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "require.h"
#include "routing/rule_set.h"

namespace {

using namespace inferneo;

struct View final : RoutingView {
  std::string_view value;
  int64_t number = 0;
  std::string_view header(std::string_view) const override { return value; }
  std::optional<int64_t> prompt_tokens() const override { return number; }
  std::optional<double> load(std::string_view) const override { return static_cast<double>(number) / 4; }
  bool loaded(std::string_view) const override { return number % 2 == 0; }
  int minute_of_day() const override { return static_cast<int>(number) % 1440; }
};

void check_error(const std::string& text, const ConditionFault& fault, const Error& error) {
  require(fault.begin <= fault.end || fault.begin <= text.size(), "an error points into the text");
  require(error.message.size() < 12'000 && !error.message.empty(), "an error is bounded");
  require(error.message.find("at character ") != std::string::npos, "an error says where");
  require(error.param == "condition", "an error names the field");
}

void check_condition(const std::string& text, const Condition& condition) {
  require(condition.text() == text, "a condition keeps its text");
  auto set = RuleSet::build({{.name = "r", .condition = text, .model_name = "m"}});
  require(set.ok(), "a condition is a rule");
  const std::string_view bytes = text;
  for (size_t i = 0; i < 4; ++i) {
    View view;
    view.value = bytes.substr(0, bytes.size() * i / 4);
    view.number = static_cast<int64_t>(i * 700 + bytes.size());
    const std::string_view messages[] = {bytes.substr(0, bytes.size() / 2), view.value};
    RequestFacts facts;
    facts.prompt = bytes.substr(bytes.size() * i / 4);
    facts.conversation = messages;
    facts.model = i % 2 == 0 ? "auto" : view.value;
    facts.user = view.value.substr(0, 3);
    facts.turns = static_cast<int64_t>(i);
    if (i > 1) facts.max_tokens = static_cast<int64_t>(i) * 40;
    facts.has_tools = i % 2 == 0;
    facts.stream = i > 1;
    facts.view = &view;
    const bool matches = condition.matches(facts);
    require(((*set)->decide(facts).target != nullptr) == matches, "a rule set says what its condition says");
    require(((*set)->explain(facts).target != nullptr) == matches, "so does its trace");
    require((condition.first_false(facts) == nullptr) == matches, "what does not match has a reason");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  ConditionFault fault;
  const auto condition = Condition::parse(text, &fault);
  if (condition.ok()) {
    check_condition(text, *condition);
  } else {
    check_error(text, fault, condition.error());
  }
  return 0;
}
