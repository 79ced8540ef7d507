// Whatever the bytes, parsing ends in a file whose invariants hold or in an error with a message.
#include <cstdint>
#include <span>

#include "formats/safetensors.h"
#include "require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span bytes(reinterpret_cast<const std::byte*>(data), size);
  const auto file = inferneo::SafetensorsFile::parse(bytes, "fuzz");
  if (!file.ok()) {
    require(!file.error().message.empty(), "an error has a message");
    require(file.error().message.size() < 2000, "an error fits a line");
    return 0;
  }
  size_t covered = 0;
  unsigned sum = 0;
  for (const auto& tensor : file->tensors()) {
    require(tensor.bytes.data() >= bytes.data() && tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + size,
            "a tensor lies in the file");
    int64_t elements = 1;
    for (const int64_t dimension : tensor.shape) elements *= tensor.bytes.empty() ? 0 : dimension;
    require(tensor.bytes.empty() || elements == tensor.num_elements(), "shape and length agree");
    require(file->find(tensor.name) == &tensor, "a tensor is found by its name");
    for (const std::byte byte : tensor.bytes) sum += std::to_integer<unsigned>(byte);  // readable, says asan
    covered += tensor.bytes.size();
  }
  require(covered + 8 <= size && sum < UINT32_MAX, "tensors do not overlap");
  return 0;
}
