// Small pieces that the output parsers are made of: markers in a byte stream, white space that may have to go.
#pragma once

#include <string>
#include <string_view>
#include <utility>

namespace inferneo {

inline bool is_json_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Finds a marker, holding back what may be its beginning.
class MarkerScanner {
 public:
  explicit MarkerScanner(std::string_view marker) : marker_(marker) {}

  // True when c completes the marker. Bytes that cannot belong to it are appended to `released`.
  bool push(char c, std::string& released) {
    held_.push_back(c);
    while (!held_.empty() && !marker_.starts_with(held_)) {
      released.push_back(held_.front());
      held_.erase(0, 1);
    }
    if (held_.size() != marker_.size()) return false;
    held_.clear();
    return true;
  }
  bool holds_something() const { return !held_.empty(); }
  std::string take_held() { return std::exchange(held_, {}); }

 private:
  std::string_view marker_;  // a literal
  std::string held_;
};

// Passes text on, but white space only once something follows it.
class TrailingSpace {
 public:
  // What may go out now, of text.
  std::string pass(std::string_view text) {
    std::string out;
    for (const char c : text) {
      held_.push_back(c);
      if (!is_json_space(c)) out += std::exchange(held_, {});
    }
    return out;
  }
  std::string take_held() { return std::exchange(held_, {}); }

 private:
  std::string held_;
};

}  // namespace inferneo
