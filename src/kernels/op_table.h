// The ops that an instruction set offers, as one table of plain function pointers, and the choice between tables.
//
// Every function works on a range of rows (or panels) on the calling thread; ops.h hands ranges to the thread pool. No
// pointer is ever null: a table takes over the next plainer version of what it does not do better. Functions neither
// allocate nor fail; arguments out of range are bugs of the caller.
//
// Batch invariance: in every op a row's result depends on that row's inputs only, bit for bit, never on the number of
// rows, the range, the position in a tile or the thread. It is what makes `deterministic: true` free: each output of
// the matrix product is summed along K in one order in a lane of its own. The cost is that K is never split between
// threads (a product with fewer than 16 * threads outputs leaves threads idle) and that attention rounds its merges at
// fixed splits. Between instruction sets results differ by rounding.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "kernels/attention_args.h"
#include "kernels/matmul_args.h"
#include "kernels/op_args.h"

namespace inferneo::kernels {

template <typename Args>
using RangeOp = void (*)(const Args& args, int64_t begin, int64_t end);

struct OpTable {
  std::string_view name;  // "avx512_bf16", "avx512_vnni", "avx512", "avx_vnni", "avx2", "reference"

  RangeOp<EmbedArgs> embed;
  RangeOp<NormArgs> rms_norm;
  RangeOp<NormArgs> layer_norm;
  RangeOp<AddArgs> add;
  RangeOp<ScaleArgs> scale;
  RangeOp<ActivationArgs> activation;
  RangeOp<RopeTableArgs> rope_table;
  RangeOp<RopeArgs> rope;
  RangeOp<MoeRouteArgs> moe_route;
  RangeOp<MoeCombineArgs> moe_combine;
  RangeOp<LogitsSummaryArgs> logits_summary;

  int64_t matmul_row_tile;
  RangeOp<MatmulPackArgs> matmul_pack;     // range of row tiles
  RangeOp<MatmulPanelArgs> matmul_panels;  // range of weight panels, all rows
  // The same for quantised weights; rows are packed as quant_row_bytes() says.
  RangeOp<MatmulPackArgs> quant_pack;     // range of rows
  RangeOp<MatmulPanelArgs> quant_panels;  // range of weight panels, all rows

  void (*kv_write)(const KvWriteArgs& args, const SequenceRows& rows, int32_t kv_head);
  // scratch: attention_item_scratch() floats, 64-byte aligned.
  void (*attention)(const AttentionArgs& args, const AttentionItem& item, float* scratch);
  // Merges the partials of an item (all its splits) in ascending order into out.
  void (*attention_merge)(const AttentionArgs& args, const AttentionItem& item, float* scratch);
};

struct IsaEntry {
  std::string_view name;
  bool (*supported)();  // CPUID, and the system saves the registers
  const OpTable* (*table)();
};
std::span<const IsaEntry> isa_entries();  // best first; "reference" is last and always supported

// The best table of this machine, or the named one. invalid_argument (param "isa") for a name that is not there or that
// this machine cannot run; the message lists what it can.
Result<const OpTable*> select_op_table(std::string_view isa = "auto");

const OpTable* reference_table();

}  // namespace inferneo::kernels
