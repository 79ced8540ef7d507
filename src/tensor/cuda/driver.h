// The CUDA driver as a table of functions: libcuda.so.1 is opened at run time, so that the program needs no CUDA to be
// built or to start, and tests put a table of their own in its place.
//
// Types and numbers are those of the driver's stable ABI (cuda.h); where the toolkit is there, a build compares them
// (kernels/cuda/driver_abi.cc). Immutable once loaded; the functions may be called from any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"

namespace inferneo::cuda {

using CuResult = int;
using CuDevice = int;
using CuPointer = unsigned long long;  // a device address
using CuMemory = unsigned long long;   // physical memory
using CuContext = struct CUctx_st*;
using CuStream = struct CUstream_st*;
using CuEvent = struct CUevent_st*;
using CuModule = struct CUmod_st*;
using CuFunction = struct CUfunc_st*;
using CuGraph = struct CUgraph_st*;
using CuGraphExec = struct CUgraphExec_st*;

struct CuMemLocation {
  int type = 1;  // CU_MEM_LOCATION_TYPE_DEVICE
  int id = 0;
};
struct CuMemProperties {
  int type = 1;  // CU_MEM_ALLOCATION_TYPE_PINNED
  int handle_types = 0;
  CuMemLocation location;
  void* win32_handle_meta_data = nullptr;
  struct {
    unsigned char compression = 0;
    unsigned char rdma = 0;
    unsigned short usage = 0;
    unsigned char reserved[4] = {};
  } flags;
};
struct CuMemAccess {
  CuMemLocation location;
  int flags = 3;  // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
};

struct CuLaunchAttribute {
  int id = 0;
  char padding[4] = {};
  union {
    char bytes[64] = {};
    int number;
  };
};
struct CuLaunchConfig {
  unsigned grid_x = 1, grid_y = 1, grid_z = 1;
  unsigned block_x = 1, block_y = 1, block_z = 1;
  unsigned shared_bytes = 0;
  CuStream stream = nullptr;
  CuLaunchAttribute* attributes = nullptr;
  unsigned num_attributes = 0;
};

// Numbers of cuda.h that are used here.
inline constexpr CuResult kCuSuccess = 0;
inline constexpr CuResult kCuOutOfMemory = 2;
inline constexpr CuResult kCuNotReady = 600;
inline constexpr CuResult kCuNotSupported = 801;
inline constexpr int kCuMultiprocessors = 16;  // CU_DEVICE_ATTRIBUTE_...
inline constexpr int kCuMajor = 75;
inline constexpr int kCuMinor = 76;
inline constexpr int kCuSharedOptIn = 97;
inline constexpr int kCuL2Bytes = 38;
inline constexpr int kCuVirtualMemory = 102;
inline constexpr int kCuFunctionShared = 8;      // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
inline constexpr unsigned kCuNonBlocking = 1;    // CU_STREAM_NON_BLOCKING
inline constexpr int kCuCaptureThreadLocal = 1;  // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
inline constexpr int kCuLaunchOverlap = 6;       // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION

struct DriverApi {
  CuResult (*init)(unsigned flags) = nullptr;
  CuResult (*driver_version)(int* version) = nullptr;
  CuResult (*error_name)(CuResult error, const char** name) = nullptr;
  CuResult (*error_string)(CuResult error, const char** text) = nullptr;
  CuResult (*device_count)(int* count) = nullptr;
  CuResult (*device_get)(CuDevice* device, int ordinal) = nullptr;
  CuResult (*device_name)(char* name, int length, CuDevice device) = nullptr;
  CuResult (*device_attribute)(int* value, int attribute, CuDevice device) = nullptr;
  CuResult (*device_memory)(size_t* bytes, CuDevice device) = nullptr;
  CuResult (*context_retain)(CuContext* context, CuDevice device) = nullptr;
  CuResult (*context_release)(CuDevice device) = nullptr;
  CuResult (*context_set)(CuContext context) = nullptr;
  CuResult (*memory_info)(size_t* free, size_t* total) = nullptr;
  CuResult (*memory_alloc)(CuPointer* pointer, size_t bytes) = nullptr;
  CuResult (*memory_free)(CuPointer pointer) = nullptr;
  CuResult (*host_alloc)(void** pointer, size_t bytes, unsigned flags) = nullptr;
  CuResult (*host_free)(void* pointer) = nullptr;
  CuResult (*copy_to_device)(CuPointer to, const void* from, size_t bytes, CuStream stream) = nullptr;
  CuResult (*copy_to_host)(void* to, CuPointer from, size_t bytes, CuStream stream) = nullptr;
  CuResult (*set_bytes)(CuPointer to, unsigned char value, size_t bytes, CuStream stream) = nullptr;
  CuResult (*granularity)(size_t* bytes, const CuMemProperties* properties, int option) = nullptr;
  CuResult (*address_reserve)(CuPointer* pointer, size_t bytes, size_t alignment, CuPointer at,
                              unsigned long long flags) = nullptr;
  CuResult (*address_free)(CuPointer pointer, size_t bytes) = nullptr;
  CuResult (*memory_create)(CuMemory* memory, size_t bytes, const CuMemProperties* properties,
                            unsigned long long flags) = nullptr;
  CuResult (*memory_release)(CuMemory memory) = nullptr;
  CuResult (*memory_map)(CuPointer pointer, size_t bytes, size_t offset, CuMemory memory,
                         unsigned long long flags) = nullptr;
  CuResult (*memory_unmap)(CuPointer pointer, size_t bytes) = nullptr;
  CuResult (*memory_access)(CuPointer pointer, size_t bytes, const CuMemAccess* access, size_t count) = nullptr;
  CuResult (*stream_create)(CuStream* stream, unsigned flags) = nullptr;
  CuResult (*stream_destroy)(CuStream stream) = nullptr;
  CuResult (*stream_synchronize)(CuStream stream) = nullptr;
  CuResult (*event_create)(CuEvent* event, unsigned flags) = nullptr;
  CuResult (*event_destroy)(CuEvent event) = nullptr;
  CuResult (*event_record)(CuEvent event, CuStream stream) = nullptr;
  CuResult (*event_synchronize)(CuEvent event) = nullptr;
  CuResult (*event_query)(CuEvent event) = nullptr;
  CuResult (*event_elapsed)(float* milliseconds, CuEvent from, CuEvent to) = nullptr;
  CuResult (*module_load)(CuModule* module, const void* image) = nullptr;
  CuResult (*module_unload)(CuModule module) = nullptr;
  CuResult (*module_function)(CuFunction* function, CuModule module, const char* name) = nullptr;
  CuResult (*function_attribute)(CuFunction function, int attribute, int value) = nullptr;
  CuResult (*launch)(const CuLaunchConfig* config, CuFunction function, void** parameters, void** extra) = nullptr;
  CuResult (*capture_begin)(CuStream stream, int mode) = nullptr;
  CuResult (*capture_end)(CuStream stream, CuGraph* graph) = nullptr;
  CuResult (*graph_instantiate)(CuGraphExec* exec, CuGraph graph, unsigned long long flags) = nullptr;
  CuResult (*graph_launch)(CuGraphExec exec, CuStream stream) = nullptr;
  CuResult (*graph_exec_destroy)(CuGraphExec exec) = nullptr;
  CuResult (*graph_destroy)(CuGraph graph) = nullptr;
};

// The system's driver, initialised; kept for the life of the process. unsupported: there is none, or it is too old (the
// message says which); unavailable: it is there and does not work.
Result<const DriverApi*> load_driver();

// "CUDA_ERROR_ILLEGAL_ADDRESS (an illegal memory access was encountered)".
std::string describe_error(const DriverApi& driver, CuResult error);

}  // namespace inferneo::cuda
