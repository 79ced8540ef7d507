#!/usr/bin/env python3
"""Makes tests/golden/models: a tiny random model per architecture and option, with what transformers computes for it.

Each row of ROWS becomes a plain Hugging Face directory (config.json, model.safetensors, sometimes generation_config.json)
plus expected.safetensors:
    prompt          i32 [num_tokens]
    logits          f32 [num_tokens, vocab]   logits at every prompt position
    greedy_tokens   i32 [num_greedy]          greedy continuation, each token fed back through the cache
    greedy_margins  f32 [num_greedy]          best minus second-best logit at each of those steps
    rounded_error   f32 [1]                   bf16 and f16 rows: the largest error of logits, relative to their range, that
                                              transformers itself makes when it computes in that type

The reference is always computed in f32. Rows in bf16 or f16 round the weights first, so the reference is the exact model
and the whole difference is the runner's. `matters` lists config values that are changed one by one: the script fails when a
change leaves the logits alone, so no option is in a config without being felt.

Re-run:  pip install torch==2.8.* transformers==4.57.*  &&  python tools/make_goldens.py [ROW...]
The tests never run this script. Seeds are fixed; a row whose greedy margins are too small tries the next seed.
"""
import json
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import save_file
from transformers import (Gemma2Config, Gemma3TextConfig, GPT2Config, GraniteConfig, LlamaConfig, MistralConfig,
                          MixtralConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig)

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "models"
NUM_PROMPT = 48
NUM_GREEDY = 32

# Small and deliberately uneven: odd vocabularies, more query than key/value heads, head_dim * heads != hidden.
BASE = dict(vocab_size=151, hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=256, pad_token_id=None, bos_token_id=1, eos_token_id=2)

LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
YARN_ROPE = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=128, beta_fast=4.0, beta_slow=1.0)


def longrope(half):
    return dict(type="longrope", short_factor=[1.0 + 0.05 * i for i in range(half)],
                long_factor=[1.5 + 0.75 * i for i in range(half)])


def row(name, config, changes, matters=(), dtype="float32", style="v4", shards=False, generation=None, prompt=NUM_PROMPT):
    return dict(name=name, config=config, changes=changes, matters=list(matters), dtype=dtype, style=style, shards=shards,
                generation=generation, prompt=prompt)


ROWS = [
    row("llama2", LlamaConfig, dict(num_key_value_heads=4, rope_theta=10000.0, rms_norm_eps=0.05),
        [("rope_theta", 500.0), ("rms_norm_eps", 1e-6)]),
    row("llama2_bf16", LlamaConfig, dict(num_key_value_heads=4, num_hidden_layers=4), dtype="bfloat16"),
    row("llama2_f16", LlamaConfig, dict(head_dim=24), dtype="float16"),
    row("llama3", LlamaConfig, dict(tie_word_embeddings=True, head_dim=16, rope_theta=500.0, rope_scaling=LLAMA3_ROPE),
        [("rope_scaling", None), ("rope_scaling", dict(LLAMA3_ROPE, high_freq_factor=2.0))],
        generation=dict(eos_token_id=[2, 5, 7], bos_token_id=1)),
    row("llama3_bf16", LlamaConfig, dict(tie_word_embeddings=True, rope_theta=5000.0, rope_scaling=LLAMA3_ROPE, head_dim=16),
        dtype="bfloat16"),
    row("llama_linear_biased", LlamaConfig,
        dict(attention_bias=True, mlp_bias=True, head_dim=12, rope_scaling=dict(type="linear", factor=3.0)),
        [("rope_scaling", None)]),
    row("llama_dynamic", LlamaConfig, dict(max_position_embeddings=56, rope_scaling=dict(type="dynamic", factor=3.0))),
    row("llama_yarn", LlamaConfig,
        dict(head_dim=16, max_position_embeddings=512, rope_theta=1000.0, rope_scaling=YARN_ROPE), style="v5",
        matters=[("rope_scaling", None), ("rope_scaling", dict(YARN_ROPE, beta_fast=32.0)),
                 ("rope_scaling", dict(YARN_ROPE, attention_factor=1.0))]),
    row("mistral", MistralConfig, dict(head_dim=16, sliding_window=11), [("sliding_window", None)]),
    row("qwen2", Qwen2Config, dict(tie_word_embeddings=True)),
    row("qwen2_window", Qwen2Config, dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=9, max_window_layers=1),
        [("layer_types", ["full_attention"] * 3), ("layer_types", ["sliding_attention"] * 3)]),
    row("qwen3", Qwen3Config, dict(head_dim=20, tie_word_embeddings=True, rope_theta=1e6), [("rope_theta", 1e4)]),
    row("qwen3_bf16", Qwen3Config, dict(head_dim=16, attention_bias=True), dtype="bfloat16"),
    row("gemma2", Gemma2Config,
        dict(head_dim=16, num_hidden_layers=3, sliding_window=10, query_pre_attn_scalar=24, attn_logit_softcapping=2.5,
             final_logit_softcapping=1.0),
        [("query_pre_attn_scalar", 16), ("attn_logit_softcapping", None), ("final_logit_softcapping", None),
         ("layer_types", ["full_attention"] * 3), ("hidden_activation", "gelu")]),
    row("gemma2_bf16", Gemma2Config,
        dict(head_dim=16, sliding_window=10, query_pre_attn_scalar=24, attn_logit_softcapping=20.0,
             final_logit_softcapping=30.0), dtype="bfloat16"),
    row("gemma3", Gemma3TextConfig,
        dict(head_dim=16, num_hidden_layers=4, sliding_window=10, layer_types=["sliding_attention"] * 2 +
             ["full_attention", "sliding_attention"], query_pre_attn_scalar=20, rope_theta=40000.0,
             rope_local_base_freq=700.0, rope_scaling=dict(rope_type="linear", factor=4.0)),
        [("rope_scaling", None), ("rope_local_base_freq", 10000.0), ("rope_theta", 1000.0), ("query_pre_attn_scalar", 16)]),
    row("phi3", Phi3Config, dict(partial_rotary_factor=0.5, sliding_window=13, original_max_position_embeddings=256),
        [("partial_rotary_factor", 1.0), ("sliding_window", None)]),
    row("phi3_longrope_short", Phi3Config,
        dict(num_attention_heads=2, original_max_position_embeddings=128, rope_scaling=longrope(8)),
        [("rope_scaling", dict(longrope(8), short_factor=[1.0] * 8)), ("original_max_position_embeddings", 32)]),
    row("phi3_longrope_long", Phi3Config,
        dict(num_attention_heads=2, partial_rotary_factor=0.75, original_max_position_embeddings=32,
             rope_scaling=longrope(6)), [("rope_scaling", dict(longrope(6), long_factor=[1.0] * 6))]),
    row("gpt2", GPT2Config,
        dict(vocab_size=151, n_positions=96, n_embd=32, n_layer=2, n_head=4, n_inner=72, bos_token_id=1, eos_token_id=2,
             layer_norm_epsilon=0.02, scale_attn_by_inverse_layer_idx=True),
        [("layer_norm_epsilon", 1e-6), ("scale_attn_by_inverse_layer_idx", False), ("scale_attn_weights", False),
         ("activation_function", "relu")]),
    row("olmo2", Olmo2Config, dict(), [("rms_norm_eps", 0.05)]),
    row("granite", GraniteConfig,
        dict(attention_bias=True, mlp_bias=True, embedding_multiplier=1.7, logits_scaling=0.6, residual_multiplier=0.4,
             attention_multiplier=0.21, tie_word_embeddings=True),
        [("embedding_multiplier", 1.0), ("logits_scaling", 1.0), ("residual_multiplier", 1.0), ("attention_multiplier", 0.3)]),
    row("mixtral", MixtralConfig, dict(num_local_experts=4, num_experts_per_tok=2, intermediate_size=24, sliding_window=21),
        [("num_experts_per_tok", 1), ("sliding_window", None)], shards=True),
    row("qwen3_moe", Qwen3MoeConfig,
        dict(head_dim=12, num_hidden_layers=4, decoder_sparse_step=2, mlp_only_layers=[3], num_experts=5,
             num_experts_per_tok=3, moe_intermediate_size=20, norm_topk_prob=True), [("norm_topk_prob", False)]),
    row("qwen3_moe_unnormalised_bf16", Qwen3MoeConfig,
        dict(head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=False),
        [("norm_topk_prob", True)], dtype="bfloat16"),
]


def build(config, seed):
    """A model of this config whose weights come from the seed alone, large enough that every part is felt."""
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    generator = torch.Generator().manual_seed(seed)
    gemma = config.model_type.startswith("gemma")
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name or ".ln_" in name:
                centre = 0.0 if gemma or name.endswith("bias") else 1.0
                parameter.copy_(centre + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            elif "embed_tokens" in name or "wte" in name or "wpe" in name:
                # A tied token would predict itself if its embedding outweighed the layers; Gemma scales by sqrt(hidden).
                parameter.copy_((0.1 if gemma else 0.25 if config.tie_word_embeddings else 0.7) * noise)
            elif "mlp.gate.weight" in name or "block_sparse_moe.gate" in name:
                parameter.copy_(0.5 * noise)  # clear choices between experts
            else:
                fan_in = parameter.shape[0] if "c_attn" in name or "c_proj" in name or "c_fc" in name else parameter.shape[-1]
                gain = 2.0 if any(part in name for part in ("q_proj", "k_proj", "qkv", "c_attn")) else 1.3
                parameter.copy_(gain * noise / fan_in**0.5)
    return model


def run(model, prompt):
    with torch.no_grad():
        out = model(input_ids=prompt[None], use_cache=True)
        logits = out.logits[0].clone()
        tokens, margins = [], []
        last, cache = logits[-1], out.past_key_values
        for _ in range(NUM_GREEDY):
            best = torch.topk(last, 2)
            tokens.append(int(best.indices[0]))
            margins.append(float(best.values[0] - best.values[1]))
            out = model(input_ids=torch.tensor([[tokens[-1]]]), past_key_values=cache, use_cache=True)
            last, cache = out.logits[0, -1], out.past_key_values
    return logits, torch.tensor(tokens, dtype=torch.int32), torch.tensor(margins, dtype=torch.float32)


def rounded_error(directory, dtype, prompt, logits):
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype),
                                                              attn_implementation="eager").eval()
    with torch.no_grad():
        error = (model(input_ids=prompt[None]).logits[0].float() - logits).abs().max()
    return (error / (logits.max() - logits.min())).reshape(1)


def make_config(spec, extra=None):
    values = dict(BASE) if spec["config"] is not GPT2Config else {}
    values.update(spec["changes"])
    values.update(extra or {})
    # Deep copy: transformers adds keys to the rope_scaling dictionary it is given.
    return spec["config"](**json.loads(json.dumps(values)))


def check_options_matter(spec, model, prompt, logits):
    span = float(logits.max() - logits.min())
    for key, value in spec["matters"]:
        other = transformers.AutoModelForCausalLM.from_config(make_config(spec, {key: value}), attn_implementation="eager")
        other.float().eval().load_state_dict(model.state_dict())
        with torch.no_grad():
            change = float((other(input_ids=prompt[None]).logits[0] - logits).abs().max()) / span
        if change < 4e-4:  # the tests compare at 1e-4
            sys.exit(f"{spec['name']}: {key} = {value} changes the logits by only {change:.2e} of their range")


def write_config(spec, config, path):
    values = json.loads(config.to_json_string(use_diff=False))
    keep = set(json.loads(config.to_json_string(use_diff=True))) | set(spec["changes"]) | set(BASE)
    keep |= {"architectures", "model_type", "rms_norm_eps", "rope_theta", "hidden_act", "hidden_activation",
             "activation_function", "attention_bias", "layer_types", "head_dim", "num_experts_per_tok", "tie_word_embeddings"}
    values = {key: value for key, value in values.items() if key in keep}
    values.pop("_attn_implementation_autoset", None)
    dtype = spec["dtype"]
    if spec["style"] == "v5":
        rope = dict(values.pop("rope_scaling", None) or dict(rope_type="default"))
        rope["rope_theta"] = values.pop("rope_theta")
        values["rope_parameters"] = rope
        values["dtype"] = dtype
        values.pop("torch_dtype", None)
    else:
        values["torch_dtype"] = dtype
        values.pop("dtype", None)
        if isinstance(values.get("rope_scaling"), dict):
            values["rope_scaling"] = spec["changes"]["rope_scaling"]
    if spec["config"] is GPT2Config:
        values.pop("head_dim", None)
    path.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")


def make(spec):
    directory = OUT / spec["name"]
    for seed in range(1, 40):
        config = make_config(spec)
        model = build(config, seed)
        config.architectures = [type(model).__name__]
        if spec["dtype"] != "float32":
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.copy_(parameter.to(getattr(torch, spec["dtype"])).float())
        vocab = config.vocab_size
        prompt = torch.randint(3, vocab, (spec["prompt"],), generator=torch.Generator().manual_seed(1000 + seed))
        logits, tokens, margins = run(model, prompt)
        span = float(logits.max() - logits.min())
        varied = len(set(tokens.tolist())) >= 8
        if varied and float(margins.min()) > (2e-3 if spec["dtype"] == "float32" else 0.0) * span:
            break
    else:
        sys.exit(f"{spec['name']}: no seed gives varied tokens with clear margins")
    check_options_matter(spec, model, prompt, logits)

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.to(getattr(torch, spec["dtype"]))
        size = "40KB" if spec["shards"] else "1GB"
        model.save_pretrained(scratch, safe_serialization=True, max_shard_size=size)
        for file in sorted(pathlib.Path(scratch).glob("model*.safetensors*")):
            shutil.copyfile(file, directory / file.name)
    write_config(spec, config, directory / "config.json")
    if spec["generation"]:
        (directory / "generation_config.json").write_text(json.dumps(spec["generation"], indent=1) + "\n")
    expected = dict(prompt=prompt.to(torch.int32), logits=logits.contiguous(), greedy_tokens=tokens,
                    greedy_margins=margins)
    if spec["dtype"] != "float32":
        expected["rounded_error"] = rounded_error(directory, spec["dtype"], prompt, logits)
    save_file(expected, directory / "expected.safetensors")
    size = sum(f.stat().st_size for f in directory.iterdir())
    print(f"{spec['name']:30} seed {seed:2}  range {span:7.2f}  least margin {float(margins.min()):.4f}  "
          f"distinct {len(set(tokens.tolist())):2}  {size / 1e3:.0f} kB")
    return size


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    wanted = sys.argv[1:]
    total = sum(make(spec) for spec in ROWS if not wanted or spec["name"] in wanted)
    print(f"total {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
