#include "models/onnx/mapped_data.h"

#include <algorithm>
#include <charconv>
#include <fstream>

#include "tensor/mapping_guard.h"

namespace inferneo::onnx {

std::set<MappedData::Range> MappedData::find(const std::set<std::string>& paths) {
  std::set<Range> found;
  if (paths.empty()) return found;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    // "7f00-7f80 r--p 00000000 08:01 1234   /path"
    const size_t path = line.find('/');
    if (path == std::string::npos || !paths.contains(line.substr(path))) continue;
    uintptr_t begin = 0, end = 0;
    const char* const last = line.data() + line.size();
    const auto first = std::from_chars(line.data(), last, begin, 16);
    if (first.ec != std::errc() || first.ptr == last || *first.ptr != '-') continue;
    if (std::from_chars(first.ptr + 1, last, end, 16).ec == std::errc() && end > begin) found.emplace(begin, end);
  }
  return found;
}

MappedData::MappedData(const std::set<Range>& ranges) {
  for (const auto& [begin, end] : ranges) {
    bytes_ += end - begin;
    slots_.push_back(guard_mapping(reinterpret_cast<const std::byte*>(begin), end - begin));
  }
}

MappedData::~MappedData() {
  for (const int slot : slots_) {
    if (slot >= 0) unguard_mapping(slot);
  }
}

bool MappedData::truncated() const {
  return std::any_of(slots_.begin(), slots_.end(), [](int slot) { return slot >= 0 && mapping_truncated(slot); });
}

}  // namespace inferneo::onnx
