// Which of many literals a text contains, in one pass whose time does not depend on their number.
//
// Aho and Corasick's automaton ("Efficient string matching", CACM 1975) over byte classes: bytes that no literal has
// share a class. The states nearest to the root, where a text spends its time, have full rows of transitions; what is
// beyond kDenseBytes of them has its own edges and a failure link, so that memory stays linear in the literals.
// Immutable and thread-safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

class LiteralMatcher {
 public:
  static constexpr size_t kDenseBytes = size_t{4} * 1024 * 1024;

  LiteralMatcher() = default;
  // No literal is empty or there twice (twice but for case, with ignore_case: that of ASCII).
  LiteralMatcher(std::span<const std::string> literals, bool ignore_case, size_t dense_bytes = kDenseBytes);

  // Sets bit i of `seen` for each literal i in the text. Bits that are set already stay, and must come from scans.
  void scan(std::string_view text, uint64_t* seen) const;
  // The same of two matchers at once, in about the time of one.
  static void scan(std::string_view text, const LiteralMatcher& a, uint64_t* seen_a, const LiteralMatcher& b,
                   uint64_t* seen_b);

  size_t num_states() const { return fail_.size(); }
  size_t memory_bytes() const;

 private:
  struct Edge {
    uint8_t byte_class;
    uint32_t target;
  };
  struct Trie;
  struct Lane;
  static constexpr uint32_t kReports = uint32_t{1} << 31;  // of a place: a literal ends here
  static constexpr uint32_t kNone = UINT32_MAX;

  void add_states(const Trie& trie, std::vector<uint32_t>& order);
  void link_states();
  void fill_rows(size_t dense_bytes);
  // Where the scan stands: for a state with a row the row's beginning, so that a step is one addition and one load.
  uint32_t place_of(uint32_t state) const;
  uint32_t state_at(uint32_t place) const;
  uint32_t step(uint32_t place, uint8_t byte_class) const;
  void report(uint32_t state, uint64_t* seen) const;
  std::string_view second_half(std::string_view text) const;
  template <size_t kLanes>
  static void walk(std::array<Lane, kLanes> lanes);

  std::array<uint8_t, 256> class_of_{};  // 0: in no literal
  size_t num_classes_ = 1;
  size_t longest_ = 0;  // literal, bytes
  // States in breadth-first order, so that a failure link leads to a smaller number; 0 is the root.
  std::vector<uint32_t> dense_;  // [num_dense_, num_classes_]: the next place, with kReports
  size_t num_dense_ = 0;
  std::vector<uint32_t> edge_begin_;  // [num_states + 1]
  std::vector<Edge> edges_;
  std::vector<uint32_t> fail_;
  std::vector<uint32_t> literal_;  // that ends here, or kNone
  std::vector<uint32_t> next_;     // the nearest state along the failure links where one ends, or kNone
};

}  // namespace inferneo
