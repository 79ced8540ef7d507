// Random conditions over random requests, evaluated in four ways: by the compiled rule set, by its trace, by the tree
// of the condition, and by the test itself, whose own tree is what the text was written from and which knows nothing of
// the room but how a request looks. RE2, std::string::find and plain arithmetic are its truth.
// INFERNEO_ROUNDS sets of rules; INFERNEO_SOAK_SCALE scales the soak build (1: full).
#include <fmt/format.h>
#include <re2/re2.h>

#include <cstdlib>
#include <functional>
#include <random>

#include "routing/rule_set.h"
#include "routing_fixture.h"

namespace inferneo {
namespace {

int num_rounds() {
  if (INFERNEO_ROUNDS < 1000) return INFERNEO_ROUNDS;
  const char* scale = std::getenv("INFERNEO_SOAK_SCALE");
  return std::max(1, static_cast<int>(INFERNEO_ROUNDS * (scale == nullptr ? 0.02 : std::atof(scale))));
}

// A request as the test knows it.
struct Request {
  std::string prompt;
  std::vector<std::string> messages;
  std::string model;
  std::string user;
  std::map<std::string, std::string> headers;
  int64_t turns = 1;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> tokens;
  std::map<std::string, double> loads;
  bool has_tools = false;
  bool stream = false;
  int minute = 0;
};

struct Expectation {
  std::string text;
  std::function<bool(const Request&)> truth;
};

std::string lowered(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + 32);
  }
  return text;
}

std::string quoted(const std::string& text) {
  std::string escaped = "'";
  for (const char c : text) {
    if (c == '\n') {
      escaped += "\\n";
    } else {
      if (c == '\'' || c == '\\') escaped += '\\';
      escaped += c;
    }
  }
  return escaped + "'";
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}

  size_t below(size_t n) { return random_() % n; }
  bool coin() { return below(2) == 0; }
  template <typename T>
  const T& one_of(const std::vector<T>& values) {
    return values[below(values.size())];
  }

  std::string text(size_t pieces) {
    static const std::vector<std::string> kPieces = {"a",
                                                     "b",
                                                     "ab",
                                                     "Code",
                                                     "code",
                                                     "class",
                                                     "def f(x):",
                                                     "k",
                                                     "s",
                                                     " ",
                                                     "\n",
                                                     "12",
                                                     "term",
                                                     "'",
                                                     "\\",
                                                     "gold",
                                                     "auto",
                                                     "\xC3\xA9",
                                                     "\xE2\x84\xAA",
                                                     "\xC5\xBF",
                                                     "\xE6\x97\xA5",
                                                     "\xF0\x9F\x98\x80",
                                                     "CLASS",
                                                     "x"};
    std::string text;
    for (size_t i = 0; i < pieces; ++i) text += one_of(kPieces);
    return text;
  }

  Request request() {
    Request request;
    request.prompt = text(below(12));
    for (size_t i = below(4); i > 0; --i) request.messages.push_back(text(below(6)));
    request.messages.push_back(request.prompt);
    request.model = one_of<std::string>({"", "auto", "code", "Code-1"});
    request.user = one_of<std::string>({"", "a", "b", "Code"});
    if (coin()) request.headers["x-tier"] = one_of<std::string>({"gold", "GOLD", "silver"});
    request.turns = static_cast<int64_t>(below(6));
    if (coin()) request.max_tokens = static_cast<int64_t>(below(6));
    if (coin()) request.tokens = static_cast<int64_t>(below(20));
    if (coin()) request.loads["m"] = static_cast<double>(below(5)) / 4;
    request.has_tools = coin();
    request.stream = coin();
    request.minute = static_cast<int>(below(1440));
    return request;
  }

  Expectation condition(int depth) {
    if (depth == 0 || below(4) == 0) return test();
    Expectation left = condition(depth - 1);
    if (below(4) == 0) {
      return {fmt::format("not ({})", left.text), [left](const Request& r) { return !left.truth(r); }};
    }
    Expectation right = condition(depth - 1);
    if (coin()) {
      return {fmt::format("({}) and ({})", left.text, right.text),
              [left, right](const Request& r) { return left.truth(r) && right.truth(r); }};
    }
    return {fmt::format("({}) or ({})", left.text, right.text),
            [left, right](const Request& r) { return left.truth(r) || right.truth(r); }};
  }

 private:
  Expectation test() {
    switch (below(8)) {
      case 0:
        return number_test();
      case 1:
        return flag_test();
      case 2:
        return time_test();
      case 3:
      case 4:
        return regex_test();
      default:
        return text_test();
    }
  }

  struct TextField {
    std::string name;
    std::function<std::vector<std::string>(const Request&)> values;
    bool several;
  };
  TextField text_field() {
    switch (below(7)) {
      case 0:
        return {"model", [](const Request& r) { return std::vector{r.model}; }, false};
      case 1:
        return {"user", [](const Request& r) { return std::vector{r.user}; }, false};
      case 2: {
        const std::string name = one_of<std::string>({"x-tier", "X-Tier", "x-none"});
        return {fmt::format("header['{}']", name),
                [name](const Request& r) {
                  const auto found = r.headers.find(lowered(name));
                  return std::vector{found == r.headers.end() ? std::string() : found->second};
                },
                false};
      }
      case 3:
        return {"conversation", [](const Request& r) { return r.messages; }, true};
      default:
        return {"prompt", [](const Request& r) { return std::vector{r.prompt}; }, false};
    }
  }

  Expectation text_test() {
    const TextField field = text_field();
    std::vector<std::string> texts;
    for (size_t i = 1 + below(3); i > 0; --i) texts.push_back(text(1 + below(2)));
    const bool fold = coin();
    const bool negated = below(4) == 0;
    const size_t kind = field.several ? 0 : below(4);
    const auto holds = [kind](const std::string& value, const std::string& text) {
      switch (kind) {
        case 0:
          return value.find(text) != std::string::npos;
        case 1:
          return value.compare(0, text.size(), text) == 0;
        case 2:
          return value.size() >= text.size() && value.compare(value.size() - text.size(), text.size(), text) == 0;
        default:
          return value == text;
      }
    };
    const auto truth = [=](const Request& request) {
      bool any = false;
      for (const std::string& value : field.values(request)) {
        for (const std::string& text : texts)
          any = any || (fold ? holds(lowered(value), lowered(text)) : holds(value, text));
      }
      return any != negated;
    };
    std::vector<std::string> written;
    for (const std::string& text : texts) written.push_back(quoted(text));
    const char* const words[4][2] = {
        {"contains", "icontains"}, {"starts with", "istarts with"}, {"ends with", "iends with"}, {"in", "iin"}};
    const std::string list =
        kind == 3 ? fmt::format("({})", fmt::join(written, ", ")) : fmt::format("{}", fmt::join(written, " or "));
    return {fmt::format("{}{} {} {}", field.name, negated ? " not" : "", words[kind][fold ? 1 : 0], list), truth};
  }

  Expectation regex_test() {
    static const std::vector<std::string> kPatterns = {
        "code", "^def\\s", "class$", "[0-9]+",    "term\\d",  "\\bcode\\b",   "(a|b){2}",      "a.*b",
        "^$",   "k",       "s",      "class",     "\xC3\xA9", "[^a]x",        "(code|class) ", "x?",
        "\\n",  ".{3}",    "(ab)+c", "gold|auto", "\\d\\s",   "\xE6\x97\xA5", "skt?",          "[ks][ks]"};
    const TextField field = text_field();
    const std::string& pattern = one_of(kPatterns);
    const std::string flags = one_of<std::string>({"", "i", "m", "s", "im", "is"});
    const bool negated = below(4) == 0;
    const auto regex = std::make_shared<RE2>(flags.empty() ? pattern : fmt::format("(?{}){}", flags, pattern));
    const auto truth = [=](const Request& request) {
      bool any = false;
      for (const std::string& value : field.values(request)) any = any || RE2::PartialMatch(value, *regex);
      return any != negated;
    };
    return {fmt::format("{}{} matches /{}/{}", field.name, negated ? " not" : "", pattern, flags), truth};
  }

  Expectation number_test() {
    struct NumberField {
      std::string name;
      std::function<std::optional<double>(const Request&)> value;
    };
    const auto length = [](const Request& r) {
      double count = 0;
      for (const char c : r.prompt) count += (c & 0xC0) == 0x80 ? 0 : 1;
      return std::optional<double>(count);
    };
    const auto maybe = [](const std::optional<int64_t>& value) {
      return value ? std::optional<double>(static_cast<double>(*value)) : std::nullopt;
    };
    const std::vector<NumberField> fields = {
        {"prompt_length", length},
        {"turns", [](const Request& r) { return static_cast<double>(r.turns); }},
        {"max_tokens", [=](const Request& r) { return maybe(r.max_tokens); }},
        {"prompt_tokens", [=](const Request& r) { return maybe(r.tokens); }},
        {"load('m')",
         [](const Request& r) { return r.loads.count("m") != 0 ? std::optional(r.loads.at("m")) : std::nullopt; }},
    };
    const NumberField& field = one_of(fields);
    const double x = static_cast<double>(below(25)) / 4;
    const double y = x + static_cast<double>(below(9)) / 2;
    const std::vector<std::pair<std::string, std::function<bool(double)>>> tests = {
        {fmt::format("< {}", x), [=](double v) { return v < x; }},
        {fmt::format("<= {}", x), [=](double v) { return v <= x; }},
        {fmt::format("> {}", x), [=](double v) { return v > x; }},
        {fmt::format(">= {}", x), [=](double v) { return v >= x; }},
        {fmt::format("== {}", x), [=](double v) { return v == x; }},
        {fmt::format("!= {}", x), [=](double v) { return v != x; }},
        {fmt::format("in ({}, {})", x, y), [=](double v) { return v == x || v == y; }},
        {fmt::format("not in ({}, {})", y, x), [=](double v) { return v != x && v != y; }},
        {fmt::format("between {} and {}", x, y), [=](double v) { return x <= v && v <= y; }},
        {fmt::format("not between {} and {}", x, y), [=](double v) { return v < x || y < v; }},
    };
    const auto& [text, truth] = one_of(tests);
    return {fmt::format("{} {}", field.name, text), [value = field.value, truth = truth](const Request& r) {
              const std::optional<double> v = value(r);
              return v.has_value() && truth(*v);
            }};
  }

  Expectation flag_test() {
    const std::vector<Expectation> flags = {
        {"has_tools", [](const Request& r) { return r.has_tools; }},
        {"stream", [](const Request& r) { return r.stream; }},
        {"stream == false", [](const Request& r) { return !r.stream; }},
        {"loaded('m')", [](const Request& r) { return r.loads.count("m") != 0; }},
        {"true", [](const Request&) { return true; }},
        {"false", [](const Request&) { return false; }},
    };
    return one_of(flags);
  }

  Expectation time_test() {
    const int from = static_cast<int>(below(1440));
    const int to = (from + 1 + static_cast<int>(below(1439))) % 1440;
    const bool negated = coin();
    const auto clock = [](int minute) { return fmt::format("'{:02}:{:02}'", minute / 60, minute % 60); };
    return {fmt::format("time{} between {} and {}", negated ? " not" : "", clock(from), clock(to)),
            [=](const Request& r) {
              bool within = false;  // walk the clock's hand
              for (int minute = from; minute != to; minute = (minute + 1) % 1440) within = within || minute == r.minute;
              return within != negated;
            }};
  }

  std::mt19937_64 random_;
};

TEST(RoutingDifferential, AllWaysSayTheSame) {
  const int rounds = num_rounds();
  for (int round = 0; round < rounds; ++round) {
    Generator generator(static_cast<uint64_t>(round) + 1);
    std::vector<Expectation> expected;
    std::vector<RoutingRule> rules;
    const size_t most = generator.below(20) == 0 ? 200 : 30;  // above 64 there is more than one word of them
    for (size_t i = 1 + generator.below(most); i > 0; --i) {
      expected.push_back(generator.condition(static_cast<int>(generator.below(4))));
      rules.push_back({.name = std::to_string(rules.size()), .condition = expected.back().text, .model_name = "m"});
    }
    const auto set = RuleSet::build(rules);
    ASSERT_TRUE(set.ok()) << "round " << round << ": " << set.error().message;
    RoutingScratch scratch;
    for (int k = 0; k < 12; ++k) {
      const Request request = generator.request();
      FakeView view;
      view.headers.insert(request.headers.begin(), request.headers.end());
      view.tokens = request.tokens;
      view.loads.insert(request.loads.begin(), request.loads.end());
      if (!request.loads.empty()) view.in_memory = {"m"};
      view.minute = request.minute;
      const std::vector<std::string_view> messages(request.messages.begin(), request.messages.end());
      const RequestFacts facts{.prompt = request.prompt,
                               .conversation = messages,
                               .model = request.model,
                               .user = request.user,
                               .turns = request.turns,
                               .max_tokens = request.max_tokens,
                               .has_tools = request.has_tools,
                               .stream = request.stream,
                               .view = &view};
      std::string first;
      for (size_t i = 0; i < expected.size(); ++i) {
        const bool truth = expected[i].truth(request);
        ASSERT_EQ((*set)->condition(i).matches(facts), truth)
            << "round " << round << ": " << expected[i].text << "\nprompt: " << request.prompt;
        if (truth && first.empty()) first = std::to_string(i);
      }
      ASSERT_EQ((*set)->decide(facts, scratch).rule, first) << "round " << round << "\nprompt: " << request.prompt;
      const RoutingDecision explained = (*set)->explain(facts);
      ASSERT_EQ(explained.rule, first) << "round " << round;
      for (const RuleLook& look : explained.trace)
        ASSERT_NE(look.because.empty(), look.outcome == RuleOutcome::not_matched);
    }
    // Each rule by itself, so that those behind the first match are compiled right, too.
    const Request request = generator.request();
    const std::vector<std::string_view> messages(request.messages.begin(), request.messages.end());
    const RequestFacts facts{.prompt = request.prompt,
                             .conversation = messages,
                             .model = request.model,
                             .user = request.user,
                             .turns = request.turns,
                             .max_tokens = request.max_tokens,
                             .has_tools = request.has_tools,
                             .stream = request.stream};
    const RuleProgram& program = (*set)->program();
    for (size_t i = 0; i < rules.size(); ++i) {
      std::vector<uint64_t> asked(words_of(program.size()), 0);
      asked[i / 64] = uint64_t{1} << (i % 64);
      const bool matches = (*set)->condition(i).matches(facts);
      ASSERT_EQ(program.first_match(asked, facts, scratch), matches ? i : program.size())
          << "round " << round << ": " << expected[i].text;
    }
  }
}

}  // namespace
}  // namespace inferneo
