// What a forward pass books is what it carves, whatever the groups of its layers are; and the random weights that
// measurements use are weights.
#include <cmath>
#include <cstring>

#include "kernels/cuda/quant_repack.h"
#include "models/cuda/device_forward.h"
#include "support/cuda/test_device.h"

namespace inferneo::cuda::testing {
namespace {

class Workspace : public DeviceTest {
 protected:
  static LayerSpec layer(int32_t heads, int32_t kv_heads, int32_t head_dim, int32_t window) {
    LayerSpec layer;
    layer.attention.num_heads = heads;
    layer.attention.num_kv_heads = kv_heads;
    layer.attention.head_dim = head_dim;
    layer.attention.window = window;
    layer.ffn.intermediate = 64;
    return layer;
  }
};

// Many narrow heads in one group, one wide head in the other: both write partial results of the widest stride.
TEST_F(Workspace, HoldsGroupsOfUnlikeHeads) {
  DecoderSpec spec;
  spec.vocab_size = 100;
  spec.hidden_size = 64;
  spec.layers = {layer(8, 8, 64, 0), layer(2, 1, 256, 32)};
  auto kv = plan_device_kv(spec, DType::bf16, 16, 512, device_->facts(), false);
  ASSERT_TRUE(kv.ok()) << kv.error().message;
  ASSERT_EQ(kv->groups.size(), 2U);
  const DeviceWeights none;
  DeviceForward forward(spec, none, *kv, 512);
  const size_t counted = forward.workspace_bytes(40, 8, 8);
  const Status allocated = forward.allocate(device_, ledger_, "m", stream_.get(), 40, 8, 8);
  ASSERT_TRUE(allocated.ok()) << allocated.error().message;
  EXPECT_EQ(forward.workspace_bytes(40, 8, 8), counted);
  EXPECT_LE(ledger_.used() - counted, size_t{2} << 20);
  const auto most = attention_limits(kv->groups[0].shape, 8, 40).decode_items;
  EXPECT_GE(counted, static_cast<size_t>(most) * kDecodeRows * (256 + 2) * sizeof(float));
}

// Random quantised weights: whole panels of finite values of the range that keeps a vector's size, several unlike ones,
// repeated to the last.
TEST_F(Workspace, RandomQuantisedWeightsFillTheirPanels) {
  constexpr int64_t kRows = 180;
  constexpr int64_t kCols = 160;
  DecoderSpec spec;
  spec.layers = {layer(2, 1, 64, 0)};
  spec.tensors.push_back({TensorRole::attention_output, 0, -1, "o", kRows, kCols, kRows, 0, false});
  for (const auto& [quantization, elem] :
       {std::pair(Quantization::int8, Elem::i8), {Quantization::int4, Elem::i4}, {Quantization::fp8, Elem::e4m3}}) {
    MemoryLedger host(size_t{1} << 30);
    const DeviceLoad load{device_, &ledger_, &host, "m", 1, {}};
    const auto weights = random_device_weights(spec, DType::bf16, quantization, load);
    ASSERT_TRUE(weights.ok()) << weights.error().message;
    const DeviceMatrix& matrix = weights->layers[0].matrix(TensorRole::attention_output);
    ASSERT_EQ(matrix.elem, elem);
    const QuantPanels layout{kCols, matrix.elem};
    std::vector<std::byte> bytes(static_cast<size_t>(QuantPanels::count(kRows) * layout.panel_bytes()));
    ASSERT_EQ(device_->driver().copy_to_host(bytes.data(), reinterpret_cast<CuPointer>(matrix.data), bytes.size(),
                                             stream_.get()),
              0);
    finish();
    const double range = 1.7 / std::sqrt(static_cast<double>(kCols));
    double squares = 0.0;
    for (int64_t r = 0; r < QuantPanels::count(kRows) * kQuantPanel; ++r) {
      for (int64_t c = 0; c < kCols; ++c) {
        const auto value_of = [&](int64_t row) {
          return panel_value(layout, bytes.data() + row / kQuantPanel * layout.panel_bytes(), row % kQuantPanel, c);
        };
        const double value = value_of(r);
        ASSERT_LE(std::abs(value), 1.1 * range) << r << ", " << c;
        squares += value * value / static_cast<double>(QuantPanels::count(kRows) * kQuantPanel * kCols);
        ASSERT_EQ(value, value_of(r % (4 * kQuantPanel)));
      }
    }
    EXPECT_NEAR(std::sqrt(squares), range / std::sqrt(3.0), 0.05 * range);  // of a uniform distribution
    EXPECT_NE(std::memcmp(bytes.data(), bytes.data() + layout.panel_bytes(), 64), 0);
  }
}

}  // namespace
}  // namespace inferneo::cuda::testing
