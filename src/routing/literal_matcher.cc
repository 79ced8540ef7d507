#include "routing/literal_matcher.h"

#include <algorithm>

#include "base/result.h"
#include "routing/text_match.h"

namespace inferneo {

// While it is built: children as linked lists, in the order of insertion.
struct LiteralMatcher::Trie {
  struct Node {
    uint32_t child = kNone;
    uint32_t sibling = kNone;
    uint32_t literal = kNone;
    uint8_t byte_class = 0;
  };
  std::vector<Node> nodes = std::vector<Node>(1);

  uint32_t child_of(uint32_t node, uint8_t byte_class) {
    for (uint32_t child = nodes[node].child; child != kNone; child = nodes[child].sibling) {
      if (nodes[child].byte_class == byte_class) return child;
    }
    const auto added = static_cast<uint32_t>(nodes.size());
    nodes.push_back({kNone, nodes[node].child, kNone, byte_class});
    nodes[node].child = added;
    return added;
  }
};

LiteralMatcher::LiteralMatcher(std::span<const std::string> literals, bool ignore_case, size_t dense_bytes) {
  const auto folded = [&](char c) { return static_cast<uint8_t>(ignore_case ? lower_ascii(c) : c); };
  for (const std::string& literal : literals) {
    for (const char c : literal) {
      uint8_t& byte_class = class_of_[folded(c)];
      // Class 0 takes what is left over; where all 256 bytes are used it is the last one's, and of no other.
      if (byte_class == 0 && num_classes_ < 256) byte_class = static_cast<uint8_t>(num_classes_++);
    }
  }
  Trie trie;
  for (size_t i = 0; i < literals.size(); ++i) {
    uint32_t node = 0;
    for (const char c : literals[i]) node = trie.child_of(node, class_of_[folded(c)]);
    INFERNEO_CHECK(node != 0 && trie.nodes[node].literal == kNone, "a literal is empty or there twice");
    trie.nodes[node].literal = static_cast<uint32_t>(i);
    longest_ = std::max(longest_, literals[i].size());
  }
  if (ignore_case) {
    for (int c = 'A'; c <= 'Z'; ++c) class_of_[static_cast<size_t>(c)] = class_of_[static_cast<size_t>(c - 'A' + 'a')];
  }
  std::vector<uint32_t> order;
  add_states(trie, order);
  link_states();
  fill_rows(dense_bytes);
}

// Numbers the nodes breadth first: `order` holds the node of each state.
void LiteralMatcher::add_states(const Trie& trie, std::vector<uint32_t>& order) {
  order.assign(1, 0);
  edge_begin_.assign(1, 0);
  for (size_t state = 0; state < order.size(); ++state) {
    const Trie::Node& node = trie.nodes[order[state]];
    literal_.push_back(node.literal);
    for (uint32_t child = node.child; child != kNone; child = trie.nodes[child].sibling) {
      edges_.push_back({trie.nodes[child].byte_class, static_cast<uint32_t>(order.size())});
      order.push_back(child);
    }
    edge_begin_.push_back(static_cast<uint32_t>(edges_.size()));
  }
}

void LiteralMatcher::link_states() {
  fail_.assign(literal_.size(), 0);
  next_.assign(literal_.size(), kNone);
  for (uint32_t state = 0; state < literal_.size(); ++state) {
    for (uint32_t i = edge_begin_[state]; i < edge_begin_[state + 1]; ++i) {
      const Edge edge = edges_[i];
      // There are no rows yet: places are states.
      const uint32_t fail = state == 0 ? 0 : step(fail_[state], edge.byte_class) & ~kReports;
      fail_[edge.target] = fail;
      next_[edge.target] = literal_[fail] != kNone ? fail : next_[fail];
    }
  }
}

void LiteralMatcher::fill_rows(size_t dense_bytes) {
  const size_t row_bytes = num_classes_ * sizeof(uint32_t);
  num_dense_ = std::clamp<size_t>(dense_bytes / row_bytes, 1, literal_.size());
  dense_.assign(num_dense_ * num_classes_, 0);
  for (size_t state = 0; state < num_dense_; ++state) {
    uint32_t* row = &dense_[state * num_classes_];
    if (state > 0) std::copy_n(&dense_[fail_[state] * num_classes_], num_classes_, row);
    for (uint32_t i = edge_begin_[state]; i < edge_begin_[state + 1]; ++i) {
      row[edges_[i].byte_class] = place_of(edges_[i].target);
    }
  }
}

uint32_t LiteralMatcher::place_of(uint32_t state) const {
  const size_t place = state < num_dense_ ? state * num_classes_ : dense_.size() + state - num_dense_;
  const bool reports = literal_[state] != kNone || next_[state] != kNone;
  return static_cast<uint32_t>(place) | (reports ? kReports : 0);
}

uint32_t LiteralMatcher::state_at(uint32_t place) const {
  const size_t state = place < dense_.size() ? place / num_classes_ : place - dense_.size() + num_dense_;
  return static_cast<uint32_t>(state);
}

// Each failure link leads nearer to the root by at least one byte of the text that has been read, so that a scan takes
// at most two steps per byte on average.
inline uint32_t LiteralMatcher::step(uint32_t place, uint8_t byte_class) const {
  while (place >= dense_.size()) {
    const uint32_t state = state_at(place);
    for (uint32_t i = edge_begin_[state]; i < edge_begin_[state + 1]; ++i) {
      if (edges_[i].byte_class == byte_class) return place_of(edges_[i].target);
    }
    if (state == 0) return 0;
    place = place_of(fail_[state]) & ~kReports;
  }
  return dense_[place + byte_class];
}

// The literals that end here, the longest first. One that has been seen was so with all that come after it.
void LiteralMatcher::report(uint32_t state, uint64_t* seen) const {
  if (literal_[state] == kNone) state = next_[state];
  for (; state != kNone; state = next_[state]) {
    const uint32_t literal = literal_[state];
    const uint64_t bit = uint64_t{1} << (literal % 64);
    if ((seen[literal / 64] & bit) != 0) return;
    seen[literal / 64] |= bit;
  }
}

// One matcher on its way through one text. What a step reads is copied here: the compiler cannot know that `seen` is
// none of it.
struct LiteralMatcher::Lane {
  Lane(const LiteralMatcher& of, std::string_view over, uint64_t* bits)
      : matcher(&of),
        rows(of.dense_.data()),
        num_places(of.dense_.size()),
        classes(of.class_of_.data()),
        text(over),
        seen(bits) {}

  const LiteralMatcher* matcher;
  const uint32_t* rows;
  size_t num_places;
  const uint8_t* classes;
  std::string_view text;
  uint64_t* seen;
  uint32_t place = 0;
};

// A step waits for the load before it. Lanes that go forward side by side wait at the same time.
template <size_t kLanes>
void LiteralMatcher::walk(std::array<Lane, kLanes> lanes) {
  size_t steps = lanes[0].text.size();
  for (const Lane& lane : lanes) steps = std::min(steps, lane.text.size());
  for (size_t i = 0; i < steps; ++i) {
    for (Lane& lane : lanes) {
      const uint8_t byte_class = lane.classes[static_cast<uint8_t>(lane.text[i])];
      uint32_t place = lane.place;
      place = place < lane.num_places ? lane.rows[place + byte_class] : lane.matcher->step(place, byte_class);
      if ((place & kReports) != 0) [[unlikely]] {
        place &= ~kReports;
        lane.matcher->report(lane.matcher->state_at(place), lane.seen);
      }
      lane.place = place;
    }
  }
  if constexpr (kLanes > 1) {
    for (Lane& lane : lanes) {
      lane.text.remove_prefix(steps);
      walk(std::array{lane});
    }
  }
}

// Where a second lane begins: what begins before and ends behind the middle lies in it whole.
std::string_view LiteralMatcher::second_half(std::string_view text) const {
  return text.substr(text.size() / 2 - std::min(text.size() / 2, longest_ - 1));
}

void LiteralMatcher::scan(std::string_view text, uint64_t* seen) const {
  if (fail_.size() < 2) return;
  const std::string_view second = second_half(text);
  if (second.size() > text.size() / 4 * 3) return walk(std::array{Lane(*this, text, seen)});
  walk(std::array{Lane(*this, text.substr(0, text.size() / 2), seen), Lane(*this, second, seen)});
}

void LiteralMatcher::scan(std::string_view text, const LiteralMatcher& a, uint64_t* seen_a, const LiteralMatcher& b,
                          uint64_t* seen_b) {
  if (a.fail_.size() < 2) return b.scan(text, seen_b);
  if (b.fail_.size() < 2) return a.scan(text, seen_a);
  const std::string_view second_a = a.second_half(text);
  const std::string_view second_b = b.second_half(text);
  if (std::max(second_a.size(), second_b.size()) > text.size() / 4 * 3) {
    return walk(std::array{Lane(a, text, seen_a), Lane(b, text, seen_b)});
  }
  const std::string_view first = text.substr(0, text.size() / 2);
  walk(
      std::array{Lane(a, first, seen_a), Lane(a, second_a, seen_a), Lane(b, first, seen_b), Lane(b, second_b, seen_b)});
}

size_t LiteralMatcher::memory_bytes() const {
  return dense_.capacity() * sizeof(uint32_t) + edges_.capacity() * sizeof(Edge) +
         (edge_begin_.capacity() + fail_.capacity() + literal_.capacity() + next_.capacity()) * sizeof(uint32_t);
}

}  // namespace inferneo
