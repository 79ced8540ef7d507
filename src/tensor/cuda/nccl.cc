#include "tensor/cuda/nccl.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

namespace inferneo::cuda {
namespace {

constexpr const char* kNcclLibrary = "libnccl.so.2";

// The library stays open: its own threads outlive every model.
Result<const NcclApi*> open_nccl() {
  static NcclApi api;
  void* library = dlopen(kNcclLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return make_error(ErrorCode::not_found, fmt::format("{} cannot be opened", kNcclLibrary));
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  find(api.version, "ncclGetVersion");
  find(api.error_string, "ncclGetErrorString");
  find(api.init_all, "ncclCommInitAll");
  find(api.destroy, "ncclCommDestroy");
  find(api.abort, "ncclCommAbort");
  find(api.async_error, "ncclCommGetAsyncError");
  find(api.group_start, "ncclGroupStart");
  find(api.group_end, "ncclGroupEnd");
  find(api.all_reduce, "ncclAllReduce");
  find(api.broadcast, "ncclBroadcast");
  if (missing != nullptr) {
    return make_error(ErrorCode::unsupported, fmt::format("{} has no {}", kNcclLibrary, missing));
  }
  return &api;
}

}  // namespace

Result<const NcclApi*> load_nccl() {
  static const Result<const NcclApi*> nccl = open_nccl();
  return nccl;
}

// As nccl.h counts since 2.9: major, then two digits each.
std::string nccl_version(const NcclApi& nccl) {
  int version = 0;
  if (nccl.version(&version) != kNcclSuccess) return "of an unknown version";
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

}  // namespace inferneo::cuda
