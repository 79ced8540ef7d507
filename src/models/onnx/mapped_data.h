// The files beside a graph that ONNX Runtime has mapped by itself: how many bytes that are, and what happens when one
// of them is cut short.
//
// Which mappings there are is read from /proc/self/maps before and after a session is made: what has come is its own.
// Each is guarded as our own mappings are (tensor/mapping_guard.h): what is no longer there reads as zeroes, and
// truncated() tells.
// Not to be used by two loads at a time: what both map would count twice, and be guarded for both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace inferneo::onnx {

class MappedData {
 public:
  using Range = std::pair<uintptr_t, uintptr_t>;  // [begin, end)
  // Mappings of files whose real paths these are.
  static std::set<Range> find(const std::set<std::string>& paths);

  MappedData() = default;
  explicit MappedData(const std::set<Range>& ranges);
  MappedData(MappedData&& other) noexcept { swap(other); }
  MappedData& operator=(MappedData&& other) noexcept {
    MappedData gone(std::move(other));
    swap(gone);
    return *this;
  }
  ~MappedData();  // before the session ends, which unmaps them

  size_t bytes() const { return bytes_; }
  bool truncated() const;

 private:
  void swap(MappedData& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(slots_, other.slots_);
  }
  size_t bytes_ = 0;
  std::vector<int> slots_;
};

}  // namespace inferneo::onnx
