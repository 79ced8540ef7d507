#!/usr/bin/env python3
"""Measures what converting a model to ONNX takes: time, and the most memory at one time.

    python3 tools/make_random_model.py llama-3.2-1b /tmp/llama-1b        (once; needs numpy)
    python3 benchmarks/convert/report.py --binary build/release/inferneo --model /tmp/llama-1b

Every conversion is a process of its own, its input in the page cache after the first one, which is not counted. The
memory is the process's peak of resident pages, mapped pages of the checkpoint among them; beside it stands the largest
tensor. Run it on a quiet machine: it prints the load before each round, and a table of what it saw, nothing else.
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import sys
import tempfile
import time


def largest_tensor(model):
    largest = 0
    for path in pathlib.Path(model).glob("*.safetensors"):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            for name, entry in json.loads(file.read(size)).items():
                if name != "__metadata__":
                    largest = max(largest, entry["data_offsets"][1] - entry["data_offsets"][0])
    return largest


def convert(binary, model, output, flags):
    """Seconds, and the peak of resident memory in bytes."""
    start = time.perf_counter()
    pid = os.posix_spawn(binary, [binary, "convert", str(model), str(output), "--no-verify", "--quiet", *flags], os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise SystemExit(f"converting ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default="build/release/inferneo")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", help="folder with room for a converted model")
    args = parser.parse_args()
    binary = str(pathlib.Path(args.binary).resolve())
    rows = [["--precision", "int4"], ["--precision", "int4", "--block-size", "128"], ["--precision", "int8"],
            ["--precision", "f16"]]
    seen = {tuple(row): [] for row in rows}
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        output = pathlib.Path(folder) / "out"
        for round_number in range(args.rounds + 1):
            print(f"round {round_number}, load {os.getloadavg()[0]:.2f}", file=sys.stderr)
            for row in rows if round_number % 2 else reversed(rows):
                seconds, peak = convert(binary, args.model, output, row)
                size = sum(path.stat().st_size for path in output.iterdir())
                shutil.rmtree(output)
                if round_number > 0:
                    seen[tuple(row)].append((seconds, peak, size))
    print(f"largest tensor: {largest_tensor(args.model) / 2**20:.0f} MiB")
    print("| options | seconds (lowest to highest) | peak memory, MiB | written, MiB |\n|---|---|---|---|")
    for row in rows:
        times = [entry[0] for entry in seen[tuple(row)]]
        peak = max(entry[1] for entry in seen[tuple(row)])
        print(f"| {' '.join(row)} | {statistics.median(times):.1f} ({min(times):.1f} to {max(times):.1f}) | "
              f"{peak / 2**20:.0f} | {seen[tuple(row)][0][2] / 2**20:.0f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
