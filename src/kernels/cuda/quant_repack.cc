#include "kernels/cuda/quant_repack.h"

#include <array>
#include <cstring>

#include "kernels/quantize.h"

namespace inferneo::cuda {
namespace {

using kernels::PackedView;

template <typename T>
T read(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

void put_codes(const QuantPanels& layout, int64_t channel, int64_t first_input, std::span<const int8_t> q,
               std::byte* out) {
  for (size_t i = 0; i < q.size(); ++i) {
    const int64_t input = first_input + static_cast<int64_t>(i);
    std::byte& to = out[layout.code_at(channel, input)];
    const auto byte = static_cast<std::byte>(q[i]);
    if (is_byte(layout.elem)) {
      to = byte;
    } else {
      to |= layout.in_low_nibble(input) ? byte : byte << 4;
    }
  }
}

}  // namespace

Elem elem_of(const WeightFormat& format) {
  if (format.scheme.e4m3) return Elem::e4m3;
  if (format.scheme.quantized()) return format.scheme.bits == 8 ? Elem::i8 : Elem::i4;
  if (format.dtype == DType::bf16) return Elem::bf16;
  return format.dtype == DType::f16 ? Elem::f16 : Elem::f32;
}

void repack_panel(const PackedView& view, int64_t panel, std::byte* out) {
  repack_panel(view, panel, {0, view.cols}, out);
}

void repack_panel(const PackedView& view, int64_t panel, InputRange inputs, std::byte* out) {
  WeightFormat format(view.dtype);
  format.scheme = view.scheme;
  const QuantPanels layout{inputs.count, elem_of(format)};
  std::memset(out, 0, static_cast<size_t>(layout.panel_bytes()));
  // The host's panel keeps 16 channels' scales, units and ratios side by side.
  const std::byte* from = view.panel(panel);
  constexpr size_t kUnits = kernels::kPanelRows * sizeof(uint16_t);
  std::memcpy(out + layout.units_at(), from + view.units_at(), kUnits * (layout.elem == Elem::i4 ? 2 : 1));
  std::array<int8_t, kernels::kQuantGroup> q{};
  const int64_t first_group = inputs.begin / kernels::kQuantGroup;
  for (int64_t input = 0; input < inputs.count; input += kernels::kQuantGroup) {
    const int64_t group = first_group + input / kernels::kQuantGroup;
    const std::byte* scales = from + view.scales_at() + static_cast<size_t>(group) * kernels::kGroupScaleBytes;
    for (int64_t channel = 0; channel < kQuantPanel; ++channel) {
      kernels::group_codes(view, panel * kQuantPanel + channel, group, q.data());
      put_codes(layout, channel, input, q, out);
      if (!has_group_scales(layout.elem)) continue;
      std::byte* to = out + layout.scale_at(channel, input);
      if (layout.elem == Elem::i8) {
        std::memcpy(to, scales + channel * 2, 2);
      } else {
        to[0] = scales[channel];
        to[1] = scales[kQuantPanel + channel];
      }
    }
  }
}

float panel_value(const QuantPanels& layout, const std::byte* panel, int64_t channel, int64_t input) {
  const float unit = bf16_to_f32(read<uint16_t>(panel + layout.units_at() + channel * 2));
  const std::byte code = panel[layout.code_at(channel, input)];
  if (layout.elem == Elem::e4m3) return unit * e4m3_to_f32(static_cast<uint8_t>(code));
  const std::byte* scale = panel + layout.scale_at(channel, input);
  if (layout.elem == Elem::i8) {
    return unit * (f16_to_f32(read<uint16_t>(scale)) * static_cast<float>(static_cast<int8_t>(code)) - 0.0F);
  }
  const std::byte q = layout.in_low_nibble(input) ? code & std::byte{0x0f} : code >> 4;
  const float minimum =
      static_cast<float>(scale[1]) * bf16_to_f32(read<uint16_t>(panel + layout.ratios_at() + channel * 2));
  return unit * (static_cast<float>(scale[0]) * static_cast<float>(q) - minimum);
}

}  // namespace inferneo::cuda
