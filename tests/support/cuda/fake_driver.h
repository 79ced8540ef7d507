// A CUDA driver without a GPU: a table of functions whose device memory is the host's, whose streams do at once what
// they are told, and whose kernels run in the emulator (simt.h). It keeps books of what is allocated, and fails where
// it is told to.
//
// Of several devices each has memory of its own, and what is launched, copied or recorded while another device's
// context is current is an error. A stream that has met an operation which waits for other streams (fake_nccl.h) does
// what comes behind it once that has happened; to wait for it before would be to wait forever, and is an error.
//
// Physical pages of virtual memory management are counted, and what is not mapped faults when it is touched, as it
// would on a GPU. One per process; reset() between tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "tensor/cuda/driver.h"

namespace inferneo::cuda {

struct FakeDriverOptions {
  size_t memory_bytes = size_t{1} << 30;
  size_t fixed_bytes = size_t{64} << 20;  // what a context takes
  int multiprocessors = 4;
  int major = 9;
  int devices = 1;
  int other_multiprocessors = 0;  // of devices behind the first; 0: as many
  bool has_virtual_memory = true;
  bool runs_kernels = true;  // false: launches are counted and nothing is computed
};

// Of one device, contexts apart.
struct FakeDeviceBooks {
  size_t allocated = 0;
  size_t pages = 0;
  int contexts = 0;
  bool operator==(const FakeDeviceBooks&) const = default;
};

// Of all devices together, but for `of`.
struct FakeDriverBooks {
  size_t allocated = 0;  // device memory in use, contexts apart
  size_t pages = 0;      // physical pages in existence
  size_t pinned = 0;
  int contexts = 0;
  int streams = 0;
  int events = 0;
  int modules = 0;
  int graphs = 0;
  uint64_t launches = 0;  // those in graphs included
  uint64_t graph_launches = 0;
  uint64_t overlapping = 0;                          // launches that may begin before the one before them has ended
  std::map<std::string, uint64_t> launches_of = {};  // by kernel
  std::map<int, FakeDeviceBooks> of = {};            // by ordinal
};

const DriverApi& fake_driver();
void reset_fake_driver(const FakeDriverOptions& options = {});
FakeDriverBooks& fake_driver_books();
// The call of this function number `after` from now on (0: the next) answers `result`; once. Names as in driver.cc:
// "launch", "memory_create".
void fail_fake_driver(const std::string& function, CuResult result, int after = 0);
// The same of all functions together but those that give something back, which no driver refuses while its context
// lives; and how many such calls there have been.
void fail_fake_driver_call(CuResult result, uint64_t after);
uint64_t fake_driver_calls();

// Something that a stream does, in its turn, or that a graph holds: called until it answers true (done).
using FakeStreamWork = std::function<bool()>;
CuResult enqueue_fake_work(CuStream stream, FakeStreamWork work);
// After something that streams may have waited for.
void advance_fake_streams();

}  // namespace inferneo::cuda
