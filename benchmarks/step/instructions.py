#!/usr/bin/env python3
"""Counts the instructions of prefill and decode with callgrind and compares them with the baseline beside this file.

    cmake --preset release && cmake --build --preset release --target step_bench
    python3 benchmarks/step/instructions.py               (--update writes the baseline anew)

Instructions of a step do not drift with the load of a machine, as times do: a change that makes a step longer shows here
on the busiest host. One thread, the bundled storyteller, the avx2 kernels (valgrind knows no AVX-512); what is counted is
steps of the model's runner, without loading. Other compilers make other instructions: the baseline says which one made
its own. Exits with 1 when a count is more than the tolerance above the baseline, with 77 where valgrind is not there.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BASELINE = HERE / "instructions.json"
MODEL = "models/inferneo-story"
ISA = "avx2"
# name: flags of step_bench, tokens of a step
CASES = {
    "prefill 64": (["--prefill", "64", "--steps", "2"], 64),
    "prefill 256": (["--prefill", "256", "--steps", "1"], 256),
    "decode, 1 stream after 64": (["--decode", "1", "--context", "64", "--steps", "8"], 1),
    "decode, 8 streams after 64": (["--decode", "8", "--context", "64", "--steps", "4"], 8),
    "decode, 1 stream after 512": (["--decode", "1", "--context", "512", "--steps", "8"], 1),
}


class Failed(Exception):
    """One sentence for the user."""


def total_of(text):
    """Instructions that a callgrind file counts."""
    found = re.search(r"^(?:totals|summary): (\d+)", text, re.M)
    if not found or int(found[1]) == 0:
        raise Failed("callgrind counted nothing: is step_bench stripped of its symbols?")
    return int(found[1])


def count(valgrind, program, flags):
    """(instructions, what the program says of its compiler)."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "counts"
        line = [valgrind, "--tool=callgrind", "--toggle-collect=inferneo_measured_steps", f"--callgrind-out-file={out}",
                str(program), str(ROOT / MODEL), "--isa", ISA, "--threads", "1", *flags]
        done = subprocess.run(line, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode != 0 or not out.is_file():
            words = (done.stderr.strip() or "nothing").splitlines()[-1]
            raise Failed(f"{program.name} under valgrind ended with {done.returncode} and said: {words}")
        compiler = re.search(r"compiler (.+)", done.stdout)
        return total_of(out.read_text()), compiler[1] if compiler else "unknown"


def per_token(total, flags, tokens):
    return total / (int(flags[flags.index("--steps") + 1]) * tokens)


def compare(counts, baseline, tolerance):
    """Lines of a table, and the names of the cases that grew."""
    lines, grown = [f"{'instructions for each token':<30}{'now':>14}{'baseline':>14}{'change':>10}"], []
    for name, now in counts.items():
        before = baseline.get(name)
        change = "" if not before else f"{(now / before - 1) * 100:+.2f} %"
        lines.append(f"{name:<30}{now:>14,.0f}{f'{before:,.0f}' if before else '-':>14}{change:>10}")
        if before and now > before * (1 + tolerance):
            grown.append(name)
    return lines, grown


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/benchmarks/step/step_bench",
                        help="[build/release/benchmarks/step/step_bench]")
    parser.add_argument("--cases", nargs="*", choices=list(CASES), default=list(CASES), metavar="CASE", help="some of them")
    parser.add_argument("--tolerance", type=float, default=0.01, help="share by which a count may grow [0.01]")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the counts")
    parser.add_argument("--update", action="store_true", help="write the baseline anew")
    args = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if not valgrind:
        print("instructions: valgrind is not there; install it (apt install valgrind) to count instructions", file=sys.stderr)
        return 77
    if not args.program.is_file():
        print(f"instructions: there is no {args.program}; build the target step_bench, or give --program", file=sys.stderr)
        return 1
    counts, compiler = {}, ""
    try:
        for name in args.cases:
            flags, tokens = CASES[name]
            total, compiler = count(valgrind, args.program, flags)
            counts[name] = per_token(total, flags, tokens)
    except (Failed, OSError) as error:
        print(f"instructions: {error}", file=sys.stderr)
        return 1
    baseline = json.loads(BASELINE.read_text()) if BASELINE.is_file() else {"cases": {}}
    lines, grown = compare(counts, baseline["cases"], args.tolerance)
    print("\n".join(lines))
    result = {"model": MODEL, "isa": ISA, "compiler": compiler, "cases": {n: round(c) for n, c in counts.items()}}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    if args.update:
        result["cases"] = {**baseline["cases"], **result["cases"]}
        BASELINE.write_text(json.dumps(result, indent=1) + "\n")
        return 0
    if baseline.get("compiler", compiler) != compiler:
        print(f"the baseline was made by compiler {baseline['compiler']}, this program by {compiler}")
    if grown:
        print(f"grown by more than {args.tolerance * 100:g} %: {', '.join(grown)}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
