// ONNX Runtime as it is found at run time: a shared library that a build does not need, opened once and kept.
//
// Searched in this order: the path that the configuration names (nothing else then), beside the program, where
// scripts/onnxruntime.sh puts it, where the system's loader looks. The first that can be opened and is new enough is
// used until the process ends, since the library does not bear being unloaded.
// Threads: open() and the rest from any thread. Errors: unsupported, with what is missing and how to get it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "models/onnx/ort_abi.h"

namespace inferneo::onnx {

class OrtLibrary {
 public:
  // `path` as configured; empty: searched. An earlier success is returned whatever `path` says now, a failure is not
  // remembered.
  static Result<const OrtLibrary*> open(const std::string& path);
  // Where open("") looks, in its order; the last is a name for the system's loader.
  static std::vector<std::string> search_paths();
  // Forbids reports to a library that is opened later. A program says so before it has threads, since the environment
  // is not theirs to change; open() does where nobody has.
  static void forbid_reports();

  const std::string& version() const { return version_; }
  const std::string& path() const { return path_; }  // of the file that was opened
  OrtEnv* env() const { return env_; }
  const OrtMemoryInfo* cpu_memory() const { return cpu_memory_; }

  template <typename Entry, typename... Args>
  auto call(Args... args) const {
    return Entry::of(*table_)(args...);
  }
  // For entries that return a status, which is taken over. `what` begins the message.
  template <typename Entry, typename... Args>
  Status check(const char* what, Args... args) const {
    OrtStatus* const status = Entry::of(*table_)(args...);
    return status == nullptr ? ok_status() : Status(take(status, what));
  }

 private:
  OrtLibrary() = default;
  static Result<std::unique_ptr<OrtLibrary>> load(const std::string& path);
  Status start();
  Error take(OrtStatus* status, const char* what) const;

  const OrtApiTable* table_ = nullptr;
  std::string version_;
  std::string path_;
  OrtEnv* env_ = nullptr;
  OrtMemoryInfo* cpu_memory_ = nullptr;
};

}  // namespace inferneo::onnx
