// NCCL without GPUs: a table of functions beside fake_driver.h. What ranks do together waits in their streams until all
// of them have come to it, also where graphs hold it, and is then computed on the host in the order of the ranks. It
// keeps a log of calls, and fails where it is told to.
#pragma once

#include <string>
#include <vector>

#include "tensor/cuda/nccl.h"

namespace inferneo::cuda {

const NcclApi& fake_nccl();
void reset_fake_nccl();
// "init 0 1", "start", "reduce 0 64", "broadcast 1 4", "end", "destroy 0", "abort 1": with the rank, then the count.
std::vector<std::string>& fake_nccl_log();
// Bytes that a communicator takes of its device.
size_t& fake_nccl_memory();
int fake_nccl_communicators();  // that have not been ended
// The call of this name number `after` from now on (0: the next) answers `result`; once. "init", "start", "reduce",
// "broadcast", "end"; "async": async_error() reports it from then on; "lost": the last rank of a group never comes.
void fail_fake_nccl(const std::string& call, NcclResult result, int after = 0);

}  // namespace inferneo::cuda
