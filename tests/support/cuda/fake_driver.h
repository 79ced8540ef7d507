// A CUDA driver without a GPU: a table of functions whose device memory is the host's, whose streams do at once what
// they are told, and whose kernels run in the emulator (simt.h). It keeps books of what is allocated, and fails where
// it is told to.
//
// Physical pages of virtual memory management are counted, and what is not mapped faults when it is touched, as it
// would on a GPU. One per process; reset() between tests.
#pragma once

#include <cstddef>
#include <cstdint>
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
  bool has_virtual_memory = true;
  bool runs_kernels = true;  // false: launches are counted and nothing is computed
};

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

}  // namespace inferneo::cuda
