#include "models/decoder_spec.h"

#include <array>

namespace inferneo {
namespace {

constexpr std::array kRoleNames = {
    "token_embedding",
    "position_embedding",
    "final_norm",
    "final_norm_bias",
    "lm_head",
    "attention_pre_norm",
    "attention_pre_norm_bias",
    "attention_post_norm",
    "ffn_pre_norm",
    "ffn_pre_norm_bias",
    "ffn_post_norm",
    "q",
    "q_bias",
    "k",
    "k_bias",
    "v",
    "v_bias",
    "q_norm",
    "k_norm",
    "attention_output",
    "attention_output_bias",
    "router",
    "gate",
    "gate_bias",
    "up",
    "up_bias",
    "down",
    "down_bias",
};
static_assert(kRoleNames.size() == kNumTensorRoles);

}  // namespace

const char* tensor_role_name(TensorRole role) { return kRoleNames[static_cast<size_t>(role)]; }

}  // namespace inferneo
