// One ONNX graph, ready to run: the library's session behind values and spans.
//
// Owns the session and its account; the library outlives it. One thread at a time, but for interrupt(). The session has
// its own compute threads beside the caller's, which sleep between runs: whoever runs it holds a turn on the process's
// pool meanwhile. Errors: malformed, with the library's own words; deadline_exceeded for a run that was ended for its
// time, unavailable for one that interrupt() ended.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "formats/onnx/graph_scan.h"
#include "models/onnx/execution_provider.h"
#include "models/onnx/ort_library.h"
#include "models/onnx/ort_memory.h"
#include "models/onnx/run_watch.h"

namespace inferneo::onnx {

// An input or output as the graph declares it.
struct OnnxPort {
  std::string name;
  bool is_tensor = false;
  ElementType type = ElementType::undefined;
  std::vector<int64_t> shape;  // -1: any
};
std::string shape_text(std::span<const int64_t> shape);  // "[?, 8, ?, 64]"

// A tensor in memory that is the caller's; data null, for an output: the library allocates it.
struct OnnxTensor {
  static constexpr size_t kMaxRank = 8;
  const char* name = "";
  ElementType type = ElementType::float32;
  std::array<int64_t, kMaxRank> shape = {};
  size_t rank = 0;
  void* data = nullptr;
  size_t bytes = 0;
};

// A tensor that the library has allocated.
class OnnxOutput {
 public:
  OnnxOutput(const OrtLibrary& library, OrtValue* value) : library_(&library), value_(value) {}
  OnnxOutput(OnnxOutput&& other) noexcept : library_(other.library_), value_(std::exchange(other.value_, nullptr)) {}
  OnnxOutput& operator=(OnnxOutput&& other) noexcept {
    std::swap(library_, other.library_);
    std::swap(value_, other.value_);
    return *this;
  }
  ~OnnxOutput();
  Result<std::vector<int64_t>> shape() const;
  Result<ElementType> type() const;
  Result<const std::byte*> data() const;

 private:
  const OrtLibrary* library_;
  OrtValue* value_;
};

struct OnnxSessionOptions {
  int num_threads = 1;
  ProviderChoice provider = {};  // that works
};

class OnnxSession {
 public:
  static Result<std::unique_ptr<OnnxSession>> create(const OrtLibrary& library, const std::string& path,
                                                     const OnnxSessionOptions& options);
  ~OnnxSession();
  OnnxSession(const OnnxSession&) = delete;
  OnnxSession& operator=(const OnnxSession&) = delete;

  const std::vector<OnnxPort>& inputs() const { return inputs_; }
  const std::vector<OnnxPort>& outputs() const { return outputs_; }

  // A run that takes longer is ended, as soon as the node that it is in has been computed. Zero: none is.
  void set_run_limit(Duration limit) { run_limit_ = limit; }
  // The outputs whose data are null come back in their order. `limit`: of this run, beside the one that is set.
  Result<std::vector<OnnxOutput>> run(std::span<const OnnxTensor> inputs, std::span<const OnnxTensor> outputs,
                                      std::optional<Duration> limit = {});
  // Ends the run in progress, and those that follow at once. From any thread.
  void interrupt() { watch_.interrupt(); }

  OrtAccount& account() { return account_; }
  const OrtLibrary& library() const { return library_; }

 private:
  explicit OnnxSession(const OrtLibrary& library) : library_(library), watch_(library) {}
  Status open(const std::string& path, const OnnxSessionOptions& wanted);
  Result<std::vector<OnnxPort>> ports(bool of_inputs) const;
  Status describe(OrtTypeInfo* info, OnnxPort& port) const;
  Status wrap(std::span<const OnnxTensor> tensors, std::vector<OrtValue*>& values) const;
  void release(std::vector<OrtValue*>& values) const;
  Status compute(size_t num_inputs, size_t num_outputs, std::optional<Duration> limit);

  const OrtLibrary& library_;
  OrtAccount account_;
  RunWatch watch_;
  Duration run_limit_{0};
  OrtSession* session_ = nullptr;
  std::vector<OnnxPort> inputs_;
  std::vector<OnnxPort> outputs_;
  std::vector<OrtValue*> in_;  // scratch of run()
  std::vector<OrtValue*> out_;
  std::vector<const char*> names_;
};

}  // namespace inferneo::onnx
