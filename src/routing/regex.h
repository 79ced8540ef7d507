// A regular expression of a rule: RE2 (linear in the text, whatever the expression), with bounds on its program and its
// caches, and the pieces of text without which it cannot match. Immutable and thread-safe.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace re2 {
class RE2;
}

namespace inferneo {

inline constexpr int kMaxRegexProgram = 2000;               // instructions, forwards and backwards each
inline constexpr size_t kRegexMemory = size_t{256} * 1024;  // bytes for program and lazy DFA, at most
inline constexpr size_t kShortestAtom = 2;                  // bytes; shorter ones are in every text

class RoutingRegex {
 public:
  struct Fault {
    std::string message;  // RE2's own words
    std::string part;     // of the pattern that is at fault; may be empty
  };
  // `flags` are of i, m, s. Null, with `fault` set, when it is none.
  static std::shared_ptr<const RoutingRegex> compile(const std::string& pattern, const std::string& flags,
                                                     Fault& fault);
  ~RoutingRegex();
  RoutingRegex(const RoutingRegex&) = delete;
  RoutingRegex& operator=(const RoutingRegex&) = delete;

  // Whether it matches anywhere in the text.
  bool matches(std::string_view text) const;

  const std::string& pattern() const { return pattern_; }  // with its flags, as RE2 has it
  int program_size() const;
  // ASCII in lower case: a text that it matches has at least one of them in any case, or one of kUnfoldedLetters.
  // Empty: nothing is known.
  const std::vector<std::string>& atoms() const { return atoms_; }
  // Whether it may be matched together with others (RegexSet). Not when it repeats what nearly every character is, as
  // .* does: such an expression, once begun, goes on over the rest of the text, and the states of a joint automaton
  // would be all combinations of those that have begun.
  bool joins_well() const { return joins_well_; }

 private:
  RoutingRegex() = default;
  std::string pattern_;
  std::unique_ptr<re2::RE2> regex_;
  std::vector<std::string> atoms_;
  bool joins_well_ = false;
};

// The Kelvin sign and the long s: all letters outside ASCII that `(?i)` takes for ASCII ones.
inline constexpr std::string_view kUnfoldedLetters[] = {"\xE2\x84\xAA", "\xC5\xBF"};

}  // namespace inferneo
