#!/usr/bin/env python3
"""Measures how cost grows with work, and writes docs/growth.md and its picture.

    python3 tools/make_random_model.py small-long /tmp/small-long        (once; needs numpy)
    python3 benchmarks/throughput/growth.py /tmp/small-long

One stream, prompts from 512 tokens on: the time of prefill for each token, of decoding behind the prompt, and the largest
memory that the process held. All three are straight lines where nothing is done twice: a token's attention reads what is
before it, so that the mean token of a prompt costs a constant and half the prompt's length; decoding reads the weights and
the whole cache; memory holds the cache. Each line is fitted to the medians (least squares of relative deviations), and how
far the medians are from it is said. Rounds go up and down in turn, each measurement in a process of its own.
--from JSON writes the page anew without measuring.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]

from side_by_side_page import spread  # noqa: E402

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384, 32768]
# key: title, unit, digits
QUANTITIES = {"prefill": ("prefill, for each token", "ms", 3), "decode": ("decoding a token", "ms", 2),
              "memory": ("most memory held", "MiB", 0)}


class Failed(Exception):
    """One sentence for the user."""


def run(line):
    """What it printed, as JSON, and the most memory that it held, in MiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            process = subprocess.Popen([str(part) for part in line], stdout=out, stderr=errors)
        except OSError as error:
            raise Failed(f"{line[0]}: {error.strerror}") from None
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            raise Failed(f"{line[0]} ended with {process.returncode} and said: {(errors.read().strip() or 'nothing').splitlines()[-1]}")
        return json.load(out), usage.ru_maxrss / 1024


def measure_one(args, length):
    # The longest context is the same for all: what is set aside for it must not look like growth.
    report, memory = run([args.binary, "bench", args.model, "--input-len", length, "--output-len", args.output, "--batch-size", 1,
                          "--rounds", 1, "--no-peaks", "--json", "-", "--max-model-len", max(args.lengths) + args.output,
                          "--max-num-seqs", 1, "--num-threads", args.threads, *args.flags])
    row = report["rows"][0]
    return report["model"], {"prefill": 1e3 / row["prefill_tokens_per_second"]["median"],
                             "decode": 1e3 / row["decode_tokens_per_second"]["median"], "memory": memory}


def measure(args):
    values = {length: [] for length in args.lengths}
    machines = []
    measure_one(args, args.lengths[0])  # packs the weights, which the others find packed
    for number in range(args.rounds):
        machines.append(run([args.binary, "bench", "--machine", "--json", "-", "--num-threads", args.threads])[0]["machine"])
        for length in args.lengths if number % 2 == 0 else reversed(args.lengths):
            model, one = measure_one(args, length)
            values[length].append(one)
            print(f"round {number + 1}: {length:>7,} tokens  {one['prefill']:8.3f} ms each  {one['decode']:8.2f} ms to decode one  "
                  f"{one['memory']:8.0f} MiB", file=sys.stderr, flush=True)
    return {"model": pathlib.Path(args.model).resolve().name, "facts": model, "date": datetime.date.today().isoformat(),
            "machines": machines, "flags": args.flags, "rounds": args.rounds,
            "values": [[length, rows] for length, rows in values.items()]}


def line_through(points):
    """a + b x of least squares of relative deviations, and the largest of these."""
    weights = [1 / (y * y) for _, y in points]
    total = sum(weights)
    mean_x = sum(w * x for w, (x, _) in zip(weights, points)) / total
    mean_y = sum(w * y for w, (_, y) in zip(weights, points)) / total
    slope = (sum(w * (x - mean_x) * (y - mean_y) for w, (x, y) in zip(weights, points)) /
             sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points)))
    constant = mean_y - slope * mean_x
    return constant, slope, max(abs(y / (constant + slope * x) - 1) for x, y in points)


def series_of(result, key):
    """(length, values of the rounds) of each length."""
    return [(length, [row[key] for row in rows]) for length, rows in result["values"]]


def fit_of(result, key):
    return line_through([(length, statistics.median(values)) for length, values in series_of(result, key)])


def page(result, picture_name):
    machine = result["machines"][0]
    reads = [m["read_bytes_per_second"] / 1e9 for m in result["machines"]]
    flops = [m["bf16_flops"] / 1e9 for m in result["machines"]]
    rows = [f"| {length:,} | " + " | ".join(spread([row[key] for row in rounds], digits) for key, (_, _, digits) in QUANTITIES.items()) +
            " |" for length, rounds in result["values"]]
    fits = {key: fit_of(result, key) for key in QUANTITIES}
    kv = result["facts"]["kv_bytes_per_token"]
    flags = f", `{' '.join(result['flags'])}`" if result["flags"] else ""
    prefill, decode, memory = fits["prefill"], fits["decode"], fits["memory"]
    return f"""# Cost as work grows

Written by `benchmarks/throughput/growth.py`, which says how it measures. One stream; medians and ranges of {result["rounds"]}
rounds; {result["model"]} with random weights{flags} ({result["date"]}).

Machine: {machine["threads"]} threads, {machine["isa"]}; bf16 {spread(flops, 0)} GFLOP/s, read {spread(reads, 1)} GB/s.

| prompt | prefill, ms for each token | decoding one behind it, ms | most memory, MiB |
|---|---|---|---|
{chr(10).join(rows)}

![Cost over the prompt's length]({picture_name})

The straight lines through the medians, and how far these are from them at most:

| | constant | for each token before | at most off by |
|---|---|---|---|
| prefill of a token | {prefill[0]:.3f} ms | {prefill[1] * 2e6:.0f} ns | {prefill[2] * 100:.0f} % |
| decoding a token | {decode[0]:.2f} ms | {decode[1] * 1e6:.0f} ns | {decode[2] * 100:.0f} % |
| memory | {memory[0]:.0f} MiB | {memory[1] * 1024:.1f} KiB, of which the cache has {kv / 1024:g} | {memory[2] * 100:.0f} % |
"""


def short(length):
    return f"{length / 1024:g}k" if length >= 1024 else f"{length}"


def panel(result, key, left, top, width, height):
    """Dots on the range of their rounds, and the fitted line."""
    title, unit, _ = QUANTITIES[key]
    series = series_of(result, key)
    constant, slope, _ = fit_of(result, key)
    longest = series[-1][0]
    most = max(max(values) for _, values in series) * 1.08

    def x(length):
        return left + width * length / longest

    def y(value):
        return top + height * (1 - value / most)

    parts = [f'<text x="{left}" y="{top - 12}" font-weight="bold">{title}, {unit}</text>']
    for step in range(5):
        value = most * step / 4
        parts.append(f'<line x1="{left}" x2="{left + width}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#e5e7eb"/>'
                     f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in range(5):
        length = longest * step // 4
        parts.append(f'<text x="{x(length):.1f}" y="{top + height + 18}" text-anchor="middle">{short(length)}</text>')
    parts.append(f'<line x1="{x(0):.1f}" x2="{x(longest):.1f}" y1="{y(constant):.1f}" y2="{y(constant + slope * longest):.1f}" '
                 'stroke="#94a3b8" stroke-dasharray="5 4"/>')
    for length, values in series:
        at = x(length)
        parts.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(min(values)):.1f}" y2="{y(max(values)):.1f}" stroke="#2563eb" stroke-width="2"/>'
                     f'<circle cx="{at:.1f}" cy="{y(statistics.median(values)):.1f}" r="4" fill="#2563eb"/>')
    return "".join(parts)


def picture(result):
    width, height, gap = 230, 200, 90
    whole = 70 + 3 * width + 2 * gap + 20
    panels = "".join(panel(result, key, 70 + number * (width + gap), 40, width, height) for number, key in enumerate(QUANTITIES))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole} 300" font-family="sans-serif" font-size="12">'
            f'<rect width="{whole}" height="300" fill="white"/>{panels}'
            f'<text x="{whole / 2}" y="292" text-anchor="middle">tokens of the prompt; dashed: the straight line through the medians</text></svg>\n')


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def lengths(text):
        numbers = sorted({int(part) for part in text.split(",")})
        if len(numbers) < 3 or numbers[0] < 1:
            raise argparse.ArgumentTypeError(f"expected three or more whole numbers between commas, got {text!r}")
        return numbers

    parser.add_argument("model", nargs="?", help="a directory of tools/make_random_model.py")
    parser.add_argument("--binary", default=str(ROOT / "build/release/inferneo"), help="[build/release/inferneo]")
    parser.add_argument("--lengths", type=lengths, default=LENGTHS, metavar="N,N", help="of the prompts [512 to 32,768, each twice the last]")
    parser.add_argument("--output", type=int, default=32, help="tokens decoded behind each [32]")
    parser.add_argument("--rounds", type=int, default=3, help="[3]")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="[all processors]")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="for inferneo bench, such as --quantization int4; the last option")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/growth.md", help="[docs/growth.md]")
    parser.add_argument("--json", type=pathlib.Path, default=ROOT / "build/growth.json", help="the results [build/growth.json]")
    parser.add_argument("--from", dest="results", type=pathlib.Path, metavar="JSON", help="write the page of these results anew")
    args = parser.parse_args(arguments)
    if not args.results and not args.model:
        parser.error("a model is needed, or --from")
    return args


def main(arguments=None):
    args = parse(arguments)
    load = os.getloadavg()[0]
    if not args.results and load > 0.5:
        print(f"warning: the load average is {load:.1f}; other work disturbs the measurement", file=sys.stderr)
    try:
        if args.results:
            result = json.loads(args.results.read_text())
        else:
            result = measure(args)
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(result, indent=1) + "\n")
    except (Failed, OSError, ValueError, LookupError) as error:
        print(f"growth: {error}", file=sys.stderr)
        return 1
    picture_path = args.out.parent / "pictures" / f"{args.out.stem}.svg"
    picture_path.parent.mkdir(parents=True, exist_ok=True)
    picture_path.write_text(picture(result))
    args.out.write_text(page(result, f"pictures/{picture_path.name}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
