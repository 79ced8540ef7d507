// What a forward pass books is what it carves, whatever the groups of its layers are.
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

}  // namespace
}  // namespace inferneo::cuda::testing
