#!/usr/bin/env python3
"""This engine and llama.cpp side by side: one machine, one model, the same tensors, rounds that alternate.

    python3 tools/make_random_model.py llama-3.2-1b /tmp/llama-1b                       (once; needs numpy)
    python3 benchmarks/throughput/side_by_side.py /tmp/llama-1b --llama-bench PATH [--llama-batched-bench PATH]
        [--llama-server PATH]

The programs of llama.cpp are built by whoever compares, in the way that its users would. tools/make_gguf.py writes the
model as GGUF beside the results, once for each type. Each round measures each case in the order A B B A (A: inferneo),
each in a process of its own, so that a drift of the machine falls on both; a round's ratio is that of the two sums. The
machine's peaks are measured before and after each of these, and a round in which the read bandwidth moved by more than
5 % is marked. Of a server: the tokens/s of so many clients, and how long they wait for their first token when they all come
at once; with --start how long its process takes to a first token, of files that it has loaded before. Writes OUT.md,
OUT.svg and OUT.json; --from OUT.json writes the page anew without measuring, also of a run that did not come to its end.
"""
import argparse
import asyncio
import contextlib
import datetime
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / "latency"), str(HERE)]
sys.path.append(str(ROOT / "tools"))

import load  # noqa: E402
from side_by_side_page import is_quiet, page, picture  # noqa: E402
from targets import EndpointTarget  # noqa: E402

# Type of the GGUF file: how this engine keeps the same tensors.
QUANTIZATION = {"bf16": "none", "q8_0": "int8", "q4_0": "int4"}
PATIENCE = 1800  # seconds for one measurement


class Failed(Exception):
    """One sentence for the user."""


def output_of(line):
    """What a program printed; Failed with its last words."""
    try:
        done = subprocess.run([str(part) for part in line], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              errors="replace", timeout=PATIENCE)
    except OSError as error:
        raise Failed(f"{line[0]}: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{line[0]} did not end within {PATIENCE} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise Failed(f"{line[0]} ended with {done.returncode} and said: {words}")
    return done.stdout


def json_of(line):
    text = output_of(line)
    try:
        return json.loads(text)
    except ValueError:
        raise Failed(f"{line[0]} printed no JSON") from None


def context_of(args):
    """The longest context that this engine makes room for: never more than the model has."""
    with contextlib.suppress(OSError, ValueError):
        config = json.loads((pathlib.Path(args.model) / "config.json").read_text())
        return min(args.context, int(config.get("max_position_embeddings", args.context)))
    return args.context


class Inferneo:
    def __init__(self, args, kind):
        self._binary, self._args = args.binary, args
        self._flags = ["--num-threads", args.threads, "--quantization", QUANTIZATION[kind], "--max-model-len", context_of(args),
                       "--max-num-seqs", max([1, *args.clients, *args.streams])]

    def _row(self, *flags):
        report = json_of([self._binary, "bench", self._args.model, *self._flags, "--no-peaks", "--rounds", 1, "--json", "-", *flags])
        try:
            return report["rows"][0]
        except (KeyError, IndexError):
            raise Failed(f"{self._binary} bench measured nothing") from None

    def prefill(self, tokens):
        row = self._row("--input-len", tokens, "--output-len", 8, "--batch-size", 1)
        return row["prefill_tokens_per_second"]["median"]

    def decode(self, streams):
        row = self._row("--input-len", self._args.prompt, "--output-len", self._args.output, "--batch-size", streams)
        return row["decode_tokens_per_second"]["median"]

    def serve(self, port):
        return [self._binary, "serve", self._args.model, *self._flags, "--host", "127.0.0.1", "--port", port]


class LlamaCpp:
    def __init__(self, args, gguf):
        self._args, self._common = args, ["-m", gguf, "-t", args.threads]
        self.build = "unknown"

    def _bench(self, *flags):
        rows = json_of([self._args.llama_bench, *self._common, "-r", 1, "-o", "json", *flags])
        try:
            row = rows[0]
            self.build = f"build {row['build_number']} ({row['build_commit']})"
            return row["avg_ts"]
        except (KeyError, IndexError, TypeError):
            raise Failed(f"{self._args.llama_bench} measured nothing") from None

    def prefill(self, tokens):
        return self._bench("-p", tokens, "-n", 0)

    def decode(self, streams):
        if streams == 1:
            return self._bench("-p", 0, "-n", self._args.output, "-d", self._args.prompt)
        # A length for each stream is rounded up to 256. What the program prints last is lost now and then, when it ends
        # before its log has been written; so the measurement is followed by a short one.
        context = streams * max(256, self._args.prompt + self._args.output + 1)
        line = [self._args.llama_batched_bench, *self._common, "-c", context, "-npp", self._args.prompt, "-ntg",
                f"{self._args.output},1", "-npl", streams, "--output-format", "jsonl"]
        for _ in range(3):
            for printed in output_of(line).splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(printed)
                    if row["tg"] == self._args.output:
                        return row["speed_tg"]
        raise Failed(f"{self._args.llama_batched_bench} measured nothing")

    def serve(self, port):
        clients = max([1, *self._args.clients])
        context = clients * (4 * self._args.prompt + self._args.output)  # a word is a few tokens
        return [self._args.llama_server, *self._common, "--host", "127.0.0.1", "--port", port, "--parallel", clients, "-c", context]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(line, every=0.1):
    """The address of a server while it runs, once it answers what its models are, which it is asked so often: before they are
    loaded it does not."""
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen([str(part) for part in line], stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{line[line.index('--port') + 1]}"
            end = time.monotonic() + PATIENCE
            while True:
                if server.poll() is not None or time.monotonic() > end:
                    log.seek(0)
                    words = log.read().decode(errors="replace").strip().splitlines() or ["nothing"]
                    raise Failed(f"{line[0]} did not serve and said: {words[-1]}")
                with contextlib.suppress(urllib.error.URLError, OSError):
                    urllib.request.urlopen(url + "/v1/models", timeout=5).close()
                    break
                time.sleep(every)
            yield url
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


# The case of a server whose clients all come at once, by what is measured of it.
RATE = "serving, {} client{}"
BURST = "{} at once, first token, {}"


def serving(engine, clients, args, seed):
    """By case: of so many clients that all come at once when each has first been answered, in seconds; then of a closed
    loop of them the output tokens/s."""
    async def ask(url, number, seed):
        target = EndpointTarget(url, None)
        await target.start()
        options = argparse.Namespace(num_requests=number, lengths="fixed", input_len=args.prompt, output_len=args.output,
                                     shared_prefix=0, rate=0, burstiness=1, concurrency=clients)
        await target.ask("a first request", 4)
        done = await load.run(target, load.plan(options, seed), options)
        if done.errors or not done.samples:
            raise Failed(f"{line[0]} failed requests: {(done.errors or ['none was answered'])[0]}")
        return done

    line = engine.serve(free_port())
    with running(line) as url:
        try:
            burst = asyncio.run(ask(url, clients, 2 * seed))
            loop = asyncio.run(ask(url, 2 * clients, 2 * seed + 1))
        except (RuntimeError, LookupError, EOFError) as error:
            raise Failed(f"{line[0]} did not answer: {error}") from None
    measured = {RATE.format(clients, "s" if clients > 1 else ""): sum(sample.tokens for sample in loop.samples) / loop.seconds}
    if clients > 1:
        firsts = sorted(sample.first_token for sample in burst.samples)
        measured[BURST.format(clients, "median")] = statistics.median(firsts)
        measured[BURST.format(clients, "last")] = firsts[-1]
    return measured


START = "process start to first token"


def starting(engine):
    """Seconds from the start of a server's process until a prompt of 16 tokens has its first token, the only one."""
    line = engine.serve(free_port())
    body = json.dumps({"model": "", "prompt": list(range(1000, 1016)), "max_tokens": 1, "temperature": 0})
    begin = time.perf_counter()
    with running(line, every=0.001) as url:
        request = urllib.request.Request(url + "/v1/completions", body.encode(), {"Content-Type": "application/json"})
        try:
            json.load(urllib.request.urlopen(request, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            raise Failed(f"{line[0]} did not answer: {error}") from None
        return time.perf_counter() - begin


def names_of(clients):
    """Of the cases that serving() measures."""
    rate = RATE.format(clients, "s" if clients > 1 else "")
    return [rate] if clients == 1 else [rate, BURST.format(clients, "median"), BURST.format(clients, "last")]


def measurements_of(args):
    """(names of its cases, what measures them: by name) for each thing that a round does."""
    def one(name, measure):
        return [name], lambda engine, _: {name: measure(engine)}

    todo = [one(f"prefill {tokens:,}", lambda engine, n=tokens: engine.prefill(n)) for tokens in args.prefill]
    for streams in args.streams:
        if streams == 1 or args.llama_batched_bench:
            todo.append(one(f"decode, {streams} stream{'s' if streams > 1 else ''}", lambda engine, n=streams: engine.decode(n)))
    if args.start:
        todo.append(one(START, starting))
    for clients in args.clients if args.llama_server else []:
        todo.append((names_of(clients), lambda engine, seed, n=clients: serving(engine, n, args, seed)))
    return todo


def measure(args, ggufs, setup):
    """The results, which are on disk after every group of four."""
    todo = [(kind, names, run) for kind in args.types for names, run in measurements_of(args)]
    results = {(kind, name): {"type": kind, "name": name, "unit": "s" if "first token" in name else "tokens/s", "rounds": []}
               for kind, names, _ in todo for name in names}
    engines = {kind: (Inferneo(args, kind), LlamaCpp(args, ggufs[kind])) for kind in args.types}

    def peaks():
        return json_of([args.binary, "bench", "--machine", "--json", "-", "--num-threads", args.threads])["machine"]

    for engine in [engine for kind in args.types for engine in engines[kind]] if args.start else []:
        starting(engine)  # which leaves its files, and what it has made of them, in the page cache
    for number in range(args.rounds):
        for kind, names, run in todo if number % 2 == 0 else reversed(todo):
            ours, theirs = engines[kind]
            before = peaks()
            a, b, c, d = (run(engine, number) for engine in (ours, theirs, theirs, ours))
            after = peaks()
            for name in names:
                case = results[kind, name]
                done = {"ours": [a[name], d[name]], "theirs": [b[name], c[name]], "before": before, "after": after}
                case["rounds"].append(done)
                print(f"round {number + 1}: {kind} {name:<26} {(a[name] + d[name]) / 2:10.2f} and {(b[name] + c[name]) / 2:10.2f} "
                      f"{case['unit']}{'' if is_quiet(done) else '   (the machine was not quiet)'}", file=sys.stderr, flush=True)
            setup["llama.cpp"] = next((e[1].build for e in engines.values() if e[1].build != "unknown"), "unknown")
            result = {"setup": setup, "cases": list(results.values())}
            beside(args.out, ".json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def write_ggufs(args):
    """The model in each type; one that is newer than the model is taken as it is."""
    args.gguf_dir.mkdir(parents=True, exist_ok=True)
    newest = max(file.stat().st_mtime for file in pathlib.Path(args.model).iterdir())
    paths = {}
    for kind in args.types:
        path = paths[kind] = args.gguf_dir / f"{pathlib.Path(args.model).resolve().name}-{kind}.gguf"
        if not path.is_file() or path.stat().st_mtime < newest:
            import make_gguf  # needs numpy

            print(f"writing {path}", file=sys.stderr, flush=True)
            try:
                make_gguf.write(args.model, path, kind)
            except make_gguf.Refused as error:
                raise Failed(str(error)) from None
    return paths


def setup_of(args):
    cpu = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo", encoding="utf-8", errors="replace")
                if line.startswith("model name")), platform.machine()) if os.path.exists("/proc/cpuinfo") else platform.machine()
    return {"date": datetime.date.today().isoformat(), "model": pathlib.Path(args.model).resolve().name, "processor": cpu,
            "threads": args.threads, "rounds": args.rounds, "prompt": args.prompt, "output": args.output,
            "load": os.getloadavg()[0]}


def whole_numbers(text):
    if text == "none":
        return []
    numbers = [int(part) for part in text.split(",")]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected whole numbers from 1 between commas, or none, got {text!r}")
    return numbers


def types_of(text):
    kinds = text.split(",")
    if unknown := [kind for kind in kinds if kind not in QUANTIZATION]:
        raise argparse.ArgumentTypeError(f"expected some of {', '.join(QUANTIZATION)}, got {unknown[0]!r}")
    return kinds


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def positive(text):
        numbers = whole_numbers(text)
        if len(numbers) != 1:
            raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
        return numbers[0]

    parser.add_argument("model", nargs="?", help="a Llama in Hugging Face layout")
    parser.add_argument("--llama-bench", metavar="PATH")
    parser.add_argument("--llama-batched-bench", metavar="PATH", help="decoding of several streams as well")
    parser.add_argument("--llama-server", metavar="PATH", help="serving as well")
    parser.add_argument("--start", action="store_true", help="and how long a server's process takes to its first token")
    parser.add_argument("--binary", default=str(ROOT / "build/release/inferneo"), help="[build/release/inferneo]")
    parser.add_argument("--types", type=types_of, default=["bf16"], metavar="T,T", help="bf16, q8_0, q4_0 [bf16]")
    parser.add_argument("--rounds", type=positive, default=5, help="at least five tell something [5]")
    parser.add_argument("--prefill", type=whole_numbers, default=[512], metavar="N,N", help="prompt lengths, or none [512]")
    parser.add_argument("--streams", type=whole_numbers, default=[1, 16], metavar="N,N", help="decoded together, or none [1,16]")
    parser.add_argument("--clients", type=whole_numbers, default=[8], metavar="N,N", help="of the serving cases, or none [8]")
    parser.add_argument("--prompt", type=positive, default=32, help="tokens before decoding, words when serving [32]")
    parser.add_argument("--output", type=positive, default=128, help="tokens decoded by each stream [128]")
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)), help="[all processors]")
    parser.add_argument("--context", type=positive, default=4096, help="longest context of this engine [4096]")
    parser.add_argument("--gguf-dir", type=pathlib.Path, default=ROOT / "build/gguf", help="[build/gguf]")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "build/side_by_side", help="without ending [build/side_by_side]")
    parser.add_argument("--from", dest="results", type=pathlib.Path, metavar="JSON", help="write the page of these results anew")
    args = parser.parse_args(arguments)
    if not args.results and not (args.model and args.llama_bench):
        parser.error("a model and --llama-bench are needed, or --from")
    if args.start and not (args.results or args.llama_server):
        parser.error("--start is of servers: --llama-server is needed as well")
    if args.output < 8:
        parser.error("--output: expected 8 or more tokens, which is the least that can be timed")
    return args


def beside(path, ending):
    """A name may hold dots of its own."""
    return path.with_name(path.name + ending)


def write_report(out, result, page):
    """The results, their picture and the page about them."""
    beside(out, ".json").write_text(json.dumps(result, indent=1) + "\n")
    beside(out, ".svg").write_text(picture(result))
    beside(out, ".md").write_text(page(result, beside(out, ".svg").name))


def main(arguments=None):
    args = parse(arguments)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        if args.results:
            result = json.loads(args.results.read_text())
        else:
            setup = setup_of(args)
            if setup["load"] > 0.5:
                print(f"warning: the load average is {setup['load']:.1f}; other work disturbs the measurement", file=sys.stderr)
            ggufs = write_ggufs(args)
            result = measure(args, ggufs, setup)
        write_report(args.out, result, page)
    except (Failed, OSError, ValueError, KeyError) as error:
        print(f"side_by_side: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"side_by_side: {error}; writing GGUF files needs numpy", file=sys.stderr)
        return 1
    print(beside(args.out, ".md"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
