#include "serving/stop_filter.h"

#include <algorithm>
#include <utility>

namespace inferneo {

StopFilter::StopFilter(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
}

StopFilter::Output StopFilter::push(std::string_view text) {
  if (stops_.empty()) return {std::string(text), std::nullopt};
  held_ += text;
  size_t begin = 0;
  size_t end = std::string::npos;
  const std::string* found = nullptr;
  for (const std::string& stop : stops_) {
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    const size_t stop_end = at + stop.size();
    if (found == nullptr || stop_end < end || (stop_end == end && at < begin)) {
      begin = at;
      end = stop_end;
      found = &stop;
    }
  }
  if (found != nullptr) return {held_.substr(0, begin), *found};
  const size_t keep = held_suffix();
  Output output{held_.substr(0, held_.size() - keep), std::nullopt};
  held_.erase(0, held_.size() - keep);
  return output;
}

// Length of the longest suffix of held_ that a stop string begins with.
size_t StopFilter::held_suffix() const {
  size_t longest = 0;
  for (const std::string& stop : stops_) {
    for (size_t length = std::min(stop.size() - 1, held_.size()); length > longest; --length) {
      if (held_.compare(held_.size() - length, length, stop, 0, length) == 0) {
        longest = length;
        break;
      }
    }
  }
  return longest;
}

std::string StopFilter::flush() { return std::exchange(held_, {}); }

}  // namespace inferneo
