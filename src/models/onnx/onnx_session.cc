#include "models/onnx/onnx_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

namespace inferneo::onnx {
namespace {

constexpr size_t kMaxPorts = 100'000;
constexpr const char* kAwake = "1000";  // microseconds: longer than the pause between two steps

// From 1.26 on; before that threads spin as long as they like, unless they are stopped at the end of each run.
bool bounds_spinning(std::string_view version) {
  constexpr int kFirstMinor = 26;
  if (!version.starts_with("1.")) return true;
  int minor = 0;
  std::from_chars(version.data() + 2, version.data() + version.size(), minor);
  return minor >= kFirstMinor;
}

Result<std::vector<int64_t>> shape_of(const OrtLibrary& library, const OrtTensorInfo* info) {
  size_t rank = 0;
  RETURN_IF_ERROR(library.check<OrtRank>("reading a shape", info, &rank));
  std::vector<int64_t> shape(rank);
  RETURN_IF_ERROR(library.check<OrtShape>("reading a shape", info, shape.data(), rank));
  return shape;
}

}  // namespace

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t dimension : shape) {
    text += text.size() > 1 ? ", " : "";
    text += dimension < 0 ? std::string("?") : std::to_string(dimension);
  }
  return text + "]";
}

OnnxOutput::~OnnxOutput() {
  if (value_ != nullptr) library_->call<OrtReleaseValue>(value_);
}

Result<std::vector<int64_t>> OnnxOutput::shape() const {
  OrtTensorInfo* info = nullptr;
  RETURN_IF_ERROR(library_->check<OrtValueTensorInfo>("reading an output", value_, &info));
  Result<std::vector<int64_t>> shape = shape_of(*library_, info);
  library_->call<OrtReleaseTensorInfo>(info);
  return shape;
}

Result<ElementType> OnnxOutput::type() const {
  OrtTensorInfo* info = nullptr;
  RETURN_IF_ERROR(library_->check<OrtValueTensorInfo>("reading an output", value_, &info));
  int32_t type = 0;
  const Status read =
      library_->check<OrtElementType>("reading an output", static_cast<const OrtTensorInfo*>(info), &type);
  library_->call<OrtReleaseTensorInfo>(info);
  RETURN_IF_ERROR(read);
  return static_cast<ElementType>(type);
}

Result<const std::byte*> OnnxOutput::data() const {
  void* data = nullptr;
  RETURN_IF_ERROR(library_->check<OrtTensorData>("reading an output", value_, &data));
  return static_cast<const std::byte*>(data);
}

Result<std::unique_ptr<OnnxSession>> OnnxSession::create(const OrtLibrary& library, const std::string& path,
                                                         const OnnxSessionOptions& options) {
  auto session = std::unique_ptr<OnnxSession>(new OnnxSession(library));
  RETURN_IF_ERROR(session->open(path, options));
  return session;
}

Status OnnxSession::open(const std::string& path, const OnnxSessionOptions& wanted) {
  OrtSessionOptions* options = nullptr;
  RETURN_IF_ERROR(library_.check<OrtCreateSessionOptions>("opening the graph", &options));
  const auto set = [&]() -> Status {
    RETURN_IF_ERROR(library_.check<OrtSetOptimizationLevel>("opening the graph", options, kOrtOptimizeAll));
    RETURN_IF_ERROR(library_.check<OrtSetIntraOpThreads>("opening the graph", options, wanted.num_threads));
    RETURN_IF_ERROR(library_.check<OrtSetInterOpThreads>("opening the graph", options, 1));
    // Shapes change with every step, and a pattern would be kept for each.
    RETURN_IF_ERROR(library_.check<OrtDisableMemPattern>("opening the graph", options));
    RETURN_IF_ERROR(library_.check<OrtDisableCpuMemArena>("opening the graph", options));
    // Our allocator, which counts; threads that wait for the next node awake, also from one step to the next, and sleep
    // soon after, since others take turns. And the one format that has been looked at.
    const bool bounded = bounds_spinning(library_.version());
    for (const auto& [key, value] :
         {std::pair{"session.use_env_allocators", "1"}, std::pair{"session.intra_op.allow_spinning", "1"},
          std::pair{"session.intra_op.spin_duration_us", kAwake},
          std::pair{"session.force_spinning_stop", bounded ? "0" : "1"},
          std::pair{"session.inter_op.allow_spinning", "0"}, std::pair{"session.load_model_format", "ONNX"}}) {
      RETURN_IF_ERROR(library_.check<OrtAddConfigEntry>("opening the graph", options, key, value));
    }
    RETURN_IF_ERROR(append_provider(library_, options, wanted.provider));
    const OrtAccount::Scope scope(account_);
    return library_.check<OrtCreateSession>("opening the graph", library_.env(), path.c_str(), options, &session_);
  };
  const Status opened = set();
  library_.call<OrtReleaseSessionOptions>(options);
  RETURN_IF_ERROR(opened);
  account_.keep_freed();
  RETURN_IF_ERROR(watch_.open());
  ASSIGN_OR_RETURN(inputs_, ports(true));
  ASSIGN_OR_RETURN(outputs_, ports(false));
  return ok_status();
}

OnnxSession::~OnnxSession() {
  if (session_ != nullptr) library_.call<OrtReleaseSession>(session_);
}

Result<std::vector<OnnxPort>> OnnxSession::ports(bool of_inputs) const {
  size_t count = 0;
  OrtAllocator* allocator = nullptr;
  RETURN_IF_ERROR(library_.check<OrtDefaultAllocator>("reading the graph", &allocator));
  RETURN_IF_ERROR(of_inputs ? library_.check<OrtInputCount>("reading the graph", session_, &count)
                            : library_.check<OrtOutputCount>("reading the graph", session_, &count));
  if (count > kMaxPorts) return make_error(ErrorCode::malformed, "the graph has too many inputs or outputs");
  std::vector<OnnxPort> found;
  for (size_t i = 0; i < count; ++i) {
    OnnxPort port;
    char* name = nullptr;
    RETURN_IF_ERROR(of_inputs ? library_.check<OrtInputName>("reading the graph", session_, i, allocator, &name)
                              : library_.check<OrtOutputName>("reading the graph", session_, i, allocator, &name));
    port.name = name;
    RETURN_IF_ERROR(library_.check<OrtAllocatorFree>("reading the graph", allocator, static_cast<void*>(name)));
    OrtTypeInfo* info = nullptr;
    RETURN_IF_ERROR(of_inputs ? library_.check<OrtInputTypeInfo>("reading the graph", session_, i, &info)
                              : library_.check<OrtOutputTypeInfo>("reading the graph", session_, i, &info));
    const Status described = describe(info, port);
    library_.call<OrtReleaseTypeInfo>(info);
    RETURN_IF_ERROR(described);
    found.push_back(std::move(port));
  }
  return found;
}

Status OnnxSession::describe(OrtTypeInfo* info, OnnxPort& port) const {
  OrtValueType kind = {};
  RETURN_IF_ERROR(library_.check<OrtTypeKind>("reading the graph", info, &kind));
  port.is_tensor = kind == kOrtTensor;
  if (!port.is_tensor) return ok_status();
  const OrtTensorInfo* tensor = nullptr;  // belongs to `info`
  RETURN_IF_ERROR(library_.check<OrtTypeAsTensor>("reading the graph", info, &tensor));
  int32_t type = 0;
  RETURN_IF_ERROR(library_.check<OrtElementType>("reading the graph", tensor, &type));
  port.type = static_cast<ElementType>(type);  // the library's numbers are the format's
  ASSIGN_OR_RETURN(port.shape, shape_of(library_, tensor));
  return ok_status();
}

Status OnnxSession::wrap(std::span<const OnnxTensor> tensors, std::vector<OrtValue*>& values) const {
  for (const OnnxTensor& tensor : tensors) {
    values.push_back(nullptr);
    if (tensor.data == nullptr) continue;
    RETURN_IF_ERROR(library_.check<OrtCreateTensor>(tensor.name, library_.cpu_memory(), tensor.data, tensor.bytes,
                                                    tensor.shape.data(), tensor.rank, static_cast<int32_t>(tensor.type),
                                                    &values.back()));
  }
  return ok_status();
}

void OnnxSession::release(std::vector<OrtValue*>& values) const {
  for (OrtValue* value : values) {
    if (value != nullptr) library_.call<OrtReleaseValue>(value);
  }
  values.clear();
}

Status OnnxSession::compute(size_t num_inputs, size_t num_outputs, std::optional<Duration> limit) {
  const TimePoint now = SteadyClock().now();
  if (run_limit_ > Duration{0}) limit = std::min(limit.value_or(run_limit_), run_limit_);
  RETURN_IF_ERROR(watch_.begin(limit ? std::optional<TimePoint>(now + *limit) : std::nullopt));
  Status status = library_.check<OrtRun>("running the graph", session_, watch_.options(), names_.data(), in_.data(),
                                         num_inputs, names_.data() + num_inputs, num_outputs, out_.data());
  switch (watch_.end()) {
    case RunWatch::Ended::by_itself:
      break;
    case RunWatch::Ended::by_time:  // even if it was done by then: nobody waits any more
      return make_error(ErrorCode::deadline_exceeded,
                        fmt::format("a run of the graph was ended after {:.3g} s, which is all that it had; "
                                    "onnx_run_timeout and request_timeout say how long one may take",
                                    to_seconds(SteadyClock().now() - now)));
    case RunWatch::Ended::by_interrupt:
      return make_error(ErrorCode::unavailable, "the run of the graph was ended, since the model goes");
  }
  return status;
}

Result<std::vector<OnnxOutput>> OnnxSession::run(std::span<const OnnxTensor> inputs,
                                                 std::span<const OnnxTensor> outputs, std::optional<Duration> limit) {
  const OrtAccount::Scope scope(account_);
  names_.clear();
  for (const OnnxTensor& tensor : inputs) names_.push_back(tensor.name);
  for (const OnnxTensor& tensor : outputs) names_.push_back(tensor.name);
  Status status = wrap(inputs, in_);
  if (status.ok()) status = wrap(outputs, out_);
  if (status.ok()) status = compute(inputs.size(), outputs.size(), limit);
  std::vector<OnnxOutput> made;
  for (size_t i = 0; i < out_.size(); ++i) {
    if (outputs[i].data == nullptr && out_[i] != nullptr) made.emplace_back(library_, std::exchange(out_[i], nullptr));
  }
  release(in_);
  release(out_);
  if (!status.ok()) return std::move(status).error();
  return made;
}

}  // namespace inferneo::onnx
