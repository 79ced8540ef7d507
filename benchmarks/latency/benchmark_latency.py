"""Latency of single, batched and concurrent requests: mean, median, p95, p99, throughput, time to first token, inter-token.

  python benchmarks/latency/benchmark_latency.py --num-runs=100
  python benchmarks/latency/benchmark_latency.py --url http://127.0.0.1:8000 --num-runs=100

Without --url the library answers in this process; with it any OpenAI-compatible endpoint does, so that servers are
compared by the same client. Requests are greedy and go on to --max-tokens. The prompts of a mode, and those of two runs
against a server, differ in their first words, so that no prefix cache answers. Inter-token times are each request's mean.
--json and --report write files. With --slices it stays ready: for each line on its standard input, the name of a mode, it
runs that mode once more and prints its numbers in one line.
"""
import argparse
import asyncio
import json
import os
import pathlib
import platform
import secrets
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent)]
sys.path += [str(ROOT / "build" / preset / "python") for preset in ("release", "dev", "ci")]

import report  # noqa: E402
from targets import EndpointTarget, LibraryTarget  # noqa: E402

MODES = ("single", "batch", "concurrent")


class Progress:
    """One line on a terminal, nothing elsewhere."""

    def __init__(self, mode, total, quiet):
        self._mode, self._total, self._done = mode, total, 0
        self._shown = sys.stderr.isatty() and not quiet

    def step(self, number=1):
        self._done += number
        if self._shown:
            filled = 40 * self._done // self._total
            end = "\n" if self._done == self._total else ""
            sys.stderr.write(f"\r{self._mode:<11}[{'#' * filled}{'.' * (40 - filled)}] {self._done}/{self._total}{end}")
            sys.stderr.flush()


def prompt_of(options, mode, number):
    return f"{options.run}{number} {mode}: {options.prompt}"


async def run_single(options, ask, progress):
    samples = []
    for number in range(options.num_runs):
        samples.append(await ask(number))
        progress.step()
        until = time.perf_counter() + options.pause / 1e3
        while time.perf_counter() < until:
            pass
    return samples, ()


async def run_batch(options, ask, progress):
    samples, batches = [], []
    for begin in range(0, options.num_runs, options.batch_size):
        numbers = range(begin, min(begin + options.batch_size, options.num_runs))
        start = time.perf_counter()
        samples += await asyncio.gather(*(ask(number) for number in numbers))
        batches.append(time.perf_counter() - start)
        progress.step(len(numbers))
    return samples, batches


async def run_concurrent(options, ask, progress):
    """A closed loop: each of the workers asks again as soon as it is answered."""
    numbers = iter(range(options.num_runs))
    samples = []

    async def work():
        for number in numbers:
            samples.append(await ask(number))
            progress.step()

    await asyncio.gather(*(work() for _ in range(min(options.concurrency, options.num_runs))))
    return samples, ()


RUNNERS = {"single": run_single, "batch": run_batch, "concurrent": run_concurrent}


async def measure_mode(target, options, mode, tag=""):
    progress = Progress(mode, options.num_runs, options.quiet)

    def ask(number):
        return target.ask(prompt_of(options, tag + mode, number), options.max_tokens)

    begin = time.perf_counter()
    # A task of its own: an answer resumes every coroutine between it and its task, and few are the package's.
    samples, batches = await asyncio.create_task(RUNNERS[mode](options, ask, progress))
    return report.mode_report(samples, time.perf_counter() - begin, batches)


async def warm_up(target, options, mode):
    for number in range(options.warmup):
        await target.ask(prompt_of(options, f"warm-up {mode}", number), options.max_tokens)


async def measure(target, options):
    modes = {}
    for mode in options.modes:
        await warm_up(target, options, mode)
        modes[mode] = await measure_mode(target, options, mode)
    return modes


async def run_slices(target, options):
    await warm_up(target, options, "slices")
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    number = 0
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await measure_mode(target, options, line.strip(), f"{number} ")), flush=True)
        number += 1


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def whole(least):
        def convert(text):
            number = int(text)
            if number < least:
                raise argparse.ArgumentTypeError(f"expected {least} or more, got {text}")
            return number
        return convert

    def modes(text):
        names = [name.strip() for name in text.split(",")]
        for name in names:
            if name not in MODES:
                raise argparse.ArgumentTypeError(f"unknown mode {name!r}; there are {', '.join(MODES)}")
        return names

    parser.add_argument("--num-runs", type=whole(1), default=100, help="requests of each mode (%(default)s)")
    parser.add_argument("--warmup", type=whole(0), default=3, help="requests before each mode that do not count (%(default)s)")
    parser.add_argument("--modes", type=modes, default=list(MODES), help="some of " + ",".join(MODES))
    parser.add_argument("--batch-size", type=whole(1), default=8)
    parser.add_argument("--concurrency", type=whole(1), default=16)
    parser.add_argument("--max-tokens", type=whole(1), default=32)
    parser.add_argument("--pause", type=float, default=0.0, metavar="MS",
                        help="of single requests: what the program computes between an answer and its next request (%(default)s)")
    parser.add_argument("--prompt", default="Once upon a time there was a fox who")
    parser.add_argument("--model", help="directory or hub id; with --url: its name there (the bundled storyteller)")
    parser.add_argument("--max-memory-gb", type=float, default=1.0, help="GiB for the library (%(default)s)")
    parser.add_argument("--num-threads", type=whole(0), default=0, help="of the library; 0: the CPU quota")
    parser.add_argument("--url", help="of an OpenAI-compatible server, instead of the library")
    parser.add_argument("--api-key")
    parser.add_argument("--no-stream", action="store_true", help="of the library: ask for whole results")
    parser.add_argument("--sync", action="store_true", help="of the library: single requests by generate_sync()")
    parser.add_argument("--json", metavar="FILE", help="writes all numbers; '-': to stdout, and nothing else")
    parser.add_argument("--report", metavar="FILE", help="writes a page; FILE.svg: the picture alone")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    parser.add_argument("--slices", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.sync and (options.url or options.modes != ["single"]):
        parser.error("--sync: of the library, and with --modes single")
    return options


async def run(options):
    options.run = f"{secrets.token_hex(3)} " if options.url else ""  # a server remembers the last run
    if options.url:
        target = EndpointTarget(options.url, options.model, options.api_key)
    else:
        settings = {"max_memory_gb": options.max_memory_gb, "num_threads": options.num_threads}
        target = LibraryTarget(options.model or str(ROOT / "models" / "inferneo-story"), settings,
                               not (options.no_stream or options.sync), options.sync)
    await target.start()
    try:
        if options.slices:
            return await run_slices(target, options)
        modes = await measure(target, options)
    finally:
        await target.stop()
    setup = {"target": target.name, "requests of each mode": options.num_runs, "batch size": options.batch_size,
             "concurrency": options.concurrency, "tokens": options.max_tokens, "warm-up": options.warmup,
             "processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    return {"setup": setup, "modes": modes}


def main(arguments=None):
    options = parse(arguments)
    try:
        result = asyncio.run(run(options))
    except (OSError, RuntimeError, ValueError, LookupError, EOFError, ArithmeticError) as error:
        print(f"benchmark_latency: {error}", file=sys.stderr)
        return 1
    except ImportError:
        print("benchmark_latency: no package inferneo; pip install . or build with -DINFERNEO_PYTHON=ON, or give --url",
              file=sys.stderr)
        return 1
    if options.slices:
        return 0
    if options.json == "-":
        print(json.dumps(result, indent=1))
    else:
        print(f"{result['setup']['target']}\n{report.text_table(result['modes'])}")
    if options.json and options.json != "-":
        pathlib.Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    if options.report:
        text = report.svg(result["modes"]) if options.report.endswith(".svg") else report.page(result)
        pathlib.Path(options.report).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
