"""What Python costs over C++: the same requests through the package and through the C++ API, as two ratios.

  python benchmarks/latency/overhead.py --build build/release

Runs benchmark_latency.py and its twin latency_bench (built here if need be), each in a process of its own, in the order
A B, B A, ...: throughput at 16 concurrent requests, and the latency of single requests. Prints the median of the rounds'
ratios and differences with their range. Once for generate(), once for streams, which hand over every piece of text.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def measure(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout)["modes"]


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def compare(options, flags):
    shared = [f"--num-runs={options.num_runs}", f"--concurrency={options.concurrency}", f"--max-tokens={options.max_tokens}",
              f"--num-threads={options.num_threads}", "--modes=single,concurrent", *flags]
    if options.model:
        shared.append(f"--model={options.model}")
    python = [sys.executable, str(HERE / "benchmark_latency.py"), *shared, "--quiet", "--json=-"]
    cpp = [str(options.build / "benchmarks" / "latency" / "latency_bench"), *shared]
    throughput, latency = [], []
    for number in range(options.rounds):
        results = {}
        for name, command in (("python", python), ("cpp", cpp)) if number % 2 == 0 else (("cpp", cpp), ("python", python)):
            results[name] = measure(command)
        throughput.append(results["python"]["concurrent"]["tokens_per_second"] / results["cpp"]["concurrent"]["tokens_per_second"])
        latency.append(results["python"]["single"]["latency"]["median"] - results["cpp"]["single"]["latency"]["median"])
    return throughput, latency


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release", help="the CMake build (%(default)s)")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--num-runs", type=int, default=200, help="requests of each mode and round (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--num-threads", type=int, default=0)
    parser.add_argument("--model")
    options = parser.parse_args()
    options.build = options.build.resolve()
    built = subprocess.run(["cmake", "--build", str(options.build), "--target", "latency_bench"], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True)
    if built.returncode != 0:
        print(f"overhead: latency_bench could not be built in {options.build}\n{built.stdout[-2000:]}", file=sys.stderr)
        return 1
    try:
        for name, flags in (("generate()", ["--no-stream"]), ("streams", [])):
            throughput, latency = compare(options, flags)
            print(f"{name}: throughput at {options.concurrency} at once, Python over C++: {spread(throughput, 4)}; "
                  f"single requests take {spread([value * 1e3 for value in latency], 3)} ms longer")
    except subprocess.CalledProcessError as error:
        print(f"overhead: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
