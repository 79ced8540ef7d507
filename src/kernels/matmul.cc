// The threaded matrix product: rows are packed once, then chunks of panels go round the threads.
#include <algorithm>
#include <bit>

#include "kernels/ops.h"

namespace inferneo::kernels {
namespace {

constexpr int64_t kRowBlock = 512;  // rows packed at a time: what stays in the last-level cache
constexpr size_t kStreamBytes = size_t{256} << 10;
constexpr int64_t kCachedPanels = 8;
constexpr int64_t kSmallBatch = 16;

// Panels per chunk: large enough to stream, small enough to stay in a second-level cache while row tiles pass by, and
// every thread gets its share. Kernels for quantised weights take two at a time.
int64_t chunk_panels(const MatmulArgs& args, int64_t rows, int64_t total_panels, int threads) {
  const size_t bytes = args.outputs[0].weight.panel_bytes();
  const bool small = rows <= kSmallBatch;
  const int64_t wanted = small ? std::max<int64_t>(4, static_cast<int64_t>(kStreamBytes / bytes)) : kCachedPanels;
  const int64_t fair = total_panels / (int64_t{4} * threads);
  const int64_t panels = std::max<int64_t>(1, std::min(wanted, fair));
  return args.outputs[0].weight.quantized() && panels > 1 ? panels / 2 * 2 : panels;
}

// The front of the scratch memory holds the packed rows, its end a piece per thread for sums of products cut along K,
// where it is large enough for both.
size_t partial_bytes(const Context& context) {
  const size_t bytes = static_cast<size_t>(context.session.num_threads() * kMatmulPartialFloats) * sizeof(float);
  return bytes <= context.scratch.size() / 2 ? bytes : 0;
}

// Rows of a block: whole tiles where the scratch memory holds one, else as many as fit after padding to a power of two.
int64_t rows_per_block(const Context& context, int64_t cols) {
  const int64_t fits = static_cast<int64_t>(context.scratch.size() - partial_bytes(context)) / matmul_row_bytes(cols);
  INFERNEO_CHECK(fits >= 1, "scratch memory is smaller than one row");
  const int64_t tile = context.ops.matmul_row_tile;
  if (fits >= tile) return std::min(kRowBlock, fits / tile * tile);
  return static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(fits)));
}

void pack_block(Context& context, const MatmulPackArgs& args, bool quantized) {
  const int64_t tile_rows = context.ops.matmul_row_tile;
  const int64_t tiles = (args.num_rows + tile_rows - 1) / tile_rows;
  const auto pack_tile = [&](int64_t tile, int) {
    if (quantized) {
      context.ops.quant_pack(args, tile * tile_rows, std::min(args.num_rows, (tile + 1) * tile_rows));
    } else {
      context.ops.matmul_pack(args, tile, tile + 1);
    }
  };
  if (tiles == 1) {
    pack_tile(0, 0);
  } else {
    context.session.for_chunks(tiles, pack_tile);
  }
}

void multiply_block(Context& context, const MatmulArgs& args, int64_t first_row, int64_t rows) {
  const PackedView& weight = args.outputs[0].weight;
  MatmulPackArgs pack{.x = args.x,
                      .x_stride = args.x_stride,
                      .num_rows = rows,
                      .cols = weight.cols,
                      .row_index = args.row_index,
                      .weight_dtype = weight.dtype,
                      .packed = context.scratch.data()};
  if (args.row_index != nullptr) {
    pack.row_index += first_row;
  } else {
    pack.x += first_row * args.x_stride;
  }
  pack_block(context, pack, weight.quantized());

  int64_t total_panels = 0;
  for (const MatmulOutput& output : args.outputs) total_panels += output.weight.num_panels();
  const int64_t step = chunk_panels(args, rows, total_panels, context.session.num_threads());
  int64_t chunks = 0;
  for (const MatmulOutput& output : args.outputs) chunks += (output.weight.num_panels() + step - 1) / step;
  const size_t partials = partial_bytes(context);
  float* partial = reinterpret_cast<float*>(context.scratch.data() + context.scratch.size() / 64 * 64 - partials);
  context.session.for_chunks(chunks, [&](int64_t chunk, int thread) {
    const MatmulOutput* output = args.outputs.data();
    while (chunk >= (output->weight.num_panels() + step - 1) / step) {
      chunk -= (output->weight.num_panels() + step - 1) / step;
      ++output;
    }
    MatmulPanelArgs panels{.packed = context.scratch.data(), .num_rows = rows, .output = *output};
    if (partials > 0) {
      panels.partial = partial + thread * kMatmulPartialFloats;
      panels.partial_floats = kMatmulPartialFloats;
    }
    panels.output.out += first_row * output->out_stride;
    (weight.quantized() ? context.ops.quant_panels : context.ops.matmul_panels)(
        panels, chunk * step, std::min(output->weight.num_panels(), (chunk + 1) * step));
  });
}

}  // namespace

void matmul(Context& context, const MatmulArgs& args) {
  if (args.num_rows <= 0 || args.outputs.empty()) return;
  const PackedView& first = args.outputs[0].weight;
  INFERNEO_CHECK(!first.scheme.e4m3, "the CPU has no product with fp8 weights");
  for (size_t i = 0; i < args.outputs.size(); ++i) {
    INFERNEO_CHECK(args.outputs[i].weight.cols == first.cols, "weights of one product differ in their inputs");
    if (args.outputs[i].weight.dtype == first.dtype && args.outputs[i].weight.scheme == first.scheme) continue;
    MatmulArgs part = args;  // another format may need the input in another form
    part.outputs = args.outputs.first(i);
    matmul(context, part);
    part.outputs = args.outputs.subspan(i);
    matmul(context, part);
    return;
  }
  count_cost(context, args);
  const int64_t block = rows_per_block(context, first.cols);
  for (int64_t row = 0; row < args.num_rows; row += block) {
    multiply_block(context, args, row, std::min(block, args.num_rows - row));
  }
}

}  // namespace inferneo::kernels
