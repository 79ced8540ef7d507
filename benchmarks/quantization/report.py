#!/usr/bin/env python3
"""Measures the quality of quantised weights and writes the table of docs/quantization.md anew.

    python3 benchmarks/quantization/report.py --test build/dev/tests/unit/models/quantization_quality_test

Runs the test that holds the limits; what it prints is put between the page's two comments. The numbers do not depend on
the machine's speed, and on its instruction set only by rounding.
"""
import argparse
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BEGIN = "<!-- table: written by benchmarks/quantization/report.py -->"
END = "<!-- end of the table -->"
HEAD = """| model | weights | bits per weight | KL divergence | same best token |
|---|---|---|---|---|
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--test", default=str(ROOT / "build/dev/tests/unit/models/quantization_quality_test"))
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/quantization.md")
    args = parser.parse_args()
    done = subprocess.run([args.test], stdout=subprocess.PIPE, text=True)
    rows = [line[len("row "):].rstrip() for line in done.stdout.splitlines() if line.startswith("row |")]
    if done.returncode != 0 or not rows:
        print(done.stdout, file=sys.stderr)
        sys.exit("the test failed; the page is as it was")
    page = args.out.read_text()
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    args.out.write_text(before + BEGIN + "\n" + HEAD + "\n".join(rows) + "\n" + END + after)


if __name__ == "__main__":
    main()
