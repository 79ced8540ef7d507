// cuBLASLt where the machine has it: opened at run time, since it is larger than everything else together. Without it
// the kernels of gemm.cuh do the work.
//
// Ownership: a Blas belongs to one device and one stream's user; its workspace is the caller's. Threads: one at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>

#include "base/result.h"
#include "kernels/cuda/args.h"
#include "tensor/cuda/device.h"

namespace inferneo::cuda {

inline constexpr size_t kBlasWorkspace = size_t{32} << 20;

class Blas {
 public:
  // not_found when no library can be opened; unsupported when it lacks something.
  static Result<std::unique_ptr<Blas>> open(Device& device);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  // out = (accumulate ? out : 0) + scale * x W^T for bf16; `bias` is the caller's. False: no algorithm for this shape,
  // or one that fails (with a warning, once). Algorithms are asked for once for each shape, on the promise that every
  // pointer is a multiple of 256 bytes.
  Result<bool> matmul(const MatmulArgs& args, std::byte* workspace, CuStream stream);
  const std::string& library() const { return library_; }  // "libcublasLt.so.13"

 private:
  struct Api;
  struct Plan;
  Blas() = default;
  Result<Plan*> plan_of(const MatmulArgs& args);

  std::unique_ptr<Api> api_;
  std::string library_;
  void* handle_ = nullptr;
  std::map<std::tuple<int64_t, int64_t, int32_t, int64_t, int64_t, int64_t>, std::unique_ptr<Plan>> plans_;
};

}  // namespace inferneo::cuda
