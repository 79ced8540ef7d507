// A model's directory and the only way to its files: every file is resolved to its real path, which must be a regular
// file within the allowed roots, and only then opened.
//
// Non-goals: writing, downloading, watching. Files are looked up when asked for; nothing is cached.
// Immutable, so any number of threads may use it.
//
// Errors: refused for names that climb (`..`), are absolute or leave the roots, for FIFOs, devices, /proc and /sys, for
// directories in place of files and for pickles; not_found; malformed over a size limit; io_error. Messages name the
// model as its user wrote it and the file within it, and no other path.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "inferneo/model_format.h"
#include "tensor/ledger.h"
#include "tensor/memory.h"

namespace inferneo {

// One row for each format in model_directory.cc.
std::string_view model_format_name(ModelFormat format);

class ModelDirectory {
 public:
  // `name` is how the user named the model; `path` the directory; `roots` what its real path and that of every file
  // must lie within (each root's real path counts; one that does not exist allows nothing).
  static Result<ModelDirectory> open(std::string name, const std::string& path, const std::vector<std::string>& roots);

  const std::string& name() const { return name_; }
  const std::string& path() const { return path_; }  // the real path

  // Names of the entries directly in the directory, sorted; at most kMaxEntries of them.
  Result<std::vector<std::string>> list() const;
  bool contains(std::string_view file) const;  // resolve() would succeed

  // `file` is relative: plain components, no `..`. The real path that was checked.
  Result<std::string> resolve(std::string_view file) const;
  Result<std::string> read(std::string_view file, size_t max_bytes) const;
  Result<std::shared_ptr<const MappedFile>> map(MemoryLedger& ledger, const std::string& model,
                                                std::string_view file) const;
  // The same for a look at its first bytes (MappedFile::open_front).
  Result<std::shared_ptr<const MappedFile>> map_front(MemoryLedger& ledger, const std::string& model,
                                                      std::string_view file, size_t readable) const;

  // By the files that are there. not_found says what was looked for; refused when there are only pickled weights.
  Result<ModelFormat> detect_format() const;
  // Whether it could be opened as this format; a directory may hold several.
  Result<bool> has_format(ModelFormat format) const;

  static constexpr size_t kMaxEntries = 10'000;

 private:
  std::string name_;
  std::string path_;
  std::vector<std::string> roots_;  // real paths
};

// A whole file that the operator named outright (no roots apply); `label` names it in errors. refused for what is not a
// regular file: neither a FIFO nor a device is waited for or read without end.
Result<std::string> read_named_file(const std::string& path, const std::string& label, size_t max_bytes);

// True for a name without separators, `..`, control characters or a leading dot-dot: a file directly in a directory.
bool is_plain_file_name(std::string_view name);

}  // namespace inferneo
