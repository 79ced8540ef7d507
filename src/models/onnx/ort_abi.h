// The part of ONNX Runtime's C interface that we use, as binary facts: which entry of its table does what.
//
// ONNX Runtime hands out a table of functions that only ever grows at its end, so an entry's place never changes, and
// asking for version kOrtApiVersion is understood by every library from 1.17 on. With the places written down, a build
// needs no header of ONNX Runtime, and one program works with all of these libraries. Source of the places: the struct
// OrtApi of onnxruntime_c_api.h; every test that runs a graph calls through them.
#pragma once

#include <cstddef>
#include <cstdint>

namespace inferneo::onnx {

inline constexpr uint32_t kOrtApiVersion = 17;
inline constexpr const char* kOrtOldestVersion = "1.17";

// Objects of the library, known by address alone.
struct OrtStatus;
struct OrtEnv;
struct OrtSession;
struct OrtSessionOptions;
struct OrtRunOptions;
struct OrtValue;
struct OrtMemoryInfo;
struct OrtTypeInfo;
struct OrtTensorInfo;
struct OrtCudaOptions;
struct OrtTensorRtOptions;

// A table of the library: entries are functions of different types.
struct OrtApiTable {
  void (*entries[1])();
};
struct OrtApiBase {
  const OrtApiTable* (*get_api)(uint32_t version);
  const char* (*version)();
};

// What we hand to the library so that its memory comes from us. The library reads no member behind `info` when
// `version` is below 18.
struct OrtAllocator {
  uint32_t version;
  void* (*alloc)(OrtAllocator* self, size_t size);
  void (*free)(OrtAllocator* self, void* memory);
  const OrtMemoryInfo* (*info)(const OrtAllocator* self);
};

enum OrtLoggingLevel : int32_t { kOrtLogVerbose = 0, kOrtLogError = 3, kOrtLogFatal = 4 };
enum OrtOptimization : int32_t { kOrtOptimizeNothing = 0, kOrtOptimizeAll = 99 };
enum OrtAllocatorType : int32_t { kOrtDeviceAllocator = 0 };
enum OrtMemoryType : int32_t { kOrtMemoryDefault = 0 };
enum OrtValueType : int32_t { kOrtTensor = 1 };

// One entry: its place in the table, and its type.
template <size_t Place, typename Function>
struct OrtEntry {
  static constexpr size_t kPlace = Place;
  static Function* of(const OrtApiTable& table) { return reinterpret_cast<Function*>(table.entries[Place]); }
};

using OrtGetErrorMessage = OrtEntry<2, const char*(const OrtStatus*)>;
using OrtCreateEnv = OrtEntry<3, OrtStatus*(OrtLoggingLevel, const char* log_id, OrtEnv**)>;
using OrtDisableTelemetry = OrtEntry<6, OrtStatus*(const OrtEnv*)>;
using OrtCreateSession =
    OrtEntry<7, OrtStatus*(const OrtEnv*, const char* path, const OrtSessionOptions*, OrtSession**)>;
using OrtCreateSessionFromArray =
    OrtEntry<8, OrtStatus*(const OrtEnv*, const void* graph, size_t bytes, const OrtSessionOptions*, OrtSession**)>;
using OrtRun = OrtEntry<9, OrtStatus*(OrtSession*, const OrtRunOptions*, const char* const* input_names,
                                      const OrtValue* const* inputs, size_t num_inputs, const char* const* output_names,
                                      size_t num_outputs, OrtValue** outputs)>;
using OrtCreateSessionOptions = OrtEntry<10, OrtStatus*(OrtSessionOptions**)>;
using OrtDisableMemPattern = OrtEntry<17, OrtStatus*(OrtSessionOptions*)>;
using OrtDisableCpuMemArena = OrtEntry<19, OrtStatus*(OrtSessionOptions*)>;
using OrtSetOptimizationLevel = OrtEntry<23, OrtStatus*(OrtSessionOptions*, OrtOptimization)>;
using OrtSetIntraOpThreads = OrtEntry<24, OrtStatus*(OrtSessionOptions*, int)>;
using OrtSetInterOpThreads = OrtEntry<25, OrtStatus*(OrtSessionOptions*, int)>;
using OrtInputCount = OrtEntry<30, OrtStatus*(const OrtSession*, size_t*)>;
using OrtOutputCount = OrtEntry<31, OrtStatus*(const OrtSession*, size_t*)>;
using OrtInputTypeInfo = OrtEntry<33, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)>;
using OrtOutputTypeInfo = OrtEntry<34, OrtStatus*(const OrtSession*, size_t, OrtTypeInfo**)>;
using OrtInputName = OrtEntry<36, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)>;
using OrtOutputName = OrtEntry<37, OrtStatus*(const OrtSession*, size_t, OrtAllocator*, char**)>;
using OrtCreateRunOptions = OrtEntry<39, OrtStatus*(OrtRunOptions**)>;
// Seen by every node that begins from then on, also within loops: the run then fails.
using OrtSetTerminate = OrtEntry<46, OrtStatus*(OrtRunOptions*)>;
using OrtUnsetTerminate = OrtEntry<47, OrtStatus*(OrtRunOptions*)>;
using OrtCreateTensor = OrtEntry<49, OrtStatus*(const OrtMemoryInfo*, void* data, size_t bytes, const int64_t* shape,
                                                size_t rank, int32_t element_type, OrtValue**)>;
using OrtTensorData = OrtEntry<51, OrtStatus*(OrtValue*, void**)>;
using OrtTypeAsTensor = OrtEntry<55, OrtStatus*(const OrtTypeInfo*, const OrtTensorInfo**)>;
using OrtTypeKind = OrtEntry<56, OrtStatus*(const OrtTypeInfo*, OrtValueType*)>;
using OrtElementType = OrtEntry<60, OrtStatus*(const OrtTensorInfo*, int32_t*)>;
using OrtRank = OrtEntry<61, OrtStatus*(const OrtTensorInfo*, size_t*)>;
using OrtShape = OrtEntry<62, OrtStatus*(const OrtTensorInfo*, int64_t*, size_t)>;
using OrtValueTensorInfo = OrtEntry<65, OrtStatus*(const OrtValue*, OrtTensorInfo**)>;
using OrtCreateCpuMemoryInfo = OrtEntry<69, OrtStatus*(OrtAllocatorType, OrtMemoryType, OrtMemoryInfo**)>;
using OrtAllocatorFree = OrtEntry<76, OrtStatus*(OrtAllocator*, void*)>;
using OrtDefaultAllocator = OrtEntry<78, OrtStatus*(OrtAllocator**)>;
using OrtReleaseEnv = OrtEntry<92, void(OrtEnv*)>;
using OrtReleaseStatus = OrtEntry<93, void(OrtStatus*)>;
using OrtReleaseSession = OrtEntry<95, void(OrtSession*)>;
using OrtReleaseValue = OrtEntry<96, void(OrtValue*)>;
using OrtReleaseRunOptions = OrtEntry<97, void(OrtRunOptions*)>;
using OrtReleaseTypeInfo = OrtEntry<98, void(OrtTypeInfo*)>;
using OrtReleaseTensorInfo = OrtEntry<99, void(OrtTensorInfo*)>;
using OrtReleaseSessionOptions = OrtEntry<100, void(OrtSessionOptions*)>;
using OrtAddConfigEntry = OrtEntry<130, OrtStatus*(OrtSessionOptions*, const char* key, const char* value)>;
using OrtAppendTensorRt = OrtEntry<170, OrtStatus*(OrtSessionOptions*, const OrtTensorRtOptions*)>;
using OrtCreateTensorRtOptions = OrtEntry<171, OrtStatus*(OrtTensorRtOptions**)>;
using OrtUpdateTensorRtOptions =
    OrtEntry<172, OrtStatus*(OrtTensorRtOptions*, const char* const* keys, const char* const* values, size_t count)>;
using OrtReleaseTensorRtOptions = OrtEntry<174, void(OrtTensorRtOptions*)>;
using OrtRegisterAllocator = OrtEntry<176, OrtStatus*(OrtEnv*, OrtAllocator*)>;
using OrtAppendCuda = OrtEntry<204, OrtStatus*(OrtSessionOptions*, const OrtCudaOptions*)>;
using OrtCreateCudaOptions = OrtEntry<205, OrtStatus*(OrtCudaOptions**)>;
using OrtUpdateCudaOptions =
    OrtEntry<206, OrtStatus*(OrtCudaOptions*, const char* const* keys, const char* const* values, size_t count)>;
using OrtReleaseCudaOptions = OrtEntry<208, void(OrtCudaOptions*)>;

}  // namespace inferneo::onnx
