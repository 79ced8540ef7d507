// What the products with quantised weights of all instruction sets share. Included inside a per-ISA file's anonymous
// namespace, after simd_*.h and before quant_*_inl.h, which defines the functions declared here.

struct QuantPanel {
  const std::byte* lines;
  const std::byte* scales;
  const uint16_t* units;  // bf16
  int64_t groups;
};

// Consecutive rows of inputs, at one group.
struct QuantRows {
  const std::byte* q;  // the first row's integers
  const std::byte* a;  // its scale; at the same place in the next two arrays of `groups` words: a * sum, and the start
  int64_t row_bytes;   // from row to row
  int64_t groups;
};

SIMD_INLINE QuantPanel quant_panel(const PackedView& weight, int64_t index) {
  const std::byte* panel = weight.panel(index);
  return {panel, panel + weight.scales_at(), reinterpret_cast<const uint16_t*>(panel + weight.units_at()),
          weight.num_groups()};
}

// Fetches what group `ahead` of N panels needs: of these panels or, past their end, of those `next` bytes behind them.
template <bool Int4, int N>
SIMD_INLINE void fetch_group(const QuantPanel (&panels)[N], int64_t ahead, int64_t next) {
  constexpr int64_t kGroupBytes = kQuantGroup * kPanelRows / (Int4 ? 2 : 1);
  const bool past = ahead >= panels[0].groups;
  const int64_t g = past ? ahead - panels[0].groups : ahead;
  const int64_t skip = past ? next : 0;
#pragma GCC unroll 2
  for (int n = 0; n < N; ++n) {
    const std::byte* lines = panels[n].lines + skip + g * kGroupBytes;
#pragma GCC unroll 8
    for (int64_t i = 0; i < kGroupBytes; i += 64) prefetch(lines + i);
    prefetch(panels[n].scales + skip + g * static_cast<int64_t>(kGroupScaleBytes));
  }
}

SIMD_INLINE void write_quant_row(const MatmulOutput& output, int64_t row, int64_t panel, V sum) {
  const int64_t channel = panel * kPanelRows;
  const int64_t count = output.weight.rows - channel;
  const V bias = output.bias != nullptr ? load_n(output.bias + channel, count) : zero();
  const V value = mul(set1(output.scale), add(sum, bias));
  float* out = output.out + row * output.out_stride + channel;
  store_n(out, output.accumulate ? add(load_n(out, count), value) : value, count);
}

// The bits of the largest magnitude. They are compared as integers, in whose order NaN is above infinity.
SIMD_INLINE int32_t largest_bits(V low, V high);
// Stores 32 values times `factor`, rounded to nearest even, as bytes; their sum.
SIMD_INLINE int32_t store_integers(V low, V high, float factor, std::byte* q);

// Inputs [0, count) of a group, as reference_quant.cc's pack_group().
SIMD_INLINE void quantize_inputs(const float* x, int64_t count, std::byte* q, float* a, float* a_sum, int32_t* start) {
  const V low = load_n(x, count);
  const V high = count > 16 ? load_n(x + 16, count - 16) : zero();
  const int32_t magnitude_bits = largest_bits(low, high);
  float magnitude = 0.0F;
  __builtin_memcpy(&magnitude, &magnitude_bits, sizeof(magnitude));
  if (magnitude_bits >= 0x7f800000 || magnitude < 0x1p-100F) {
    const float scale = magnitude_bits >= 0x7f800000 ? __builtin_nanf("") : 0.0F;
    __builtin_memset(q, 0, kQuantGroup);
    *a = scale;
    *a_sum = scale;
    *start = 0;
    return;
  }
  const int32_t sum = store_integers(low, high, 127.0F / magnitude, q);
  *a = magnitude / 127.0F;
  *a_sum = *a * static_cast<float>(sum);
  *start = kInt8Offset * -sum;
}

void pack_quantized(const MatmulPackArgs& args, int64_t begin, int64_t end) {
  const int64_t groups = (args.cols + kQuantGroup - 1) / kQuantGroup;
  for (int64_t row = begin; row < end; ++row) {
    const float* x = args.x + (args.row_index != nullptr ? args.row_index[row] : row) * args.x_stride;
    std::byte* packed = args.packed + row * quant_row_bytes(args.cols);
    float* a = reinterpret_cast<float*>(packed + groups * kQuantGroup);
    float* a_sum = a + groups;
    int32_t* start = reinterpret_cast<int32_t*>(a_sum + groups);
    for (int64_t g = 0; g < groups; ++g) {
      const int64_t first = g * kQuantGroup;
      quantize_inputs(x + first, args.cols - first, packed + first, a + g, a_sum + g, start + g);
    }
  }
}
