#include "kernels/machine_peaks.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "kernels/cpu/peak_loops.h"
#include "kernels/op_table.h"
#include "tensor/memory.h"

namespace inferneo::kernels {
namespace {

constexpr int64_t kPeakIterations = 200'000;  // about a millisecond: short enough to fall between other processes
constexpr int kRounds = 40;
constexpr size_t kReadChunk = size_t{128} << 10;
constexpr int kReadPasses = 24;

struct NamedLoops {
  std::string_view isa;
  const PeakLoops* (*loops)();
};
constexpr NamedLoops kLoops[] = {{"avx512_bf16", avx512_bf16_peak_loops},
                                 {"avx512_vnni", avx512_vnni_peak_loops},
                                 {"avx512", avx512_peak_loops},
                                 {"avx_vnni", avx_vnni_peak_loops},
                                 {"avx2", avx2_peak_loops},
                                 {"reference", reference_peak_loops}};

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double best_rate(ThreadPool& pool, double (*loop)(int64_t)) {
  double best = 0.0;
  ThreadPool::Session session(pool);
  for (int round = 0; round < kRounds; ++round) {
    std::atomic<double> ops{0.0};
    const auto start = std::chrono::steady_clock::now();
    session.run([&](int) { ops += loop(kPeakIterations); });
    best = std::max(best, ops.load() / seconds_since(start));
  }
  return best;
}

size_t read_buffer_bytes() {
  const long l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
  const size_t cache = l3 > 0 ? static_cast<size_t>(l3) : size_t{32} << 20;
  return std::clamp(4 * cache, size_t{64} << 20, size_t{4} << 30) / kHugePage * kHugePage;
}

}  // namespace

Result<MachinePeaks> measure_machine_peaks(ThreadPool& pool, MemoryLedger& ledger) {
  ASSIGN_OR_RETURN(const OpTable* table, select_op_table());
  const PeakLoops* loops = reference_peak_loops();
  for (const NamedLoops& named : kLoops) {
    if (named.isa == table->name) loops = named.loops();
  }
  MachinePeaks peaks;
  peaks.threads = pool.size();
  peaks.isa = table->name;
  peaks.f32_flops = best_rate(pool, loops->f32);
  peaks.bf16_flops = best_rate(pool, loops->bf16);
  peaks.int8_ops = best_rate(pool, loops->int8);

  peaks.read_buffer_bytes = read_buffer_bytes();
  ASSIGN_OR_RETURN(Buffer buffer, Buffer::allocate(ledger, "machine", MemoryPurpose::staging, peaks.read_buffer_bytes));
  std::memset(buffer.data(), 1, buffer.size());  // untouched pages would all be the one zero page
  std::atomic<uint64_t> sink{0};
  ThreadPool::Session session(pool);
  for (int pass = 0; pass < kReadPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    session.for_chunks(static_cast<int64_t>(buffer.size() / kReadChunk), [&](int64_t chunk, int) {
      sink ^= loops->read(buffer.data() + static_cast<size_t>(chunk) * kReadChunk, kReadChunk);
    });
    peaks.read_bytes_per_second =
        std::max(peaks.read_bytes_per_second, static_cast<double>(buffer.size()) / seconds_since(start));
  }
  return peaks;
}

}  // namespace inferneo::kernels
