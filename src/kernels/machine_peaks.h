// What this machine can do, measured: the yardstick of every "share of peak" and "share of bandwidth".
//
// Peaks are register-only loops of the best instruction on all threads of the pool at once; the read bandwidth is the
// best of several passes over a buffer of four times the last-level cache on huge pages, the threads taking interleaved
// 128 KiB chunks. Both move with the load of a shared host: measure in the same run as what is compared with them.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "base/thread_pool.h"
#include "tensor/ledger.h"

namespace inferneo::kernels {

struct MachinePeaks {
  int threads = 0;
  std::string_view isa;     // of the loops below
  double f32_flops = 0.0;   // multiply and add count as two
  double bf16_flops = 0.0;  // of the bf16 dot product; the f32 rate where there is none
  double int8_ops = 0.0;
  double read_bytes_per_second = 0.0;
  size_t read_buffer_bytes = 0;
};

// Takes about a second. out_of_memory when the buffer does not fit the ledger's budget.
Result<MachinePeaks> measure_machine_peaks(ThreadPool& pool, MemoryLedger& ledger);

}  // namespace inferneo::kernels
