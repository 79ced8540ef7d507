#include "support/cuda/fake_driver.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "support/cuda/emulated_kernels.h"

namespace inferneo::cuda {
namespace {

constexpr size_t kPage = size_t{2} << 20;
constexpr CuResult kInvalid = 1;
constexpr CuResult kInvalidHandle = 400;  // what belongs to another device
constexpr CuResult kLaunchTimeout = 702;  // instead of waiting forever

struct Launched {
  const simt::EmulatedKernel* kernel = nullptr;
  simt::Grid grid;
  std::vector<unsigned char> args;
};
struct GraphBody {
  std::vector<FakeStreamWork> works;
};
struct StreamState {
  int device = 0;
  std::deque<FakeStreamWork> waiting;
  std::unique_ptr<GraphBody> capturing;
};
struct EventState {
  int device = 0;
  bool happened = false;
  std::chrono::steady_clock::time_point time;
};
struct BufferState {
  int device = 0;
  size_t bytes = 0;
};

struct Failure {
  CuResult result = 0;
  int after = 0;
};

struct State {
  std::recursive_mutex mutex;
  FakeDriverOptions options;
  FakeDriverBooks books;
  std::map<CuPointer, BufferState> buffers;
  std::map<void*, size_t> pinned;
  std::map<CuPointer, size_t> ranges;
  std::map<CuPointer, CuMemory> mapped;
  std::map<CuMemory, int> pages;  // and their device
  CuMemory next_page = 1;
  std::map<std::string, Failure> failures;
  uint64_t calls = 0;  // of functions that may fail
  std::optional<std::pair<uint64_t, CuResult>> failing_call;
  std::map<CuFunction, unsigned> shared_allowed;
  std::map<CuStream, StreamState> streams;
  uintptr_t next_stream = 1;
  std::map<int, CuResult> lost;  // devices whose context an error has ended

  size_t used(int device) {
    const FakeDeviceBooks& of = books.of[device];
    return of.allocated + of.pages * kPage + static_cast<size_t>(of.contexts) * options.fixed_bytes;
  }
};
thread_local int current_device = 0;
State& state() {
  static State* instance = new State();  // outlives everything that a test leaves behind
  return *instance;
}

bool gives_back(std::string_view name) {
  return name.ends_with("_free") || name.ends_with("_release") || name.ends_with("_unmap") || name.ends_with("_unload");
}

// Some errors end the current device's context.
CuResult failed(State& s, CuResult result) {
  if (result >= 700 && result < 720) s.lost[current_device] = result;
  return result;
}

// What every call begins with.
CuResult enter(const char* name) {
  State& s = state();
  const uint64_t call = gives_back(name) ? s.calls : s.calls++;
  if (!gives_back(name) && s.failing_call && s.failing_call->first == call) {
    return failed(s, std::exchange(s.failing_call, std::nullopt)->second);
  }
  const auto failure = s.failures.find(name);
  if (failure != s.failures.end() && failure->second.after-- == 0) {
    const CuResult result = failure->second.result;
    s.failures.erase(failure);
    return failed(s, result);
  }
  const auto lost = s.lost.find(current_device);
  return lost == s.lost.end() ? 0 : lost->second;
}

// The default stream is that of the current device.
StreamState& stream_of(CuStream stream) {
  const auto [found, is_new] = state().streams.try_emplace(stream);
  if (stream == nullptr) found->second.device = current_device;
  return found->second;
}

// What waits in streams, as far as it goes.
void advance() {
  for (bool moved = true; moved;) {
    moved = false;
    for (auto& [handle, stream] : state().streams) {
      while (!stream.waiting.empty() && stream.waiting.front()()) {
        stream.waiting.pop_front();
        moved = true;
      }
    }
  }
}

CuResult enqueue(CuStream handle, FakeStreamWork work, bool may_be_captured) {
  StreamState& stream = stream_of(handle);
  if (stream.device != current_device) return kInvalidHandle;
  if (stream.capturing != nullptr) {
    if (!may_be_captured) return kInvalid;
    stream.capturing->works.push_back(std::move(work));
    return 0;
  }
  stream.waiting.push_back(std::move(work));
  advance();
  return 0;
}

// Within a buffer of the current device; what lies in no buffer (pages, tests' own) is let pass.
bool is_here(CuPointer pointer) {
  auto behind = state().buffers.upper_bound(pointer);
  if (behind == state().buffers.begin()) return true;
  const auto& [at, buffer] = *std::prev(behind);
  return pointer >= at + buffer.bytes || buffer.device == current_device;
}

#define ENTER(name)                          \
  const std::lock_guard lock(state().mutex); \
  if (const CuResult entered = enter(name); entered != 0) return entered

// Everything ends with it: what a lost context could not give back.
void end_context() {
  State& s = state();
  for (const auto& [pointer, buffer] : s.buffers) std::free(reinterpret_cast<void*>(pointer));
  for (const auto& [pointer, bytes] : s.ranges) munmap(reinterpret_cast<void*>(pointer), bytes);
  for (const auto& [pointer, bytes] : s.pinned) std::free(pointer);
  s.buffers.clear();
  s.ranges.clear();
  s.pinned.clear();
  s.mapped.clear();
  s.pages.clear();
  s.streams.clear();
  s.books.of.clear();
  s.books.allocated = s.books.pages = s.books.pinned = 0;
  s.books.modules = s.books.streams = s.books.events = s.books.graphs = 0;
}

CuResult init(unsigned) { return 0; }
CuResult driver_version(int* version) {
  *version = 13000;
  return 0;
}
CuResult error_name(CuResult error, const char** name) {
  *name = error == kCuOutOfMemory ? "CUDA_ERROR_OUT_OF_MEMORY"
          : error == 700          ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                                  : "CUDA_ERROR";
  return 0;
}
CuResult error_string(CuResult, const char** text) {
  *text = "as the fake driver was told";
  return 0;
}
CuResult device_count(int* count) {
  ENTER("device_count");
  *count = state().options.devices;
  return 0;
}
CuResult device_get(CuDevice* device, int ordinal) {
  *device = ordinal;
  return 0;
}
CuResult device_name(char* name, int length, CuDevice) {
  std::strncpy(name, "Emulated GPU", static_cast<size_t>(length));
  return 0;
}
CuResult device_attribute(int* value, int attribute, CuDevice device) {
  const FakeDriverOptions& options = state().options;
  switch (attribute) {
    case kCuMajor:
      *value = options.major;
      return 0;
    case kCuMultiprocessors:
      *value =
          device > 0 && options.other_multiprocessors > 0 ? options.other_multiprocessors : options.multiprocessors;
      return 0;
    case kCuSharedOptIn:
      *value = 227 << 10;
      return 0;
    case kCuVirtualMemory:
      *value = options.has_virtual_memory ? 1 : 0;
      return 0;
    default:
      *value = 0;
      return 0;
  }
}
CuResult device_memory(size_t* bytes, CuDevice) {
  *bytes = state().options.memory_bytes;
  return 0;
}
CuResult context_retain(CuContext* context, CuDevice device) {
  ENTER("context_retain");
  ++state().books.contexts;
  ++state().books.of[device].contexts;
  *context = reinterpret_cast<CuContext>(static_cast<uintptr_t>(device) + 1);
  return 0;
}
CuResult context_release(CuDevice device) {
  const std::lock_guard lock(state().mutex);
  --state().books.of[device].contexts;
  if (--state().books.contexts == 0) end_context();
  return 0;
}
CuResult context_set(CuContext context) {
  current_device = static_cast<int>(reinterpret_cast<uintptr_t>(context)) - 1;
  return 0;
}
CuResult memory_info(size_t* free, size_t* total) {
  ENTER("memory_info");
  *total = state().options.memory_bytes;
  *free = *total - std::min(*total, state().used(current_device));
  return 0;
}
CuResult memory_alloc(CuPointer* pointer, size_t bytes) {
  ENTER("memory_alloc");
  if (bytes == 0) return kInvalid;
  if (state().used(current_device) + bytes > state().options.memory_bytes) return kCuOutOfMemory;
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (memory == nullptr) return kCuOutOfMemory;
  std::memset(memory, 0xff, bytes);  // NaN in every type
  *pointer = reinterpret_cast<CuPointer>(memory);
  state().buffers[*pointer] = {current_device, bytes};
  state().books.allocated += bytes;
  state().books.of[current_device].allocated += bytes;
  return 0;
}
CuResult memory_free(CuPointer pointer) {
  ENTER("memory_free");
  const auto found = state().buffers.find(pointer);
  if (found == state().buffers.end()) return kInvalid;
  state().books.allocated -= found->second.bytes;
  state().books.of[found->second.device].allocated -= found->second.bytes;
  state().buffers.erase(found);
  std::free(reinterpret_cast<void*>(pointer));
  return 0;
}
CuResult host_alloc(void** pointer, size_t bytes, unsigned) {
  ENTER("host_alloc");
  *pointer = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  std::memset(*pointer, 0xff, bytes);
  state().pinned[*pointer] = bytes;
  state().books.pinned += bytes;
  return 0;
}
CuResult host_free(void* pointer) {
  const std::lock_guard lock(state().mutex);
  const auto found = state().pinned.find(pointer);
  if (found == state().pinned.end()) return kInvalid;
  state().books.pinned -= found->second;
  state().pinned.erase(found);
  std::free(pointer);
  return 0;
}
// Nothing of ours captures copies.
CuResult copy_to_device(CuPointer to, const void* from, size_t bytes, CuStream stream) {
  ENTER("copy_to_device");
  if (!is_here(to)) return kInvalid;
  const auto copy = [=] {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    return true;
  };
  return enqueue(stream, copy, false);
}
CuResult copy_to_host(void* to, CuPointer from, size_t bytes, CuStream stream) {
  ENTER("copy_to_host");
  if (!is_here(from)) return kInvalid;
  const auto copy = [=] {
    std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
    return true;
  };
  return enqueue(stream, copy, false);
}
CuResult set_bytes(CuPointer to, unsigned char value, size_t bytes, CuStream stream) {
  ENTER("set_bytes");
  if (!is_here(to)) return kInvalid;
  const auto set = [=] {
    std::memset(reinterpret_cast<void*>(to), value, bytes);
    return true;
  };
  return enqueue(stream, set, false);
}
CuResult granularity(size_t* bytes, const CuMemProperties*, int) {
  *bytes = kPage;
  return 0;
}
CuResult address_reserve(CuPointer* pointer, size_t bytes, size_t, CuPointer, unsigned long long) {
  ENTER("address_reserve");
  if (bytes == 0 || bytes % kPage != 0) return kInvalid;
  void* range = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return kCuOutOfMemory;
  *pointer = reinterpret_cast<CuPointer>(range);
  state().ranges[*pointer] = bytes;
  return 0;
}
CuResult address_free(CuPointer pointer, size_t bytes) {
  ENTER("address_free");
  const auto found = state().ranges.find(pointer);
  if (found == state().ranges.end() || found->second != bytes) return kInvalid;
  for (const auto& [at, memory] : state().mapped) {
    if (at >= pointer && at < pointer + bytes) return kInvalid;  // still mapped
  }
  munmap(reinterpret_cast<void*>(pointer), bytes);
  state().ranges.erase(found);
  return 0;
}
CuResult memory_create(CuMemory* memory, size_t bytes, const CuMemProperties* properties, unsigned long long) {
  ENTER("memory_create");
  if (bytes != kPage || properties->type != 1 || properties->location.type != 1) return kInvalid;
  const int device = properties->location.id;
  if (state().used(device) + bytes > state().options.memory_bytes) return kCuOutOfMemory;
  *memory = state().next_page++;
  state().pages[*memory] = device;
  ++state().books.pages;
  ++state().books.of[device].pages;
  return 0;
}
CuResult memory_release(CuMemory memory) {
  ENTER("memory_release");
  const auto found = state().pages.find(memory);
  if (found == state().pages.end()) return kInvalid;
  --state().books.of[found->second].pages;
  state().pages.erase(found);
  --state().books.pages;
  return 0;
}
CuResult memory_map(CuPointer pointer, size_t bytes, size_t offset, CuMemory memory, unsigned long long) {
  ENTER("memory_map");
  if (bytes != kPage || offset != 0 || !state().pages.contains(memory) || state().mapped.contains(pointer)) {
    return kInvalid;
  }
  state().mapped[pointer] = memory;
  return 0;
}
CuResult memory_unmap(CuPointer pointer, size_t bytes) {
  ENTER("memory_unmap");
  if (bytes != kPage || state().mapped.erase(pointer) == 0) return kInvalid;
  madvise(reinterpret_cast<void*>(pointer), bytes, MADV_DONTNEED);
  mprotect(reinterpret_cast<void*>(pointer), bytes, PROT_NONE);
  return 0;
}
CuResult memory_access(CuPointer pointer, size_t bytes, const CuMemAccess*, size_t) {
  ENTER("memory_access");
  for (size_t at = 0; at < bytes; at += kPage) {
    if (!state().mapped.contains(pointer + at)) return kInvalid;
  }
  mprotect(reinterpret_cast<void*>(pointer), bytes, PROT_READ | PROT_WRITE);
  std::memset(reinterpret_cast<void*>(pointer), 0xff, bytes);
  return 0;
}
CuResult stream_create(CuStream* stream, unsigned) {
  ENTER("stream_create");
  ++state().books.streams;
  *stream = reinterpret_cast<CuStream>(state().next_stream++);
  stream_of(*stream).device = current_device;
  return 0;
}
CuResult stream_destroy(CuStream stream) {
  const std::lock_guard lock(state().mutex);
  --state().books.streams;
  state().streams.erase(stream);
  return 0;
}
CuResult stream_synchronize(CuStream stream) {
  ENTER("stream_synchronize");
  return stream_of(stream).waiting.empty() ? 0 : kLaunchTimeout;
}
EventState& event_of(CuEvent event) { return *reinterpret_cast<EventState*>(event); }
CuResult event_create(CuEvent* event, unsigned) {
  ENTER("event_create");
  ++state().books.events;
  *event = reinterpret_cast<CuEvent>(new EventState{current_device, true, {}});
  return 0;
}
CuResult event_destroy(CuEvent event) {
  const std::lock_guard lock(state().mutex);
  --state().books.events;
  delete &event_of(event);
  return 0;
}
CuResult event_record(CuEvent event, CuStream stream) {
  ENTER("event_record");
  if (event_of(event).device != current_device) return kInvalidHandle;
  event_of(event).happened = false;
  const auto record = [event] {
    event_of(event).happened = true;
    event_of(event).time = std::chrono::steady_clock::now();
    return true;
  };
  return enqueue(stream, record, false);
}
CuResult event_synchronize(CuEvent event) {
  ENTER("event_synchronize");
  return event_of(event).happened ? 0 : kLaunchTimeout;
}
CuResult event_query(CuEvent event) {
  ENTER("event_query");
  return event_of(event).happened ? 0 : kCuNotReady;
}
CuResult event_elapsed(float* milliseconds, CuEvent from, CuEvent to) {
  *milliseconds = std::chrono::duration<float, std::milli>(event_of(to).time - event_of(from).time).count();
  return 0;
}
CuResult module_load(CuModule* module, const void*) {
  ENTER("module_load");
  ++state().books.modules;
  *module = reinterpret_cast<CuModule>(1);
  return 0;
}
CuResult module_unload(CuModule) {
  --state().books.modules;
  return 0;
}
CuResult module_function(CuFunction* function, CuModule, const char* name) {
  ENTER("module_function");
  for (const simt::EmulatedKernel& kernel : simt::emulated_kernels()) {
    if (kernel.name != name) continue;
    *function = reinterpret_cast<CuFunction>(const_cast<simt::EmulatedKernel*>(&kernel));
    return 0;
  }
  return 500;  // CUDA_ERROR_NOT_FOUND
}
CuResult function_attribute(CuFunction function, int attribute, int value) {
  ENTER("function_attribute");
  if (attribute != kCuFunctionShared || value > 227 << 10) return kInvalid;
  state().shared_allowed[function] = static_cast<unsigned>(value);
  return 0;
}
void execute(const Launched& launched) {
  ++state().books.launches;
  ++state().books.launches_of[std::string(launched.kernel->name)];
  if (state().options.runs_kernels) launched.kernel->run(launched.grid, launched.args.data());
}
CuResult launch(const CuLaunchConfig* config, CuFunction function, void** parameters, void**) {
  ENTER("launch");
  const auto* kernel = reinterpret_cast<const simt::EmulatedKernel*>(function);
  const auto allowed = state().shared_allowed.find(function);
  const unsigned limit = allowed == state().shared_allowed.end() ? 48U << 10 : allowed->second;
  const CuLaunchConfig& c = *config;
  if (c.grid_x == 0 || c.grid_y == 0 || c.grid_z == 0 || c.grid_y > 65535 || c.grid_z > 65535 ||
      c.block_x > kernel->max_threads || c.block_x % 32 != 0 || c.block_y != 1 || c.block_z != 1 ||
      c.shared_bytes > std::max(limit, 48U << 10)) {
    return kInvalid;
  }
  if (c.num_attributes > 0) ++state().books.overlapping;
  Launched launched{kernel, {c.grid_x, c.grid_y, c.grid_z, c.block_x, c.shared_bytes}, {}};
  const auto* bytes = static_cast<const unsigned char*>(parameters[0]);
  launched.args.assign(bytes, bytes + kernel->args_bytes);
  const auto run = [launched = std::move(launched)] {
    execute(launched);
    return true;
  };
  return enqueue(config->stream, run, true);
}
CuResult capture_begin(CuStream stream, int) {
  ENTER("capture_begin");
  StreamState& s = stream_of(stream);
  if (s.capturing != nullptr || s.device != current_device) return kInvalid;
  s.capturing = std::make_unique<GraphBody>();
  return 0;
}
CuResult capture_end(CuStream stream, CuGraph* graph) {
  ENTER("capture_end");
  *graph = reinterpret_cast<CuGraph>(stream_of(stream).capturing.release());
  return 0;
}
CuResult graph_instantiate(CuGraphExec* exec, CuGraph graph, unsigned long long) {
  ENTER("graph_instantiate");
  ++state().books.graphs;
  *exec = reinterpret_cast<CuGraphExec>(new GraphBody(*reinterpret_cast<GraphBody*>(graph)));
  return 0;
}
CuResult graph_launch(CuGraphExec exec, CuStream stream) {
  ENTER("graph_launch");
  ++state().books.graph_launches;
  for (const FakeStreamWork& work : reinterpret_cast<GraphBody*>(exec)->works) {
    if (const CuResult queued = enqueue(stream, work, false); queued != 0) return queued;
  }
  return 0;
}
CuResult graph_exec_destroy(CuGraphExec exec) {
  const std::lock_guard lock(state().mutex);
  --state().books.graphs;
  delete reinterpret_cast<GraphBody*>(exec);
  return 0;
}
CuResult graph_destroy(CuGraph graph) {
  delete reinterpret_cast<GraphBody*>(graph);
  return 0;
}
#undef ENTER

constexpr DriverApi kApi = {init,
                            driver_version,
                            error_name,
                            error_string,
                            device_count,
                            device_get,
                            device_name,
                            device_attribute,
                            device_memory,
                            context_retain,
                            context_release,
                            context_set,
                            memory_info,
                            memory_alloc,
                            memory_free,
                            host_alloc,
                            host_free,
                            copy_to_device,
                            copy_to_host,
                            set_bytes,
                            granularity,
                            address_reserve,
                            address_free,
                            memory_create,
                            memory_release,
                            memory_map,
                            memory_unmap,
                            memory_access,
                            stream_create,
                            stream_destroy,
                            stream_synchronize,
                            event_create,
                            event_destroy,
                            event_record,
                            event_synchronize,
                            event_query,
                            event_elapsed,
                            module_load,
                            module_unload,
                            module_function,
                            function_attribute,
                            launch,
                            capture_begin,
                            capture_end,
                            graph_instantiate,
                            graph_launch,
                            graph_exec_destroy,
                            graph_destroy};

}  // namespace

const DriverApi& fake_driver() { return kApi; }

void reset_fake_driver(const FakeDriverOptions& options) {
  const std::lock_guard lock(state().mutex);
  state().options = options;
  state().failures.clear();
  state().lost.clear();
  state().failing_call.reset();
  state().books.launches = state().books.graph_launches = 0;
  state().books.launches_of.clear();
}

FakeDriverBooks& fake_driver_books() { return state().books; }

void fail_fake_driver(const std::string& function, CuResult result, int after) {
  const std::lock_guard lock(state().mutex);
  state().failures[function] = {result, after};
}

// Whichever context is current, as libraries that choose it by themselves.
CuResult enqueue_fake_work(CuStream stream, FakeStreamWork work) {
  const std::lock_guard lock(state().mutex);
  const int before = std::exchange(current_device, stream_of(stream).device);
  const CuResult queued = enqueue(stream, std::move(work), true);
  current_device = before;
  return queued;
}

void advance_fake_streams() {
  const std::lock_guard lock(state().mutex);
  advance();
}

void fail_fake_driver_call(CuResult result, uint64_t after) {
  const std::lock_guard lock(state().mutex);
  state().failing_call = {state().calls + after, result};
}

uint64_t fake_driver_calls() {
  const std::lock_guard lock(state().mutex);
  return state().calls;
}

}  // namespace inferneo::cuda
