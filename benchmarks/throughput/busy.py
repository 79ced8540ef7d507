#!/usr/bin/env python3
"""How much of a model's speed is left beside other processes that are busy.

    python3 benchmarks/throughput/busy.py MODEL --quantization int4

Each round measures the model alone and beside one busy process (a loop that does nothing), in turn, each time in a process
of its own: with the busy one tied to the last core ("tied"), and wherever the kernel puts it ("free"). Of two cores of
which one is shared fairly three quarters are left at most. Prints a row for each; a part of a speed is that of its round.
--from JSON prints the rows of an earlier run.
"""
import argparse
import contextlib
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

from growth import Failed, run  # noqa: E402
from side_by_side_page import spread  # noqa: E402

LOOP = "while True: pass"
KINDS = {"prefill": "prefill_tokens_per_second", "decode": "decode_tokens_per_second"}


@contextlib.contextmanager
def beside(place):
    """A busy process, if a place is said for it."""
    if place is None:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", LOOP])
    try:
        if place == "tied":
            os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})
        yield
    finally:
        process.kill()
        process.wait()


def measure_one(args, place):
    with beside(place):
        report, _ = run([args.binary, "bench", args.model, "--input-len", args.prompt, "--output-len", args.output, "--batch-size", 1,
                         "--rounds", 1, "--no-peaks", "--json", "-", "--num-threads", args.threads,
                         "--quantization", args.quantization])
    row = report["rows"][0]
    return {kind: row[name]["median"] for kind, name in KINDS.items()}


def measure(args):
    rounds = []
    measure_one(args, None)  # packs the weights, which the others find packed
    for number in range(args.rounds):
        places = [None, "tied", "free"]
        speeds = {place: measure_one(args, place) for place in (places if number % 2 == 0 else places[::-1])}
        rounds.append([[place, speeds[place]] for place in places])
        print(f"round {number + 1}: " + ", ".join(
            f"{place or 'alone'} {speeds[place]['prefill']:.1f} and {speeds[place]['decode']:.2f} tokens/s" for place in places),
            file=sys.stderr, flush=True)
    return {"model": pathlib.Path(args.model).resolve().name, "quantization": args.quantization, "prompt": args.prompt,
            "output": args.output, "threads": args.threads, "rounds": rounds}


def table(result):
    lines = [f"{result['model']}, {result['quantization']}, {result['threads']} threads: prompts of {result['prompt']}, "
             f"{result['output']} tokens decoded; medians and ranges of {len(result['rounds'])} rounds", "",
             "| busy process | | alone, tokens/s | beside it, tokens/s | part that is left |", "|---|---|---|---|---|"]
    rounds = [dict((place, speeds) for place, speeds in one) for one in result["rounds"]]
    for place in ("tied", "free"):
        for kind in KINDS:
            alone, busy = ([one[which][kind] for one in rounds] for which in (None, place))
            parts = [b / a for a, b in zip(alone, busy)]
            lines.append(f"| {place} | {kind} | {spread(alone, 1)} | {spread(busy, 1)} | {spread(parts, 2)} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("model", nargs="?", help="a model's directory or name")
    parser.add_argument("--binary", default=str(ROOT / "build/release/inferneo"))
    parser.add_argument("--quantization", default="int4")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--output", type=int, default=64, help="tokens decoded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", metavar="FILE", help="write what was measured")
    parser.add_argument("--from", dest="earlier", metavar="JSON", help="an earlier run's file")
    args = parser.parse_args()
    if (args.model is None) == (args.earlier is None):
        parser.error("a model is needed, or --from")
    if min(args.rounds, args.prompt, args.output, args.threads) < 1:
        parser.error("numbers are at least 1")
    try:
        result = json.loads(pathlib.Path(args.earlier).read_text()) if args.earlier else measure(args)
        if args.json:
            pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n")
        print(table(result))
    except (Failed, OSError, ValueError) as error:
        sys.exit(f"busy.py: {error}")


if __name__ == "__main__":
    main()
