"""The commands of the documents, as programs: examples and the latency benchmark."""
import json
import os
import pathlib
import re
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks" / "latency"))
import report  # noqa: E402
from targets import Sample  # noqa: E402


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
    assert "not there yet" in run("tests/run_tests.py", "--coverage", code=1)
    assert "has not been configured" in run("tests/run_tests.py", "--unit", "--build", tmp_path, code=1)
