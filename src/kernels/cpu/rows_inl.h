// Row-wise ops and elementary functions over the 16 lanes of simd_*.h. Included inside a per-ISA anonymous namespace.

constexpr float kMinusInfinity = -__builtin_inff();

// Relative error about 2e-7; exp(-inf) = 0, overflow gives inf or the largest float, NaN stays NaN.
SIMD_INLINE V exp(V x) {
  x = max(set1(-104.0F), x);
  const V n = round_nearest(mul(x, set1(1.44269504F)));
  V r = fma(n, set1(-0.693359375F), x);
  r = fma(n, set1(2.12194440e-4F), r);
  V p = set1(1.9875691500e-4F);
  p = fma(p, r, set1(1.3981999507e-3F));
  p = fma(p, r, set1(8.3334519073e-3F));
  p = fma(p, r, set1(4.1665795894e-2F));
  p = fma(p, r, set1(1.6666665459e-1F));
  p = fma(p, r, set1(5.0000001201e-1F));
  p = fma(mul(p, r), r, add(r, set1(1.0F)));
  return times_power_of_two(p, n);
}

// An odd polynomial near zero, 1 - 2 / (exp(2|x|) + 1) elsewhere.
SIMD_INLINE V tanh(V x) {
  const V z = mul(x, x);
  V p = set1(-5.70498872745e-3F);
  p = fma(p, z, set1(2.06390887954e-2F));
  p = fma(p, z, set1(-5.37397155531e-2F));
  p = fma(p, z, set1(1.33314422036e-1F));
  p = fma(p, z, set1(-3.33332819422e-1F));
  const V near = fma(mul(p, z), x, x);
  const V e = exp(mul(set1(2.0F), min(abs(x), set1(20.0F))));
  const V far = copy_sign(sub(set1(1.0F), div(set1(2.0F), add(e, set1(1.0F)))), x);
  return select_less(abs(x), set1(0.625F), near, far);
}

// Absolute error below 2e-7.
SIMD_INLINE V erf(V x) {
  const V a = abs(x);
  const V t = div(set1(1.0F), fma(a, set1(0.3275911F), set1(1.0F)));
  V p = set1(1.061405429F);
  p = fma(p, t, set1(-1.453152027F));
  p = fma(p, t, set1(1.421413741F));
  p = fma(p, t, set1(-0.284496736F));
  p = fma(p, t, set1(0.254829592F));
  const V tail = mul(mul(p, t), exp(sub(zero(), mul(a, a))));
  return copy_sign(sub(set1(1.0F), tail), x);
}

template <Activation kKind>
SIMD_INLINE V activate(V x) {
  if constexpr (kKind == Activation::silu) return div(x, add(set1(1.0F), exp(sub(zero(), x))));
  if constexpr (kKind == Activation::gelu_tanh) {
    const V cubic = fma(mul(mul(x, x), x), set1(0.044715F), x);
    return mul(mul(set1(0.5F), x), add(set1(1.0F), tanh(mul(set1(0.7978845608F), cubic))));
  }
  if constexpr (kKind == Activation::gelu_erf) {
    return mul(mul(set1(0.5F), x), add(set1(1.0F), erf(mul(x, set1(0.7071067812F)))));
  }
  return max(zero(), x);
}

template <Activation kKind>
void activate_rows(const ActivationArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* gate = args.gate + i * args.gate_stride;
    const float* up = args.up != nullptr ? args.up + i * args.up_stride : nullptr;
    float* out = args.out + i * args.out_stride;
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      V value = activate<kKind>(load_n(gate + c, n));
      if (up != nullptr) value = mul(value, load_n(up + c, n));
      store_n(out + c, value, n);
    }
  }
}

void activation(const ActivationArgs& args, int64_t begin, int64_t end) {
  switch (args.kind) {
    case Activation::silu:
      return activate_rows<Activation::silu>(args, begin, end);
    case Activation::gelu_tanh:
      return activate_rows<Activation::gelu_tanh>(args, begin, end);
    case Activation::gelu_erf:
      return activate_rows<Activation::gelu_erf>(args, begin, end);
    case Activation::relu:
      return activate_rows<Activation::relu>(args, begin, end);
  }
}

SIMD_INLINE V norm_weight(const NormArgs& args, int64_t c) {
  if (args.weight == nullptr) return set1(1.0F);
  return add(load_n(args.weight + c, args.dim - c), set1(args.weight_offset));
}

void rms_norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.x_stride;
    float* out = args.out + i * args.out_stride;
    V even_sum = zero();
    V odd_sum = zero();
    for (int64_t c = 0; c < args.dim; c += 32) {
      const V a = load_n(x + c, args.dim - c);
      even_sum = fma(a, a, even_sum);
      if (c + 16 < args.dim) {
        const V b = load_n(x + c + 16, args.dim - c - 16);
        odd_sum = fma(b, b, odd_sum);
      }
    }
    const float mean = reduce_add(add(even_sum, odd_sum)) / static_cast<float>(args.dim);
    const V inverse = set1(1.0F / __builtin_sqrtf(mean + args.eps));
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      store_n(out + c, mul(mul(load_n(x + c, n), inverse), norm_weight(args, c)), n);
    }
  }
}

void layer_norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.x_stride;
    float* out = args.out + i * args.out_stride;
    V sum = zero();
    for (int64_t c = 0; c < args.dim; c += 16) sum = add(sum, load_n(x + c, args.dim - c));
    const V mean = set1(reduce_add(sum) / static_cast<float>(args.dim));
    V squares = zero();
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      const V centred = keep_lanes(sub(load_n(x + c, n), mean), 0, n < 16 ? n : 16, zero());
      squares = fma(centred, centred, squares);
    }
    const float variance = reduce_add(squares) / static_cast<float>(args.dim);
    const V inverse = set1(1.0F / __builtin_sqrtf(variance + args.eps));
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      const V bias = args.bias != nullptr ? load_n(args.bias + c, n) : zero();
      const V normed = mul(sub(load_n(x + c, n), mean), inverse);
      store_n(out + c, add(mul(normed, norm_weight(args, c)), bias), n);
    }
  }
}

void add_rows(const AddArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.x_stride;
    float* out = args.out + i * args.out_stride;
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      store_n(out + c, add(load_n(out + c, n), mul(set1(args.scale), load_n(x + c, n))), n);
    }
  }
}

void scale_rows(const ScaleArgs& args, int64_t begin, int64_t end) {
  const V cap = set1(args.softcap);
  for (int64_t i = begin; i < end; ++i) {
    float* x = args.x + i * args.stride;
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      V value = mul(set1(args.scale), load_n(x + c, n));
      if (args.softcap > 0.0F) value = mul(cap, tanh(div(value, cap)));
      store_n(x + c, value, n);
    }
  }
}

void rope(const RopeArgs& args, int64_t begin, int64_t end) {
  if (args.interleaved) return reference::rope(args, begin, end);
  for (int64_t i = begin; i < end; ++i) {
    const float* cos_row = args.cos + i * args.half_dim;
    const float* sin_row = args.sin + i * args.half_dim;
    for (int64_t c = 0; c < args.half_dim; c += 16) {
      const int64_t n = args.half_dim - c;
      const V cos = load_n(cos_row + c, n);
      const V sin = load_n(sin_row + c, n);
      for (int64_t h = 0; h < args.num_heads; ++h) {
        float* low = args.x + i * args.stride + h * args.head_dim + c;
        float* high = low + args.half_dim;
        const V a = load_n(low, n);
        const V b = load_n(high, n);
        store_n(low, sub(mul(a, cos), mul(b, sin)), n);
        store_n(high, add(mul(b, cos), mul(a, sin)), n);
      }
    }
  }
}

void moe_combine(const MoeCombineArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    float* out = args.out + i * args.out_stride;
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      V sum = zero();
      for (int64_t j = 0; j < args.top_k; ++j) {
        const float* y = args.y + args.slots[i * args.top_k + j] * args.y_stride + c;
        sum = fma(set1(args.weights[i * args.top_k + j]), load_n(y, n), sum);
      }
      sum = mul(set1(args.scale), sum);
      store_n(out + c, args.accumulate ? add(load_n(out + c, n), sum) : sum, n);
    }
  }
}

// The first index that holds `value`.
SIMD_INLINE int32_t find_first(const float* x, int64_t dim, float value) {
  for (int64_t c = 0; c < dim; c += 16) {
    const int64_t n = dim - c < 16 ? dim - c : 16;
    const unsigned hits = equal_mask(load_n(x + c, n), set1(value)) & ((1U << n) - 1U);
    if (hits != 0) return static_cast<int32_t>(c) + __builtin_ctz(hits);
  }
  return -1;
}

void logits_summary(const LogitsSummaryArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.logits + i * args.stride;
    V largest = set1(kMinusInfinity);
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      // max() gives its second operand where the first is NaN, so NaN never wins.
      largest = max(keep_lanes(load_n(x + c, n), 0, n < 16 ? n : 16, set1(kMinusInfinity)), largest);
    }
    const float row_max = reduce_max(largest);
    const int32_t best = find_first(x, args.dim, row_max);
    if (args.argmax != nullptr) args.argmax[i] = best;
    if (args.max != nullptr) args.max[i] = best < 0 ? __builtin_nanf("") : row_max;
    if (args.log_sum_exp == nullptr) continue;
    V sum = zero();
    for (int64_t c = 0; c < args.dim; c += 16) {
      const int64_t n = args.dim - c;
      const V e = exp(sub(load_n(x + c, n), set1(row_max)));
      sum = add(sum, keep_lanes(e, 0, n < 16 ? n : 16, zero()));
    }
    args.log_sum_exp[i] = row_max + __builtin_logf(reduce_add(sum));
  }
}
