#!/usr/bin/env python3
"""Writes a model in Hugging Face layout as a GGUF file, so that other engines can be measured on the same tensors.

    python3 tools/make_random_model.py llama-3.2-1b /tmp/llama-1b
    python3 tools/make_gguf.py /tmp/llama-1b /tmp/llama-1b.gguf --type bf16

Models of LlamaForCausalLM with safetensors; anything else is refused in one sentence. Types: bf16, f16, f32, q8_0, q4_0
(4 bits for the layers' matrices, q8_0 for the embedding and the head). Norms are f32. Query and key rows change places, since
the format rotates neighbouring pairs and the checkpoint halves; every value stays. Reads and writes piece by piece. Needs
numpy. The format: GGUF version 3, as the ggml project documents it.
"""
import argparse
import json
import math
import os
import pathlib
import struct
import sys

import numpy

ALIGNMENT = 32
BLOCK = 32  # values that share a scale in q8_0 and q4_0
PIECE = 32 << 20  # bytes of a source tensor that are in memory at a time
# Name: number of the type in a tensor's entry, bytes of a block of so many values, number of the file's type.
TYPES = {"f32": (0, 4, 1, 0), "f16": (1, 2, 1, 1), "bf16": (30, 2, 1, 32), "q8_0": (8, 2 + 32, BLOCK, 7),
         "q4_0": (2, 2 + 16, BLOCK, 2)}
SOURCES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# What a value in the metadata is: number of its type, struct format.
U32, I32, F32, STRING, ARRAY = 4, 5, 6, 8, 9
NORMAL, CONTROL, UNUSED = 1, 3, 5  # kinds of tokens
LLAMA3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
                  r"|\s+(?!\S)|\s+")


class Refused(Exception):
    """One sentence for the user."""


# --- safetensors ---------------------------------------------------------------------------------------------------------

class Tensor:
    """One tensor of a checkpoint; rows are read when they are asked for."""

    def __init__(self, name, path, entry, data_begin, data_size):
        self.name, self.path = name, path
        try:
            self.shape = tuple(int(n) for n in entry["shape"])
            begin, end = (int(n) for n in entry["data_offsets"])
            self.dtype = str(entry["dtype"])
        except (KeyError, TypeError, ValueError):
            raise Refused(f"{path.name}: the entry of {name} is no safetensors entry") from None
        if self.dtype not in SOURCES:
            raise Refused(f"{path.name}: {name} is of type {self.dtype}, and only F32, F16 and BF16 can be written")
        size = math.prod(self.shape) * numpy.dtype(SOURCES[self.dtype]).itemsize
        if min(self.shape, default=0) < 0 or begin < 0 or end > data_size or end - begin != size:
            raise Refused(f"{path.name}: {name} does not lie where its entry says")
        self.offset = data_begin + begin

    def rows(self, order=None):
        """Pieces [rows, cols] of f32 values; `order`: which row comes where."""
        cols = self.shape[-1] if self.shape else 1
        count = math.prod(self.shape) // max(cols, 1)
        data = numpy.memmap(self.path, SOURCES[self.dtype], "r", self.offset, (count, cols)) if count * cols else None
        step = max(1, PIECE // (4 * max(cols, 1)))
        for first in range(0, count, step):
            piece = data[first:first + step] if order is None else data[order[first:first + step]]
            yield to_f32(numpy.asarray(piece), self.dtype)


def to_f32(values, dtype):
    if dtype == "BF16":
        return (values.astype(numpy.uint32) << 16).view(numpy.float32)
    return values.astype(numpy.float32)


def read_header(path):
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else size
        if length > min(size - 8, 100 << 20):
            raise Refused(f"{path.name} is no safetensors file")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise Refused(f"{path.name}: its header is no JSON") from None
    if not isinstance(header, dict):
        raise Refused(f"{path.name}: its header is no object")
    header.pop("__metadata__", None)
    return {name: Tensor(name, path, entry, 8 + length, size - 8 - length) for name, entry in header.items()}


def read_checkpoint(directory):
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
        if any("/" in name for name in names):
            raise Refused(f"{index.name} names files outside the directory")
    else:
        names = ["model.safetensors"]
    tensors = {}
    for name in names:
        if not (directory / name).is_file():
            raise Refused(f"{directory}: there is no {name}")
        tensors |= read_header(directory / name)
    return tensors


def read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None
    except ValueError:
        raise Refused(f"{path} is no JSON") from None
    if not isinstance(value, dict):
        raise Refused(f"{path} is no JSON object")
    return value


# --- values --------------------------------------------------------------------------------------------------------------

def round_away(values):
    """To the nearest whole number, halves away from zero, as C's roundf."""
    size = numpy.abs(values)
    whole = numpy.floor(size)
    return numpy.copysign(whole + (size - whole >= 0.5), values)  # the difference is exact


def inverse(scale):
    return numpy.divide(numpy.float32(1), scale, out=numpy.zeros_like(scale), where=scale != 0)


def q8_0(rows):
    """Blocks of {f16 scale, 32 i8}: the scale is the largest magnitude over 127."""
    blocks = rows.reshape(-1, BLOCK)
    scale = numpy.abs(blocks).max(axis=1, keepdims=True) / numpy.float32(127)
    # At most 127.00002 in magnitude, so nothing leaves the byte.
    values = round_away(blocks * inverse(scale)).astype(numpy.int8)
    return numpy.concatenate([scale.astype("<f2").view(numpy.uint8), values.view(numpy.uint8)], axis=1)


def q4_0(rows):
    """Blocks of {f16 scale, 16 bytes}: the value of the largest magnitude becomes -8; low nibbles are the first half."""
    blocks = rows.reshape(-1, BLOCK)
    largest = numpy.take_along_axis(blocks, numpy.abs(blocks).argmax(axis=1)[:, None], axis=1)
    scale = largest / numpy.float32(-8)
    # In f32, where the nearest code is sometimes one off: so the format says it.
    codes = blocks * inverse(scale) + numpy.float32(8.5)
    codes = codes.clip(0, 15).astype(numpy.uint8)
    packed = codes[:, :BLOCK // 2] | (codes[:, BLOCK // 2:] << 4)
    return numpy.concatenate([scale.astype("<f2").view(numpy.uint8), packed], axis=1)


def bf16(rows):
    """To nearest, ties to even."""
    bits = numpy.ascontiguousarray(rows).view(numpy.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # A NaN stays one.
    return numpy.where(numpy.isnan(rows), (bits >> 16) | 0x40, rounded).astype("<u2")


def encode(rows, kind, name):
    if kind == "f32":
        return rows.astype("<f4")
    if kind == "bf16":
        return bf16(rows)
    if not numpy.isfinite(rows).all():
        raise Refused(f"{name} has values that are not finite, which {kind} cannot hold")
    with numpy.errstate(over="ignore"):
        coded = rows.astype("<f2") if kind == "f16" else q8_0(rows) if kind == "q8_0" else q4_0(rows)
    scales = coded if kind == "f16" else coded[:, :2].copy().view("<f2")
    if not numpy.isfinite(scales).all():
        raise Refused(f"{name} has values beyond the range of f16, which {kind} needs")
    return coded


# --- the model -----------------------------------------------------------------------------------------------------------

def number(config, name, default=None, least=1):
    value = config.get(name, default)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < least:
        raise Refused(f"config.json: {name} is {json.dumps(value)}, and a number of at least {least} is needed")
    return value


def read_shape(config):
    """What is known of the model; Refused names what is not."""
    names = config.get("architectures") or []
    if names != ["LlamaForCausalLM"]:
        raise Refused(f"config.json: the architecture is {', '.join(map(str, names)) or 'not named'}, and only LlamaForCausalLM can be written")
    for name, known in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False), ("quantization_config", None)):
        if config.get(name) not in (None, known):
            raise Refused(f"config.json: {name} is {json.dumps(config[name])}, which this writer does not know")
    shape = {name: int(number(config, name)) for name in
             ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings")}
    shape["num_key_value_heads"] = int(number(config, "num_key_value_heads", shape["num_attention_heads"]))
    shape["head_dim"] = int(number(config, "head_dim", shape["hidden_size"] // shape["num_attention_heads"]))
    if shape["head_dim"] % 2 or shape["num_attention_heads"] % shape["num_key_value_heads"]:
        raise Refused("config.json: the heads do not divide as they must")
    shape["rms_norm_eps"] = float(number(config, "rms_norm_eps", 1e-6, 0))
    shape["tied"] = bool(config.get("tie_word_embeddings", False))
    rope = config.get("rope_parameters") or {}
    shape["rope_theta"] = float(number({**rope, **config}, "rope_theta", 10000.0))
    shape["rope_factors"] = rope_factors(config.get("rope_scaling") or rope, shape)
    return shape


def rope_factors(scaling, shape):
    """What each frequency is divided by, as Llama 3.1 scales them; none: not at all."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise Refused(f"config.json: rope_scaling of type {kind} is not known to this writer, only llama3 is")
    factor, low, high = (float(number(scaling, name, least=1e-9)) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(number(scaling, "original_max_position_embeddings"))
    if high <= low:
        raise Refused("config.json: rope_scaling needs a high_freq_factor above its low_freq_factor")
    half = numpy.arange(0, shape["head_dim"], 2, dtype=numpy.float64)
    waves = 2 * math.pi * shape["rope_theta"] ** (half / shape["head_dim"])
    smooth = (context / waves - low) / (high - low)
    middle = 1 / ((1 - smooth) / factor + smooth)
    return numpy.select([waves < context / high, waves > context / low], [1.0, factor], middle).astype(numpy.float32)


def plan(shape):
    """(name in the file, name in the checkpoint, shape, heads whose rows change places) in the order of the file."""
    hidden, inner, dim = shape["hidden_size"], shape["intermediate_size"], shape["head_dim"]
    heads, kv = shape["num_attention_heads"], shape["num_key_value_heads"]
    yield "token_embd.weight", "model.embed_tokens.weight", (shape["vocab_size"], hidden), 0
    for i in range(shape["num_hidden_layers"]):
        to, layer = f"blk.{i}.", f"model.layers.{i}."
        yield to + "attn_norm.weight", layer + "input_layernorm.weight", (hidden,), 0
        yield to + "attn_q.weight", layer + "self_attn.q_proj.weight", (heads * dim, hidden), heads
        yield to + "attn_k.weight", layer + "self_attn.k_proj.weight", (kv * dim, hidden), kv
        yield to + "attn_v.weight", layer + "self_attn.v_proj.weight", (kv * dim, hidden), 0
        yield to + "attn_output.weight", layer + "self_attn.o_proj.weight", (hidden, heads * dim), 0
        yield to + "ffn_norm.weight", layer + "post_attention_layernorm.weight", (hidden,), 0
        yield to + "ffn_gate.weight", layer + "mlp.gate_proj.weight", (inner, hidden), 0
        yield to + "ffn_up.weight", layer + "mlp.up_proj.weight", (inner, hidden), 0
        yield to + "ffn_down.weight", layer + "mlp.down_proj.weight", (hidden, inner), 0
    yield "output_norm.weight", "model.norm.weight", (hidden,), 0
    if not shape["tied"]:
        yield "output.weight", "lm_head.weight", (shape["vocab_size"], hidden), 0


def interleaved(rows, heads):
    """Rows of a head from (first half, second half) to neighbouring pairs."""
    return numpy.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)


def kind_of(name, shape, wanted):
    if len(shape) == 1:
        return "f32"
    ends = name in ("token_embd.weight", "output.weight")
    kind = "q8_0" if wanted == "q4_0" and ends else wanted
    if shape[-1] % TYPES[kind][2]:
        raise Refused(f"{name} has rows of {shape[-1]} values, and {kind} takes them by {TYPES[kind][2]}")
    return kind


def pre_tokenizer(tokenizer):
    """The format's name of how text is cut before merging."""
    def parts(node):
        return [p for child in node.get("pretokenizers", []) for p in parts(child)] if node.get("type") == "Sequence" else [node]

    found = parts(tokenizer.get("pre_tokenizer") or {})
    kinds = [p.get("type") for p in found]
    if kinds == ["ByteLevel"] and found[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and found[0].get("individual_digits") and found[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and found[0].get("pattern", {}).get("Regex") == LLAMA3_PATTERN:
        return "llama-bpe"
    raise Refused("tokenizer.json cuts text in a way that this writer does not know; --no-vocabulary leaves the tokenizer out")


def vocabulary(directory, size):
    """The metadata of the tokenizer; ids that it does not have become unused tokens."""
    tokenizer = read_json(directory / "tokenizer.json")
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise Refused("tokenizer.json is no byte-level BPE, the only kind that this writer knows; --no-vocabulary leaves it out")
    added = {entry["content"]: entry for entry in tokenizer.get("added_tokens") or []}
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for text, index in [*model["vocab"].items(), *((text, entry["id"]) for text, entry in added.items())]:
        if not 0 <= index < size:
            raise Refused(f"tokenizer.json has a token {index}, and the model's vocab_size is {size}")
        tokens[index] = text
        kinds[index] = CONTROL if text in added else NORMAL
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return [("tokenizer.ggml.model", STRING, "gpt2"), ("tokenizer.ggml.pre", STRING, pre_tokenizer(tokenizer)),
            ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens)), ("tokenizer.ggml.token_type", ARRAY, (I32, kinds)),
            ("tokenizer.ggml.merges", ARRAY, (STRING, merges))]


def metadata(directory, config, shape, wanted, with_vocabulary):
    pairs = [("general.architecture", STRING, "llama"), ("general.name", STRING, directory.resolve().name),
             ("general.file_type", U32, TYPES[wanted][3]), ("general.alignment", U32, ALIGNMENT),
             ("llama.vocab_size", U32, shape["vocab_size"]), ("llama.block_count", U32, shape["num_hidden_layers"]),
             ("llama.context_length", U32, shape["max_position_embeddings"]), ("llama.embedding_length", U32, shape["hidden_size"]),
             ("llama.feed_forward_length", U32, shape["intermediate_size"]),
             ("llama.attention.head_count", U32, shape["num_attention_heads"]),
             ("llama.attention.head_count_kv", U32, shape["num_key_value_heads"]),
             ("llama.attention.key_length", U32, shape["head_dim"]), ("llama.attention.value_length", U32, shape["head_dim"]),
             ("llama.attention.layer_norm_rms_epsilon", F32, shape["rms_norm_eps"]),
             ("llama.rope.dimension_count", U32, shape["head_dim"]), ("llama.rope.freq_base", F32, shape["rope_theta"])]
    if TYPES[wanted][2] > 1:
        pairs.append(("general.quantization_version", U32, 2))
    if not with_vocabulary:
        return pairs + [("tokenizer.ggml.model", STRING, "no_vocab")]
    pairs += vocabulary(directory, shape["vocab_size"])
    for name in ("bos", "eos"):
        index = config.get(f"{name}_token_id")
        index = index[0] if isinstance(index, list) and index else index
        if isinstance(index, int) and 0 <= index < shape["vocab_size"]:
            pairs.append((f"tokenizer.ggml.{name}_token_id", U32, index))
    return pairs


# --- the file ------------------------------------------------------------------------------------------------------------

def text_bytes(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(kind, value):
    if kind == STRING:
        return text_bytes(value)
    if kind == ARRAY:
        element, values = value
        return struct.pack("<IQ", element, len(values)) + b"".join(value_bytes(element, v) for v in values)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f"}[kind], value)


def aligned(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def tensor_bytes(shape, kind):
    return math.prod(shape) // TYPES[kind][2] * TYPES[kind][1]


def head_bytes(pairs, entries):
    """Everything before the data. `entries`: (name, shape, type)."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(entries), len(pairs))]
    for key, kind, value in pairs:
        parts += [text_bytes(key), struct.pack("<I", kind), value_bytes(kind, value)]
    offset = 0
    for name, shape, kind in entries:
        parts += [text_bytes(name), struct.pack("<I", len(shape)), struct.pack(f"<{len(shape)}Q", *reversed(shape)),
                  struct.pack("<IQ", TYPES[kind][0], offset)]
        offset += aligned(tensor_bytes(shape, kind))
    head = b"".join(parts)
    return head + bytes(aligned(len(head)) - len(head))


def matched(shape, checkpoint):
    """plan() with tensors; every tensor of the checkpoint has its place."""
    found, left = [], dict(checkpoint)
    for name, source, wanted, heads in plan(shape):
        tensor = left.pop(source, None)
        if tensor is None:
            raise Refused(f"the checkpoint has no {source}")
        if tensor.shape != wanted:
            raise Refused(f"{source} is of shape {list(tensor.shape)}, and config.json says {list(wanted)}")
        found.append((name, tensor, heads))
    if shape["tied"]:
        left.pop("lm_head.weight", None)  # the same values again
    left = [name for name in left if not name.endswith("rotary_emb.inv_freq")]
    if left:
        raise Refused(f"the checkpoint has {left[0]}, which this writer does not know")
    return found


def write(directory, path, wanted="bf16", with_vocabulary=True, progress=lambda name: None):
    """Refused; OSError when the file cannot be written. A file that is there stays until the new one is whole."""
    directory, path = pathlib.Path(directory), pathlib.Path(path)
    config = read_json(directory / "config.json")
    shape = read_shape(config)
    tensors = matched(shape, read_checkpoint(directory))
    entries = [(name, tensor.shape, kind_of(name, tensor.shape, wanted)) for name, tensor, _ in tensors]
    factors = shape["rope_factors"]
    if factors is not None:
        entries.append(("rope_freqs.weight", factors.shape, "f32"))
    head = head_bytes(metadata(directory, config, shape, wanted, with_vocabulary), entries)
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(head)
            for (name, tensor, heads), (_, _, kind) in zip(tensors, entries):
                progress(name)
                order = interleaved(tensor.shape[0], heads) if heads else None
                for rows in tensor.rows(order):
                    file.write(encode(rows, kind, tensor.name).tobytes())
                file.write(bytes(-file.tell() % ALIGNMENT))
            if factors is not None:
                file.write(factors.astype("<f4").tobytes())
                file.write(bytes(-file.tell() % ALIGNMENT))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path, help="a model in Hugging Face layout")
    parser.add_argument("output", type=pathlib.Path, help="the GGUF file")
    parser.add_argument("--type", choices=list(TYPES), default="bf16", help="of matrices [bf16]")
    parser.add_argument("--no-vocabulary", action="store_true", help="leave the tokenizer out")
    args = parser.parse_args()

    def progress(name):
        if sys.stderr.isatty():
            print(f"\r{name:<40}", end="", file=sys.stderr)

    try:
        write(args.directory, args.output, args.type, not args.no_vocabulary, progress)
    except (Refused, OSError) as error:
        print(f"make_gguf: {error}", file=sys.stderr)
        return 1
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
