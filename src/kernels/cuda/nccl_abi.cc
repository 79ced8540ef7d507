// Compares tensor/cuda/nccl.h with NCCL's own header, where that is there. Nothing of it runs.
#include "tensor/cuda/nccl.h"

#include <nccl.h>

#include <type_traits>

namespace inferneo::cuda {
namespace {

static_assert(NCCL_MAJOR == 2);
static_assert(kNcclSuccess == ncclSuccess && kNcclInProgress == ncclInProgress);
static_assert(kNcclUint8 == ncclUint8 && kNcclFloat32 == ncclFloat32 && kNcclSum == ncclSum);
static_assert(sizeof(ncclResult_t) == sizeof(NcclResult) && sizeof(ncclDataType_t) == sizeof(int));
static_assert(sizeof(ncclRedOp_t) == sizeof(int));
static_assert(sizeof(ncclComm_t) == sizeof(NcclComm) && sizeof(cudaStream_t) == sizeof(CuStream));
static_assert(NCCL_VERSION(2, 28, 3) == 22803);

// Functions take as many arguments, of the same sizes.
template <typename A, typename B>
struct SameCall : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
requires(sizeof...(A) == sizeof...(B)) struct SameCall<R (*)(A...), S (*)(B...)>
    : std::bool_constant<((sizeof(A) == sizeof(B)) && ...) && sizeof(R) == sizeof(S)> {
};

#define SAME(member, function) static_assert(SameCall<decltype(NcclApi::member), decltype(&(function))>::value)
SAME(version, ncclGetVersion);
SAME(error_string, ncclGetErrorString);
SAME(init_all, ncclCommInitAll);
SAME(destroy, ncclCommDestroy);
SAME(abort, ncclCommAbort);
SAME(async_error, ncclCommGetAsyncError);
SAME(group_start, ncclGroupStart);
SAME(group_end, ncclGroupEnd);
SAME(all_reduce, ncclAllReduce);
SAME(broadcast, ncclBroadcast);
#undef SAME

}  // namespace
}  // namespace inferneo::cuda
