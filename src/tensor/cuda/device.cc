#include "tensor/cuda/device.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace inferneo::cuda {
namespace {

constexpr int kOldestMajor = 8;  // bf16 in the tensor cores, asynchronous copies

Error driver_error(const DriverApi& driver, CuResult result, std::string_view doing) {
  const ErrorCode code = result == kCuOutOfMemory ? ErrorCode::out_of_memory : ErrorCode::unavailable;
  return make_error(code, fmt::format("the GPU failed while {}: {}", doing, describe_error(driver, result)));
}

// Errors after which every call of the context fails: CUDA_ERROR_ILLEGAL_ADDRESS (700) to CUDA_ERROR_LAUNCH_FAILED
// (719) but for those that concern one call, ECC errors (214), lost devices (46), assertions (710).
bool is_lost(CuResult result) {
  switch (result) {
    case 46:   // DEVICE_UNAVAILABLE
    case 214:  // ECC_UNCORRECTABLE
    case 220:  // NVLINK_UNCORRECTABLE
    case 226:  // CONTAINED
    case 700:  // ILLEGAL_ADDRESS
    case 702:  // LAUNCH_TIMEOUT
    case 709:  // CONTEXT_IS_DESTROYED
    case 710:  // ASSERT
    case 714:  // HARDWARE_STACK_ERROR
    case 715:  // ILLEGAL_INSTRUCTION
    case 716:  // MISALIGNED_ADDRESS
    case 717:  // INVALID_ADDRESS_SPACE
    case 718:  // INVALID_PC
    case 719:  // LAUNCH_FAILED
    case 999:  // UNKNOWN
      return true;
    default:
      return false;
  }
}

Result<DeviceFacts> facts_of(const DriverApi& driver, int ordinal) {
  DeviceFacts facts;
  facts.ordinal = ordinal;
  CuDevice device = 0;
  std::array<char, 256> name{};
  const auto all = [&] {
    for (const CuResult result :
         {driver.device_get(&device, ordinal),
          driver.device_name(name.data(), static_cast<int>(name.size()) - 1, device),
          driver.device_memory(&facts.memory_bytes, device), driver.driver_version(&facts.driver_version),
          driver.device_attribute(&facts.major, kCuMajor, device),
          driver.device_attribute(&facts.minor, kCuMinor, device),
          driver.device_attribute(&facts.multiprocessors, kCuMultiprocessors, device),
          driver.device_attribute(&facts.shared_bytes, kCuSharedOptIn, device),
          driver.device_attribute(&facts.l2_bytes, kCuL2Bytes, device)}) {
      if (result != kCuSuccess) return result;
    }
    return kCuSuccess;
  };
  if (const CuResult result = all(); result != kCuSuccess) return driver_error(driver, result, "being looked at");
  facts.name = name.data();
  return facts;
}

}  // namespace

Result<std::vector<DeviceFacts>> list_devices(const DriverApi& driver) {
  int count = 0;
  if (const CuResult result = driver.device_count(&count); result != kCuSuccess) {
    return driver_error(driver, result, "being counted");
  }
  std::vector<DeviceFacts> devices;
  for (int i = 0; i < count; ++i) {
    ASSIGN_OR_RETURN(DeviceFacts facts, facts_of(driver, i));
    devices.push_back(std::move(facts));
  }
  return devices;
}

Result<std::shared_ptr<Device>> Device::open(const DriverApi& driver, int ordinal,
                                             std::span<const ModuleImage> images) {
  int count = 0;
  if (const CuResult result = driver.device_count(&count); result != kCuSuccess) {
    return driver_error(driver, result, "being counted");
  }
  if (ordinal < 0 || ordinal >= count) {
    return make_error(ErrorCode::not_found,
                      fmt::format("there is no cuda:{}: this machine has {} GPUs", ordinal, count), "device");
  }
  ASSIGN_OR_RETURN(DeviceFacts facts, facts_of(driver, ordinal));
  if (facts.major < kOldestMajor) {
    return make_error(ErrorCode::unsupported,
                      fmt::format("{} has compute capability {}.{}; {}.0 or newer is needed", facts.name, facts.major,
                                  facts.minor, kOldestMajor),
                      "device");
  }
  std::shared_ptr<Device> device(new Device(driver, std::move(facts)));
  CuResult result = driver.device_get(&device->handle_, ordinal);
  if (result == kCuSuccess) result = driver.context_retain(&device->context_, device->handle_);
  if (result != kCuSuccess) {
    device->context_ = nullptr;
    return driver_error(driver, result, "its context was made");
  }
  RETURN_IF_ERROR(device->load(images));
  device->facts_.has_virtual_memory = device->can_map_pages();
  return device;
}

// Tried, since containers and virtual machines let the driver promise what they do not pass on.
bool Device::can_map_pages() const {
  constexpr size_t kPage = size_t{2} << 20;
  int promised = 0;
  if (driver_.device_attribute(&promised, kCuVirtualMemory, handle_) != kCuSuccess || promised == 0) return false;
  CuMemProperties properties;
  properties.location.id = facts_.ordinal;
  size_t granularity = 0;
  if (driver_.granularity(&granularity, &properties, 0) != kCuSuccess || kPage % granularity != 0) return false;
  CuPointer base = 0;
  CuMemory memory = 0;
  if (driver_.address_reserve(&base, kPage, kPage, 0, 0) != kCuSuccess) return false;
  bool works = driver_.memory_create(&memory, kPage, &properties, 0) == kCuSuccess;
  if (works) {
    CuMemAccess access;
    access.location = properties.location;
    const bool mapped = driver_.memory_map(base, kPage, 0, memory, 0) == kCuSuccess;
    works = mapped && driver_.memory_access(base, kPage, &access, 1) == kCuSuccess;
    if (mapped) (void)driver_.memory_unmap(base, kPage);
    (void)driver_.memory_release(memory);
  }
  (void)driver_.address_free(base, kPage);
  return works;
}

Device::~Device() {
  if (context_ == nullptr) return;
  if (!failed_ && driver_.context_set(context_) == kCuSuccess) {
    for (CuModule module : modules_) (void)driver_.module_unload(module);
  }
  (void)driver_.context_release(handle_);
}

Status Device::load(std::span<const ModuleImage> images) {
  RETURN_IF_ERROR(make_current());
  for (const ModuleImage& image : images) {
    CuModule module = nullptr;
    RETURN_IF_ERROR(
        check(driver_.module_load(&module, image.data), fmt::format("loading its kernels ({})", image.name)));
    modules_.push_back(module);
  }
  return ok_status();
}

Status Device::make_current() const {
  RETURN_IF_ERROR(health());
  return check(driver_.context_set(context_), "its context was chosen");
}

Result<Device::Memory> Device::memory() const {
  RETURN_IF_ERROR(make_current());
  Memory memory;
  RETURN_IF_ERROR(check(driver_.memory_info(&memory.free, &memory.total), "its memory was asked for"));
  return memory;
}

Status Device::check(CuResult result, std::string_view doing) const {
  if (result == kCuSuccess) return ok_status();
  Error error = driver_error(driver_, result, doing);
  if (!is_lost(result)) return error;
  const std::lock_guard lock(failure_mutex_);
  if (!failure_) {
    failure_ = fmt::format("cuda:{} ({}) is lost until the program is started again: {}", facts_.ordinal, facts_.name,
                           error.message);
    failed_ = true;
    log_error("{}", *failure_);
  }
  return make_error(ErrorCode::unavailable, *failure_);
}

Status Device::health() const {
  if (!failed_) return ok_status();
  const std::lock_guard lock(failure_mutex_);
  return make_error(ErrorCode::unavailable, *failure_);
}

Result<CuFunction> Device::function(const char* kernel, unsigned shared_bytes) {
  const std::lock_guard lock(mutex_);
  auto found = kernels_.find(std::string_view(kernel));
  if (found == kernels_.end()) {
    Kernel entry;
    for (CuModule module : modules_) {
      if (driver_.module_function(&entry.function, module, kernel) == kCuSuccess) break;
      entry.function = nullptr;
    }
    if (entry.function == nullptr) {
      return make_error(ErrorCode::internal, fmt::format("the program has no kernel {}", kernel));
    }
    found = kernels_.emplace(kernel, entry).first;
  }
  Kernel& entry = found->second;
  // Beyond 48 KiB a kernel has to be allowed its shared memory.
  if (shared_bytes > std::max(entry.shared_bytes, 48U << 10)) {
    RETURN_IF_ERROR(check(driver_.function_attribute(entry.function, kCuFunctionShared, static_cast<int>(shared_bytes)),
                          fmt::format("{} got its shared memory", kernel)));
    entry.shared_bytes = shared_bytes;
  }
  return entry.function;
}

Status Device::launch_raw(const char* kernel, const LaunchShape& shape, CuStream stream, void* args) {
  if (shape.grid[0] == 0 || shape.grid[1] == 0 || shape.grid[2] == 0) return ok_status();
  ASSIGN_OR_RETURN(CuFunction entry, function(kernel, shape.shared_bytes));
  std::array<void*, 1> parameters = {args};
  CuLaunchAttribute overlap;
  overlap.id = kCuLaunchOverlap;
  overlap.number = 1;
  CuLaunchConfig config;
  config.grid_x = shape.grid[0];
  config.grid_y = shape.grid[1];
  config.grid_z = shape.grid[2];
  config.block_x = shape.block;
  config.shared_bytes = shape.shared_bytes;
  config.stream = stream;
  config.attributes = &overlap;
  config.num_attributes = shape.overlaps ? 1 : 0;
  return check(driver_.launch(&config, entry, parameters.data(), nullptr), fmt::format("launching {}", kernel));
}

Result<Stream> Stream::create(std::shared_ptr<Device> device) {
  RETURN_IF_ERROR(device->make_current());
  Stream stream;
  RETURN_IF_ERROR(device->check(device->driver().stream_create(&stream.stream_, kCuNonBlocking), "making a stream"));
  stream.device_ = std::move(device);
  return stream;
}

Stream::~Stream() {
  if (stream_ == nullptr || !device_->make_current().ok()) return;
  (void)device_->driver().stream_destroy(stream_);
}

Status Stream::synchronize() const {
  if (stream_ == nullptr) return ok_status();  // never made: nothing was launched
  RETURN_IF_ERROR(device_->make_current());
  return device_->check(device_->driver().stream_synchronize(stream_), "computing");
}

Result<Event> Event::create(std::shared_ptr<Device> device) {
  RETURN_IF_ERROR(device->make_current());
  Event event;
  RETURN_IF_ERROR(device->check(device->driver().event_create(&event.event_, 0), "making an event"));
  event.device_ = std::move(device);
  return event;
}

Event::~Event() {
  if (event_ == nullptr || !device_->make_current().ok()) return;
  (void)device_->driver().event_destroy(event_);
}

Status Event::record(CuStream stream) const {
  return device_->check(device_->driver().event_record(event_, stream), "recording an event");
}

Status Event::synchronize() const {
  RETURN_IF_ERROR(device_->make_current());
  return device_->check(device_->driver().event_synchronize(event_), "computing");
}

Result<bool> Event::has_happened() const {
  RETURN_IF_ERROR(device_->make_current());
  const CuResult result = device_->driver().event_query(event_);
  if (result == kCuNotReady) return false;
  RETURN_IF_ERROR(device_->check(result, "computing"));
  return true;
}

Result<float> Event::milliseconds_since(const Event& earlier) const {
  RETURN_IF_ERROR(device_->make_current());
  float milliseconds = 0.0F;
  RETURN_IF_ERROR(device_->check(device_->driver().event_elapsed(&milliseconds, earlier.event_, event_), "timing"));
  return milliseconds;
}

Status Graph::begin(Device& device, CuStream stream) {
  return device.check(device.driver().capture_begin(stream, kCuCaptureThreadLocal), "beginning a graph");
}

Result<Graph> Graph::end(std::shared_ptr<Device> device, CuStream stream) {
  CuGraph captured = nullptr;
  RETURN_IF_ERROR(device->check(device->driver().capture_end(stream, &captured), "ending a graph"));
  Graph graph;
  const Status made = device->check(device->driver().graph_instantiate(&graph.exec_, captured, 0), "making a graph");
  (void)device->driver().graph_destroy(captured);
  RETURN_IF_ERROR(made);
  graph.device_ = std::move(device);
  return graph;
}

Graph::~Graph() {
  if (exec_ == nullptr || !device_->make_current().ok()) return;
  (void)device_->driver().graph_exec_destroy(exec_);
}

Status Graph::launch(CuStream stream) const {
  return device_->check(device_->driver().graph_launch(exec_, stream), "launching a graph");
}

}  // namespace inferneo::cuda
