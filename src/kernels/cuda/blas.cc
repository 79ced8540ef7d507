#include "kernels/cuda/blas.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <array>

#include "base/log.h"

namespace inferneo::cuda {
namespace {

// Of cublasLt.h, whose ABI is stable within a major version.
constexpr int kCompute32F = 68;
constexpr int kReal32F = 0;
constexpr int kRealBf16 = 14;
constexpr int kTransposeA = 3;  // attributes of a product
constexpr int32_t kTranspose = 1;
constexpr int kMaxWorkspace = 1;  // attribute of a preference

struct Heuristic {
  uint64_t algorithm[8];
  size_t workspace_bytes;
  int state;
  float waves;
  int reserved[4];
};

// Names to try: the majors whose types are those above.
constexpr std::array kLibraries = {"libcublasLt.so.13", "libcublasLt.so.12"};

}  // namespace

struct Blas::Api {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*product_create)(void** product, int compute_type, int scale_type);
  int (*product_set)(void* product, int attribute, const void* value, size_t bytes);
  int (*product_destroy)(void* product);
  int (*layout_create)(void** layout, int type, uint64_t rows, uint64_t cols, int64_t stride);
  int (*layout_destroy)(void* layout);
  int (*preference_create)(void** preference);
  int (*preference_set)(void* preference, int attribute, const void* value, size_t bytes);
  int (*preference_destroy)(void* preference);
  int (*heuristic)(void* handle, void* product, void* a, void* b, void* c, void* d, void* preference, int wanted,
                   Heuristic* results, int* found);
  int (*matmul)(void* handle, void* product, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const void* algorithm, void* workspace, size_t workspace_bytes, CuStream stream);
};

struct Blas::Plan {
  const Api* api = nullptr;
  void* product = nullptr;
  void* weight = nullptr;
  void* x = nullptr;
  void* out = nullptr;
  Heuristic best = {};
  bool found = false;

  Plan() = default;
  ~Plan() {
    if (out != nullptr) (void)api->layout_destroy(out);
    if (x != nullptr) (void)api->layout_destroy(x);
    if (weight != nullptr) (void)api->layout_destroy(weight);
    if (product != nullptr) (void)api->product_destroy(product);
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

Result<std::unique_ptr<Blas>> Blas::open(Device& device) {
  void* library = nullptr;
  std::unique_ptr<Blas> blas(new Blas());
  for (const char* name : kLibraries) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    blas->library_ = name;
    if (library != nullptr) break;
  }
  if (library == nullptr) return make_error(ErrorCode::not_found, "no libcublasLt.so.13 or .12 can be opened");
  blas->api_ = std::make_unique<Api>();
  Api& api = *blas->api_;
  const char* missing = nullptr;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (function == nullptr) missing = name;
  };
  find(api.create, "cublasLtCreate");
  find(api.destroy, "cublasLtDestroy");
  find(api.product_create, "cublasLtMatmulDescCreate");
  find(api.product_set, "cublasLtMatmulDescSetAttribute");
  find(api.product_destroy, "cublasLtMatmulDescDestroy");
  find(api.layout_create, "cublasLtMatrixLayoutCreate");
  find(api.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(api.preference_create, "cublasLtMatmulPreferenceCreate");
  find(api.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(api.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(api.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(api.matmul, "cublasLtMatmul");
  if (missing != nullptr) {
    return make_error(ErrorCode::unsupported, fmt::format("{} has no {}", blas->library_, missing));
  }
  RETURN_IF_ERROR(device.make_current());
  if (const int status = api.create(&blas->handle_); status != 0) {
    blas->handle_ = nullptr;
    return make_error(ErrorCode::unavailable, fmt::format("{} does not start: status {}", blas->library_, status));
  }
  return blas;
}

Blas::~Blas() {
  plans_.clear();
  if (handle_ != nullptr) (void)api_->destroy(handle_);
}

// To the library matrices are column by column, so the weights [N, K] are K x N and the product is W^T-transposed times
// x^T: out [rows, N] is N x rows.
Result<Blas::Plan*> Blas::plan_of(const MatmulArgs& args) {
  auto& entry = plans_[{args.n, args.k, args.rows, args.x_stride, args.weight_stride, args.out_stride}];
  if (entry != nullptr) return entry.get();
  entry = std::make_unique<Plan>();
  Plan& plan = *entry;
  plan.api = api_.get();
  const auto n = static_cast<uint64_t>(args.n);
  const auto k = static_cast<uint64_t>(args.k);
  const auto rows = static_cast<uint64_t>(args.rows);
  void* preference = nullptr;
  int status = api_->product_create(&plan.product, kCompute32F, kReal32F);
  if (status == 0) status = api_->product_set(plan.product, kTransposeA, &kTranspose, sizeof(kTranspose));
  if (status == 0) status = api_->layout_create(&plan.weight, kRealBf16, k, n, args.weight_stride);
  if (status == 0) status = api_->layout_create(&plan.x, kRealBf16, k, rows, args.x_stride);
  if (status == 0) status = api_->layout_create(&plan.out, kReal32F, n, rows, args.out_stride);
  if (status == 0) status = api_->preference_create(&preference);
  if (status == 0) status = api_->preference_set(preference, kMaxWorkspace, &kBlasWorkspace, sizeof(kBlasWorkspace));
  int found = 0;
  if (status == 0) {
    // What it answers for a shape that it cannot do is a status of its own: then nothing is found.
    plan.found = api_->heuristic(handle_, plan.product, plan.weight, plan.x, plan.out, plan.out, preference, 1,
                                 &plan.best, &found) == 0 &&
                 found > 0 && plan.best.state == 0;
  }
  if (preference != nullptr) (void)api_->preference_destroy(preference);
  if (status != 0) {
    return make_error(ErrorCode::internal, fmt::format("{} refuses a product: status {}", library_, status));
  }
  return &plan;
}

Result<bool> Blas::matmul(const MatmulArgs& args, std::byte* workspace, CuStream stream) {
  ASSIGN_OR_RETURN(Plan * plan, plan_of(args));
  if (!plan->found) return false;
  const float alpha = args.scale;
  const float beta = args.accumulate ? 1.0F : 0.0F;
  const int status =
      api_->matmul(handle_, plan->product, &alpha, args.weight, plan->weight, args.x, plan->x, &beta, args.out,
                   plan->out, args.out, plan->out, plan->best.algorithm, workspace, kBlasWorkspace, stream);
  if (status == 0) return true;
  // Nothing was launched. Our kernels take the shape from now on; a GPU that is lost says so there.
  plan->found = false;
  log_warning("{} does not multiply {} rows by {} x {} (status {}): our own kernel does", library_, args.rows, args.n,
              args.k, status);
  return false;
}

}  // namespace inferneo::cuda
