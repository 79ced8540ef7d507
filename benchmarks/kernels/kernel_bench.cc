// Share of the machine's peaks that the kernels reach, on the shapes of a 1B model (hidden 2048, feed-forward 8192,
// 32 heads of 64 on 8 key/value heads, vocabulary 128256). Usage:
// kernel_bench [--refcheck] [isa] [threads] [decode|batch|prefill|quantized|others|attention|rows]
// --refcheck: each result against the reference's, within a bound (refcheck.h); exits with 1 when one is outside.
#include <fmt/format.h>

#include <time.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/system.h"
#include "kernels/machine_peaks.h"
#include "kernels/ops.h"
#include "refcheck.h"
#include "tensor/memory.h"

namespace inferneo::kernels {
namespace {

constexpr const char* kOwner = "kernel_bench";

struct Bench {
  const OpTable& ops;
  ThreadPool& pool;
  MemoryLedger& ledger;
  MachinePeaks peaks;
  bool refcheck = false;
  int failures = 0;
};

// With one thread its CPU time is counted, which other processes disturb less than the time on the wall.
double now_seconds(const Bench& bench) {
  timespec now{};
  clock_gettime(bench.pool.size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <typename F>
double best_seconds(const Bench& bench, F&& run, int rounds) {
  double best = 1e30;
  for (int i = 0; i < rounds; ++i) {
    const double start = now_seconds(bench);
    run();
    best = std::min(best, now_seconds(bench) - start);
  }
  return best;
}

Buffer floats(Bench& bench, int64_t count) {
  auto buffer = Buffer::allocate(bench.ledger, kOwner, MemoryPurpose::workspace, static_cast<size_t>(count) * 4);
  INFERNEO_CHECK(buffer.ok(), "not enough memory for the benchmark");
  float* data = buffer->as<float>();
  uint32_t state = 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 1664525U + 1013904223U;
    data[i] = static_cast<float>(state >> 8) / 8388608.0F - 1.0F;
  }
  return std::move(buffer).value();
}

// A weight large enough that repeated passes do not find it in the cache: `copies` of [n, k].
std::vector<PackedMatrix> weights(Bench& bench, const WeightFormat& format, int64_t n, int64_t k, int copies) {
  const Buffer source = floats(bench, 16 * k);
  std::vector<PackedMatrix> all;
  for (int i = 0; i < copies; ++i) {
    auto matrix = PackedMatrix::allocate(bench.ledger, kOwner, format, n, k);
    INFERNEO_CHECK(matrix.ok(), "not enough memory for the benchmark");
    for (int64_t row = 0; row < n; row += 16) {
      matrix->pack(WeightView{source.data(), DType::f32, 16, k, k, 1}, 0, std::min<int64_t>(16, n - row), row);
    }
    all.push_back(std::move(matrix).value());
  }
  return all;
}

void tell(Bench& bench, const RefCheck& check) {
  fmt::print("  {}\n", check.text());
  if (!check.ok()) ++bench.failures;
}

// Weights repeat after 16 channels, as weights() makes them, and so do their magnitudes.
void check_matmul(Bench& bench, const Context& context, const PackedView& weight, const float* x, int64_t m,
                  const float* out) {
  const std::vector<int32_t> rows = checked_rows(m);
  const Buffer want = floats(bench, static_cast<int64_t>(rows.size()) * weight.rows);
  Context reference{*reference_table(), context.session, context.scratch};
  const MatmulOutput output{.weight = weight, .out = want.as<float>(), .out_stride = weight.rows};
  matmul(reference, MatmulArgs{.x = x,
                               .x_stride = weight.cols,
                               .num_rows = static_cast<int64_t>(rows.size()),
                               .row_index = rows.data(),
                               .outputs = {&output, 1}});
  RefCheck check;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::array<double, 16> bounds = {};
    for (int64_t c = 0; c < 16; ++c) {
      bounds[static_cast<size_t>(c)] =
          product_bound(weight.cols, product_magnitude(weight, c, x + int64_t{rows[r]} * weight.cols));
    }
    for (int64_t c = 0; c < weight.rows; ++c) {
      check.compare(rows[r], c, out[int64_t{rows[r]} * weight.rows + c],
                    want.as<float>()[static_cast<int64_t>(r) * weight.rows + c], bounds[static_cast<size_t>(c % 16)]);
    }
  }
  tell(bench, check);
}

void bench_matmul(Bench& bench, const WeightFormat& format, int64_t m, int64_t n, int64_t k) {
  const size_t bytes = PackedMatrix::bytes(format, n, k);
  const size_t all_bytes = size_t{format.scheme.quantized() ? 64U : 256U} << 20;  // quantising takes its time
  const int copies = m <= 64 ? static_cast<int>(std::max<size_t>(1, all_bytes / bytes)) : 1;
  const std::vector<PackedMatrix> all = weights(bench, format, n, k, copies);
  const Buffer x = floats(bench, m * k);
  const Buffer out = floats(bench, m * n);
  ThreadPool::Session session(bench.pool);
  const size_t scratch_size = scratch_bytes({.max_rows = m, .max_cols = k, .num_threads = bench.pool.size()});
  const Buffer scratch = floats(bench, static_cast<int64_t>(scratch_size / 4));
  Context context{bench.ops, session, {scratch.data(), scratch.size()}};
  size_t next = 0;
  const auto pass = [&] {
    const MatmulOutput output{.weight = all[next++ % all.size()].view(), .out = out.as<float>(), .out_stride = n};
    matmul(context, MatmulArgs{.x = x.as<float>(), .x_stride = k, .num_rows = m, .outputs = {&output, 1}});
  };
  const double seconds = best_seconds(bench, pass, m <= 64 ? 6 * copies : 10);
  const double flops = 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) / seconds;
  const double peak = format.scheme.quantized()     ? bench.peaks.int8_ops
                      : format.dtype == DType::bf16 ? bench.peaks.bf16_flops
                                                    : bench.peaks.f32_flops;
  const double bandwidth = static_cast<double>(bytes) / seconds;
  fmt::print(
      "matmul {:4} m={:<4} n={:<6} k={:<5} {:9.1f} us  {:6.1f} GFLOP/s {:5.2f} of peak  {:5.1f} GB/s {:5.2f} of "
      "bandwidth\n",
      weight_format_name(format), m, n, k, seconds * 1e6, flops / 1e9, flops / peak, bandwidth / 1e9,
      bandwidth / bench.peaks.read_bytes_per_second);
  if (bench.refcheck) check_matmul(bench, context, all.front().view(), x.as<float>(), m, out.as<float>());
}

// The last layer of the first and the last sequence, the first and the last query of each.
void check_attention(Bench& bench, const Context& context, AttentionArgs args) {
  const float* got = args.out;
  std::vector<SequenceRows> ends;
  for (const SequenceRows* sequence : {&args.sequences.front(), &args.sequences.back()}) {
    for (const int32_t query : {0, sequence->num_tokens - 1}) {
      ends.push_back({sequence->block_table, sequence->position + query, sequence->row + query, 1});
    }
  }
  const int64_t width = args.out_stride;
  const Buffer want = floats(bench, (int64_t{ends.back().row} + 1) * width);
  Context reference{*reference_table(), context.session, context.scratch};
  args.out = want.as<float>();
  args.sequences = ends;
  attention(reference, args);
  RefCheck check;
  for (const SequenceRows& rows : ends) {
    const double bound =
        attention_bound(args.layout.dtype, args.layout.head_dim, static_cast<double>(args.scale), rows.position + 1);
    for (int64_t c = 0; c < width; ++c) {
      const int64_t at = int64_t{rows.row} * width + c;
      check.compare(rows.row, c, got[at], want.as<float>()[at], bound);
    }
  }
  tell(bench, check);
}

void bench_attention(Bench& bench, DType dtype, int32_t num_sequences, int32_t past, int32_t now) {
  const int32_t heads = 32;
  const KvLayout layout{dtype, 16, 8, 64, 16};
  const int32_t blocks = (past + now + 15) / 16;
  auto plane = Buffer::allocate(bench.ledger, kOwner, MemoryPurpose::kv,
                                layout.bytes_per_block() * static_cast<size_t>(blocks * num_sequences));
  INFERNEO_CHECK(plane.ok(), "not enough memory for the benchmark");
  std::vector<std::vector<int32_t>> tables(static_cast<size_t>(num_sequences));
  std::vector<SequenceRows> fill;
  std::vector<SequenceRows> rows;
  for (int32_t s = 0; s < num_sequences; ++s) {
    for (int32_t b = 0; b < blocks; ++b) tables[static_cast<size_t>(s)].push_back(b * num_sequences + s);
    fill.push_back({tables[static_cast<size_t>(s)].data(), 0, 0, past + now});
    rows.push_back({tables[static_cast<size_t>(s)].data(), past, s * now, now});
  }
  const Buffer kv = floats(bench, int64_t{past + now} * 512);
  const Buffer q = floats(bench, int64_t{num_sequences} * now * heads * 64);
  const Buffer out = floats(bench, int64_t{num_sequences} * now * heads * 64);
  const size_t scratch_size = scratch_bytes({.max_rows = 1,
                                             .max_cols = 64,
                                             .num_heads = heads,
                                             .num_kv_heads = 8,
                                             .head_dim = 64,
                                             .max_context = past + now,
                                             .num_threads = bench.pool.size()});
  const Buffer scratch = floats(bench, static_cast<int64_t>(scratch_size / 4));
  ThreadPool::Session session(bench.pool);
  Context context{bench.ops, session, {scratch.data(), scratch.size()}};
  for (int32_t layer = 0; layer < layout.num_layers; ++layer) {
    kv_write(context, KvWriteArgs{.k = kv.as<float>(),
                                  .k_stride = 512,
                                  .v = kv.as<float>(),
                                  .v_stride = 512,
                                  .layout = layout,
                                  .plane = plane->data(),
                                  .layer = layer,
                                  .sequences = fill});
  }
  AttentionArgs args{.q = q.as<float>(),
                     .q_stride = heads * 64,
                     .out = out.as<float>(),
                     .out_stride = heads * 64,
                     .num_heads = heads,
                     .layout = layout,
                     .plane = plane->data(),
                     .scale = 0.125F,
                     .sequences = rows};
  const auto all_layers = [&] {
    for (args.layer = 0; args.layer < layout.num_layers; ++args.layer) attention(context, args);
    args.layer = layout.num_layers - 1;
  };
  const double seconds = best_seconds(bench, all_layers, 5) / layout.num_layers;
  const double context_tokens = static_cast<double>(num_sequences) * (past + now);
  const double bytes = context_tokens * 8 * 64 * 2 * static_cast<double>(layout.element_bytes());
  const double pairs = static_cast<double>(num_sequences) * now * (past + 0.5 * now);
  const double flops = 4.0 * pairs * heads * 64;
  fmt::print(
      "attention {:4} {:>2} x {:>4} after {:<5} {:9.1f} us  {:6.1f} GFLOP/s {:5.2f} of peak  {:5.1f} GB/s {:5.2f} of "
      "bandwidth\n",
      dtype_name(dtype), num_sequences, now, past, seconds * 1e6, flops / seconds / 1e9,
      flops / seconds / (dtype == DType::bf16 ? bench.peaks.bf16_flops : bench.peaks.f32_flops), bytes / seconds / 1e9,
      bytes / seconds / bench.peaks.read_bytes_per_second);
  if (bench.refcheck) check_attention(bench, context, args);
}

void check_rows(Bench& bench, ThreadPool::Session& session, int64_t m, int64_t dim) {
  const Buffer a = floats(bench, m * dim);
  const Buffer weight = floats(bench, dim);
  const Buffer got = floats(bench, m * dim);
  const Buffer want = floats(bench, m * dim);
  Context measured{bench.ops, session, {}};
  Context reference{*reference_table(), session, {}};
  const auto compare = [&](auto&& op, auto args, double relative) {
    args.out = got.as<float>();
    op(measured, args);
    args.out = want.as<float>();
    op(reference, args);
    RefCheck check;
    for (int64_t i = 0; i < m * dim; ++i) {
      const float value = want.as<float>()[i];
      check.compare(i / dim, i % dim, got.as<float>()[i], value, relative * std::abs(static_cast<double>(value)));
    }
    tell(bench, check);
  };
  compare(activation,
          ActivationArgs{.gate = a.as<float>(),
                         .gate_stride = dim,
                         .up = a.as<float>(),
                         .up_stride = dim,
                         .out_stride = dim,
                         .num_rows = m,
                         .dim = dim},
          kActivationBound);
  compare(rms_norm,
          NormArgs{.x = a.as<float>(),
                   .x_stride = dim,
                   .out_stride = dim,
                   .num_rows = m,
                   .dim = dim,
                   .weight = weight.as<float>()},
          norm_bound(dim));
}

void bench_rows(Bench& bench, int64_t m) {
  const int64_t dim = 8192;
  const Buffer a = floats(bench, m * dim);
  const Buffer b = floats(bench, m * dim);
  const Buffer weight = floats(bench, dim);
  ThreadPool::Session session(bench.pool);
  Context context{bench.ops, session, {}};
  const double act = best_seconds(
      bench,
      [&] {
        activation(context, ActivationArgs{.gate = a.as<float>(),
                                           .gate_stride = dim,
                                           .up = b.as<float>(),
                                           .up_stride = dim,
                                           .out = a.as<float>(),
                                           .out_stride = dim,
                                           .num_rows = m,
                                           .dim = dim});
      },
      5);
  const double norm = best_seconds(
      bench,
      [&] {
        rms_norm(context, NormArgs{.x = a.as<float>(),
                                   .x_stride = 2048,
                                   .out = b.as<float>(),
                                   .out_stride = 2048,
                                   .num_rows = m,
                                   .dim = 2048,
                                   .weight = weight.as<float>()});
      },
      5);
  fmt::print("rows m={:<4} silu*up 8192 {:8.1f} us   rms_norm 2048 {:8.1f} us\n", m, act * 1e6, norm * 1e6);
  if (bench.refcheck) check_rows(bench, session, m, dim);
}

int run(const std::string& isa, int threads, const std::string& only, bool refcheck) {
  MemoryLedger ledger(size_t{12} << 30);
  ThreadPool pool(threads);
  auto ops = select_op_table(isa);
  if (!ops.ok()) {
    fmt::print(stderr, "{}\n", ops.error().message);
    return 1;
  }
  auto peaks = measure_machine_peaks(pool, ledger);
  if (!peaks.ok()) return 1;
  fmt::print("{} on {} threads; peaks ({}): f32 {:.0f}, bf16 {:.0f} GFLOP/s, int8 {:.0f} GOP/s, read {:.1f} GB/s\n",
             (*ops)->name, threads, peaks->isa, peaks->f32_flops / 1e9, peaks->bf16_flops / 1e9, peaks->int8_ops / 1e9,
             peaks->read_bytes_per_second / 1e9);
  Bench bench{**ops, pool, ledger, *peaks, refcheck};
  const auto wanted = [&](const char* part) { return only.empty() || only == part; };
  struct Shape {
    int64_t n, k;
  };
  if (wanted("decode")) {
    for (const int64_t m : {1, 2, 4, 8, 16}) {
      for (const Shape& s : {Shape{2048, 2048}, {512, 2048}, {8192, 2048}, {2048, 8192}, {128256, 2048}}) {
        if (m == 1 || s.n == 8192 || s.k == 8192) bench_matmul(bench, DType::bf16, m, s.n, s.k);
      }
    }
  }
  if (wanted("batch")) {
    for (const int64_t m : {4, 8, 16}) {
      for (const Shape& s : {Shape{8192, 2048}, {2048, 8192}}) bench_matmul(bench, DType::bf16, m, s.n, s.k);
    }
  }
  if (wanted("prefill")) {
    for (const Shape& s : {Shape{2048, 2048}, {512, 2048}, {8192, 2048}, {2048, 8192}}) {
      bench_matmul(bench, DType::bf16, 512, s.n, s.k);
    }
    bench_matmul(bench, DType::bf16, 64, 8192, 2048);
    bench_matmul(bench, DType::bf16, 100, 8192, 2048);
  }
  if (wanted("quantized")) {
    for (const int64_t m : {1, 2, 4, 8, 16, 512}) {
      for (const Shape& s : {Shape{8192, 2048}, {2048, 8192}}) {
        for (const WeightFormat& format : {WeightFormat(DType::bf16), WeightFormat(kInt8), WeightFormat(kInt4)}) {
          bench_matmul(bench, format, m, s.n, s.k);
        }
      }
    }
  }
  if (wanted("others")) {
    for (const DType dtype : {DType::f32, DType::f16}) {
      for (const int64_t m : {1, 16, 512}) bench_matmul(bench, dtype, m, 8192, 2048);
    }
  }
  if (wanted("attention")) {
    for (const DType dtype : {DType::bf16, DType::f32, DType::f16}) {
      bench_attention(bench, dtype, 1, 2047, 1);
      bench_attention(bench, dtype, 16, 511, 1);
      bench_attention(bench, dtype, 1, 0, 512);
      bench_attention(bench, dtype, 1, 1536, 512);
    }
  }
  if (wanted("rows")) {
    bench_rows(bench, 1);
    bench_rows(bench, 512);
  }
  if (bench.failures > 0) fmt::print(stderr, "{} results are outside their bounds\n", bench.failures);
  return bench.failures > 0 ? 1 : 0;
}

}  // namespace
}  // namespace inferneo::kernels

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool refcheck = std::erase(arguments, "--refcheck") > 0;
  const std::string isa = !arguments.empty() ? arguments[0] : "auto";
  const int threads = arguments.size() > 1 ? std::atoi(arguments[1].c_str()) : inferneo::available_cpus();
  return inferneo::kernels::run(isa, std::max(1, threads), arguments.size() > 2 ? arguments[2] : "", refcheck);
}
