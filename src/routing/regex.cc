#include "routing/regex.h"

#include <fmt/format.h>
#include <re2/filtered_re2.h>
#include <re2/re2.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace inferneo {
namespace {

RE2::Options regex_options() {
  RE2::Options options;
  options.set_log_errors(false);
  options.set_max_mem(static_cast<int64_t>(kRegexMemory));
  return options;
}

constexpr std::string_view kLongS = "\xC5\xBF";

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

std::string_view longest_ascii_run(std::string_view text) {
  std::string_view longest;
  while (!text.empty()) {
    const auto end = std::find_if_not(text.begin(), text.end(), is_ascii);
    const std::string_view run = text.substr(0, static_cast<size_t>(end - text.begin()));
    if (run.size() > longest.size()) longest = run;
    text.remove_prefix(std::min(text.size(), run.size() + 1));
  }
  return longest;
}

// Literals without which RE2's own analysis says that a text cannot match (Cox, "Regular Expression Matching with a
// Trigram Index", 2012, has the method). It makes a formula of them that only it can evaluate; of that, this finds a
// smallest set of which one must be there: literals are taken out, the short ones first, as long as all texts that have
// none of the rest are still refused.
std::vector<std::string> guarding_literals(const std::string& pattern) {
  constexpr size_t kMostTried = 64;  // the search is quadratic
  re2::FilteredRE2 filter(static_cast<int>(kShortestAtom));
  int id = 0;
  if (filter.Add(pattern, regex_options(), &id) != RE2::NoError) return {};
  std::vector<std::string> found;
  filter.Compile(&found);
  std::vector<int> order(found.size());
  std::iota(order.begin(), order.end(), 0);
  const auto length_and_text = [&](int atom) {
    const std::string& text = found[static_cast<size_t>(atom)];
    return std::pair(text.size(), std::string_view(text));
  };
  std::sort(order.begin(), order.end(), [&](int a, int b) { return length_and_text(a) < length_and_text(b); });
  std::vector<int> present;
  for (size_t i = 0; i + 1 < order.size() && order.size() <= kMostTried; ++i) {
    present.push_back(order[i]);
    std::vector<int> passing;
    filter.AllPotentials(present, &passing);
    if (!passing.empty()) present.pop_back();
  }
  std::vector<std::string> guards;
  for (const int atom : order) {
    if (std::find(present.begin(), present.end(), atom) == present.end()) {
      guards.push_back(std::move(found[static_cast<size_t>(atom)]));
    }
  }
  return guards;
}

// As texts are folded in ASCII only, that is what an atom may ask of them. Empty: nothing can be asked.
std::vector<std::string> ascii_atoms(const std::vector<std::string>& guards) {
  std::vector<std::string> atoms;
  for (const std::string& guard : guards) {
    if (guard.find(kLongS) != std::string::npos) continue;  // texts with it are matched whatever their atoms
    const std::string_view part = longest_ascii_run(guard);
    if (part.size() < kShortestAtom) return {};
    atoms.emplace_back(part);
  }
  return atoms;
}

// The end of a class that begins at `at`: past its closing bracket. RE2 has checked that there is one.
size_t class_end(std::string_view pattern, size_t at) {
  size_t i = at + 1;
  if (i < pattern.size() && pattern[i] == '^') ++i;
  if (i < pattern.size() && pattern[i] == ']') ++i;  // the first one is a member
  while (i < pattern.size() && pattern[i] != ']') {
    if (pattern.substr(i, 2) == "[:") {
      i = std::min(pattern.find(":]", i + 2), pattern.size()) + 1;
    } else if (pattern[i] == '\\') {
      ++i;
    }
    ++i;
  }
  return std::min(i + 1, pattern.size());
}

// By the text of a well-formed expression, and on the safe side: a group counts as wide when anything is.
bool repeats_widely(std::string_view pattern) {
  constexpr std::string_view kWideEscapes = "DSWPC";
  bool any_wide = false;
  size_t i = 0;
  while (i < pattern.size()) {
    bool wide = false;
    bool wide_if_counted = false;
    bool group = false;
    if (pattern[i] == '\\') {
      const char escaped = i + 1 < pattern.size() ? pattern[i + 1] : ' ';
      wide = kWideEscapes.find(escaped) != std::string_view::npos;
      wide_if_counted = escaped == 'w' || escaped == 'p';
      i += 2;
    } else if (pattern[i] == '[') {
      wide = pattern.substr(i, 2) == "[^";
      wide_if_counted = true;
      i = class_end(pattern, i);
    } else {
      wide = pattern[i] == '.';
      group = pattern[i] == ')';
      ++i;
    }
    any_wide = any_wide || wide || wide_if_counted;
    const char next = i < pattern.size() ? pattern[i] : ' ';
    const bool repeated = next == '*' || next == '+' || next == '{';
    if (repeated && (wide || (group && any_wide) || (next == '{' && wide_if_counted))) return true;
  }
  return false;
}

}  // namespace

RoutingRegex::~RoutingRegex() = default;

std::shared_ptr<const RoutingRegex> RoutingRegex::compile(const std::string& pattern, const std::string& flags,
                                                          Fault& fault) {
  std::shared_ptr<RoutingRegex> regex(new RoutingRegex);
  regex->pattern_ = flags.empty() ? pattern : fmt::format("(?{}:{})", flags, pattern);
  // Alone first: within the group of the flags, `a)(b` would be well formed.
  for (const std::string& text : {pattern, regex->pattern_}) {
    regex->regex_ = std::make_unique<RE2>(text, regex_options());
    if (!regex->regex_->ok()) {
      fault = {regex->regex_->error(), regex->regex_->error_arg()};
      return nullptr;
    }
  }
  if (std::max(regex->regex_->ProgramSize(), regex->regex_->ReverseProgramSize()) > kMaxRegexProgram) {
    fault = {fmt::format("its program has {} steps, more than {}", regex->regex_->ProgramSize(), kMaxRegexProgram), {}};
    return nullptr;
  }
  regex->joins_well_ = !repeats_widely(pattern);
  regex->atoms_ = ascii_atoms(guarding_literals(regex->pattern_));
  return regex;
}

bool RoutingRegex::matches(std::string_view text) const {
  return regex_->Match(re2::StringPiece(text.data(), text.size()), 0, text.size(), RE2::UNANCHORED, nullptr, 0);
}

int RoutingRegex::program_size() const { return regex_->ProgramSize(); }

}  // namespace inferneo
