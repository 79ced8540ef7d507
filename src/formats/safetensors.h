// The safetensors format: eight bytes of header length (little endian), a JSON header, then the tensors' bytes.
//
// parse() takes bytes from anywhere and returns views into them; it copies names and shapes only. The caller keeps the
// bytes alive and unchanged. Immutable afterwards, so any number of threads may read.
//
// Invariants after parse(): names are unique; every tensor lies within the data section and its length equals its
// shape times its element size; together the tensors cover the data section without overlap, hole or trailing bytes;
// every tensor that is not empty starts at a multiple of its element size from the start of the file.
//
// Errors: malformed for what breaks the format or a limit below; unsupported for an element type that is not known here
// and for unaligned tensors; refused for pickles. Every message names the file and, where there is one, the tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tensor/dtype.h"

namespace inferneo {

struct SafetensorsLimits {
  static constexpr size_t kMaxHeaderBytes = 100'000'000;  // as in the reference implementation
  static constexpr size_t kMaxTensors = 1 << 18;          // per file; bounds memory whatever the header says
  static constexpr size_t kMaxMetadata = 4096;            // entries of __metadata__
  static constexpr size_t kMaxRank = 16;
  static constexpr size_t kMaxNameBytes = 4096;
};

struct SafetensorsTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // outermost first; empty for a scalar
  std::span<const std::byte> bytes;
  int64_t num_elements() const;
};

class SafetensorsFile {
 public:
  // `file` is how errors name it.
  static Result<SafetensorsFile> parse(std::span<const std::byte> bytes, std::string_view file);
  // How many bytes of a file parse() reads, by its first eight; bounded by the limit, whatever they claim.
  static size_t header_size(std::span<const std::byte> bytes);

  const std::vector<SafetensorsTensor>& tensors() const { return tensors_; }  // sorted by name
  const SafetensorsTensor* find(std::string_view name) const;                 // null when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::vector<SafetensorsTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace inferneo
