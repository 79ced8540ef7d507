// Which ONNX graphs our own converter has written for this home, by the SHA-256 of their bytes. What a graph says of
// its producer proves nothing, since anybody can write it.
//
// Graphs alone are kept: what our graphs have beside them are weights, which decide no size and no place.
// A folder of empty files, one for each graph. Thread-safe, also between processes. Errors: io_error, disk_full.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace inferneo {

class OwnGraphs {
 public:
  // `home`: that of the configuration. Empty: no graph is known, and none is kept.
  explicit OwnGraphs(const std::string& home);

  bool contains(std::span<const std::byte> graph) const;
  Status add(std::span<const std::byte> graph) const;

 private:
  std::string entry(std::span<const std::byte> graph) const;

  std::string folder_;
};

}  // namespace inferneo
