// Lines from a descriptor, with what makes one message of several: a backslash at a line's end, or lines between """.
#pragma once

#include <functional>
#include <optional>
#include <string>

namespace inferneo {

class LineReader {
 public:
  explicit LineReader(int fd) : fd_(fd) {}

  std::optional<std::string> line();  // without its newline; nullopt at the end of input
  // `prompt` is told before each line is read: false for the first, true for those that continue.
  std::optional<std::string> message(const std::function<void(bool continues)>& prompt);
  std::string rest();  // everything up to the end of input

 private:
  bool fill();  // false at the end of input

  const int fd_;
  std::string buffer_;
};

}  // namespace inferneo
