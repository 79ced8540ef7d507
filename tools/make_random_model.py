#!/usr/bin/env python3
"""Makes a model of a real shape with random bf16 weights, for measuring speed where no real weights are at hand.

    python tools/make_random_model.py llama-3.2-1b /tmp/models/llama-1b
    build/release/inferneo bench /tmp/models/llama-1b

The output is a plain Hugging Face directory; its text is noise. The tokenizer is a bundled model's, so ids past its
vocabulary decode to nothing; tools/make_random_tokenizer.py makes one of the full size. Needs numpy. Seeded: the same shape is the same file.
"""
import argparse
import json
import pathlib
import shutil
import struct
import sys

import numpy

TOKENIZER = pathlib.Path(__file__).resolve().parent.parent / "models" / "inferneo-story"
LLAMA3_ROPE = dict(rope_type="llama3", factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=8192)
LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", hidden_act="silu", attention_bias=False, mlp_bias=False,
             rms_norm_eps=1e-5, rope_theta=500000.0, vocab_size=128256, bos_token_id=0, eos_token_id=2,
             dtype="bfloat16")
SHAPES = {
    # No real one's: 0.77 GB with a large vocabulary.
    "small-128k": LLAMA | dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=16, num_attention_heads=16,
                               num_key_value_heads=8, head_dim=64, max_position_embeddings=8192,
                               tie_word_embeddings=True),
    # No real one's: 320 M parameters, the proportions of Llama 2 and its vocabulary.
    "small-32k": LLAMA | dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=16, num_attention_heads=16,
                              num_key_value_heads=8, head_dim=64, max_position_embeddings=8192, vocab_size=32000,
                              tie_word_embeddings=False),
    # No real one's: 64 M parameters, for long contexts on a slow machine.
    "small-long": LLAMA | dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=8,
                               num_key_value_heads=4, head_dim=64, max_position_embeddings=65536, vocab_size=32000,
                               tie_word_embeddings=False),
    "llama-3.2-1b": LLAMA | dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
                                 num_key_value_heads=8, head_dim=64, max_position_embeddings=131072,
                                 tie_word_embeddings=True, rope_scaling=LLAMA3_ROPE),
    "llama-3.2-3b": LLAMA | dict(hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24,
                                 num_key_value_heads=8, head_dim=128, max_position_embeddings=131072,
                                 tie_word_embeddings=True, rope_scaling=LLAMA3_ROPE),
    "llama-3.1-8b": LLAMA | dict(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                                 num_key_value_heads=8, head_dim=128, max_position_embeddings=131072,
                                 tie_word_embeddings=False, rope_scaling=LLAMA3_ROPE | dict(factor=8.0)),
}


def tensors(config):
    """Names and shapes ([out_features, in_features]) in the order of the file."""
    hidden, heads, kv = config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"]
    dim, inner = config["head_dim"], config["intermediate_size"]
    yield "model.embed_tokens.weight", (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        yield layer + "self_attn.q_proj.weight", (heads * dim, hidden)
        yield layer + "self_attn.k_proj.weight", (kv * dim, hidden)
        yield layer + "self_attn.v_proj.weight", (kv * dim, hidden)
        yield layer + "self_attn.o_proj.weight", (hidden, heads * dim)
        yield layer + "post_attention_layernorm.weight", (hidden,)
        yield layer + "mlp.gate_proj.weight", (inner, hidden)
        yield layer + "mlp.up_proj.weight", (inner, hidden)
        yield layer + "mlp.down_proj.weight", (hidden, inner)
    yield "model.norm.weight", (hidden,)
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", (config["vocab_size"], hidden)


def values(shape, generator):
    """bf16 bits: norms are one, matrices normal with deviation 1/sqrt(in_features), so activations keep their size."""
    if len(shape) == 1:
        floats = numpy.ones(shape, numpy.float32)
    else:
        floats = generator.standard_normal(shape, numpy.float32) / numpy.sqrt(numpy.float32(shape[1]))
    return (floats.view(numpy.uint32) >> 16).astype("<u2")


def write_weights(path, config, seed):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors(config):
        size = 2 * int(numpy.prod(shape))
        header[name] = dict(dtype="BF16", shape=list(shape), data_offsets=[offset, offset + size])
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    generator = numpy.random.default_rng(seed)
    written = 0
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors(config):
            data = values(shape, generator)
            data.tofile(file)
            written += data.nbytes
            if sys.stderr.isatty():
                print(f"\r{written / 1e9:6.2f} of {offset / 1e9:.2f} GB  {name:<45}", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = SHAPES[args.shape]
    args.directory.mkdir(parents=True, exist_ok=True)
    (args.directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, args.directory / name)
    write_weights(args.directory / "model.safetensors", config, args.seed)


if __name__ == "__main__":
    main()
