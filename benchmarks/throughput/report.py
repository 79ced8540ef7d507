#!/usr/bin/env python3
"""Measures what docs/performance.md says and writes it anew.

    python3 tools/make_random_model.py llama-3.2-1b /tmp/llama-1b        (once; needs numpy)
    python3 benchmarks/throughput/report.py --model /tmp/llama-1b

Rounds are interleaved: each round runs every case once, in the order A B C ... or backwards, in turn, each in a process
of its own. `inferneo bench` measures the machine's peaks before and after each measurement, so a share belongs to the
minute in which its rate was measured. Run it on a quiet machine; it says when the load was not its own.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# name: prompt tokens, generated tokens, streams
CASES = {
    "prefill 512": (512, 8, 1),
    "prefill 2,048": (2048, 8, 1),
    "decode, 1 stream": (32, 128, 1),
    "decode, 16 streams": (32, 128, 16),
    "decode, 1 stream after 2,048": (2048, 64, 1),
}


def measure(binary, model, case):
    prompt, output, batch = case
    line = [binary, "bench", model, "--input-len", str(prompt), "--output-len", str(output), "--batch-size", str(batch),
            "--rounds", "1", "--json", "-", "--max-model-len", "4096"]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, timeout=900)
    report = json.loads(done.stdout)
    return report["machine"], report["rows"][0]


def spread(values, digits):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def rate_of(name, row):
    kind = "prefill" if name.startswith("prefill") else "decode"
    share = row["prefill_share_of_peak" if kind == "prefill" else "decode_share_of_bandwidth"]["median"]
    return row[f"{kind}_tokens_per_second"]["median"], share


def run_rounds(args, names):
    results, machines = {name: [] for name in names}, []
    for number in range(args.rounds):
        for name in names if number % 2 == 0 else reversed(names):
            machine, row = measure(args.binary, args.model, CASES[name])
            machines.append(machine)
            results[name].append(rate_of(name, row))
            print(f"round {number + 1}: {name:<30} {results[name][-1][0]:8.1f} tokens/s, {results[name][-1][1]:.2f} of the peak",
                  file=sys.stderr, flush=True)
    return results, machines


def page(args, results, machines):
    rows = [f"| {name} | {spread([r for r, _ in values], 1)} | {spread([100 * s for _, s in values], 0)} % |"
            for name, values in results.items()]
    one, many = results.get("decode, 1 stream"), results.get("decode, 16 streams")
    ratio = f"\n16 streams give {spread([b[0] / a[0] for a, b in zip(one, many)], 2)} times the tokens/s of one.\n" if one and many else ""
    machine = machines[0]
    reads = [m["read_bytes_per_second"] / 1e9 for m in machines]
    flops = [m["bf16_flops"] / 1e9 for m in machines]
    return f"""# Performance

Written by `benchmarks/throughput/report.py`, which says how it measures. Medians and ranges of {args.rounds} interleaved
rounds; shares are of the peaks that `inferneo bench` measured around each round. Prefill: operations over the peak of the
bf16 dot product. Decode: weights once a step and the cache of each stream, over the read bandwidth. Where the time goes within a
step, and how another engine does on the same tensors, is measured as [benchmarks.md](benchmarks.md) says.

Machine: {machine["threads"]} threads, {machine["isa"]}; bf16 {spread(flops, 0)} GFLOP/s, read {spread(reads, 1)} GB/s.
Model: the shape of Llama-3.2-1B in bf16 with random weights ({datetime.date.today().isoformat()}).

| case | tokens/s | share of the limit |
|---|---|---|
{chr(10).join(rows)}
{ratio}"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of tools/make_random_model.py")
    parser.add_argument("--binary", default=str(ROOT / "build/release/inferneo"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/performance.md", help="'-' prints the page")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load average is {load:.1f}; other work disturbs the measurement", file=sys.stderr)
    text = page(args, *run_rounds(args, args.cases))
    if str(args.out) == "-":
        print(text)
    else:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
