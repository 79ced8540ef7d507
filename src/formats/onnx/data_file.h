// The file beside an ONNX model that holds its weights (external data).
//
// Its size is known before the first byte is written, so a disk without room says so at the beginning. Tensors are
// written in any order and in pieces; a large one begins at a page, so that a reader can map it, others at 64 bytes.
// write() may be called from several threads for different ranges; the rest has one owner.
// Errors: disk_full, io_error, naming the file as its user knows it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/file_descriptor.h"
#include "base/result.h"

namespace inferneo {

// Hands out the ranges of a data file in order.
class DataFilePlan {
 public:
  uint64_t add(uint64_t bytes);  // where it begins
  uint64_t size() const { return size_; }

 private:
  uint64_t size_ = 0;
};

class DataFile {
 public:
  // A new file of `bytes` at `path`; `name` is how errors call it.
  static Result<DataFile> create(const std::string& path, std::string name, uint64_t bytes);
  Status write(uint64_t offset, std::span<const std::byte> bytes) const;
  Status finish();  // on the disk, and closed

 private:
  DataFile(FileDescriptor file, std::string name) : file_(std::move(file)), name_(std::move(name)) {}
  FileDescriptor file_;
  std::string name_;
};

}  // namespace inferneo
