#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/cpu/reference.h"

namespace inferneo::kernels::reference {
namespace {

float activate(Activation kind, float x) {
  switch (kind) {
    case Activation::silu:
      return x / (1.0F + std::exp(-x));
    case Activation::gelu_tanh:
      return 0.5F * x * (1.0F + std::tanh(0.7978845608028654F * (x + 0.044715F * x * x * x)));
    case Activation::gelu_erf:
      return 0.5F * x * (1.0F + std::erf(x * 0.7071067811865476F));
    case Activation::relu:
      return x > 0.0F ? x : 0.0F;
  }
  return x;
}

}  // namespace

void embed(const EmbedArgs& args, int64_t begin, int64_t end) {
  constexpr int64_t kPiece = 256;
  std::array<float, kPiece> values{};
  for (int64_t i = begin; i < end; ++i) {
    float* out = args.out + i * args.out_stride;
    for (int64_t c0 = 0; c0 < args.table.cols; c0 += kPiece) {
      const int64_t c1 = std::min(args.table.cols, c0 + kPiece);
      unpack(args.table, args.tokens[i], c0, c1, values.data());
      for (int64_t c = c0; c < c1; ++c) {
        const float value = args.scale * values[static_cast<size_t>(c - c0)];
        out[c] = args.accumulate ? out[c] + value : value;
      }
    }
  }
}

void rms_norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.x_stride;
    float* out = args.out + i * args.out_stride;
    double sum = 0.0;
    for (int64_t c = 0; c < args.dim; ++c) sum += static_cast<double>(x[c]) * x[c];
    const float inverse = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(args.dim) + args.eps));
    for (int64_t c = 0; c < args.dim; ++c) {
      const float weight = args.weight != nullptr ? args.weight[c] + args.weight_offset : 1.0F;
      out[c] = x[c] * inverse * weight;
    }
  }
}

void layer_norm(const NormArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.x_stride;
    float* out = args.out + i * args.out_stride;
    double sum = 0.0;
    for (int64_t c = 0; c < args.dim; ++c) sum += x[c];
    const double mean = sum / static_cast<double>(args.dim);
    double squares = 0.0;
    for (int64_t c = 0; c < args.dim; ++c) squares += (x[c] - mean) * (x[c] - mean);
    const double inverse = 1.0 / std::sqrt(squares / static_cast<double>(args.dim) + args.eps);
    for (int64_t c = 0; c < args.dim; ++c) {
      const float weight = args.weight != nullptr ? args.weight[c] + args.weight_offset : 1.0F;
      const float bias = args.bias != nullptr ? args.bias[c] : 0.0F;
      out[c] = static_cast<float>((x[c] - mean) * inverse) * weight + bias;
    }
  }
}

void add(const AddArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* x = args.x + i * args.x_stride;
    float* out = args.out + i * args.out_stride;
    for (int64_t c = 0; c < args.dim; ++c) out[c] += args.scale * x[c];
  }
}

void scale(const ScaleArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    float* x = args.x + i * args.stride;
    for (int64_t c = 0; c < args.dim; ++c) {
      const float value = args.scale * x[c];
      x[c] = args.softcap > 0.0F ? args.softcap * std::tanh(value / args.softcap) : value;
    }
  }
}

void activation(const ActivationArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* gate = args.gate + i * args.gate_stride;
    const float* up = args.up != nullptr ? args.up + i * args.up_stride : nullptr;
    float* out = args.out + i * args.out_stride;
    for (int64_t c = 0; c < args.dim; ++c) {
      const float value = activate(args.kind, gate[c]);
      out[c] = up != nullptr ? value * up[c] : value;
    }
  }
}

void rope_table(const RopeTableArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t c = 0; c < args.half_dim; ++c) {
      const float angle = static_cast<float>(args.positions[i]) * args.inv_freq[c];
      args.cos[i * args.half_dim + c] = std::cos(angle) * args.attention_scaling;
      args.sin[i * args.half_dim + c] = std::sin(angle) * args.attention_scaling;
    }
  }
}

void rope(const RopeArgs& args, int64_t begin, int64_t end) {
  const int64_t step = args.interleaved ? 2 : 1;
  const int64_t partner = args.interleaved ? 1 : args.half_dim;
  for (int64_t i = begin; i < end; ++i) {
    const float* cos = args.cos + i * args.half_dim;
    const float* sin = args.sin + i * args.half_dim;
    for (int64_t h = 0; h < args.num_heads; ++h) {
      float* x = args.x + i * args.stride + h * args.head_dim;
      for (int64_t c = 0; c < args.half_dim; ++c) {
        const float a = x[c * step];
        const float b = x[c * step + partner];
        x[c * step] = a * cos[c] - b * sin[c];
        x[c * step + partner] = b * cos[c] + a * sin[c];
      }
    }
  }
}

void moe_route(const MoeRouteArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* logits = args.logits + i * args.stride;
    int32_t* ids = args.ids + i * args.top_k;
    float* weights = args.weights + i * args.top_k;
    const float largest = *std::max_element(logits, logits + args.num_experts);
    float sum = 0.0F;
    for (int32_t e = 0; e < args.num_experts; ++e) sum += std::exp(logits[e] - largest);
    float chosen = 0.0F;
    for (int32_t j = 0; j < args.top_k; ++j) {
      int32_t best = -1;
      for (int32_t e = 0; e < args.num_experts; ++e) {
        if (std::find(ids, ids + j, e) != ids + j) continue;
        if (best < 0 || logits[e] > logits[best]) best = e;
      }
      ids[j] = best;
      weights[j] = std::exp(logits[best] - largest) / sum;
      chosen += weights[j];
    }
    if (args.renormalize) {
      for (int32_t j = 0; j < args.top_k; ++j) weights[j] /= chosen;
    }
  }
}

void moe_combine(const MoeCombineArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    float* out = args.out + i * args.out_stride;
    for (int64_t c = 0; c < args.dim; ++c) {
      float sum = 0.0F;
      for (int32_t j = 0; j < args.top_k; ++j) {
        const int64_t slot = args.slots[i * args.top_k + j];
        sum += args.weights[i * args.top_k + j] * args.y[slot * args.y_stride + c];
      }
      out[c] = (args.accumulate ? out[c] : 0.0F) + args.scale * sum;
    }
  }
}

void logits_summary(const LogitsSummaryArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const float* logits = args.logits + i * args.stride;
    int32_t best = -1;
    for (int64_t c = 0; c < args.dim; ++c) {
      if (!std::isnan(logits[c]) && (best < 0 || logits[c] > logits[best])) best = static_cast<int32_t>(c);
    }
    const float largest = best < 0 ? std::numeric_limits<float>::quiet_NaN() : logits[best];
    if (args.argmax != nullptr) args.argmax[i] = best;
    if (args.max != nullptr) args.max[i] = largest;
    if (args.log_sum_exp != nullptr) {
      double sum = 0.0;
      for (int64_t c = 0; c < args.dim; ++c) sum += static_cast<double>(std::exp(logits[c] - largest));
      args.log_sum_exp[i] = static_cast<float>(largest + std::log(sum));
    }
  }
}

}  // namespace inferneo::kernels::reference
