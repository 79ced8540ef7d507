// The threaded matrix product: rows are packed once, then chunks of panels go round the threads.
#include <algorithm>

#include "kernels/ops.h"

namespace inferneo::kernels {
namespace {

constexpr int64_t kRowBlock = 512;                 // rows packed at a time: what stays in the last-level cache
constexpr size_t kChunkBytes = size_t{256} << 10;  // a thread reads weights in pieces of at least this size
constexpr int64_t kSmallBatch = 16;

// Panels per chunk: large enough to stream, small enough that every thread gets its share.
int64_t chunk_panels(const MatmulArgs& args, int64_t rows, int64_t total_panels, int threads) {
  const size_t bytes = args.outputs[0].weight.panel_bytes();
  const int64_t streaming = std::max<int64_t>(1, static_cast<int64_t>(kChunkBytes / bytes));
  const int64_t wanted = rows <= kSmallBatch ? streaming : std::max<int64_t>(8, streaming);
  const int64_t fair = std::max<int64_t>(1, total_panels / (int64_t{4} * threads));
  return std::min(wanted, fair);
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
  const int64_t tiles = (rows + context.ops.matmul_row_tile - 1) / context.ops.matmul_row_tile;
  if (tiles == 1) {
    context.ops.matmul_pack(pack, 0, 1);
  } else {
    context.session.for_chunks(tiles, [&](int64_t tile, int) { context.ops.matmul_pack(pack, tile, tile + 1); });
  }

  int64_t total_panels = 0;
  for (const MatmulOutput& output : args.outputs) total_panels += output.weight.num_panels();
  const int64_t step = chunk_panels(args, rows, total_panels, context.session.num_threads());
  int64_t chunks = 0;
  for (const MatmulOutput& output : args.outputs) chunks += (output.weight.num_panels() + step - 1) / step;
  context.session.for_chunks(chunks, [&](int64_t chunk, int) {
    const MatmulOutput* output = args.outputs.data();
    while (chunk >= (output->weight.num_panels() + step - 1) / step) {
      chunk -= (output->weight.num_panels() + step - 1) / step;
      ++output;
    }
    MatmulPanelArgs panels{context.scratch.data(), rows, *output};
    panels.output.out += first_row * output->out_stride;
    context.ops.matmul_panels(panels, chunk * step, std::min(output->weight.num_panels(), (chunk + 1) * step));
  });
}

}  // namespace

void matmul(Context& context, const MatmulArgs& args) {
  if (args.num_rows <= 0 || args.outputs.empty()) return;
  const PackedView& first = args.outputs[0].weight;
  for (size_t i = 0; i < args.outputs.size(); ++i) {
    INFERNEO_CHECK(args.outputs[i].weight.cols == first.cols, "weights of one product differ in their inputs");
    if (args.outputs[i].weight.dtype == first.dtype) continue;
    MatmulArgs part = args;  // another element type needs the input in another form
    part.outputs = args.outputs.first(i);
    matmul(context, part);
    part.outputs = args.outputs.subspan(i);
    matmul(context, part);
    return;
  }
  const int64_t fits = static_cast<int64_t>(context.scratch.size()) / matmul_row_bytes(first.cols);
  INFERNEO_CHECK(fits >= 1, "scratch memory is smaller than one row");
  const int64_t block = std::min(kRowBlock, fits);
  for (int64_t row = 0; row < args.num_rows; row += block) {
    multiply_block(context, args, row, std::min(block, args.num_rows - row));
  }
}

}  // namespace inferneo::kernels
