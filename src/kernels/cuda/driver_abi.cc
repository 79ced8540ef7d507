// Compares tensor/cuda/driver.h with the toolkit's own header, where that is there. Nothing of it runs.
#include <cuda.h>

#include <type_traits>

#include "tensor/cuda/driver.h"

namespace inferneo::cuda {
namespace {

static_assert(sizeof(CuPointer) == sizeof(CUdeviceptr));
static_assert(sizeof(CuMemory) == sizeof(CUmemGenericAllocationHandle));
static_assert(sizeof(CuResult) == sizeof(CUresult) && sizeof(CuDevice) == sizeof(CUdevice));
static_assert(std::is_same_v<CuStream, CUstream> || sizeof(CuStream) == sizeof(CUstream));
static_assert(sizeof(CuMemLocation) == sizeof(CUmemLocation) && alignof(CuMemLocation) == alignof(CUmemLocation));
static_assert(sizeof(CuMemProperties) == sizeof(CUmemAllocationProp));
static_assert(offsetof(CuMemProperties, location) == offsetof(CUmemAllocationProp, location));
static_assert(offsetof(CuMemProperties, flags) == offsetof(CUmemAllocationProp, allocFlags));
static_assert(sizeof(CuMemAccess) == sizeof(CUmemAccessDesc));
static_assert(offsetof(CuMemAccess, flags) == offsetof(CUmemAccessDesc, flags));
static_assert(sizeof(CuLaunchAttribute) == sizeof(CUlaunchAttribute) &&
              sizeof(CuLaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(CuLaunchAttribute, bytes) == offsetof(CUlaunchAttribute, value));
static_assert(offsetof(CuLaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(CuLaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(CuLaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(CuLaunchConfig, num_attributes) == offsetof(CUlaunchConfig, numAttrs));
static_assert(kCuLaunchOverlap == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
static_assert(CU_MEM_LOCATION_TYPE_DEVICE == 1 && CU_MEM_ALLOCATION_TYPE_PINNED == 1);
static_assert(CU_MEM_ACCESS_FLAGS_PROT_READWRITE == 3);
static_assert(kCuSuccess == CUDA_SUCCESS && kCuOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(kCuNotReady == CUDA_ERROR_NOT_READY);
static_assert(kCuNotSupported == CUDA_ERROR_NOT_SUPPORTED);
static_assert(kCuMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
static_assert(kCuMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
static_assert(kCuMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kCuSharedOptIn == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kCuL2Bytes == CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
static_assert(kCuVirtualMemory == CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED);
static_assert(kCuFunctionShared == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kCuNonBlocking == CU_STREAM_NON_BLOCKING);
static_assert(kCuCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);

// Errors that a context does not survive (device.cc).
static_assert(CUDA_ERROR_DEVICE_UNAVAILABLE == 46 && CUDA_ERROR_ECC_UNCORRECTABLE == 214);
static_assert(CUDA_ERROR_NVLINK_UNCORRECTABLE == 220 && CUDA_ERROR_CONTAINED == 226);
static_assert(CUDA_ERROR_ILLEGAL_ADDRESS == 700 && CUDA_ERROR_LAUNCH_TIMEOUT == 702);
static_assert(CUDA_ERROR_CONTEXT_IS_DESTROYED == 709 && CUDA_ERROR_ASSERT == 710);
static_assert(CUDA_ERROR_HARDWARE_STACK_ERROR == 714 && CUDA_ERROR_ILLEGAL_INSTRUCTION == 715);
static_assert(CUDA_ERROR_MISALIGNED_ADDRESS == 716 && CUDA_ERROR_INVALID_ADDRESS_SPACE == 717);
static_assert(CUDA_ERROR_INVALID_PC == 718 && CUDA_ERROR_LAUNCH_FAILED == 719 && CUDA_ERROR_UNKNOWN == 999);

// Functions take as many arguments, of the same sizes.
template <typename A, typename B>
struct SameCall : std::false_type {};
template <typename R, typename... A, typename S, typename... B>
struct SameCall<R (*)(A...), S (*)(B...)> : std::bool_constant<sizeof...(A) == sizeof...(B)> {};
template <typename R, typename... A, typename S, typename... B>
requires(sizeof...(A) == sizeof...(B)) struct SameCall<R (*)(A...), S (*)(B...)>
    : std::bool_constant<((sizeof(A) == sizeof(B)) && ...)> {
};

constexpr DriverApi kNone;
#define SAME(member, function)                                                    \
  static_assert(SameCall<decltype(kNone.member), decltype(&(function))>::value || \
                SameCall<std::remove_const_t<decltype(kNone.member)>, decltype(&(function))>::value)
SAME(init, cuInit);
SAME(driver_version, cuDriverGetVersion);
SAME(device_get, cuDeviceGet);
SAME(device_name, cuDeviceGetName);
SAME(device_attribute, cuDeviceGetAttribute);
SAME(device_memory, cuDeviceTotalMem);
SAME(context_retain, cuDevicePrimaryCtxRetain);
SAME(context_release, cuDevicePrimaryCtxRelease);
SAME(context_set, cuCtxSetCurrent);
SAME(memory_info, cuMemGetInfo);
SAME(memory_alloc, cuMemAlloc);
SAME(memory_free, cuMemFree);
SAME(host_alloc, cuMemHostAlloc);
SAME(host_free, cuMemFreeHost);
SAME(copy_to_device, cuMemcpyHtoDAsync);
SAME(copy_to_host, cuMemcpyDtoHAsync);
SAME(set_bytes, cuMemsetD8Async);
SAME(granularity, cuMemGetAllocationGranularity);
SAME(address_reserve, cuMemAddressReserve);
SAME(address_free, cuMemAddressFree);
SAME(memory_create, cuMemCreate);
SAME(memory_release, cuMemRelease);
SAME(memory_map, cuMemMap);
SAME(memory_unmap, cuMemUnmap);
SAME(memory_access, cuMemSetAccess);
SAME(stream_create, cuStreamCreate);
SAME(stream_destroy, cuStreamDestroy);
SAME(stream_synchronize, cuStreamSynchronize);
SAME(event_create, cuEventCreate);
SAME(event_destroy, cuEventDestroy);
SAME(event_record, cuEventRecord);
SAME(event_synchronize, cuEventSynchronize);
SAME(event_query, cuEventQuery);
SAME(event_elapsed, cuEventElapsedTime);
SAME(module_load, cuModuleLoadData);
SAME(module_unload, cuModuleUnload);
SAME(module_function, cuModuleGetFunction);
SAME(function_attribute, cuFuncSetAttribute);
SAME(launch, cuLaunchKernelEx);
SAME(capture_begin, cuStreamBeginCapture);
SAME(capture_end, cuStreamEndCapture);
SAME(graph_instantiate, cuGraphInstantiateWithFlags);
SAME(graph_launch, cuGraphLaunch);
SAME(graph_exec_destroy, cuGraphExecDestroy);
SAME(graph_destroy, cuGraphDestroy);
#undef SAME

}  // namespace
}  // namespace inferneo::cuda
