#include <fmt/format.h>

#include "kernels/cpu/reference.h"
#include "kernels/op_table.h"

namespace inferneo::kernels {
namespace {

bool always() { return true; }

// Best first; the last one always runs.
constexpr IsaEntry kIsas[] = {
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
      .kv_write = reference::kv_write,
      .attention = reference::attention,
      .attention_merge = reference::attention_merge,
  };
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
