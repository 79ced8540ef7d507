"""Throughput and goodput under load: closed loop or Poisson arrivals, ShareGPT-like, random or fixed lengths.

  python benchmarks/throughput/benchmark_throughput.py --concurrency 16 --num-requests 200
  python benchmarks/throughput/benchmark_throughput.py --rate 8 --lengths sharegpt --goodput ttft:2,itl:0.05
  python benchmarks/throughput/benchmark_throughput.py --url http://127.0.0.1:8000 --url http://127.0.0.1:8001 --rounds 5

Without --url the library answers in this process; with it any OpenAI-compatible endpoint does. Two or more are compared:
each round sends the same requests to all of them, one after the other, in the order A B, then B A and so on, and the table
ends with the ratios of the rounds to the first; the same address twice shows what noise alone does. Lengths of prompts are in
words; tokens are counted by who answers. What is refused counts as a failed request, and never as goodput. Inter-token times
are each request's mean. Every run has prompts of its own, which no prefix cache knows; --seed repeats one.
"""
import argparse
import asyncio
import collections
import html
import json
import os
import pathlib
import platform
import random
import statistics
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE.parent / "latency"), str(HERE)]  # in this order: there is a report.py here, too
sys.path += [str(ROOT / "build" / preset / "python") for preset in ("release", "dev", "ci")]

import load  # noqa: E402
import report as latency_report  # noqa: E402
from targets import EndpointTarget, LibraryTarget  # noqa: E402


def numbers_of(done, goals):
    """One round's numbers; times in seconds."""
    samples = done.samples
    tokens = sum(sample.tokens for sample in samples)
    good = sum(meets(sample, goals) for sample in samples)
    gaps = [gap for sample in samples if (gap := sample.inter_token) is not None]
    return {
        "requests": len(samples), "failed": len(done.errors), "seconds": done.seconds,
        "requests_per_second": len(samples) / done.seconds, "tokens_per_second": tokens / done.seconds,
        "total_tokens_per_second": (tokens + sum(sample.prompt_tokens for sample in samples)) / done.seconds,
        "goodput": good / done.seconds, "good_share": good / max(1, len(samples) + len(done.errors)),
        "latency": latency_report.statistics_of([sample.total for sample in samples]),
        "time_to_first_token": latency_report.statistics_of([sample.first_token for sample in samples]),
        "inter_token": latency_report.statistics_of(gaps),
        "latencies": [sample.total for sample in samples],
    }


def meets(sample, goals):
    reached = {"ttft": sample.first_token, "itl": sample.inter_token or 0.0, "e2e": sample.total}
    return all(reached[name] <= limit for name, limit in goals.items())


async def measure(targets, options):
    rounds = {target.name: [] for target in targets}
    errors = {target.name: [] for target in targets}
    for target in targets:
        for request in load.plan(argparse.Namespace(**{**vars(options), "num_requests": options.warmup, "rate": 0}), -1):
            await target.ask(request.prompt, request.max_tokens)
    for number in range(options.rounds):
        requests = load.plan(options, options.seed + number)
        for target in targets if number % 2 == 0 else reversed(targets):
            done = await load.run(target, requests, options, Progress(target.name, number, len(requests), options).step)
            rounds[target.name].append(numbers_of(done, options.goodput))
            errors[target.name] += done.errors
    return rounds, errors


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, name, number, total, options):
        self._what, self._total, self._done = f"round {number + 1}, {name}"[:60], total, 0
        self._shown = sys.stderr.isatty() and not options.quiet

    def step(self):
        self._done += 1
        if self._shown:
            end = "\n" if self._done == self._total else ""
            sys.stderr.write(f"\r{self._what:<60} {self._done}/{self._total}{end}")
            sys.stderr.flush()


ROWS = (("requests_per_second", "requests/s", 1), ("tokens_per_second", "output tokens/s", 1),
        ("total_tokens_per_second", "tokens/s with prompts", 1), ("goodput", "goodput, requests/s", 1),
        ("good_share", "share within the goals", 1), ("failed", "failed requests", 1))
TIMES = (("time_to_first_token", "time to first token, ms"), ("inter_token", "inter-token, ms"), ("latency", "request, ms"))


def spread(values, scale=1.0):
    """Median of the rounds, and their range where there are several."""
    middle = statistics.median(values) * scale
    if len(values) == 1:
        return f"{middle:.2f}"
    return f"{middle:.2f} ({min(values) * scale:.2f} to {max(values) * scale:.2f})"


def text_table(rounds):
    names = list(rounds)
    width = max(28, *(len(name) + 2 for name in names))
    lines = [f"{'':<34}" + "".join(f"{name:>{width}}" for name in names)]
    for key, title, scale in ROWS:
        lines.append(f"{title:<34}" + "".join(f"{spread([r[key] for r in rounds[n]], scale):>{width}}" for n in names))
    for key, title in TIMES:
        for part in ("mean", "median", "p95", "p99"):
            cells = []
            for name in names:
                values = [r[key][part] for r in rounds[name] if r[key]]
                cells.append(f"{spread(values, 1e3) if values else '-':>{width}}")
            lines.append(f"{title + ', ' + part:<34}" + "".join(cells))
    first = names[0]
    for name in names[1:]:
        for key, title in (("tokens_per_second", "output tokens/s"), ("goodput", "goodput")):
            pairs = [(r[key], base[key]) for r, base in zip(rounds[name], rounds[first])]
            ratios = [a / b for a, b in pairs if b > 0]
            if ratios:
                lines.append(f"{title}, {name} over {first}: {spread(ratios)}")
    return "\n".join(lines)


def page(result):
    modes = {name: {**rounds[-1], "latencies": [x for r in rounds for x in r["latencies"]]}
             for name, rounds in result["rounds"].items() if any(r["latencies"] for r in rounds)}
    table = html.escape(text_table(result["rounds"]))
    facts = "".join(f"<li>{html.escape(f'{name}: {value}')}</li>" for name, value in result["setup"].items())
    picture = latency_report.svg(modes) if modes else ""
    return ("<!doctype html><meta charset=utf-8><title>Throughput</title><style>body{font:14px sans-serif;margin:2em}</style>"
            f"<h1>Throughput</h1><ul>{facts}</ul>{picture}<pre>{table}</pre>\n")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def whole(least):
        def convert(text):
            number = int(text)
            if number < least:
                raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
            return number
        return convert

    def positive(text):
        number = float(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"expected more than 0, got {text}")
        return number

    def goals(text):
        limits = {}
        for part in filter(None, text.split(",")):
            name, _, limit = part.partition(":")
            if name.strip() not in ("ttft", "itl", "e2e") or not limit:
                raise argparse.ArgumentTypeError(f"expected ttft:SECONDS,itl:SECONDS,e2e:SECONDS, got {text!r}")
            limits[name.strip()] = positive(limit)
        return limits

    parser.add_argument("--num-requests", type=whole(1), default=100, help="of each round (%(default)s)")
    parser.add_argument("--rounds", type=whole(1), default=1, help="%(default)s")
    parser.add_argument("--concurrency", type=whole(1), default=16, help="clients of the closed loop (%(default)s)")
    parser.add_argument("--rate", type=positive, default=0, help="requests/s of an open loop, instead of the closed one")
    parser.add_argument("--burstiness", type=positive, default=1.0, help="1: Poisson; less: in bursts; more: steadier")
    parser.add_argument("--lengths", choices=("fixed", "random", "sharegpt"), default="fixed")
    parser.add_argument("--input-len", type=whole(1), default=64, help="words of a prompt; the most of them (%(default)s)")
    parser.add_argument("--output-len", type=whole(1), default=64, help="tokens; the most of them (%(default)s)")
    parser.add_argument("--shared-prefix", type=whole(0), default=0, help="words that all prompts of a round begin with")
    parser.add_argument("--goodput", type=goals, default={"ttft": 2.0, "itl": 0.05},
                        help="what a request must keep to: ttft:2,itl:0.05 (the default), e2e:SECONDS; times in seconds")
    parser.add_argument("--warmup", type=whole(0), default=3, help="requests before the first round (%(default)s)")
    parser.add_argument("--seed", type=int, help="the same gives the same requests; without it each run draws one, and says it")
    parser.add_argument("--model", help="directory or hub id; with --url: its name there (the bundled storyteller)")
    parser.add_argument("--max-memory-gb", type=float, default=1.0, help="GiB for the library (%(default)s)")
    parser.add_argument("--num-threads", type=whole(0), default=0, help="of the library; 0: the CPU quota")
    parser.add_argument("--url", action="append", default=[], help="of an OpenAI-compatible server; several are compared")
    parser.add_argument("--library", action="store_true", help="the library too, where --url is given")
    parser.add_argument("--api-key")
    parser.add_argument("--json", metavar="FILE", help="writes all numbers")
    parser.add_argument("--report", metavar="FILE", help="writes a page")
    parser.add_argument("--quiet", action="store_true", help="no progress line")
    options = parser.parse_args(arguments)
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(10**6)
    return options


def name_apart(targets):
    """The same address twice is two rows."""
    times = collections.Counter()
    for target in targets:
        times[target.name] += 1
        if times[target.name] > 1:
            target.name += f" ({times[target.name]})"


async def run(options):
    targets = [EndpointTarget(url, options.model, options.api_key) for url in options.url]
    if not targets or options.library:
        settings = {"max_memory_gb": options.max_memory_gb, "num_threads": options.num_threads}
        targets.append(LibraryTarget(options.model if options.model and not options.url else str(ROOT / "models" / "inferneo-story"),
                                     settings))
    started = []
    try:
        for target in targets:
            await target.start()
            started.append(target)
        name_apart(targets)
        rounds, errors = await measure(targets, options)
    finally:
        for target in started:
            await target.stop()
    setup = {"load": f"open loop, {options.rate:g} requests/s" if options.rate else f"closed loop, {options.concurrency} clients",
             "requests of a round": options.num_requests, "rounds": options.rounds, "lengths": options.lengths,
             "prompt words": options.input_len, "output tokens": options.output_len, "goals": options.goodput, "seed": options.seed,
             "processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    return {"setup": setup, "rounds": rounds, "errors": errors}


def main(arguments=None):
    options = parse(arguments)
    try:
        result = asyncio.run(run(options))
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, ArithmeticError) as error:
        print(f"benchmark_throughput: {error}", file=sys.stderr)
        return 1
    except ImportError:
        print("benchmark_throughput: no package inferneo; pip install . or build with -DINFERNEO_PYTHON=ON, or give --url",
              file=sys.stderr)
        return 1
    print(f"{result['setup']['load']}, seed {options.seed}")
    print(text_table(result["rounds"]))
    for name, errors in result["errors"].items():
        for text in sorted(set(errors))[:3]:
            print(f"{name}: {errors.count(text)} times {text}", file=sys.stderr)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    if options.report:
        pathlib.Path(options.report).write_text(page(result))
    return 0 if all(r["requests"] for rounds in result["rounds"].values() for r in rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
