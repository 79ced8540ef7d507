#include "models/onnx/execution_provider.h"

#include <fmt/format.h>

#include <array>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "base/log.h"

namespace inferneo::onnx {
namespace {

constexpr const char* kWhat = "asking for it";

// The calls of the two providers, which differ in their types alone.
struct Cuda {
  using Options = OrtCudaOptions;
  using Create = OrtCreateCudaOptions;
  using Update = OrtUpdateCudaOptions;
  using Append = OrtAppendCuda;
  using Release = OrtReleaseCudaOptions;
  static constexpr const char* kMemoryLimit = "gpu_mem_limit";
};
struct TensorRt {
  using Options = OrtTensorRtOptions;
  using Create = OrtCreateTensorRtOptions;
  using Update = OrtUpdateTensorRtOptions;
  using Append = OrtAppendTensorRt;
  using Release = OrtReleaseTensorRtOptions;
  static constexpr const char* kMemoryLimit = "trt_max_workspace_size";
};

template <typename Provider>
Status append(const OrtLibrary& library, OrtSessionOptions* options, const ProviderChoice& choice) {
  typename Provider::Options* its = nullptr;
  RETURN_IF_ERROR(library.check<typename Provider::Create>(kWhat, &its));
  const std::string device = std::to_string(choice.device);
  const std::string limit = std::to_string(choice.gpu_memory_limit);
  const std::array<const char*, 2> keys = {"device_id", Provider::kMemoryLimit};
  const std::array<const char*, 2> values = {device.c_str(), limit.c_str()};
  Status status = library.check<typename Provider::Update>(kWhat, its, keys.data(), values.data(),
                                                           choice.gpu_memory_limit > 0 ? keys.size() : size_t{1});
  if (status.ok()) {
    status =
        library.check<typename Provider::Append>(kWhat, options, static_cast<const typename Provider::Options*>(its));
  }
  library.call<typename Provider::Release>(its);
  return status;
}

// A field of a protocol buffer that holds bytes.
std::string field(int number, std::string_view bytes) {
  std::string text(1, static_cast<char>(number << 3 | 2));
  text += static_cast<char>(bytes.size());  // below 128 here
  return text.append(bytes);
}
std::string field(int number, char value) { return {static_cast<char>(number << 3), value}; }

// y = x + x, two f32 wide (onnx.proto: ModelProto).
std::string one_addition() {
  const std::string type = field(1, field(1, '\1') + field(2, field(1, field(1, '\2'))));
  const std::string node = field(1, "x") + field(1, "x") + field(2, "y") + field(4, "Add");
  const std::string graph = field(1, node) + field(2, "probe") + field(11, field(1, "x") + field(2, type)) +
                            field(12, field(1, "y") + field(2, type));
  return field(1, '\7') + field(7, graph) + field(8, field(2, '\15'));
}

// What a probe holds of the library.
struct Probe {
  explicit Probe(const OrtLibrary& of) : library(of) {}
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;
  ~Probe() {
    for (OrtValue* value : {x, y}) {
      if (value != nullptr) library.call<OrtReleaseValue>(value);
    }
    if (session != nullptr) library.call<OrtReleaseSession>(session);
    if (options != nullptr) library.call<OrtReleaseSessionOptions>(options);
  }

  Status open(const ProviderChoice& choice);
  Status add();

  const OrtLibrary& library;
  OrtSessionOptions* options = nullptr;
  OrtSession* session = nullptr;
  OrtValue* x = nullptr;
  OrtValue* y = nullptr;
};

Status Probe::open(const ProviderChoice& choice) {
  RETURN_IF_ERROR(library.check<OrtCreateSessionOptions>(kWhat, &options));
  RETURN_IF_ERROR(append_provider(library, options, choice));
  // Else what the provider cannot do would be done by the CPU, and the probe would say nothing.
  if (choice.provider != ExecutionProvider::cpu) {
    RETURN_IF_ERROR(library.check<OrtAddConfigEntry>(kWhat, options, "session.disable_cpu_ep_fallback", "1"));
  }
  const std::string graph = one_addition();
  return library.check<OrtCreateSessionFromArray>(
      "opening a graph of one addition", static_cast<const OrtEnv*>(library.env()),
      static_cast<const void*>(graph.data()), graph.size(), static_cast<const OrtSessionOptions*>(options), &session);
}

Status Probe::add() {
  constexpr const char* kStep = "computing an addition";
  std::array<float, 2> in = {1.5F, -4.0F};
  std::array<float, 2> out = {};
  const int64_t shape = 2;
  for (const auto& [data, value] : {std::pair{&in, &x}, std::pair{&out, &y}}) {
    RETURN_IF_ERROR(library.check<OrtCreateTensor>(kStep, library.cpu_memory(), static_cast<void*>(data->data()),
                                                   sizeof(*data), &shape, size_t{1}, int32_t{1}, value));
  }
  const std::array<const char*, 1> x_name = {"x"};
  const std::array<const char*, 1> y_name = {"y"};
  const OrtValue* const given = x;
  RETURN_IF_ERROR(library.check<OrtRun>(kStep, session, static_cast<const OrtRunOptions*>(nullptr), x_name.data(),
                                        &given, size_t{1}, y_name.data(), size_t{1}, &y));
  if (out[0] == 3.0F && out[1] == -8.0F) return ok_status();
  return make_error(ErrorCode::malformed, fmt::format("1.5 + 1.5 came out as {}", out[0]));
}

Status run_probe(const OrtLibrary& library, const ProviderChoice& choice) {
  Probe probe(library);
  RETURN_IF_ERROR(probe.open(choice));
  return probe.add();
}

}  // namespace

std::string_view provider_name(ExecutionProvider provider) {
  switch (provider) {
    case ExecutionProvider::cuda:
      return "cuda";
    case ExecutionProvider::tensorrt:
      return "tensorrt";
    default:
      return "cpu";
  }
}

Status append_provider(const OrtLibrary& library, OrtSessionOptions* options, const ProviderChoice& choice) {
  if (choice.provider == ExecutionProvider::cpu) return ok_status();
  if (choice.provider == ExecutionProvider::tensorrt) {
    RETURN_IF_ERROR(append<TensorRt>(library, options, choice));
  }
  return append<Cuda>(library, options, choice);
}

Status probe_provider(const OrtLibrary& library, const ProviderChoice& choice) {
  static std::mutex mutex;
  static std::set<std::pair<ExecutionProvider, int>> worked;
  const std::lock_guard lock(mutex);
  const std::pair key(choice.provider, choice.device);
  if (worked.contains(key)) return ok_status();
  Status status = run_probe(library, choice);
  if (status.ok()) {
    worked.insert(key);
    return status;
  }
  std::string why = status.error().message;
  while (why.ends_with('.')) why.pop_back();
  return make_error(
      ErrorCode::unsupported,
      fmt::format("onnx_provider {} cannot be used with ONNX Runtime {} ({}): {}; bring a build of it for GPUs and the "
                  "libraries that this needs, or say onnx_provider: cpu",
                  provider_name(choice.provider), library.version(), library.path(), why),
      "onnx_provider");
}

Result<ProviderChoice> usable_provider(const OrtLibrary& library, const ProviderChoice& choice) {
  if (choice.provider == ExecutionProvider::cpu) return choice;
  const Status works = probe_provider(library, choice);
  if (works.ok()) return choice;
  if (!choice.or_else_the_cpu) return works.error();
  log_warning("the CPU computes ONNX models: {}", works.error().message);
  return ProviderChoice{};
}

}  // namespace inferneo::onnx
