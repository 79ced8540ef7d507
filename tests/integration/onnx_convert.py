"""Converts the golden models with the program and runs the results in ONNX Runtime.

  python tests/integration/onnx_convert.py build/dev/inferneo [--only NAME] [--kinds genai,standard-21] [--quality]

Exit code 77 (skipped, with the reason in one line) when onnx, onnxruntime or numpy is not there.

Held for every golden model and every kind of graph: onnx's checker takes the file; at f32 logits are within 1e-4 of the
range of what transformers computes and greedy tokens are equal (up to near ties); at f16 within the bound below; a prompt
computed at once equals one computed in pieces; sequences of different lengths decoded as one batch equal those alone.
int8 and int4 are held to a divergence. --quality measures int8 and int4 on the bundled models' own texts, and holds int4 as it
is without options to what the native runner's int4 does on them.
"""
import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "models"
SKIPPED = 77
KINDS = ("genai", "standard-21", "standard-23")
# Of the range of the golden logits. Weights, activations, cache and the rotary tables are rounded at 2^-12 each; random
# networks of this kind (gains of 2 in q and k) amplify that.
F16_BOUND = 0.02
# Mean divergence in nats from the golden distributions; these models are random and 32 wide, so a rounding weighs much.
DIVERGENCE = {"int8": 0.05, "int4": 1.0}
# Divergence and same best token of the native int4 on the texts of --quality (docs/convert.md).
NATIVE_INT4 = {"inferneo-story": (0.0067, 0.9766), "inferneo-code": (0.0087, 0.9715)}
# LongRoPE chooses its factors by the longest sequence; this model's short ones end at 128.
LENGTHS = {"phi3_longrope_short": 128}


def missing():
    for name in ("numpy", "onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            return name
    return None


if (absent := missing()) is None:
    import numpy as np
    import onnx
    import onnxruntime as ort


def read_safetensors(path):
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    types = {"F32": np.float32, "I32": np.int32}
    tensors = {}
    for name, entry in json.loads(data[8:8 + size]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[8 + size + begin:8 + size + end], types[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def convert(program, model, output, *flags):
    command = [program, "convert", str(model), str(output), "--no-verify", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return output


class Graph:
    """A converted model and its cache, as a runner would use it."""

    def __init__(self, directory, check=True):
        path = str(directory / "model.onnx")
        if check:
            onnx.checker.check_model(path, full_check=False)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.config = json.loads((directory / "genai_config.json").read_text())
        self.shared = self.config["search"]["past_present_share_buffer"]
        self.half = "float16" in self.inputs["past_key_values.0.key"].type
        self.layers = self.config["model"]["decoder"]["num_hidden_layers"]
        assert self.session.get_modelmeta().producer_name == "inferneo"

    def cache(self, batch, length):
        """Zeros, or, where past and present share a buffer, something that must never be read."""
        arrays = {}
        for layer in range(self.layers):
            for part in ("key", "value"):
                _, heads, _, width = self.inputs[f"past_key_values.{layer}.{part}"].shape
                kind = np.float16 if self.half else np.float32
                arrays[f"{layer}.{part}"] = np.full((batch, heads, length, width), np.nan, kind)
        return arrays

    def call(self, tokens, past, mask, positions, shared=None):
        """Logits and the new cache. shared: OrtValues that are past and present at once."""
        feeds = {"input_ids": np.asarray(tokens, np.int64), "attention_mask": np.asarray(mask, np.int64)}
        if "position_ids" in self.inputs:
            feeds["position_ids"] = np.asarray(positions, np.int64)
        if shared is None:
            feeds |= {f"past_key_values.{name}": array for name, array in past.items()}
            names = [f"present.{name}" for name in past]
            logits, *present = self.session.run(["logits", *names], feeds)
            return logits, dict(zip(past, present))
        binding = self.session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        binding.bind_output("logits")
        for name, value in shared.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)
        self.session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()[0], shared

    def prompt(self, tokens, chunks=(10 ** 9,), room=0):
        """Logits of a sequence computed in chunks (the last repeats); room: of a shared buffer."""
        shared = None
        past = self.cache(1, 0)
        if room:
            shared = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in self.cache(1, room).items()}
        logits, done, step = [], 0, 0
        while done < len(tokens):
            count = min(chunks[min(step, len(chunks) - 1)], len(tokens) - done)
            piece, past = self.call([tokens[done:done + count]], past, np.ones((1, done + count)),
                                    [range(done, done + count)], shared)
            logits.append(piece[0])
            done, step = done + count, step + 1
        self.past = past
        return np.concatenate(logits)

    def greedy(self, prompt, count):
        tokens = list(prompt)
        row = self.prompt(tokens)[-1]
        while True:
            tokens.append(int(row.argmax()))
            if len(tokens) == len(prompt) + count:
                return tokens[len(prompt):]
            size = len(tokens)
            logits, self.past = self.call([tokens[-1:]], self.past, np.ones((1, size)), [[size - 1]])
            row = logits[0, -1]

    def batched(self, tokens, lengths, room):
        """The logits of the last of so many tokens each, decoded as one batch over the slots of a shared buffer."""
        slots = self.cache(len(lengths), room)
        for slot, length in enumerate(lengths):
            self.prompt(tokens[:length - 1])
            for name, array in self.past.items():
                slots[name][slot, :, :length - 1] = array[0]
        shared = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in slots.items()}
        mask = np.zeros((len(lengths), max(lengths)))
        for slot, length in enumerate(lengths):
            mask[slot, :length] = 1
        logits, _ = self.call([[tokens[length - 1]] for length in lengths], None, mask,
                              [[length - 1] for length in lengths], shared)
        return logits[:, 0]

    def padded(self, tokens, lengths, left):
        """The logits of the last of so many tokens each, as one batch that is padded to the longest."""
        width = max(lengths)
        ids, mask, positions = np.zeros((3, len(lengths), width), np.int64)
        for row, length in enumerate(lengths):
            at = slice(width - length, width) if left else slice(0, length)
            ids[row, at], mask[row, at], positions[row, at] = tokens[:length], 1, range(length)
        logits, _ = self.call(ids, self.cache(len(lengths), 0), mask, positions)
        return np.stack([logits[row, -1 if left else length - 1] for row, length in enumerate(lengths)])


def relative(got, want):
    assert got.shape == want.shape, (got.shape, want.shape)
    assert np.isfinite(got).all(), "logits that are no numbers"
    return float(np.abs(got - want).max() / (want.max() - want.min()))


def divergence(got, want):
    """Mean divergence in nats, and how often the best token is the same."""
    def logs(x):
        x = x.astype(np.float64) - x.max(-1, keepdims=True)
        return x - np.log(np.exp(x).sum(-1, keepdims=True))
    p, q = logs(want), logs(got)
    return float((np.exp(p) * (p - q)).sum(-1).mean()), float((got.argmax(-1) == want.argmax(-1)).mean())


def check_greedy(graph, expected, bound):
    margin = 2 * bound * float(expected["logits"].max() - expected["logits"].min())
    tokens = graph.greedy(expected["prompt"].tolist(), len(expected["greedy_tokens"]))
    for got, want, gap in zip(tokens, expected["greedy_tokens"], expected["greedy_margins"]):
        if gap <= margin:  # a near tie; nothing follows from the rest
            return
        assert got == want, "greedy tokens differ"


def check_model(program, name, kind, precision, folder):
    flags = ["--precision", precision, "--opset", kind]
    if name in LENGTHS:
        flags += ["--max-model-len", str(LENGTHS[name])]
    graph = Graph(convert(program, GOLDEN / name, folder / f"{name}-{kind}-{precision}", *flags))
    expected = read_safetensors(GOLDEN / name / "expected.safetensors")
    prompt = expected["prompt"].tolist()
    logits = graph.prompt(prompt)
    worst = relative(logits, expected["logits"])
    nats, agreement = divergence(logits, expected["logits"])
    if precision in DIVERGENCE:
        assert nats <= DIVERGENCE[precision], f"divergence {nats:.3g}"
        return worst, nats, agreement
    bound = 1e-4 if precision == "f32" else F16_BOUND
    assert worst <= bound, f"logits differ by {worst:.2g} of their range, at most {bound:.2g} is right"
    check_greedy(graph, expected, bound)
    again = bound if precision == "f16" else 1e-5
    assert relative(graph.prompt(prompt, (1,)), logits) <= again, "token by token"
    assert relative(graph.prompt(prompt, (7, 1, 5, 12)), logits) <= again, "in chunks"
    lengths = [9, len(prompt), 23, 2]
    ends = np.stack([logits[length - 1] for length in lengths])
    if graph.shared:
        assert relative(graph.prompt(prompt, (20, 1), room=64), logits) <= again, "in a shared buffer"
        assert relative(graph.batched(prompt, lengths, 64), ends) <= again, "slots of a batch"
    else:
        assert relative(graph.padded(prompt, lengths, True), ends) <= again, "padded left"
        assert relative(graph.padded(prompt, lengths, False), ends) <= again, "padded right"
    return worst, nats, agreement


def own_texts(graph, count=16, length=160):
    """What the model writes by itself at temperature 1; token 2 ends a document, so a new one begins behind it."""
    random = np.random.default_rng(7)
    tokens = np.full((count, 1), 2)
    past = graph.cache(count, 0)
    while tokens.shape[1] < length:
        size = tokens.shape[1]
        logits, past = graph.call(tokens[:, -1:], past, np.ones((count, size)), np.full((count, 1), size - 1))
        row = logits[:, -1].astype(np.float64)
        row = np.exp(row - row.max(-1, keepdims=True))
        chosen = [random.choice(len(p), p=p / p.sum()) for p in row]
        tokens = np.concatenate([tokens, np.asarray(chosen)[:, None]], axis=1)
    return tokens


def bits_per_weight(graph_folder, weights):
    return 8 * (graph_folder / "model.onnx.data").stat().st_size / weights


def measure_quality(program, folder):
    """How many models are worse than they may be."""
    failures = 0
    print(f"{'model':16} {'weights':22} {'bits':>5} {'divergence':>10}  {'same best token':>15}")
    for name in ("inferneo-story", "inferneo-code"):
        source = ROOT / "models" / name
        at_f32 = convert(program, source, folder / f"{name}-f32", "--precision", "f32")
        exact = Graph(at_f32)
        weights = (at_f32 / "model.onnx.data").stat().st_size / 4
        texts = own_texts(exact)
        want = np.concatenate([exact.prompt(text) for text in texts])
        for flags in (["f16"], ["int8"], ["int4"], ["int4", "--block-size", "16"], ["int4", "--block-size", "32"],
                      ["int4", "--block-size", "64"], ["int4", "--block-size", "128"],
                      ["int4", "--activations", "f16"], ["int4", "--accuracy-level", "1"]):
            title = " ".join(flags)
            converted = convert(program, source, folder / f"{name}-{title.replace(' ', '')}", "--precision", *flags)
            graph = Graph(converted)
            got = np.concatenate([graph.prompt(text) for text in texts])
            nats, agreement = divergence(got, want)
            print(f"{name:16} {title:22} {bits_per_weight(converted, weights):5.2f} {nats:10.2g}  {100 * agreement:13.2f} %")
            if flags == ["int4"] and (nats > NATIVE_INT4[name][0] or agreement < NATIVE_INT4[name][1]):
                failures += 1
                print(f"FAILED {name}: int4 is worse than the native one, {NATIVE_INT4[name]}")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--only", help="models whose names hold this")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--precisions", default="f32,f16,int8,int4")
    parser.add_argument("--quality", action="store_true", help="measure int8 and int4 on the bundled models")
    options = parser.parse_args()
    if absent is not None:
        print(f"skipped: no {absent} for {sys.executable}")
        return SKIPPED
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if options.quality:
            return 1 if measure_quality(options.program, folder) else 0
        names = sorted(p.name for p in GOLDEN.iterdir() if p.is_dir() and (options.only or "") in p.name)
        assert names, "no golden models"
        failures = 0
        for precision in options.precisions.split(","):
            for kind in options.kinds.split(","):
                rows = []
                for name in names:
                    try:
                        rows.append(check_model(options.program, name, kind, precision, folder))
                    except Exception as error:  # each model says what is wrong with it
                        failures += 1
                        print(f"FAILED {name} {kind} {precision}: {str(error)[:600]}")
                if rows:
                    worst, nats, agreement = np.asarray(rows).T
                    print(f"{kind} {precision}: {len(rows)} of {len(names)} models, largest difference {worst.max():.2g} of the "
                          f"range, divergence at most {nats.max():.2g}, best token the same at {100 * agreement.mean():.1f} %")
        return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
