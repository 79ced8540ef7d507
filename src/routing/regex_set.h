// Which of many regular expressions match a text, in one pass: RE2::Set, within a budget. For those of which no
// necessary literal is known. Immutable and thread-safe.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "routing/regex.h"

namespace inferneo {

class RegexSet {
 public:
  static constexpr size_t kMemory = size_t{16} * 1024 * 1024;  // bytes for program and lazy DFA

  // Null: they do not fit into the budget together; each has to be matched by itself.
  static std::unique_ptr<const RegexSet> build(std::span<const RoutingRegex* const> regexes, size_t memory = kMemory);
  ~RegexSet();
  RegexSet(const RegexSet&) = delete;
  RegexSet& operator=(const RegexSet&) = delete;

  // `hits` gets the indices of those that match. False: the automaton ran out of its memory, nothing is known.
  bool match(std::string_view text, std::vector<int>& hits) const;

 private:
  struct Impl;
  explicit RegexSet(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace inferneo
