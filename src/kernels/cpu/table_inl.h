// The table of a per-ISA file: its own versions, and the plain ones of what gains nothing from lanes.

SIMD_INLINE constexpr OpTable make_table(const char* name, size_t length, const QuantOps& quant) {
  return OpTable{
      .name = {name, length},
      .embed = reference::embed,
      .rms_norm = rms_norm,
      .layer_norm = layer_norm,
      .add = add_rows,
      .scale = scale_rows,
      .activation = activation,
      .rope_table = reference::rope_table,
      .rope = rope,
      .moe_route = reference::moe_route,
      .moe_combine = moe_combine,
      .logits_summary = logits_summary,
      .matmul_row_tile = kRowTile,
      .matmul_pack = matmul_pack,
      .matmul_panels = matmul_panels,
      .quant_pack = quant.pack,
      .quant_panels = quant.panels,
      .kv_write = kv_write,
      .attention = attention,
      .attention_merge = attention_merge,
  };
}
