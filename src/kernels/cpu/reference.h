// The plain version of every op: baseline x86-64, no intrinsics. Other tables take over from it what they lack.
#pragma once

#include "kernels/op_table.h"

namespace inferneo::kernels::reference {

void embed(const EmbedArgs& args, int64_t begin, int64_t end);
void rms_norm(const NormArgs& args, int64_t begin, int64_t end);
void layer_norm(const NormArgs& args, int64_t begin, int64_t end);
void add(const AddArgs& args, int64_t begin, int64_t end);
void scale(const ScaleArgs& args, int64_t begin, int64_t end);
void activation(const ActivationArgs& args, int64_t begin, int64_t end);
void rope_table(const RopeTableArgs& args, int64_t begin, int64_t end);
void rope(const RopeArgs& args, int64_t begin, int64_t end);
void moe_route(const MoeRouteArgs& args, int64_t begin, int64_t end);
void moe_combine(const MoeCombineArgs& args, int64_t begin, int64_t end);
void logits_summary(const LogitsSummaryArgs& args, int64_t begin, int64_t end);

inline constexpr int64_t kRowTile = 8;
void matmul_pack(const MatmulPackArgs& args, int64_t begin, int64_t end);
void matmul_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end);
void quant_pack(const MatmulPackArgs& args, int64_t begin, int64_t end);
void quant_panels(const MatmulPanelArgs& args, int64_t begin, int64_t end);

void kv_write(const KvWriteArgs& args, const SequenceRows& rows, int32_t kv_head);
void attention(const AttentionArgs& args, const AttentionItem& item, float* scratch);
void attention_merge(const AttentionArgs& args, const AttentionItem& item, float* scratch);

}  // namespace inferneo::kernels::reference
