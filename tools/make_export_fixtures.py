#!/usr/bin/env python3
"""Makes tests/golden/onnx_exports: tiny models of tests/golden/models as ONNX, exported by the tools that people export
with, and what transformers computes for the same weights.

Each row of ROWS becomes a directory: what the exporter has written, as it was written, and golden.json:
    answers     [{prompt, answer, margin, logits}]: greedy tokens after the prompt, the least margin between the best
                and the second logit relative to the range of the logits, and the logits after the prompt
    error       the largest error of these logits that ONNX Runtime makes here, relative to their range

The reference is f32. That of quantised weights has them as the graph holds them, written back into the model.

The exporters want transformers of different times, so that two of them get folders of their own:
    python3 -m venv EXPORTS && . EXPORTS/bin/activate
    pip install torch==2.8.* transformers==4.57.* optimum==2.1.* optimum-onnx==0.1.0 onnx==1.23.* onnxruntime==1.32.* \\
                onnxruntime-genai==0.18.* onnx-ir==1.1.*
    pip install --target BUILDER transformers==5.*
    pip install --target MERGED --no-deps optimum==1.23.3 transformers==4.45.2 'tokenizers<0.21' 'huggingface-hub<1' \\
                'numpy<2' onnx==1.17.* coloredlogs humanfriendly 'datasets<3'
    python tools/make_export_fixtures.py --builder BUILDER --merged MERGED [ROW...]
The tests never run this script. Seeds are fixed; prompts whose answers leave doubt try the next seed.
"""
import argparse
import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from onnx import numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parent.parent
SOURCES = ROOT / "tests" / "golden" / "models"
OUT = ROOT / "tests" / "golden" / "onnx_exports"
PROMPT_LENGTHS = [7, 1, 40, 3, 5]
ANSWER = 10
PRECISIONS = {"genai_llama3": "fp32", "genai_llama3_int4": "int4", "genai_qwen3": "fp32"}
# name: the model that is exported, by what, the least margin that is no doubt, and the tokens of an answer. Activations in
# int8 move the logits of genai_llama3_int4 by up to 4 % of their range: its answers end where that leaves doubt.
ROWS = {
    "optimum_llama3": ("llama3", "optimum", 0.02, ANSWER),
    "optimum_gpt2": ("gpt2", "optimum", 0.02, ANSWER),
    "optimum_merged": ("llama2", "merged", 0.02, ANSWER),
    "genai_llama3": ("llama3", "builder", 0.02, ANSWER),
    "genai_llama3_int4": ("llama3", "builder", 0.08, 4),
    "genai_qwen3": ("qwen3_bf16", "builder", 0.02, ANSWER),
}
# Attention of torch, which Optimum exports, does not know this option of the golden model.
CHANGES = {"gpt2": {"scale_attn_by_inverse_layer_idx": False}}
# What a model is run from; the exporters write more.
KEPT = ["model.onnx", "model.onnx.data", "decoder_model_merged.onnx", "config.json", "generation_config.json", "genai_config.json",
        "tokenizer.json", "tokenizer_config.json"]
MERGED = """
import sys
from optimum.exporters.onnx import main_export
main_export(sys.argv[1], sys.argv[2], task="text-generation-with-past", legacy=True)
"""


def prepare(source, folder):
    """The model as exporters want it: with a tokenizer, of one word for each token."""
    folder.mkdir(parents=True)
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    config = json.loads((folder / "config.json").read_text()) | CHANGES.get(source.name, {})
    (folder / "config.json").write_text(json.dumps(config))
    size = config["vocab_size"]
    words = ["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(3, size)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)


def run(command, folder, extra_path=None):
    environment = dict(os.environ, HF_HUB_OFFLINE="1")
    if extra_path:
        environment["PYTHONPATH"] = str(extra_path.resolve())
    done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stdout[-4000:]}")


def export(name, exporter, model, scratch, options):
    """Into scratch/out; the paths are relative, since exporters write them down."""
    if exporter == "optimum":
        tool = str(pathlib.Path(sys.executable).parent / "optimum-cli")
        run([tool, "export", "onnx", "--model", model, "--task", "text-generation-with-past", "out"], scratch)
    elif exporter == "merged":
        run([sys.executable, "-c", MERGED, model, "out"], scratch, options.merged)
        for part in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
            (scratch / "out" / part).unlink()
    else:
        run([sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", model, "-o", "out", "-p", PRECISIONS[name], "-e", "cpu",
             "-c", "cache"], scratch, options.builder)


# ---- the reference
def dequantised(initialisers, name):
    """[outputs, inputs] of a MatMulNBits of 4 bits with no zero points: two weights in a byte, the lower first."""
    packed, scales = initialisers[name + "_Q4"], initialisers[name + "_scales"]
    outputs, blocks, _ = packed.shape
    values = np.stack([packed & 15, packed >> 4], -1).reshape(outputs, blocks, -1).astype(np.float32) - 8
    return (values * scales.reshape(outputs, blocks, 1)).reshape(outputs, -1)


def write_back(model, graph, folder):
    """Puts the graph's quantised weights into the model."""
    proto = onnx.load(graph)
    initialisers = {i.name: numpy_helper.to_array(i, str(folder)) for i in proto.graph.initializer}

    def put(parameter, values):
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(values[:, : parameter.shape[1]])))

    for number, layer in enumerate(model.model.layers):
        fused = dequantised(initialisers, f"model.layers.{number}.attn.qkv_proj.MatMul.weight")
        at = 0
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            put(part.weight, fused[at : at + part.weight.shape[0]])
            at += part.weight.shape[0]
        put(layer.self_attn.o_proj.weight, dequantised(initialisers, f"model.layers.{number}.attn.o_proj.MatMul.weight"))
        for part in ("gate_proj", "up_proj", "down_proj"):
            put(getattr(layer.mlp, part).weight, dequantised(initialisers, f"model.layers.{number}.mlp.{part}.MatMul.weight"))
    put(model.lm_head.weight, dequantised(initialisers, "lm_head.MatMul.weight"))  # tied: the embeddings, too


def greedy(model, prompt, least_margin):
    """The tokens up to the first that leaves doubt, their least margin, and the logits after the prompt."""
    tokens, margins, first = list(prompt), [], None
    for _ in range(ANSWER):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, -1].numpy()
        first = logits if first is None else first
        best = np.sort(logits)[-2:]
        margin = float(best[1] - best[0]) / float(logits.max() - logits.min())
        if margin < least_margin:
            break
        margins.append(margin)
        tokens.append(int(logits.argmax()))
    return tokens[len(prompt):], min(margins, default=0.0), first


def answers_of(model, least_margin, least_tokens):
    vocabulary = model.config.vocab_size
    answers = []
    for length in PROMPT_LENGTHS:
        for seed in range(1000):
            prompt = np.random.default_rng(1000 * length + seed).integers(3, vocabulary, length).tolist()
            answer, margin, logits = greedy(model, prompt, least_margin)
            if len(answer) >= least_tokens and len(set(answer)) > 2:
                break
        else:
            sys.exit(f"no prompt of {length} tokens leaves no doubt")
        answers.append({"prompt": prompt, "answer": answer, "margin": round(margin, 4), "logits": [round(float(x), 6) for x in logits]})
    return answers


def error_of(graph, answers, exact=False):
    """How far ONNX Runtime is from the reference with each prompt at once; exact: without rounding activations."""
    proto = onnx.load(graph)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if exact and attribute.name == "accuracy_level":
                attribute.i = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    genai = graph.parent / "genai_config.json"
    head = json.loads(genai.read_text())["model"]["decoder"]["head_size"] if genai.exists() else 0
    worst = 0.0
    for row in answers:
        count = len(row["prompt"])
        text = {"input_ids": [row["prompt"]], "attention_mask": [[1] * count], "position_ids": [list(range(count))], "use_cache_branch": [False]}
        feeds = {}
        for port in session.get_inputs():
            if port.name in text:
                feeds[port.name] = np.array(text[port.name])
            else:
                feeds[port.name] = np.zeros((1, port.shape[1], 0, head or port.shape[3]), np.float32)
        logits = session.run(["logits"], feeds)[0][0, -1]
        expected = np.array(row["logits"])
        worst = max(worst, float(np.abs(logits - expected).max() / (expected.max() - expected.min())))
    return worst


def versions(packages, folder=None):
    found = []
    for package in packages:
        paths = {"path": [str(folder)]} if folder else {}
        found += [f"{package} {each.version}" for each in importlib.metadata.distributions(name=package, **paths)][:1]
    return ", ".join(found)


def make(name, options):
    source, exporter, least_margin, least_tokens = ROWS[name]
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        prepare(SOURCES / source, scratch / source)
        export(name, exporter, source, scratch, options)
        folder = OUT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for file in KEPT:
            if (scratch / "out" / file).exists():
                shutil.copyfile(scratch / "out" / file, folder / file)
        model = transformers.AutoModelForCausalLM.from_pretrained(scratch / source, attn_implementation="eager").float().eval()
    graph = next(file for file in folder.iterdir() if file.suffix == ".onnx")
    if PRECISIONS.get(name) == "int4":
        write_back(model, graph, folder)
    answers = answers_of(model, least_margin, least_tokens)
    error = error_of(graph, answers)
    if error_of(graph, answers, exact=True) > 1e-5:
        sys.exit(f"{name}: the graph is not this model")
    (folder / "golden.json").write_text(json.dumps({"answers": answers, "error": float(f"{error:.2g}")}) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name:20} error {error:.2e}  least margin {min(row['margin'] for row in answers):.3f}  {size / 1e3:.0f} kB")
    exported_by = {
        "optimum": "`optimum-cli export onnx --task text-generation-with-past`",
        "merged": "Optimum of 2024, `main_export(..., task=\"text-generation-with-past\", legacy=True)`: both branches in one graph",
        "builder": f"`python -m onnxruntime_genai.models.builder -p {PRECISIONS.get(name)} -e cpu`",
    }[exporter]
    tools = {
        "optimum": versions(["optimum", "optimum-onnx", "transformers", "torch", "onnx"]),
        "merged": versions(["optimum", "transformers", "onnx"], options.merged) + ", " + versions(["torch"]),
        "builder": versions(["onnxruntime-genai"]) + ", " + versions(["transformers"], options.builder) + ", "
                   + versions(["torch", "onnxruntime", "onnx-ir"]),
    }[exporter]
    return f"| `{name}` | `{source}` | {exported_by} | {tools} |"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", nargs="*", default=[])
    parser.add_argument("--builder", type=pathlib.Path, required=True, help="folder of the builder's transformers")
    parser.add_argument("--merged", type=pathlib.Path, required=True, help="folder of the older Optimum")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    readme = OUT / "README.md"
    rows = {}
    if readme.exists():
        rows = {line.split("`")[1]: line for line in readme.read_text().splitlines() if line.startswith("| `")}
    for name in options.rows or ROWS:
        rows[name] = make(name, options)
    readme.write_text(
        "# Exports by the tools that people export with\n\n"
        "Made once by `tools/make_export_fixtures.py`, whose head says how to make them again, from the tiny random models of\n"
        "`tests/golden/models`. Each directory is what the exporter wrote, as it wrote it, and `golden.json`: what transformers\n"
        f"({versions(['transformers'])}) computes for the same weights.\n\n"
        "| fixture | model | made by | versions |\n|---|---|---|---|\n" + "\n".join(rows[name] for name in ROWS if name in rows) + "\n")


if __name__ == "__main__":
    main()
