"""Makes the small ONNX graphs of tests/golden/onnx: one decoder with random weights, written in the ways in which exporters
write theirs, and what it answers as numpy computes it.

The graphs are made by hand with onnx.helper, after the conventions of onnxruntime-genai's builder (GroupQueryAttention, past
and present in one buffer) and of Optimum (standard operators, present longer than past); no exporter was run. All hold the
same weights, so that all must give the same tokens.

Needs numpy and onnx:  python3 tools/make_onnx_fixtures.py [tests/golden/onnx]
"""
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

VOCAB, WIDTH, HEADS, KV_HEADS, DIM, INNER, LAYERS, CONTEXT = 64, 32, 2, 1, 16, 48, 2, 256
EPSILON, THETA = 1e-5, 10000.0
PROMPTS = [[1, 5, 9, 2, 33, 60, 7], [3], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22], [40, 2, 40], [8, 8, 8, 8, 8]]
ANSWER = 10


def make_weights(seed):
    rng = np.random.default_rng(seed)

    def matrix(rows, columns):
        return (rng.standard_normal((rows, columns)) / np.sqrt(rows) * 1.6).astype(np.float32)

    weights = {"embed": rng.standard_normal((VOCAB, WIDTH)).astype(np.float32), "final_norm": 1 + 0.1 * rng.standard_normal(WIDTH).astype(np.float32)}
    weights["head"] = matrix(WIDTH, VOCAB)
    for layer in range(LAYERS):
        for name, shape in {"q": (WIDTH, HEADS * DIM), "k": (WIDTH, KV_HEADS * DIM), "v": (WIDTH, KV_HEADS * DIM), "o": (HEADS * DIM, WIDTH),
                            "gate": (WIDTH, INNER), "up": (WIDTH, INNER), "down": (INNER, WIDTH)}.items():
            weights[f"{layer}.{name}"] = matrix(*shape)
        for name in ("norm1", "norm2"):
            weights[f"{layer}.{name}"] = 1 + 0.1 * rng.standard_normal(WIDTH).astype(np.float32)
    frequencies = THETA ** (-np.arange(0, DIM, 2) / DIM)
    angles = np.outer(np.arange(CONTEXT), frequencies)
    weights["cos"], weights["sin"] = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    return weights


# ---- the decoder in numpy, in double precision
def reference(weights, tokens):
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    count = len(tokens)

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * weight

    def rotate(x):  # [count, heads, DIM]
        cos, sin = w["cos"][:count, None, :], w["sin"][:count, None, :]
        a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["embed"][tokens]
    for layer in range(LAYERS):
        h = norm(x, w[f"{layer}.norm1"])
        q = rotate((h @ w[f"{layer}.q"]).reshape(count, HEADS, DIM))
        k = rotate((h @ w[f"{layer}.k"]).reshape(count, KV_HEADS, DIM)).repeat(HEADS // KV_HEADS, 1)
        v = (h @ w[f"{layer}.v"]).reshape(count, KV_HEADS, DIM).repeat(HEADS // KV_HEADS, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(DIM)
        scores = np.where(np.tril(np.ones((count, count), bool)), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
        x = x + mixed.reshape(count, -1) @ w[f"{layer}.o"]
        h = norm(x, w[f"{layer}.norm2"])
        gate = h @ w[f"{layer}.gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (h @ w[f"{layer}.up"])) @ w[f"{layer}.down"]
    return norm(x, w["final_norm"]) @ w["head"]


def greedy(weights, prompt):
    tokens, margins = list(prompt), []
    for _ in range(ANSWER):
        logits = reference(weights, tokens)[-1]
        best = np.sort(logits)[-2:]
        margins.append(best[1] - best[0])
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt) :], float(min(margins))


# ---- graphs
class Graph:
    def __init__(self, weights, half=False):
        self.nodes, self.initializers, self.names = [], [], set()
        self.type = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        self.numpy_type = np.float16 if half else np.float32
        self.weights, self.count = weights, 0

    def constant(self, value, name=None):
        name = name or f"c{len(self.initializers)}"
        if name not in self.names:
            self.names.add(name)
            self.initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name):
        return self.constant(self.weights[name].astype(self.numpy_type), name)

    def op(self, kind, *inputs, outputs=1, domain="", out=None, **attributes):
        self.count += 1
        names = out or [f"{kind}_{self.count}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"{kind}_{self.count}", domain=domain, **attributes))
        return names[0] if len(names) == 1 else names

    def ints(self, *values):
        return self.constant(np.array(values, np.int64), "i_" + "_".join(map(str, values)))

    def scalar(self, value):
        return self.constant(np.array(value, self.numpy_type), f"s_{value}")

    def norm(self, x, weight):  # with standard operators
        square = self.op("ReduceMean", self.op("Mul", x, x), self.ints(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", square, self.scalar(EPSILON)))
        return self.op("Mul", self.op("Div", x, root), self.weight(weight))

    def feed_forward(self, layer, h):
        gate = self.op("MatMul", h, self.weight(f"{layer}.gate"))
        gate = self.op("Mul", gate, self.op("Sigmoid", gate))
        return self.op("MatMul", self.op("Mul", gate, self.op("MatMul", h, self.weight(f"{layer}.up"))), self.weight(f"{layer}.down"))

    def model(self, inputs, outputs, producer):
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, producer_name=producer, ir_version=8)


def value(name, kind, *shape):
    return helper.make_tensor_value_info(name, kind, list(shape))


def cache_values(kind, word, length):
    names = [(f"{word}.{layer}.{part}") for layer in range(LAYERS) for part in ("key", "value")]
    return [value(name, kind, "batch", KV_HEADS, length, DIM) for name in names]


# As onnxruntime-genai's builder does it: lengths from the mask, rotation within GroupQueryAttention.
def shared(weights, half=False, last_only=False):
    g = Graph(weights, half)
    total = g.op("Cast", g.op("Gather", g.op("Shape", "attention_mask"), g.constant(np.array(1, np.int64), "one"), axis=0), to=TensorProto.INT32)
    lengths = g.op("Cast", g.op("Sub", g.op("ReduceSum", "attention_mask", g.ints(1), keepdims=0), g.ints(1)), to=TensorProto.INT32)
    x = g.op("Gather", g.weight("embed"), "input_ids", axis=0)
    h = g.op("SimplifiedLayerNormalization", x, g.weight("0.norm1"), axis=-1, epsilon=EPSILON, stash_type=1)
    for layer in range(LAYERS):
        parts = [g.op("MatMul", h, g.weight(f"{layer}.{name}")) for name in "qkv"]
        pasts = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        presents = [f"present.{layer}.key", f"present.{layer}.value"]
        mixed, _, _ = g.op("GroupQueryAttention", *parts, *pasts, lengths, total, g.weight("cos"), g.weight("sin"), domain="com.microsoft",
                           out=[f"mixed_{layer}", *presents], num_heads=HEADS, kv_num_heads=KV_HEADS, do_rotary=1, rotary_interleaved=0,
                           scale=float(1 / np.sqrt(DIM)))
        projected = g.op("MatMul", mixed, g.weight(f"{layer}.o"))
        h, _, _, x = g.op("SkipSimplifiedLayerNormalization", x, projected, g.weight(f"{layer}.norm2"), outputs=4, domain="com.microsoft", epsilon=EPSILON)
        following = g.weight("final_norm" if layer + 1 == LAYERS else f"{layer + 1}.norm1")
        h, _, _, x = g.op("SkipSimplifiedLayerNormalization", x, g.feed_forward(layer, h), following, outputs=4, domain="com.microsoft", epsilon=EPSILON)
    if last_only:
        h = g.op("Slice", h, g.ints(-1), g.ints(2**31), g.ints(1))
    g.op("MatMul", h, g.weight("head"), out=["logits"])
    inputs = [value("input_ids", TensorProto.INT64, "batch", "tokens"), value("attention_mask", TensorProto.INT64, "batch", "total")]
    inputs += cache_values(g.type, "past_key_values", "past")
    outputs = [value("logits", g.type, "batch", "rows" if last_only else "tokens", VOCAB)] + cache_values(g.type, "present", "total")
    return g.model(inputs, outputs, "fixture")


# As Optimum does it: rotation, mask and softmax with standard operators, present = past and what is new.
#   causal: "right"; "traced": several tokens behind a cache see each other; as exports do that were traced with one token.
def copied(weights, positions=True, cache=True, causal="right"):
    g = Graph(weights)
    tokens = g.op("Gather", g.op("Shape", "input_ids"), g.constant(np.array(1, np.int64), "one"), axis=0)
    zero = g.constant(np.array(0, np.int64), "zero")
    one = "one"
    past = g.op("Gather", g.op("Shape", "past_key_values.0.key"), g.constant(np.array(2, np.int64), "two"), axis=0) if cache else zero
    total = g.op("Add", past, tokens)
    rows = g.op("Unsqueeze", g.op("Range", past, total, one), g.ints(1))  # [tokens, 1]
    columns = g.op("Unsqueeze", g.op("Range", zero, total, one), g.ints(0))  # [1, total]
    seen = g.op("LessOrEqual", columns, rows)
    if causal == "traced":
        seen = g.op("Or", seen, g.op("Greater", past, zero))
    attended = g.op("Cast", g.op("Unsqueeze", "attention_mask", g.ints(1, 2)), to=TensorProto.BOOL)  # [batch, 1, 1, total]
    mask = g.op("Where", g.op("And", attended, seen), g.scalar(0.0), g.constant(np.array(np.finfo(np.float32).min, np.float32), "lowest"))
    place = "position_ids" if positions else g.op("Expand", g.op("Unsqueeze", g.op("Range", past, total, one), g.ints(0)), g.op("Shape", "input_ids"))
    cos = g.op("Unsqueeze", g.op("Gather", g.weight("cos"), place, axis=0), g.ints(1))  # [batch, 1, tokens, DIM / 2]
    sin = g.op("Unsqueeze", g.op("Gather", g.weight("sin"), place, axis=0), g.ints(1))

    def heads(x, count):
        return g.op("Transpose", g.op("Reshape", x, g.ints(0, 0, count, DIM)), perm=[0, 2, 1, 3])

    def rotate(x):
        a, b = g.op("Split", x, outputs=2, axis=-1, num_outputs=2)
        left = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
        right = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
        return g.op("Concat", left, right, axis=-1)

    x = g.op("Gather", g.weight("embed"), "input_ids", axis=0)
    for layer in range(LAYERS):
        h = g.norm(x, f"{layer}.norm1")
        q = rotate(heads(g.op("MatMul", h, g.weight(f"{layer}.q")), HEADS))
        k = rotate(heads(g.op("MatMul", h, g.weight(f"{layer}.k")), KV_HEADS))
        v = heads(g.op("MatMul", h, g.weight(f"{layer}.v")), KV_HEADS)
        if cache:
            k = g.op("Concat", f"past_key_values.{layer}.key", k, out=[f"present.{layer}.key"], axis=2)
            v = g.op("Concat", f"past_key_values.{layer}.value", v, out=[f"present.{layer}.value"], axis=2)
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]))  # one head of keys: broadcast
        scores = g.op("Add", g.op("Mul", scores, g.scalar(float(1 / np.sqrt(DIM)))), mask)
        mixed = g.op("Transpose", g.op("MatMul", g.op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        x = g.op("Add", x, g.op("MatMul", g.op("Reshape", mixed, g.ints(0, 0, HEADS * DIM)), g.weight(f"{layer}.o")))
        x = g.op("Add", x, g.feed_forward(layer, g.norm(x, f"{layer}.norm2")))
    g.op("MatMul", g.norm(x, "final_norm"), g.weight("head"), out=["logits"])
    inputs = [value("input_ids", TensorProto.INT64, "batch", "tokens"), value("attention_mask", TensorProto.INT64, "batch", "total")]
    if positions:
        inputs.append(value("position_ids", TensorProto.INT64, "batch", "tokens"))
    outputs = [value("logits", TensorProto.FLOAT, "batch", "tokens", VOCAB)]
    if cache:
        inputs += cache_values(TensorProto.FLOAT, "past_key_values", "past")
        outputs += cache_values(TensorProto.FLOAT, "present", "total")
    return g.model(inputs, outputs, "fixture")


CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
          "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": DIM, "max_position_embeddings": CONTEXT,
          "bos_token_id": 1, "eos_token_id": 2}
GENAI = {"model": {"type": "llama", "bos_token_id": 1, "eos_token_id": [2], "context_length": CONTEXT, "vocab_size": VOCAB,
                   "decoder": {"filename": "model.onnx", "head_size": DIM, "hidden_size": WIDTH, "num_attention_heads": HEADS,
                               "num_hidden_layers": LAYERS, "num_key_value_heads": KV_HEADS,
                               "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", "past_key_names": "past_key_values.%d.key",
                                          "past_value_names": "past_key_values.%d.value"},
                               "outputs": {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}}},
         "search": {"do_sample": False, "temperature": 1.0, "top_k": 1, "top_p": 1.0}}


def tokenizer():
    words = ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(3, VOCAB)]
    special = [{"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, word in enumerate(words[:3])]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"}}


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/onnx")
    # The first seed whose answers are no single repeated word and leave no doubt about any token, in half precision too.
    for seed in range(1000):
        weights = make_weights(seed)
        found = [greedy(weights, prompt) for prompt in PROMPTS]
        if min(margin for _, margin in found) > 0.03 and min(len(set(answer)) for answer, _ in found) > 2:
            break
    else:
        sys.exit("no seed will do")
    graphs = {"shared": shared(weights), "shared_f16": shared(weights, half=True), "last_logits": shared(weights, last_only=True),
              "copied": copied(weights), "no_positions": copied(weights, positions=False), "traced": copied(weights, causal="traced"),
              "no_cache": copied(weights, cache=False)}
    for name, model in graphs.items():
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        # The first keeps its weights beside the graph, as large models do.
        onnx.save(model, folder / "model.onnx", save_as_external_data=name == "shared", location="model.onnx.data", size_threshold=256)
        genai = name.startswith("shared")
        (folder / ("genai_config.json" if genai else "config.json")).write_text(json.dumps(GENAI if genai else CONFIG, indent=1) + "\n")
        for file in folder.iterdir():
            file.chmod(0o644)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer()) + "\n")
    answers = []
    for prompt, (answer, margin) in zip(PROMPTS, found):
        answers.append({"prompt": prompt, "answer": answer, "margin": margin, "logits": [round(float(x), 6) for x in reference(weights, prompt)[-1]]})
        print(prompt, answer, f"margin {margin:.3f}")
    print(f"seed {seed}")
    (root / "golden.json").write_text(json.dumps({"answers": answers}, indent=1) + "\n")


if __name__ == "__main__":
    main()
