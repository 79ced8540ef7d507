#include "models/onnx/ort_library.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <mutex>

#include "base/log.h"
#include "models/onnx/ort_memory.h"

namespace inferneo::onnx {
namespace {

constexpr const char* kLibraryName = "libonnxruntime.so.1";
constexpr size_t kMaxMessage = 600;  // of the library's own

// What the library sees as its allocator; the memory information is added to it.
struct CountingAllocator : OrtAllocator {
  const OrtMemoryInfo* memory = nullptr;
};
CountingAllocator counting_allocator;

std::string folder_of_program() {
  std::array<char, PATH_MAX> path;
  const ssize_t length = ::readlink("/proc/self/exe", path.data(), path.size());
  if (length <= 0) return {};
  const std::string_view program(path.data(), static_cast<size_t>(length));
  return std::string(program.substr(0, program.find_last_of('/')));
}

Error missing(std::string_view why) {
  return make_error(
      ErrorCode::unsupported,
      fmt::format("ONNX models need ONNX Runtime {} or newer ({}), {}; scripts/onnxruntime.sh fetches it, a "
                  "package libonnxruntime has it, and --onnxruntime FILE says where it is",
                  kOrtOldestVersion, kLibraryName, why));
}

}  // namespace

std::vector<std::string> OrtLibrary::search_paths() {
  std::vector<std::string> paths;
  if (const std::string folder = folder_of_program(); !folder.empty()) {
    for (const char* place : {"/", "/../lib/", "/../onnxruntime/"}) paths.push_back(folder + place + kLibraryName);
  }
  paths.emplace_back(kLibraryName);
  return paths;
}

// From 1.30 on the library reports its use over the network and keeps a database of that in the user's cache, unless
// this is set before it is opened.
void OrtLibrary::forbid_reports() {
  constexpr const char* kVariable = "ORT_DISABLE_TELEMETRY";
  const char* const set = std::getenv(kVariable);
  if (set == nullptr || std::string_view(set) != "1") ::setenv(kVariable, "1", 1);
}

Result<std::unique_ptr<OrtLibrary>> OrtLibrary::load(const std::string& path) {
  forbid_reports();
  // RTLD_LOCAL: its symbols are nobody else's.
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) return missing(fmt::format("which could not be opened: {}", ::dlerror()));
  auto* const get_base = reinterpret_cast<const OrtApiBase* (*)()>(::dlsym(handle, "OrtGetApiBase"));
  if (get_base == nullptr) {
    ::dlclose(handle);
    return missing(fmt::format("and {} is another library", path));
  }
  const OrtApiBase* const base = get_base();
  auto library = std::unique_ptr<OrtLibrary>(new OrtLibrary());
  Dl_info place = {};
  const bool known = ::dladdr(reinterpret_cast<const void*>(get_base), &place) != 0 && place.dli_fname != nullptr;
  library->path_ = known ? place.dli_fname : path;
  library->version_ = base->version();
  library->table_ = base->get_api(kOrtApiVersion);
  if (library->table_ == nullptr) return missing(fmt::format("and {} is version {}", path, library->version_));
  RETURN_IF_ERROR(library->start());
  log_info("ONNX Runtime {} from {}", library->version_, library->path_);
  return library;
}

Status OrtLibrary::start() {
  // What goes wrong is returned as a status; the library's own log lines would repeat it.
  RETURN_IF_ERROR(check<OrtCreateEnv>("starting ONNX Runtime", kOrtLogFatal, "inferneo", &env_));
  RETURN_IF_ERROR(check<OrtDisableTelemetry>("starting ONNX Runtime", static_cast<const OrtEnv*>(env_)));
  RETURN_IF_ERROR(
      check<OrtCreateCpuMemoryInfo>("starting ONNX Runtime", kOrtDeviceAllocator, kOrtMemoryDefault, &cpu_memory_));
  counting_allocator.version = kOrtApiVersion;
  counting_allocator.alloc = [](OrtAllocator*, size_t size) { return allocate_for_ort(size); };
  counting_allocator.free = [](OrtAllocator*, void* memory) { free_for_ort(memory); };
  counting_allocator.info = [](const OrtAllocator* self) {
    return static_cast<const CountingAllocator*>(self)->memory;
  };
  counting_allocator.memory = cpu_memory_;
  return check<OrtRegisterAllocator>("giving ONNX Runtime an allocator", env_,
                                     static_cast<OrtAllocator*>(&counting_allocator));
}

Error OrtLibrary::take(OrtStatus* status, const char* what) const {
  std::string text = call<OrtGetErrorMessage>(static_cast<const OrtStatus*>(status));
  call<OrtReleaseStatus>(status);
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  }
  if (text.size() > kMaxMessage) text = text.substr(0, kMaxMessage) + "...";
  return make_error(ErrorCode::malformed, fmt::format("{}: {}", what, text));
}

Result<const OrtLibrary*> OrtLibrary::open(const std::string& path) {
  static std::mutex mutex;
  static const OrtLibrary* opened = nullptr;  // for ever: what it has made may outlive everything
  const std::lock_guard lock(mutex);
  if (opened != nullptr) return opened;
  const std::vector<std::string> paths = path.empty() ? search_paths() : std::vector<std::string>{path};
  for (const std::string& candidate : paths) {
    if (candidate.find('/') != std::string::npos && ::access(candidate.c_str(), F_OK) != 0) continue;
    Result<std::unique_ptr<OrtLibrary>> library = load(candidate);
    if (library.ok()) return opened = std::move(library).value().release();
    if (!path.empty()) return library.error();
    log_message(LogLevel::debug, library.error().message);
  }
  return path.empty() ? missing("and none was found") : missing(fmt::format("and there is no file {}", path));
}

}  // namespace inferneo::onnx
