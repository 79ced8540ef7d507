"""What Python costs over C++: the same requests through the package and through the C++ API, as a ratio and a difference.

  python benchmarks/latency/overhead.py --build build/release

Keeps benchmark_latency.py and its twin latency_bench (built here if need be) ready, each in a process of its own, and has
them run short slices in turn, in the order A B, B A, ...: throughput at 16 concurrent requests, whose ends each side takes
on one thread of its own, and the latency of single requests. What a slice of one has over the slice of the other beside it
is one value; printed are the values' median and the interval that holds it at 95 % (bootstrap), so that a machine that
changes its speed by itself widens the interval and moves nothing. Both begin anew several times, and the interval is that
of the processes first: a process may be faster or slower than its like for as long as it lives, by more than what is looked
for. "Outside of the engine" leaves out of each request what the engine itself took, from taking it to its last token: less
noise, and nothing of what Python's share of the processor costs the steps. Once for generate(), once for generate_sync(),
which waits for single requests without an event loop, as the twin does, and once for streams, which hand over every piece of
text; then what an event loop takes to wake up, whatever package wakes it (waking.py). With --in-callback the twin goes on
within the engine's callbacks, on the engine's threads, which only a program can do whose state has no thread of its own.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODES = ["concurrent", "single"]
# The flags of both sides, and the package's own.
FACES = {"generate()": (["--no-stream"], []), "generate_sync()": (["--no-stream"], ["--sync", "--modes=single"]),
         "streams": ([], [])}


class Side:
    """One of the two, ready to run slices."""

    def __init__(self, command, flags=("--slices",)):
        self._process = subprocess.Popen([*command, *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._expect("ready")

    def _line(self):
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args[0]} ended with {self._process.wait()}")
        return line

    def _expect(self, word):
        line = self._line().strip()
        if line != word:
            raise RuntimeError(f"{self._process.args[0]} said {line!r}")

    def slice(self, mode):
        self._process.stdin.write(mode + "\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def close(self):
        self._process.stdin.close()
        self._process.wait()


def compare(options, name):
    flags, own = FACES[name]
    modes = [mode for mode in options.modes if mode == "single" or name != "generate_sync()"]  # it waits for each
    shared = [f"--concurrency={options.concurrency}", f"--max-tokens={options.max_tokens}", f"--num-threads={options.num_threads}",
              f"--num-runs={options.num_runs}", f"--max-memory-gb={options.max_memory_gb}", f"--pause={options.pause}", *flags]
    if options.model:
        shared.append(f"--model={options.model}")
    throughput, latency, outside = [], [], []
    if not modes:
        return [[]], [[]], [[]]
    for _ in range(options.processes):
        pair = slices_of_a_pair(options, modes, shared, own)
        throughput.append(pair["concurrent"])
        latency.append(pair["single"])
        outside.append(pair["outside"])
    return throughput, latency, outside


def slices_of_a_pair(options, modes, shared, own):
    twin = ["--in-callback"] if options.in_callback else []
    sides = []
    values = {"concurrent": [], "single": [], "outside": []}
    try:
        sides.append(Side([sys.executable, str(HERE / "benchmark_latency.py"), *shared, *own, "--quiet"]))
        sides.append(Side([str(options.build / "benchmarks" / "latency" / "latency_bench"), *shared, *twin]))
        for number in range(-(-options.rounds // options.processes)):
            order = (0, 1) if number % 2 == 0 else (1, 0)
            for mode in modes:
                results = {side: sides[side].slice(mode) for side in order}
                if mode == "concurrent":
                    values[mode].append(results[0]["tokens_per_second"] / results[1]["tokens_per_second"])
                else:
                    values[mode].append(median_difference(results, "latency"))
                    values["outside"].append(median_difference(results, "outside_engine"))
    finally:
        for side in sides:
            side.close()
    return values


def median_difference(results, what):
    return (results[0][what]["median"] - results[1][what]["median"]) * 1e3


def median_with_interval(groups, digits):
    """Of the median of all values, by the percentiles of 2,000 resamples: of groups, and of values in each."""
    chance = random.Random(1)

    def resampled():
        return [value for group in chance.choices(groups, k=len(groups)) for value in chance.choices(group, k=len(group))]

    medians = sorted(statistics.median(resampled()) for _ in range(2000))
    low, high = medians[50], medians[-51]
    median = statistics.median(value for group in groups for value in group)
    return f"{median:.{digits}f} (95 %: {low:.{digits}f} to {high:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release", help="the CMake build (%(default)s)")
    parser.add_argument("--rounds", type=int, default=100, help="pairs of slices of each mode (%(default)s)")
    parser.add_argument("--processes", type=int, default=10, help="how often both begin anew for them (%(default)s)")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES, help="one of them: half the time")
    parser.add_argument("--faces", nargs="+", choices=list(FACES), default=list(FACES), help="likewise")
    parser.add_argument("--num-runs", type=int, default=64, help="requests of a slice (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--num-threads", type=int, default=0)
    parser.add_argument("--pause", type=float, default=0.0, metavar="MS", help="computed between single requests, on both sides (%(default)s)")
    parser.add_argument("--in-callback", action="store_true", help="the twin goes on on the engine's threads")
    parser.add_argument("--max-memory-gb", type=float, default=1.0)
    parser.add_argument("--model")
    options = parser.parse_args()
    options.build = options.build.resolve()
    built = subprocess.run(["cmake", "--build", str(options.build), "--target", "latency_bench"], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    if built.returncode != 0:
        print(f"overhead: latency_bench could not be built in {options.build}\n{built.stdout[-2000:]}", file=sys.stderr)
        return 1
    try:
        for name in options.faces:
            throughput, latency, outside = compare(options, name)
            if throughput[0]:
                print(f"{name}: throughput at {options.concurrency} at once, Python over C++: {median_with_interval(throughput, 4)}",
                      flush=True)
            if latency[0]:
                print(f"{name}: single requests take {median_with_interval(latency, 3)} ms longer; outside of the engine "
                      f"{median_with_interval(outside, 3)} ms", flush=True)
        if "single" in options.modes:
            subprocess.run([sys.executable, str(HERE / "waking.py")], check=False)
    except (OSError, RuntimeError) as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
