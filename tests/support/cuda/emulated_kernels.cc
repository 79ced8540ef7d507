#include "support/cuda/emulated_kernels.h"

#include <array>

#include "support/cuda/simt.h"
// In this order: the bodies are written in what simt.h offers.
#include "kernels/cuda/attention.cuh"
#include "kernels/cuda/attention_plain.cuh"
#include "kernels/cuda/gemm.cuh"
#include "kernels/cuda/quant.cuh"
#include "kernels/cuda/row_ops.cuh"
#include "kernels/cuda/sampling.cuh"

namespace inferneo::simt {
namespace {

template <typename Args, void (*kKernel)(const Args&)>
void run_kernel(const Grid& grid, const void* args) {
  Args copy;
  std::memcpy(&copy, args, sizeof(copy));
  run_grid(grid, [&copy] { kKernel(copy); });
}

#define KERNEL(name, Args, threads) \
  EmulatedKernel { #name, sizeof(cuda::Args), threads, &run_kernel < cuda::Args, &cuda::name> }

const std::array kKernels = {
    KERNEL(inferneo_embed, EmbedArgs, 256),
    KERNEL(inferneo_norm, NormArgs, 256),
    KERNEL(inferneo_activation, ActivationArgs, 256),
    KERNEL(inferneo_convert, ConvertArgs, 256),
    KERNEL(inferneo_bias, BiasArgs, 256),
    KERNEL(inferneo_softcap, SoftcapArgs, 256),
    KERNEL(inferneo_rope_table, RopeTableArgs, 64),
    KERNEL(inferneo_qkv_post, QkvArgs, 128),
    KERNEL(inferneo_copy, CopyArgs, 512),
    KERNEL(inferneo_fill, FillArgs, 256),
    KERNEL(inferneo_gemm_small, MatmulArgs, 128),
    KERNEL(inferneo_gemm_middle, MatmulArgs, 128),
    KERNEL(inferneo_gemm_large, MatmulArgs, 256),
    KERNEL(inferneo_gemm_plain, MatmulArgs, 256),
    KERNEL(inferneo_gemv_bf16_1, GemvArgs, 256),
    KERNEL(inferneo_gemv_bf16_2, GemvArgs, 256),
    KERNEL(inferneo_gemv_bf16_4, GemvArgs, 256),
    KERNEL(inferneo_gemv_f32, GemvArgs, 256),
    KERNEL(inferneo_gemv_f16, GemvArgs, 256),
    KERNEL(inferneo_gemv_i8_1, GemvArgs, 256),
    KERNEL(inferneo_gemv_i8_8, GemvArgs, 256),
    KERNEL(inferneo_gemv_i8_16, GemvArgs, 256),
    KERNEL(inferneo_gemv_i4_1, GemvArgs, 256),
    KERNEL(inferneo_gemv_i4_8, GemvArgs, 256),
    KERNEL(inferneo_gemv_i4_16, GemvArgs, 256),
    KERNEL(inferneo_gemv_e4m3_1, GemvArgs, 256),
    KERNEL(inferneo_gemv_e4m3_8, GemvArgs, 256),
    KERNEL(inferneo_gemv_e4m3_16, GemvArgs, 256),
    KERNEL(inferneo_gemm_i8_small, MatmulArgs, 64),
    KERNEL(inferneo_gemm_i8_middle, MatmulArgs, 128),
    KERNEL(inferneo_gemm_i8_large, MatmulArgs, 256),
    KERNEL(inferneo_gemm_i4_small, MatmulArgs, 64),
    KERNEL(inferneo_gemm_i4_middle, MatmulArgs, 128),
    KERNEL(inferneo_gemm_i4_large, MatmulArgs, 256),
    KERNEL(inferneo_gemm_e4m3_small, MatmulArgs, 64),
    KERNEL(inferneo_gemm_e4m3_middle, MatmulArgs, 128),
    KERNEL(inferneo_gemm_e4m3_large, MatmulArgs, 256),
    KERNEL(inferneo_moe_route, MoeRouteArgs, 128),
    KERNEL(inferneo_moe_group, MoeGroupArgs, 256),
    KERNEL(inferneo_moe_combine, MoeCombineArgs, 256),
    KERNEL(inferneo_attention_decode_64, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_128, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_256, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_64, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_128, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_256, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_64_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_128_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_256_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_64_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_128_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_256_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_64_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_128_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_attention_decode_256_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_64_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_128_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_attention_prefill_256_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_attention_plain_f32, AttentionArgs, 128),
    KERNEL(inferneo_attention_plain_f16, AttentionArgs, 128),
    KERNEL(inferneo_attention_plain_bf16, AttentionArgs, 128),
    KERNEL(inferneo_attention_plain_i8, AttentionArgs, 128),
    KERNEL(inferneo_attention_plain_e4m3, AttentionArgs, 128),
    KERNEL(inferneo_row_scan, SampleArgs, 256),
    KERNEL(inferneo_top_logprobs, SampleArgs, 512),
    KERNEL(inferneo_process, SampleArgs, 256),
    KERNEL(inferneo_choose, SampleArgs, 512),
};
#undef KERNEL

}  // namespace

std::span<const EmulatedKernel> emulated_kernels() { return kKernels; }

}  // namespace inferneo::simt
