// Finds stop strings in growing text and keeps back whatever might be the beginning of one, so that no byte of a stop
// string is ever shown. Pure; one per sample. Work per byte is bounded by the number of stop strings.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace inferneo {

class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops);  // empty strings are ignored

  struct Output {
    std::string text;                 // may be shown now
    std::optional<std::string> stop;  // the stop string that ended the text; nothing may be pushed afterwards
  };
  // The stop that is complete first wins, of two that end together the longer one: so the answer does not depend on how
  // the text was cut into pieces.
  Output push(std::string_view text);
  std::string flush();  // the end came without a stop: what was held back

 private:
  size_t held_suffix() const;
  std::vector<std::string> stops_;
  std::string held_;
};

}  // namespace inferneo
