// What the rules of one set ask of one long text (the prompt, or the conversation): whether it contains this literal,
// whether that regular expression matches. Asked at most once each per decision and answered together: one pass for all
// literals, and a regular expression is tried only when a literal has been seen that it cannot do without.
//
// Filled, built once, then immutable and thread-safe; what is known of a request stands in the words of its scratch.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "routing/literal_matcher.h"
#include "routing/regex.h"
#include "routing/regex_set.h"

namespace inferneo {

// 64-bit words that hold so many bits.
constexpr size_t words_of(size_t bits) { return (bits + 63) / 64; }

class TextIndex {
 public:
  using Passages = std::span<const std::string_view>;  // a literal or a match lies within one of them

  // The same literal or expression has the same number.
  uint32_t add_literal(const std::string& literal, bool ignore_case);
  uint32_t add_regex(const std::shared_ptr<const RoutingRegex>& regex);
  void build();

  // Of scratch, all zero before scan(), which comes before all questions of a decision.
  size_t num_words() const { return num_words_; }
  bool is_scanned(const uint64_t* words) const { return (words[0] & kScanned) != 0; }
  // Then a literal's bit of the words says whether it is there. Literals' bits: [64, end_of_literals()).
  void scan(Passages passages, uint64_t* words) const;
  size_t bit_of(uint32_t number) const { return ((number & 1) != 0 ? folded_ : exact_).first_word * 64 + number / 2; }
  size_t end_of_literals() const { return known_word_ * 64; }
  // The literals, as add_literal() counts them, one of which a text has that the expression matches; empty: unknown.
  std::vector<uint32_t> guards_of(uint32_t regex) const;
  bool has_match(uint32_t number, Passages passages, uint64_t* words, std::vector<int>& hits) const;

  size_t num_literals() const { return exact_.literals.size() + folded_.literals.size(); }
  size_t num_regexes() const { return regexes_.size(); }
  size_t num_filtered() const;  // regular expressions that literals stand before
  size_t memory_bytes() const { return exact_.matcher.memory_bytes() + folded_.matcher.memory_bytes(); }

 private:
  // The literals of one folding. Numbers given out have the lowest bit set for those without regard to case.
  struct Literals {
    std::map<std::string, uint32_t, std::less<>> numbers;
    std::vector<std::string> literals;
    LiteralMatcher matcher;
    size_t first_word = 0;
    uint32_t add(std::string literal);
  };
  struct Filtered {
    std::shared_ptr<const RoutingRegex> regex;
    std::vector<uint32_t> atoms;  // folded literals, one of which must be there; empty: nothing is known
    bool joined = false;          // in the set of its kind
  };
  // Those that are matched together: the guarded ones by literals, and the others.
  struct Joined {
    std::unique_ptr<const RegexSet> set;
    std::vector<uint32_t> members;  // regexes_ by their index in the set
    uint64_t run = 0;               // the flag in the first word
  };

  static constexpr uint64_t kScanned = 1;  // flag in the first word

  bool may_match(const Filtered& filtered, const uint64_t* words) const;
  void build_sets();
  void run_set(const Joined& joined, Passages passages, uint64_t* words, std::vector<int>& hits) const;

  Literals exact_;
  Literals folded_;
  std::vector<Filtered> regexes_;
  std::map<std::string, uint32_t, std::less<>> regex_numbers_;
  Joined guarded_;
  Joined unguarded_;
  size_t known_word_ = 0;  // of each regular expression, whether it is known if it matches
  size_t match_word_ = 0;
  size_t num_words_ = 1;
};

}  // namespace inferneo
