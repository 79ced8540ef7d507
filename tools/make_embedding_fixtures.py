"""Makes the small graphs of tests/golden/onnx_embedding: one encoder of BERT's kind with random weights, as exporters write
theirs, the files that sentence-transformers has beside it, and the vectors of a few texts as numpy computes them.

The graphs are made by hand with onnx.helper; no exporter was run. `rows` gives last_hidden_state, `sentence` its own
sentence_embedding besides (the mean, scaled to the length 1), with indices in int32 and without token_type_ids.

Needs numpy and onnx:  python3 tools/make_embedding_fixtures.py [tests/golden/onnx_embedding]
"""
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper

from make_onnx_fixtures import Graph, value

VOCAB, WIDTH, HEADS, DIM, INNER, POSITIONS = 40, 16, 2, 8, 32, 24
EPSILON = 1e-5
CLS, SEP = 2, 3
TEXTS = ["w5 w9 w12", "w7", "w20 w21 w22 w23 w24 w25 w26 w27 w28 w29 w30 w31", "w39 w4 w39 w4 w39", "w7 w7 w7 w7 w7 w7 w7 w8"]


def make_weights(seed):
    rng = np.random.default_rng(seed)
    weights = {"words": rng.standard_normal((VOCAB, WIDTH)), "positions": 0.5 * rng.standard_normal((POSITIONS, WIDTH)),
               "types": 0.5 * rng.standard_normal((2, WIDTH))}
    for name, shape in {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH), "v": (WIDTH, WIDTH), "o": (WIDTH, WIDTH), "up": (WIDTH, INNER),
                        "down": (INNER, WIDTH)}.items():
        weights[name] = rng.standard_normal(shape) / np.sqrt(shape[0]) * 1.5
    for norm in ("norm0", "norm1", "norm2"):
        weights[norm] = 1 + 0.1 * rng.standard_normal(WIDTH)
        weights[norm + "_bias"] = 0.1 * rng.standard_normal(WIDTH)
    return {name: array.astype(np.float32) for name, array in weights.items()}


# ---- the encoder in numpy, in double precision: one text, nothing filled up
def reference(weights, tokens):
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    count = len(tokens)

    def norm(x, name):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * w[name] + w[name + "_bias"]

    def heads(x):
        return x.reshape(count, HEADS, DIM).transpose(1, 0, 2)

    x = norm(w["words"][tokens] + w["positions"][:count] + w["types"][0], "norm0")
    q, k, v = heads(x @ w["q"]), heads(x @ w["k"]), heads(x @ w["v"])
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(DIM)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    x = norm(x + mixed.transpose(1, 0, 2).reshape(count, WIDTH) @ w["o"], "norm1")
    return norm(x + np.maximum(x @ w["up"], 0) @ w["down"], "norm2")


def encoder(weights, sentence):
    g = Graph(weights)
    kind = TensorProto.INT32 if sentence else TensorProto.INT64

    def norm(x, name):
        return g.op("LayerNormalization", x, g.weight(name), g.weight(name + "_bias"), axis=-1, epsilon=EPSILON)

    def heads(x):
        return g.op("Transpose", g.op("Reshape", x, g.ints(0, 0, HEADS, DIM)), perm=[0, 2, 1, 3])

    tokens = g.op("Gather", g.op("Shape", "input_ids"), g.constant(np.array(1, np.int64), "one"), axis=0)
    places = g.op("Range", g.constant(np.array(0, np.int64), "zero"), tokens, "one")
    x = g.op("Add", g.op("Gather", g.weight("words"), "input_ids", axis=0), g.op("Gather", g.weight("positions"), places, axis=0))
    types = g.op("Gather", g.weight("types"), "zero", axis=0) if sentence else g.op("Gather", g.weight("types"), "token_type_ids", axis=0)
    x = norm(g.op("Add", x, types), "norm0")
    attended = g.op("Cast", g.op("Unsqueeze", "attention_mask", g.ints(1, 2)), to=TensorProto.BOOL)
    mask = g.op("Where", attended, g.scalar(0.0), g.constant(np.array(np.finfo(np.float32).min, np.float32), "lowest"))
    q, k, v = (heads(g.op("MatMul", x, g.weight(name))) for name in "qkv")
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = g.op("Add", g.op("Mul", scores, g.scalar(float(1 / np.sqrt(DIM)))), mask)
    mixed = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    x = norm(g.op("Add", x, g.op("MatMul", g.op("Reshape", mixed, g.ints(0, 0, WIDTH)), g.weight("o"))), "norm1")
    inner = g.op("Relu", g.op("MatMul", x, g.weight("up")))
    x = g.op("Add", x, g.op("MatMul", inner, g.weight("down")))
    rows = "token_embeddings" if sentence else "last_hidden_state"
    g.op("LayerNormalization", x, g.weight("norm2"), g.weight("norm2_bias"), out=[rows], axis=-1, epsilon=EPSILON)
    inputs = [value("input_ids", kind, "batch", "tokens"), value("attention_mask", kind, "batch", "tokens")]
    outputs = [value(rows, TensorProto.FLOAT, "batch", "tokens", WIDTH)]
    if sentence:
        weight = g.op("Unsqueeze", g.op("Cast", "attention_mask", to=TensorProto.FLOAT), g.ints(2))
        mean = g.op("Div", g.op("ReduceSum", g.op("Mul", rows, weight), g.ints(1), keepdims=0), g.op("ReduceSum", weight, g.ints(1), keepdims=0))
        g.op("Div", mean, g.op("ReduceL2", mean, g.ints(1), keepdims=1), out=["sentence_embedding"])
        outputs.append(value("sentence_embedding", TensorProto.FLOAT, "batch", WIDTH))
    else:
        inputs.append(value("token_type_ids", kind, "batch", "tokens"))
    return g.model(inputs, outputs, "fixture")


CONFIG = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 1,
          "num_attention_heads": HEADS, "intermediate_size": INNER, "max_position_embeddings": POSITIONS, "pad_token_id": 0}
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
           {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
           {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]
POOLING = {"word_embedding_dimension": WIDTH, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
           "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}


def tokenizer():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] + [f"w{i}" for i in range(4, VOCAB)]
    special = [{"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, word in enumerate(words[:4])]
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                           {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (("[CLS]", CLS), ("[SEP]", SEP))}}
    return {"version": "1.0", "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
            "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
            "added_tokens": special, "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": template, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "[UNK]"}}


def rounded(vector):
    return [round(float(x), 7) for x in vector]


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/onnx_embedding")
    weights = make_weights(1)
    for name in ("rows", "sentence"):
        folder = root / name
        (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
        onnx.save(encoder(weights, name == "sentence"), folder / "model.onnx")
        for file, content in (("config.json", CONFIG), ("modules.json", MODULES), ("1_Pooling/config.json", POOLING),
                              ("tokenizer.json", tokenizer())):
            (folder / file).write_text(json.dumps(content, indent=None if file == "tokenizer.json" else 1) + "\n")
    answers = []
    for text in TEXTS:
        tokens = [CLS] + [int(word[1:]) for word in text.split()] + [SEP]
        rows = reference(weights, tokens)
        mean = rows.mean(0)
        answers.append({"text": text, "tokens": tokens, "mean": rounded(mean), "cls": rounded(rows[0]), "last": rounded(rows[-1]),
                        "normalized": rounded(mean / np.linalg.norm(mean))})
    (root / "golden.json").write_text(json.dumps({"answers": answers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
