"""The commands of the documents, as programs: examples and the latency benchmark."""
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "latency"))
import report  # noqa: E402
from targets import EndpointTarget, Sample  # noqa: E402


def run(*arguments, code=0):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_basic_usage():
    text = run("examples/basic/basic_usage.py")
    assert "tokens/s" in text and "its place in the batch is free again" in text


def test_multi_model_serving():
    text = run("examples/multi_model/multi_model_serving.py")
    assert "code: Write a Python function" in text and "model_comparison: " in text


def test_latency_of_the_library(tmp_path):
    text = run("benchmarks/latency/benchmark_latency.py", "--num-runs=4", "--warmup=1", "--batch-size=2", "--max-tokens=3",
               "--json", tmp_path / "out.json", "--report", tmp_path / "out.html")
    assert "p99" in text and "time to first token" in text and "tokens/s" in text
    result = json.loads((tmp_path / "out.json").read_text())
    assert list(result["modes"]) == ["single", "batch", "concurrent"]
    for mode in result["modes"].values():
        assert (mode["requests"], mode["tokens"], len(mode["latencies"])) == (4, 12, 4)
        latency = mode["latency"]
        assert 0 < latency["min"] <= latency["median"] <= latency["p95"] <= latency["p99"] <= latency["max"]
        assert mode["time_to_first_token"]["mean"] < latency["mean"] <= mode["seconds"]
    assert result["modes"]["batch"]["batch_latency"]["count"] == 2
    page = (tmp_path / "out.html").read_text()
    assert "<svg" in page and page.count("<polyline") == 3


def server_program():
    """Of the build that the package is of."""
    import inferneo

    program = pathlib.Path(inferneo.__file__).parent.parent.parent / "inferneo"
    return program if program.is_file() else None


def test_latency_of_an_endpoint(tmp_path):
    program = server_program()
    if program is None:
        pytest.skip("the program inferneo has not been built")
    environment = {**os.environ, "INFERNEO_HOME": str(tmp_path)}
    with subprocess.Popen([program, "serve", ROOT / "models" / "inferneo-story-draft", "--port", "0", "--log-level", "info",
                           "--max-memory-gb", "0.25"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            url = address_of(server)
            text = run("benchmarks/latency/benchmark_latency.py", "--url", url, "--num-runs=4", "--warmup=1", "--max-tokens=3")
            assert "inferneo-story-draft" in text and text.count("tokens/s") == 3
            error = run("benchmarks/latency/benchmark_latency.py", "--url", url, "--model=nobody", "--num-runs=1", code=1)
            assert "404" in error
        finally:
            server.terminate()


def address_of(server):
    found = []

    def read(stream):
        for line in stream:
            if not found and (match := re.search(r"http://127\.0\.0\.1:\d+", line)):
                found.append(match.group(0))
                ready.set()
        ready.set()

    ready = threading.Event()
    for stream in (server.stdout, server.stderr):
        threading.Thread(target=read, args=(stream,), daemon=True).start()
    while not found:
        assert server.poll() is None and ready.wait(60), "the server did not say where it listens"
    return found[0]


def test_throughput_of_the_library(tmp_path):
    program = "benchmarks/throughput/benchmark_throughput.py"
    small = ["--num-requests=8", "--warmup=1", "--output-len=6", "--input-len=10"]
    text = run(program, *small, "--concurrency=4", "--lengths=random", "--json", tmp_path / "out.json", "--report", tmp_path / "out.html")
    assert "closed loop, 4 clients" in text and "goodput" in text
    [rounds] = json.loads((tmp_path / "out.json").read_text())["rounds"].values()
    assert rounds[0]["requests"] == 8 and rounds[0]["failed"] == 0 and rounds[0]["goodput"] <= rounds[0]["requests_per_second"]
    assert "<svg" in (tmp_path / "out.html").read_text()
    text = run(program, *small, "--rate=50", "--lengths=sharegpt", "--rounds=2", "--goodput=ttft:1000,e2e:1000", "--shared-prefix=8")
    assert "open loop, 50 requests/s" in text and re.search(r"share within the goals +1\.00 \(1\.00 to 1\.00\)", text)
    assert "expected ttft:SECONDS" in run(program, "--goodput=fast", code=2)
    assert "expected more than 0" in run(program, "--rate=0", code=2)


def test_loads_are_what_they_are_called():
    import argparse

    sys.path.insert(0, str(ROOT / "benchmarks" / "throughput"))
    import load

    options = argparse.Namespace(num_requests=4000, lengths="sharegpt", input_len=10**6, output_len=10**6, shared_prefix=3, rate=20.0,
                                 burstiness=1.0)
    requests = load.plan(options, 1)
    assert [vars(request) for request in requests[:5]] == [vars(request) for request in load.plan(options, 1)[:5]]
    assert len({request.prompt.split()[3] for request in requests}) == 4000 and len({tuple(r.prompt.split()[:3]) for r in requests}) == 1
    gaps = [after.arrival - before.arrival for before, after in zip(requests, requests[1:])]
    mean = sum(gaps) / len(gaps)
    assert abs(mean - 0.05) < 0.005  # 1 / rate; 4,000 exponential gaps: five standard errors are 8 % of it
    assert 0.8 < sum((gap - mean) ** 2 for gap in gaps) / len(gaps) / mean**2 < 1.2  # of a Poisson process
    assert abs(sum(request.max_tokens for request in requests) / 4000 - 338) < 45
    options.burstiness, options.lengths, options.input_len, options.output_len = 0.25, "random", 5, 7
    bursts = load.plan(options, 1)
    gaps = [after.arrival - before.arrival for before, after in zip(bursts, bursts[1:])]
    assert sum(gap**2 for gap in gaps) / len(gaps) / (sum(gaps) / len(gaps)) ** 2 > 3  # 1 + 1 / shape
    assert {request.max_tokens for request in bursts} == set(range(1, 8))


def test_what_an_open_loop_sends_late_has_waited():
    import argparse
    import asyncio
    import time

    sys.path.insert(0, str(ROOT / "benchmarks" / "throughput"))
    import load

    class HoldsUp:
        """The first request keeps this thread, so that nothing else is sent meanwhile."""

        async def ask(self, prompt, _):
            if prompt == "first":
                time.sleep(0.3)
            if prompt == "bad":
                raise ArithmeticError("of a kind that nobody thought of")
            return Sample(first_token=0.25, total=0.5, tokens=2)

    requests = [load.Request("first", 1, 0.0), load.Request("second", 1, 0.1), load.Request("bad", 1, 0.1)]
    done = asyncio.run(load.run(HoldsUp(), requests, argparse.Namespace(rate=10.0, concurrency=1)))
    assert len(done.samples) == 2 and len(done.errors) == 1 and "nobody thought of" in done.errors[0]
    second = max(done.samples, key=lambda sample: sample.total)
    assert second.total >= 0.7 and second.inter_token == pytest.approx(0.25)
    closed = asyncio.run(load.run(HoldsUp(), requests[:2], argparse.Namespace(rate=0, concurrency=2)))
    assert [sample.total for sample in closed.samples] == [0.5, 0.5]


def test_the_same_endpoint_twice_is_two_rows():
    sys.path.insert(0, str(ROOT / "benchmarks" / "throughput"))
    import benchmark_throughput

    targets = [EndpointTarget("http://127.0.0.1:1", "m") for _ in range(3)]
    benchmark_throughput.name_apart(targets)
    assert len({target.name for target in targets}) == 3
    picture = report.svg({target.name: {"latencies": [1.0, 2.0]} for target in targets})
    assert len(set(re.findall(r'<polyline fill="none" stroke="([^"]+)"', picture))) == 3
    assert benchmark_throughput.parse(["--seed", "7"]).seed == 7


def test_two_endpoints_side_by_side(tmp_path):
    program = server_program()
    if program is None:
        pytest.skip("the program inferneo has not been built")
    environment = {**os.environ, "INFERNEO_HOME": str(tmp_path)}
    with subprocess.Popen([program, "serve", ROOT / "models" / "inferneo-story-draft", "--port", "0", "--log-level", "info",
                           "--max-memory-gb", "0.25"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            url = address_of(server)
            text = run("benchmarks/throughput/benchmark_throughput.py", "--url", url, "--url", url.replace("127.0.0.1", "localhost"),
                       "--num-requests=4", "--output-len=3", "--warmup=1", "--rounds=2")
            assert re.search(r"output tokens/s, .*localhost.* over .*127\.0\.0\.1.*: \d", text)
        finally:
            server.terminate()


def test_overhead_of_python_over_cpp():
    build = server_program().parent if server_program() else None
    if build is None or not (build / "benchmarks" / "latency" / "latency_bench").is_file():
        pytest.skip("latency_bench has not been built")
    text = run("benchmarks/latency/overhead.py", "--build", build, "--rounds=2", "--processes=1", "--num-runs=4",
               "--concurrency=4", "--max-tokens=3")
    assert len(re.findall(r": throughput at 4 at once, Python over C\+\+: \d\.\d+ ", text)) == 2
    assert len(re.findall(r": single requests take -?\d+\.\d+ .* ms longer; outside of the engine -?\d+\.\d+ .* ms$", text,
                          re.MULTILINE)) == 3
    assert re.search(r"a thread goes on \d+\.\d+ ms after its descriptor is ready, an event loop calls after \d+\.\d+$", text,
                     re.MULTILINE)


def test_cpp_examples():
    build = server_program().parent if server_program() else None
    names = ("basic_usage", "many_models", "multi_model_serving")
    if build is None or not all((build / "examples" / name).is_file() for name in names):
        pytest.skip("the C++ examples have not been built")
    arguments = {"basic_usage": ["models/inferneo-story-draft"], "many_models": ["models/inferneo-story", "models/inferneo-code"],
                 "multi_model_serving": ["models"]}
    for name in names:
        done = subprocess.run([build / "examples" / name, *arguments[name]], cwd=ROOT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and len(done.stdout) > 50, done.stdout + done.stderr


def test_bad_use_of_the_benchmark_is_said():
    assert "expected 1 or more" in run("benchmarks/latency/benchmark_latency.py", "--num-runs=0", code=2)
    assert "unknown mode" in run("benchmarks/latency/benchmark_latency.py", "--modes=fast", code=2)
    assert "benchmark_latency: " in run("benchmarks/latency/benchmark_latency.py", "--url=http://127.0.0.1:9", code=1)
    assert "no_such_model" in run("benchmarks/latency/benchmark_latency.py", "--model=no_such_model", "--num-runs=1", code=1)


def test_statistics_are_those_of_the_definition():
    values = [float(value) for value in range(101)]
    numbers = report.statistics_of(values[::-1])
    assert (numbers["mean"], numbers["median"], numbers["p95"], numbers["p99"]) == (50, 50, 95, 99)
    assert report.percentile([1.0, 2.0], 0.5) == 1.5 and report.percentile([3.0], 0.99) == 3.0
    assert report.statistics_of([]) is None
    sample = Sample(first_token=1.0, total=3.0, tokens=5)
    assert sample.inter_token == 0.5 and Sample(1.0, 1.0, 1).inter_token is None
    mode = report.mode_report([sample, sample], 4.0)
    assert (mode["requests_per_second"], mode["tokens_per_second"]) == (0.5, 2.5)


def test_the_runner_fails_when_nothing_ran_or_cannot_be_done(tmp_path):
    assert "nothing ran" in run("tests/run_tests.py", "--no-build", "--build", tmp_path, "--match", "xyzzy", code=1)
    if find_spec("pytest_cov") and find_spec("gcovr"):  # the set-up of --coverage installs both
        counted = run("tests/run_tests.py", "--no-build", "--coverage", "--unit", "--build", tmp_path, "--match", "xyzzy", code=1)
        assert "nothing ran" in counted and "no line was counted" not in counted  # that goes to stdout
    assert "has not been configured" in run("tests/run_tests.py", "--unit", "--build", tmp_path, code=1)
