#!/usr/bin/env python3
"""ONNX models of the converter in this engine and in onnxruntime-genai: the same files, the same ONNX Runtime, alternating rounds.

    python3 tools/make_random_model.py small-32k /tmp/small-32k                          (once; needs numpy)
    python3 -m venv /tmp/genai && /tmp/genai/bin/pip install onnxruntime-genai onnx      (once)
    python3 benchmarks/onnx/report.py /tmp/small-32k --genai-python /tmp/genai/bin/python

Converts the model once for each type, beside the results. Each round measures both engines in the order A B B A (A:
inferneo), each time in a process of its own, so that a drift of the machine falls on both; a round's ratio is that of the
two sums. The machine's peaks are measured before and after. This engine loads the ONNX Runtime that the other Python has,
so both run the same kernels. Writes OUT.md, OUT.svg and OUT.json. --continue goes on with the rounds of OUT.json;
--from OUT.json writes the page anew without measuring.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "throughput"))

import side_by_side  # noqa: E402
from side_by_side import Failed, beside, json_of  # noqa: E402
from side_by_side_page import is_quiet, rates, ratios, spread  # noqa: E402

TYPES = ("f32", "int4", "int8", "f16")
PEER = "onnxruntime-genai"
STEP_TOKENS = 2048  # of this engine: prompts are computed at once, not spread over others' steps to keep those short


class Inferneo:
    def __init__(self, args, model):
        self._args = args
        longest = max(args.prefill + 8, args.prompt + args.output)
        self._line = [args.binary, "bench", model, "--onnxruntime", args.onnxruntime, "--num-threads", args.threads,
                      "--max-model-len", longest, "--max-num-seqs", args.many, "--max-num-batched-tokens", STEP_TOKENS, "--no-peaks", "--rounds", 1, "--json", "-"]

    def _rows(self, *flags):
        rows = json_of([*self._line, *flags])["rows"]
        return {row["batch"]: {name: value["median"] for name, value in row.items() if isinstance(value, dict)} for row in rows}

    def rates(self):
        streams = sorted({1, self._args.streams, self._args.many})
        try:
            prompt = self._rows("--input-len", self._args.prefill, "--output-len", 8, "--batch-size", 1)[1]
            rows = self._rows("--input-len", self._args.prompt, "--output-len", self._args.output, "--batch-size",
                              ",".join(map(str, streams)))
            decode = {batch: row["decode_tokens_per_second"] for batch, row in rows.items()}
            several = rows[self._args.streams]["output_tokens_per_second"]
            return {"prefill": prompt["prefill_tokens_per_second"], "decode": decode[1], "in_turn": several, "batch": several,
                    "many": decode[self._args.many]}
        except KeyError as error:
            raise Failed(f"{self._args.binary} bench did not measure {error}") from None


class Genai:
    def __init__(self, args, model):
        self._line = [args.genai_python, HERE / "genai_rates.py", model, "--threads", args.threads, "--prefill", args.prefill,
                      "--prompt", args.prompt, "--output", args.output, "--streams", args.streams]
        self.version = "unknown"

    def rates(self):
        found = json_of(self._line)
        self.version = found["version"]
        return found


def cases_of(args):
    """name: key of the two engines' rates."""
    return {f"prefill {args.prefill}": "prefill", "decode, 1 stream": "decode",
            f"{args.streams} streams; the other: in turn": "in_turn", f"{args.streams} streams; the other: a batch": "batch"}


def converted(args):
    """The model in each type; one that is newer than the model and the program is taken as it is."""
    newest = max(file.stat().st_mtime for file in [pathlib.Path(args.binary), *pathlib.Path(args.model).iterdir()])
    paths = {}
    for kind in args.types:
        path = paths[kind] = args.onnx_dir / f"{pathlib.Path(args.model).resolve().name}-{kind}"
        if (path / "model.onnx").is_file() and (path / "model.onnx").stat().st_mtime >= newest:
            continue
        print(f"writing {path}", file=sys.stderr, flush=True)
        side_by_side.output_of([args.binary, "convert", args.model, path, "--precision", kind, "--no-verify", "--overwrite", "--quiet"])
    return paths


def shape_of(args):
    """Inputs of a matrix, and weights of all matrices that a step reads, by the model's config.json."""
    config = json.loads((pathlib.Path(args.model) / "config.json").read_text())
    hidden, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    layer = hidden * head * 2 * (heads + config.get("num_key_value_heads", heads)) + 3 * hidden * inner
    return hidden, config["num_hidden_layers"] * layer + hidden * config["vocab_size"]


def operator(args):
    inputs, weights = shape_of(args)
    return json_of([args.genai_python, HERE / "operator_rates.py", "--threads", args.threads, "--rows", args.many, "--inputs",
                    inputs, "--weights", weights])


def peaks(args):
    return json_of([args.binary, "bench", "--machine", "--json", "-", "--num-threads", args.threads])["machine"]


def measure_round(args, kind, engines, result):
    ours, theirs = engines[kind]
    before = peaks(args)
    a, b, c, d = (engine.rates() for engine in (ours, theirs, theirs, ours))
    bare = operator(args) if kind == "int4" else {}
    after = peaks(args)
    for name, key in cases_of(args).items():
        case = next(c for c in result["cases"] if (c["type"], c["name"]) == (kind, name))
        case["rounds"].append({"ours": [a[key], d[key]], "theirs": [b[key], c[key]], "before": before, "after": after})
        print(f"{kind} {name:<32} {(a[key] + d[key]) / 2:10.2f} and {(b[key] + c[key]) / 2:10.2f} tokens/s", file=sys.stderr, flush=True)
    scaling = next(s for s in result["scaling"] if s["type"] == kind)
    scaling["rounds"].append({"one": [a["decode"], d["decode"]], "many": [a["many"], d["many"]], "operator": bare})
    result["setup"]["genai"] = theirs.version


def measure(args):
    """Round by round; what is done is on disk after each type of each round."""
    file = beside(args.out, ".json")
    models = converted(args)
    if args.go_on and file.is_file():
        result = json.loads(file.read_text())
    else:
        result = {"setup": side_by_side.setup_of(args) | {"peer": PEER, "many": args.many, "streams": args.streams, "onnxruntime":
                                                          pathlib.Path(args.onnxruntime).name},
                  "cases": [{"type": kind, "name": name, "rounds": []} for kind in args.types for name in cases_of(args)],
                  "scaling": [{"type": kind, "rounds": []} for kind in args.types]}
    engines = {kind: (Inferneo(args, models[kind]), Genai(args, models[kind])) for kind in args.types}
    for number in range(args.rounds):
        for kind in args.types if number % 2 == 0 else reversed(args.types):
            scaling = next((s for s in result["scaling"] if s["type"] == kind), None)
            if scaling is None:
                raise Failed(f"{file} holds no rounds of {kind}; leave --continue out")
            if len(scaling["rounds"]) > number:
                continue
            measure_round(args, kind, engines, result)
            file.write_text(json.dumps(result, indent=1) + "\n")
            if args.one:
                return result
    return result


def scaling_rows(result):
    many = result["setup"]["many"]
    for entry in result["scaling"]:
        if not entry["rounds"]:
            continue
        one, several = ([statistics.mean(r[key]) for r in entry["rounds"]] for key in ("one", "many"))
        bare = [r["operator"]["many"] / r["operator"]["one"] for r in entry["rounds"] if r["operator"]]
        yield (f"| {entry['type']} | {spread(one, 1)} | {spread(several, 1)} | {spread([b / a for a, b in zip(one, several)], 2)} "
               f"| {spread(bare, 2) if bare else ''} |"), many


def page(result, picture_name):
    setup = result["setup"]
    cases = [case for case in result["cases"] if case["rounds"]]
    rounds = [round_ for case in cases for round_ in case["rounds"]]
    machines = [round_[when] for round_ in rounds for when in ("before", "after")]
    rows = [f"| {case['type']} | {case['name']} | {spread(rates(case, 'ours'), 1)} | {spread(rates(case, 'theirs'), 1)} "
            f"| {spread(ratios(case), 2)} | {sum(not is_quiet(r) for r in case['rounds']) or ''} |" for case in cases]
    many = setup["many"]
    few = "" if min(len(case["rounds"]) for case in cases) >= 5 else "\nFewer than five rounds: a look at the programs, no measurement.\n"
    return f"""# ONNX models beside {PEER}

Written by `benchmarks/onnx/report.py`, which says how it measures. {setup["model"]}, {setup["date"]}; medians and ranges of
{len(cases[0]["rounds"])} rounds, each in the order A B B A; a ratio above 1 means that Inferneo is faster. Tokens/s. Decoding after
{setup["prompt"]} tokens, {setup["output"]} tokens for each stream. {setup["streams"]} streams: generated tokens over the whole time, prompts included;
Inferneo gets them at once and is told to compute up to {STEP_TOKENS} tokens in a step; {PEER} gets them one after the other
(three are timed), or as one batch of prompts of one length that begin and end together.

Machine: {setup["processor"]}, {setup["threads"]} threads, {machines[0]["isa"]}; read
{spread([m["read_bytes_per_second"] / 1e9 for m in machines], 1)} GB/s. {PEER} {setup.get("genai", "unknown")}; both with {setup["onnxruntime"]}.
{few}
| type | case | Inferneo | {PEER} | ratio | rounds that were not quiet |
|---|---|---|---|---|---|
{chr(10).join(rows)}

![Ratios]({picture_name})

## {many} streams over one
Decoding, tokens/s in Inferneo; beside it the same ratio of rows/s of `MatMulNBits` alone, of one row and of {many} at once.

| type | 1 stream | {many} streams | ratio | of the operator |
|---|---|---|---|---|
{chr(10).join(row for row, _ in scaling_rows(result))}
"""


def runtime_of(python):
    """The library that the other Python's onnxruntime has."""
    line = [python, "-c", "import glob, os, onnxruntime; print(glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so*')[0])"]
    return side_by_side.output_of(line).strip()


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def positive(text):
        return side_by_side.whole_numbers(text)[0]

    def types(text):
        kinds = text.split(",")
        if unknown := [kind for kind in kinds if kind not in TYPES]:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(TYPES)}, got {unknown[0]!r}")
        return kinds

    parser.add_argument("model", nargs="?", help="in Hugging Face layout")
    parser.add_argument("--genai-python", metavar="PATH", help="a Python with onnxruntime-genai, onnx and numpy")
    parser.add_argument("--onnxruntime", metavar="FILE", help="for this engine [the library that --genai-python has]")
    parser.add_argument("--binary", default=str(ROOT / "build/release/inferneo"), help="[build/release/inferneo]")
    parser.add_argument("--types", type=types, default=["f32", "int4"], metavar="T,T", help="f32, f16, int8, int4 [f32,int4]")
    parser.add_argument("--rounds", type=positive, default=5, help="at least five tell something [5]")
    parser.add_argument("--prefill", type=positive, default=512, help="tokens of the prompt of that case [512]")
    parser.add_argument("--streams", type=positive, default=8, help="beside the other engine [8]")
    parser.add_argument("--many", type=positive, default=16, help="streams of the table beside the operator [16]")
    parser.add_argument("--prompt", type=positive, default=32, help="tokens before decoding [32]")
    parser.add_argument("--output", type=positive, default=48, help="tokens of each stream [48]")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="[all processors]")
    parser.add_argument("--onnx-dir", type=pathlib.Path, default=ROOT / "build/onnx_report", help="of converted models [build/onnx_report]")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/onnx_report/page", help="without ending [build/onnx_report/page]")
    parser.add_argument("--continue", dest="go_on", action="store_true", help="with the rounds of OUT.json")
    parser.add_argument("--one", action="store_true", help="stop after one round of one type")
    parser.add_argument("--from", dest="results", type=pathlib.Path, metavar="JSON", help="write the page of these results anew")
    args = parser.parse_args(arguments)
    if not args.results and not (args.model and args.genai_python):
        parser.error("a model and --genai-python are needed, or --from")
    if args.output < 8:
        parser.error("--output: expected 8 or more tokens, which is the least that can be timed")
    return args


def main(arguments=None):
    args = parse(arguments)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.results:
            result = json.loads(args.results.read_text())
        else:
            if (load := os.getloadavg()[0]) > 0.5:
                print(f"warning: the load average is {load:.1f}; other work disturbs the measurement", file=sys.stderr)
            args.onnxruntime = args.onnxruntime or runtime_of(args.genai_python)
            result = measure(args)
        side_by_side.write_report(args.out, result, page)
    except (Failed, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
        print(f"onnx report: {error}", file=sys.stderr)
        return 1
    print(beside(args.out, ".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
