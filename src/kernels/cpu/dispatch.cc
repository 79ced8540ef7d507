#include <fmt/format.h>

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/reference.h"
#include "kernels/op_table.h"

namespace inferneo::kernels {
namespace {

// GCC's cpu model asks XGETBV as well: a feature whose registers the system does not save is not reported.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx_vnni() { return has_avx2() && __builtin_cpu_supports("avxvnni"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }
bool has_avx512_bf16() { return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16"); }
bool always() { return true; }

// Best first; the last one always runs.
constexpr IsaEntry kIsas[] = {
    {"avx512_bf16", has_avx512_bf16, avx512_bf16_table},
    {"avx512_vnni", has_avx512_vnni, avx512_vnni_table},
    {"avx512", has_avx512, avx512_table},
    {"avx_vnni", has_avx_vnni, avx_vnni_table},
    {"avx2", has_avx2, avx2_table},
    {"reference", always, reference_table},
};

}  // namespace

const OpTable* reference_table() {
  static constexpr OpTable table{
      .name = "reference",
      .embed = reference::embed,
      .rms_norm = reference::rms_norm,
      .layer_norm = reference::layer_norm,
      .add = reference::add,
      .scale = reference::scale,
      .activation = reference::activation,
      .rope_table = reference::rope_table,
      .rope = reference::rope,
      .moe_route = reference::moe_route,
      .moe_combine = reference::moe_combine,
      .logits_summary = reference::logits_summary,
      .matmul_row_tile = reference::kRowTile,
      .matmul_pack = reference::matmul_pack,
      .matmul_panels = reference::matmul_panels,
      .quant_pack = reference::quant_pack,
      .quant_panels = reference::quant_panels,
      .kv_write = reference::kv_write,
      .attention = reference::attention,
      .attention_merge = reference::attention_merge,
  };
  return &table;
}

OpTable with_products(std::string_view name, OpTable table, const QuantOps& products) {
  table.name = name;
  table.quant_pack = products.pack;
  table.quant_panels = products.panels;
  return table;
}

// VNNI changes nothing but these.
const OpTable* avx512_vnni_table() {
  static const OpTable table = with_products("avx512_vnni", *avx512_table(), avx512_vnni::kQuantOps);
  return &table;
}
const OpTable* avx_vnni_table() {
  static const OpTable table = with_products("avx_vnni", *avx2_table(), avx_vnni::kQuantOps);
  return &table;
}

std::span<const IsaEntry> isa_entries() { return kIsas; }

Result<const OpTable*> select_op_table(std::string_view isa) {
  std::string runnable;
  for (const IsaEntry& entry : kIsas) {
    if (!entry.supported()) continue;
    if (isa == "auto" || isa == entry.name) return entry.table();
    runnable += fmt::format("{}{}", runnable.empty() ? "" : ", ", entry.name);
  }
  return make_error(ErrorCode::invalid_argument,
                    fmt::format("isa '{}' cannot run on this machine; it offers: auto, {}", isa, runnable), "isa");
}

}  // namespace inferneo::kernels
