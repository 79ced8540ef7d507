// The tables of the per-ISA files; dispatch.cc decides which may be used.
#pragma once

#include "kernels/op_table.h"

namespace inferneo::kernels {

const OpTable* avx512_bf16_table();
const OpTable* avx512_vnni_table();
const OpTable* avx512_table();
const OpTable* avx_vnni_table();
const OpTable* avx2_table();

// Products with quantised weights: files of their own where tables of several instruction sets share them.
struct QuantOps {
  RangeOp<MatmulPackArgs> pack;
  RangeOp<MatmulPanelArgs> panels;
};
// `table` under another name and with other products.
OpTable with_products(std::string_view name, OpTable table, const QuantOps& products);

namespace avx2 {
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end);
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end);
constexpr QuantOps kQuantOps{quant_pack, quant_panels};
}  // namespace avx2
namespace avx_vnni {
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end);
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end);
constexpr QuantOps kQuantOps{quant_pack, quant_panels};
}  // namespace avx_vnni
namespace avx512_vnni {
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end);
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end);
constexpr QuantOps kQuantOps{quant_pack, quant_panels};
}  // namespace avx512_vnni

}  // namespace inferneo::kernels
