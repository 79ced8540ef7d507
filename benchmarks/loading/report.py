#!/usr/bin/env python3
"""Measures what docs/loading.md says and writes it anew.

    python3 tools/make_random_model.py llama-3.2-1b /tmp/llama-1b        (once; needs numpy)
    python3 tools/make_random_model.py small-128k /tmp/small-128k
    python3 tools/make_random_tokenizer.py 128256 /tmp/small-128k
    python3 benchmarks/loading/report.py --model /tmp/llama-1b --small /tmp/small-128k

Rounds are interleaved, in the order A B C ... or backwards, in turn. Every load is a process of its own; all files are in
the page cache. Run it on a quiet machine; it says when the load was not its own.

- First load: with an empty home, so that the file is hashed and packed; the packed file is written meanwhile.
- Second load: a process later, with what the first has left.
- A load counts from the start of the process until /ready says 200 (asked every millisecond).
- Cold request: a server that has loaded nothing (--enable-lazy-loading) gets a prompt of 16 tokens; counted until the
  first token has come back. Warm: the same server, another prompt of 16 tokens.
- Plain: benchmarks/loading/touch_file.cc, which maps a file and reads a byte of each page, on the checkpoint and on the
  packed file.
"""
import argparse
import datetime
import http.client
import json
import os
import pathlib
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def spread(values, digits=3):
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process; `ready_s` is how long it took from its start until /ready said 200."""

    def __init__(self, args, model, home, *options):
        self.port = free_port()
        line = [args.binary, "serve", str(model), "--port", str(self.port), "--home", str(home), "--max-model-len", "2048",
                "--no-enable-prefix-caching", *options]
        self.log = tempfile.TemporaryFile("w+")
        start = time.perf_counter()
        self.process = subprocess.Popen(line, stdout=self.log, stderr=self.log)
        while not self.is_ready():
            if self.process.poll() is not None or time.perf_counter() - start > 120:
                self.log.seek(0)
                raise SystemExit(f"{' '.join(line)} did not start:\n{self.log.read()}")
            time.sleep(0.001)
        self.ready_s = time.perf_counter() - start

    def is_ready(self):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            connection.request("GET", "/ready")
            return connection.getresponse().status == 200
        except OSError:
            return False

    def first_token(self, seed):
        """Seconds until the first token, which is the only one, of a prompt of 16 random tokens has come back."""
        body = json.dumps(dict(model="", prompt=[random.Random(seed).randrange(1000, 4000) for _ in range(16)],
                               max_tokens=1, temperature=0, ignore_eos=True))
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        start = time.perf_counter()
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            raise SystemExit(f"status {reply.status}: {reply.read().decode()}")
        reply.read()
        return time.perf_counter() - start

    def stop(self):
        """Ends it; how it came to the weights."""
        self.process.terminate()
        self.process.wait(60)
        self.log.seek(0)
        return [word for line in self.log for word in ("packed", "mapped", "shared") if f"weights {word}" in line]


def wait_for_packed(home):
    for _ in range(1200):
        found = list(pathlib.Path(home).glob("cache/packed/*.packed"))
        if found and not list(pathlib.Path(home).glob("cache/packed/*.tmp")):
            return found[0]
        time.sleep(0.1)
    raise SystemExit("no packed file was written")


class Measurement:
    def __init__(self, args):
        self.args = args
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="inferneo-loading-", dir=args.work))
        self.touch = self.work / "touch_file"
        subprocess.run(["c++", "-O2", "-o", self.touch, ROOT / "benchmarks/loading/touch_file.cc"], check=True)
        self.values = {}

    def note(self, name, value, text=""):
        self.values.setdefault(name, []).append(value)
        print(f"  {name:<40} {value:9.3f} {text}", file=sys.stderr, flush=True)

    def expect(self, server, origin):
        found = server.stop()
        if found != [origin]:
            raise SystemExit(f"weights {found}, expected {origin}")

    def plain(self, path):
        return float(subprocess.run([self.touch, path], stdout=subprocess.PIPE, check=True).stdout)

    def first_load(self, name, model):
        home = self.work / f"first-{name}"
        shutil.rmtree(home, ignore_errors=True)
        server = Server(self.args, model, home)
        self.note(f"{name}: first load", server.ready_s)
        self.note(f"{name}: first token after it", server.first_token(1))
        wait_for_packed(home)
        self.expect(server, "packed")
        shutil.rmtree(home)

    def second_load(self, name, model):
        server = Server(self.args, model, self.home(name, model))
        self.note(f"{name}: second load", server.ready_s)
        self.note(f"{name}: first token after it (second)", server.first_token(1))
        self.expect(server, "mapped")

    def cold_request(self, name, model):
        packed = wait_for_packed(self.home(name, model))
        checkpoint = self.plain(pathlib.Path(model) / "model.safetensors")
        server = Server(self.args, model, self.home(name, model), "--enable-lazy-loading")
        cold = server.first_token(1)
        warm = statistics.median(server.first_token(seed) for seed in range(2, 7))
        self.expect(server, "mapped")
        mapped = self.plain(packed)
        self.note(f"{name}: cold request", cold)
        self.note(f"{name}: warm request", warm)
        self.note(f"{name}: plain, checkpoint", checkpoint)
        self.note(f"{name}: plain, packed file", mapped)
        self.note(f"{name}: cold / (plain checkpoint + warm)", cold / (checkpoint + warm))
        self.note(f"{name}: cold / (plain packed + warm)", cold / (mapped + warm))

    def speed(self, kind):
        limit = "50" if kind == "mapped" else "0"
        line = [self.args.binary, "bench", self.args.model, "--input-len", "512", "--output-len", "64", "--batch-size", "1",
                "--rounds", "1", "--json", "-", "--max-model-len", "2048", "--home", self.home("1B", self.args.model),
                "--packed-cache-gb", limit]
        done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True, timeout=900)
        row = json.loads(done.stdout)["rows"][0]
        for case, share in (("prefill", "prefill_share_of_peak"), ("decode", "decode_share_of_bandwidth")):
            self.note(f"{case}, {kind}", row[f"{case}_tokens_per_second"]["median"], f"{row[share]['median']:.2f} of the peak")
            self.note(f"{case} share, {kind}", row[share]["median"])

    def home(self, name, model):
        """One in which the first load has left its file."""
        home = self.work / f"home-{name}"
        if not home.exists():
            server = Server(self.args, model, home)
            wait_for_packed(home)
            self.expect(server, "packed")
            Server(self.args, model, home).stop()  # the key of a file that was just written is not kept at first
        return home

    def run(self):
        args = self.args
        steps = [lambda: self.cold_request("1B", args.model), lambda: self.second_load("1B", args.model),
                 lambda: self.second_load("small", args.small), lambda: self.speed("mapped"),
                 lambda: self.speed("in memory"), lambda: self.first_load("1B", args.model),
                 lambda: self.first_load("small", args.small)]
        for number in range(args.rounds):
            print(f"round {number + 1}", file=sys.stderr)
            for step in steps if number % 2 == 0 else reversed(steps):
                step()
        shutil.rmtree(self.work)
        return self.values


def page(args, v):
    cell = lambda name: spread(v[name])
    speeds = [f"| {case} | {spread(v[f'{case}, in memory'], 1)} | {spread(v[f'{case}, mapped'], 1)} | "
              f"{spread([100 * s for s in v[f'{case} share, in memory']], 0)} % | "
              f"{spread([100 * s for s in v[f'{case} share, mapped']], 0)} % |" for case in ("prefill", "decode")]
    loads = [f"| {title} | {cell(name + ': first load')} | {cell(name + ': second load')} | "
             f"{cell(name + ': first token after it (second)')} |"
             for name, title in (("1B", "Llama-3.2-1B's shape, 2.47 GB"), ("small", "0.77 GB, 128k tokens"))]
    return f"""# Loading

Written by `benchmarks/loading/report.py`, which says how it measures and what is counted. Medians and ranges of
{args.rounds} interleaved rounds, in seconds unless said otherwise; bf16 models with random weights, all files in the page
cache, 2 threads ({datetime.date.today().isoformat()}).

## Until ready
From the start of the process until `/ready` says 200. The first load hashes the weight files, packs them and writes the
packed file while it serves already; a file from the hub's cache needs no hash. The second maps that file and packs
nothing: its pages are in the page table when it is ready. The first token is that of a prompt of 16 tokens.

| model | first load | second load | then its first token |
|---|---|---|---|
{chr(10).join(loads)}

## A cold request
A server that has not loaded its model gets a prompt of 16 tokens.

| what | seconds |
|---|---|
| cold request, until its first token | {cell('1B: cold request')} |
| warm request, until its first token | {cell('1B: warm request')} |
| a plain program maps the checkpoint and reads a byte of each page | {cell('1B: plain, checkpoint')} |
| the same for the packed file, which the page cache holds in huge pages | {cell('1B: plain, packed file')} |

The cold request takes {spread(v['1B: cold / (plain checkpoint + warm)'], 2)} times the plain program on the checkpoint and
the warm request together, {spread(v['1B: cold / (plain packed + warm)'], 2)} times with the plain program on the packed file.

## Speed from a mapping
Tokens/s of the 1B model, prompts of 512 tokens and one stream, with weights packed into anonymous huge pages by this
process and with weights mapped from the packed file; and the shares of the machine's peaks around each measurement.

| case | in memory | mapped | share, in memory | share, mapped |
|---|---|---|---|---|
{chr(10).join(speeds)}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of tools/make_random_model.py llama-3.2-1b")
    parser.add_argument("--small", required=True, help="the same for small-128k, with its tokenizer")
    parser.add_argument("--binary", default=str(ROOT / "build/release/inferneo"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="folder on a disk with 8 GB free for packed files [the system's temporary folder]")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "docs/loading.md", help="'-' prints the page")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"warning: the load average is {load:.1f}; other work disturbs the measurement", file=sys.stderr)
    text = page(args, Measurement(args).run())
    if str(args.out) == "-":
        print(text)
    else:
        args.out.write_text(text)


if __name__ == "__main__":
    main()
