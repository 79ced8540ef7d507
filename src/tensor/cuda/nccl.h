// NCCL as a table of functions, as the driver is one (driver.h): libnccl.so.2 is opened at run time where the machine
// has it, and tests put a table of their own in its place.
//
// Types and numbers are those of nccl.h, whose ABI is stable within major version 2; where that header is there, a
// build compares them (nccl_abi.cc). Immutable once loaded.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "tensor/cuda/driver.h"

namespace inferneo::cuda {

using NcclResult = int;
using NcclComm = struct ncclComm*;

// Numbers of nccl.h that are used here.
inline constexpr NcclResult kNcclSuccess = 0;
inline constexpr NcclResult kNcclInProgress = 7;
inline constexpr int kNcclUint8 = 1;
inline constexpr int kNcclFloat32 = 7;
inline constexpr int kNcclSum = 0;

struct NcclApi {
  NcclResult (*version)(int* version) = nullptr;
  const char* (*error_string)(NcclResult result) = nullptr;
  // One communicator for each of `count` devices, all in this process.
  NcclResult (*init_all)(NcclComm* comms, int count, const int* devices) = nullptr;
  NcclResult (*destroy)(NcclComm comm) = nullptr;  // waits for what is in flight
  NcclResult (*abort)(NcclComm comm) = nullptr;    // ends it
  NcclResult (*async_error)(NcclComm comm, NcclResult* error) = nullptr;
  NcclResult (*group_start)() = nullptr;
  NcclResult (*group_end)() = nullptr;
  NcclResult (*all_reduce)(const void* from, void* to, size_t count, int type, int operation, NcclComm comm,
                           CuStream stream) = nullptr;
  NcclResult (*broadcast)(const void* from, void* to, size_t count, int type, int root, NcclComm comm,
                          CuStream stream) = nullptr;
};

// not_found: no library can be opened; unsupported: one that lacks something.
Result<const NcclApi*> load_nccl();
// "2.28.3"
std::string nccl_version(const NcclApi& nccl);

}  // namespace inferneo::cuda
