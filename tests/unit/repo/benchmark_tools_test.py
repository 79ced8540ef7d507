"""The tools around the benchmarks, on programs that say what they are told to: nothing is measured, and there is no model."""
import contextlib
import importlib.util
import io
import json
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest
import unittest.mock

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "benchmarks" / "throughput"), str(ROOT / "benchmarks" / "step")]
import growth  # noqa: E402
import instructions  # noqa: E402
import load  # noqa: E402
import side_by_side  # noqa: E402
import side_by_side_page  # noqa: E402


def module_at(path):
    """Several benchmarks have a report.py."""
    spec = importlib.util.spec_from_file_location(path.parent.name + "_report", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


onnx_report = module_at(ROOT / "benchmarks" / "onnx" / "report.py")

class Programs:
    """What the programs would print; keeps the calls."""

    def __init__(self):
        self.calls, self._looks, self._rates, self._lost = [], 0, 0, False

    def output_of(self, line):
        line = [str(part) for part in line]
        self.calls.append(line)
        if "--machine" in line:
            self._looks += 1
            read = [12e9, 10e9, 10.4e9, 10e9][self._looks % 4]
            return json.dumps(dict(machine=dict(threads=2, isa="avx2", bf16_flops=1e11, read_bytes_per_second=read)))
        if line[0] == "inferneo":
            self._rates += 1
            rate = dict(median=20.0 if self._rates % 2 else 24.0)
            return json.dumps(dict(rows=[dict(prefill_tokens_per_second=rate, decode_tokens_per_second=rate)]))
        if line[0] == "llama-bench":
            return json.dumps([dict(avg_ts=10.0, build_number=42, build_commit="abc123")])
        self._lost = not self._lost
        rows = [dict(tg=1, speed_tg=7.0)] if self._lost else [dict(tg=16, speed_tg=40.0), dict(tg=1, speed_tg=7.0)]
        return "noise\n" + "\n".join(map(json.dumps, rows))


class SideBySide(unittest.TestCase):
    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.folder = pathlib.Path(self._folder.name)
        self.model = self.folder / "tiny"
        self.model.mkdir()
        (self.model / "config.json").write_text("{}")
        (self.folder / "gguf").mkdir()
        (self.folder / "gguf" / "tiny-bf16.gguf").write_text("as it is")  # newer than the model, so taken

    def program(self, name, body):
        path = self.folder / name
        path.write_text("#!/bin/sh\n" + body + "\n")
        path.chmod(0o755)
        return str(path)

    def run_tool(self, *flags):
        """(exit code, what it said on the error stream)"""
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                code = side_by_side.main([str(self.model), "--gguf-dir", str(self.folder / "gguf"), "--out",
                                          str(self.folder / "page"), *flags])
            except SystemExit as end:
                code = end.code
        return code, said.getvalue()

    def test_rounds_alternate_and_the_page_says_what_came_of_them(self):
        programs = Programs()
        with unittest.mock.patch.object(side_by_side, "output_of", programs.output_of):
            code, said = self.run_tool("--binary", "inferneo", "--llama-bench", "llama-bench", "--llama-batched-bench", "batched",
                                       "--rounds", "2", "--prefill", "64", "--streams", "1,4", "--threads", "2", "--output", "16")
        self.assertEqual(code, 0, said)
        result = json.loads((self.folder / "page.json").read_text())
        self.assertEqual(result["setup"]["llama.cpp"], "build 42 (abc123)")
        self.assertEqual([c["name"] for c in result["cases"]], ["prefill 64", "decode, 1 stream", "decode, 4 streams"])
        for case in result["cases"]:
            self.assertEqual([sorted(r["ours"]) for r in case["rounds"]], [[20.0, 24.0]] * 2)
        self.assertEqual(side_by_side_page.ratios(result["cases"][0]), [2.2, 2.2])
        self.assertEqual(side_by_side_page.ratios(result["cases"][2]), [0.55, 0.55])
        # 10.0 and 10.4 are within 5 %, 10 and 12 are not: every second group is marked.
        quiet = [side_by_side_page.is_quiet(r) for case in result["cases"] for r in case["rounds"]]
        self.assertEqual(sorted(quiet), [False] * 3 + [True] * 3)
        page = (self.folder / "page.md").read_text()
        self.assertIn("| bf16 | prefill 64 | 22.0 (22.0 to 22.0) | 10.0 (10.0 to 10.0) | 2.20 (2.20 to 2.20) |", page)
        self.assertIn("In 3 of 6 rounds", page)
        self.assertIn("Fewer than five rounds", page)
        self.assertIn("(page.svg)", page)
        self.assertEqual((self.folder / "page.svg").read_text().count("<circle"), 3)
        order = ["m" if "--machine" in c else c[0][0] for c in programs.calls]
        self.assertEqual("".join(order[:6]), "millim", "A B B A between two looks at the machine")
        decode = next(c for c in programs.calls if c[0] == "llama-bench" and "-d" in c)
        self.assertEqual(decode[decode.index("-n") + 1], "16")
        self.assertEqual((self.folder / "gguf" / "tiny-bf16.gguf").read_text(), "as it is")

    def test_the_page_is_written_anew_from_its_results(self):
        machine = dict(threads=2, isa="avx2", bf16_flops=1e11, read_bytes_per_second=1e10)
        result = dict(setup=dict(date="2026-01-01", model="m", processor="p", threads=2, rounds=5, prompt=32, output=128),
                      cases=[dict(type="bf16", name="never came to it", rounds=[]),
                             dict(type="bf16", name="<decode>", rounds=[dict(ours=[2, 2], theirs=[1, 1], before=machine, after=machine)] * 5)])
        (self.folder / "old.json").write_text(json.dumps(result))
        self.assertEqual(self.run_tool("--from", str(self.folder / "old.json"))[0], 0)
        page = (self.folder / "page.md").read_text()
        self.assertNotIn("Fewer than five", page)
        self.assertNotIn("not quiet", page)
        self.assertNotIn("never came to it", page)
        self.assertIn("&lt;decode&gt;", (self.folder / "page.svg").read_text())

    def test_what_goes_wrong_is_one_sentence(self):
        good = self.program("good", "cat '" + str(self.folder / "answer") + "'")
        rate = dict(median=1.0)
        (self.folder / "answer").write_text(json.dumps(dict(machine=dict(read_bytes_per_second=1.0), rows=[
            dict(prefill_tokens_per_second=rate, decode_tokens_per_second=rate)])))
        bad = self.program("bad", "echo one >&2; echo no such model >&2; exit 3")
        silent = self.program("silent", "exit 0")
        absent = str(self.folder / "absent")
        for flags, words in ((["--binary", good, "--llama-bench", bad], "ended with 3 and said: no such model"),
                             (["--binary", good, "--llama-bench", absent], "No such file"),
                             (["--binary", silent, "--llama-bench", good], "printed no JSON"),
                             (["--binary", good, "--llama-bench", good], "measured nothing")):
            code, said = self.run_tool(*flags, "--rounds", "1")
            self.assertEqual(code, 1, said)
            self.assertIn(words, said)
        self.assertEqual(self.run_tool()[0], 2)
        self.assertEqual(self.run_tool("--llama-bench", good, "--types", "q5_k")[0], 2)
        for flags in (["--prefill", "0"], ["--rounds", "none"], ["--rounds", "1,2"]):
            self.assertEqual(self.run_tool("--llama-bench", good, *flags)[0], 2)

    def test_cases_are_those_that_there_are_programs_for(self):
        def cases(*flags):
            args = side_by_side.parse(["m", "--llama-bench", "x", *flags])
            return [name for names, _ in side_by_side.measurements_of(args) for name in names]

        self.assertEqual(cases("--streams", "1,8"), ["prefill 512", "decode, 1 stream"])
        self.assertEqual(cases("--llama-batched-bench", "y", "--llama-server", "z", "--clients", "1,8"),
                         ["prefill 512", "decode, 1 stream", "decode, 16 streams", "serving, 1 client", "serving, 8 clients",
                          "8 at once, first token, median", "8 at once, first token, last"])
        self.assertEqual(cases("--start", "--llama-server", "z", "--streams", "1", "--clients", "1"),
                         ["prefill 512", "decode, 1 stream", "process start to first token", "serving, 1 client"])
        self.assertEqual(cases("--start", "--llama-server", "z", "--prefill", "none", "--streams", "none", "--clients", "none"),
                         ["process start to first token"])
        with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as said:
            cases("--start")
        self.assertIn("--llama-server is needed", said.getvalue())

    def test_a_start_counts_from_the_process_to_the_token(self):
        server = self.program("server", f"exec {sys.executable} '{self.folder}/server.py' $2")
        (self.folder / "server.py").write_text("""
import http.server, json, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(0.3 if len(request["prompt"]) == 16 and request["max_tokens"] == 1 else 0)
        self.answer({})

    def log_message(self, *words):
        pass

time.sleep(0.2)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
""")
        engine = types.SimpleNamespace(serve=lambda port: [server, "--port", port])
        self.assertGreater(side_by_side.starting(engine), 0.5)
        absent = types.SimpleNamespace(serve=lambda port: [self.program("bad", "echo no such file; exit 1"), "--port", port])
        with self.assertRaisesRegex(side_by_side.Failed, "did not serve and said: no such file"):
            side_by_side.starting(absent)

    def test_a_burst_is_told_in_seconds_beside_the_rate(self):
        def sample(first_token, tokens=4):
            return types.SimpleNamespace(first_token=first_token, tokens=tokens)

        async def run(target, requests, options):
            firsts = [0.3, 0.1, 0.2] if len(requests) == 3 else [9.0] * len(requests)
            return load.Round(2.0, [sample(first) for first in firsts])

        class Target:
            def __init__(self, url, model):
                pass

            async def start(self):
                pass

            async def ask(self, prompt, max_tokens):
                pass

        engine = types.SimpleNamespace(serve=lambda port: ["server", "--port", port])
        args = side_by_side.parse(["m", "--llama-bench", "x", "--clients", "3"])
        with unittest.mock.patch.object(load, "run", run), unittest.mock.patch.object(side_by_side, "EndpointTarget", Target), \
                unittest.mock.patch.object(side_by_side, "running", lambda line: contextlib.nullcontext("url")):
            measured = side_by_side.serving(engine, 3, args, seed=0)
        self.assertEqual(measured, {"serving, 3 clients": 12.0, "3 at once, first token, median": 0.2, "3 at once, first token, last": 0.3})
        self.assertEqual(list(measured), side_by_side.names_of(3))


class Growth(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_tool(self, body):
        program = self.folder / "inferneo"
        program.write_text(f"#!{sys.executable}\nimport json, sys\n{body}\n")
        program.chmod(0o755)
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = growth.main(["model", "--binary", str(program), "--lengths", "64,128,256", "--rounds", "2", "--out",
                                str(self.folder / "growth.md"), "--json", str(self.folder / "growth.json"), "--flags", "--dtype", "f32"])
        return code, said.getvalue()

    def test_lines_are_fitted_and_deviations_said(self):
        code, said = self.run_tool("""
if "--machine" in sys.argv:
    print(json.dumps({"machine": {"threads": 2, "isa": "avx2", "bf16_flops": 1e11, "read_bytes_per_second": 1e10}}))
else:
    assert sys.argv[sys.argv.index("--max-model-len") + 1] == "288" and sys.argv[-2:] == ["--dtype", "f32"]
    n = int(sys.argv[sys.argv.index("--input-len") + 1])
    bent = 1.1 if n == 128 else 1.0
    print(json.dumps({"model": {"kv_bytes_per_token": 2048.0}, "rows": [{
        "prefill_tokens_per_second": {"median": 1e3 / (2 + 0.001 * n)},
        "decode_tokens_per_second": {"median": 1e3 / (5 * bent)}}]}))
""")
        self.assertEqual(code, 0, said)
        page = (self.folder / "growth.md").read_text()
        self.assertIn("| prefill of a token | 2.000 ms | 2000 ns | 0 % |", page)
        self.assertIn("| 128 | 2.128 (2.128 to 2.128) | 5.50 (5.50 to 5.50) |", page)
        self.assertIn("| 7 % |\n| memory |", page)
        self.assertIn("of which the cache has 2 |", page)
        self.assertIn("model with random weights, `--dtype f32` (", page)
        self.assertEqual((self.folder / "pictures" / "growth.svg").read_text().count("<circle"), 9)
        self.assertEqual(growth.main(["--from", str(self.folder / "growth.json"), "--out", str(self.folder / "again.md")]), 0)
        self.assertEqual((self.folder / "again.md").read_text(), page.replace("growth.svg", "again.svg"))

    def test_what_goes_wrong_is_one_sentence(self):
        code, said = self.run_tool("sys.exit('no such model')")
        self.assertEqual(code, 1)
        self.assertIn("ended with 1 and said: no such model", said)


class OnnxReport(unittest.TestCase):
    """Both engines and the operator are asked by turns, a round that was measured stays, and the page tells medians and ratios."""

    def setUp(self):
        self._folder = tempfile.TemporaryDirectory()
        self.addCleanup(self._folder.cleanup)
        self.folder = pathlib.Path(self._folder.name)
        self.model = self.folder / "tiny"
        self.model.mkdir()
        (self.model / "config.json").write_text(json.dumps(dict(
            hidden_size=8, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2, vocab_size=10)))
        (self.folder / "inferneo").write_text("the program")
        for kind in ("f32", "int4"):
            (self.folder / f"tiny-{kind}").mkdir()
            (self.folder / f"tiny-{kind}" / "model.onnx").write_text("newer than the program, so taken")
        self.calls = []

    def answer(self, line):
        line = [str(part) for part in line]
        self.calls.append(line)
        if "--machine" in line:
            return dict(machine=dict(threads=2, isa="avx2", bf16_flops=1e11, read_bytes_per_second=1e10))
        if line[1].endswith("genai_rates.py"):
            return dict(version="9.9", prefill=100.0, decode=10.0, in_turn=9.0, batch=30.0)
        if line[1].endswith("operator_rates.py"):
            return dict(one=2.0, many=9.0)
        batches = line[line.index("--batch-size") + 1].split(",")
        rate = {name: dict(median=value) for name, value in dict(
            prefill_tokens_per_second=110.0, decode_tokens_per_second=12.0, output_tokens_per_second=36.0).items()}
        return dict(rows=[dict(batch=int(batch), input_len=1, **rate) for batch in batches])

    def run_tool(self, *flags):
        said = io.StringIO()
        with (unittest.mock.patch.object(onnx_report, "json_of", self.answer), contextlib.redirect_stderr(said),
              contextlib.redirect_stdout(io.StringIO())):
            code = onnx_report.main([str(self.model), "--genai-python", "python", "--onnxruntime", "lib.so", "--binary",
                                     str(self.folder / "inferneo"), "--onnx-dir", str(self.folder), "--out", str(self.folder / "page"),
                                     "--threads", "2", *flags])
        return code, said.getvalue()

    def test_rounds_go_on_where_they_ended(self):
        for calls in (1, 2):
            self.assertEqual(self.run_tool("--rounds", "2", "--one", *(["--continue"] if calls > 1 else [])), (0, unittest.mock.ANY))
        result = json.loads((self.folder / "page.json").read_text())
        self.assertEqual([len(case["rounds"]) for case in result["cases"]], [1] * 8)
        self.assertEqual(self.run_tool("--rounds", "2", "--continue")[0], 0)
        result = json.loads((self.folder / "page.json").read_text())
        self.assertEqual([len(case["rounds"]) for case in result["cases"]], [2] * 8)
        self.assertEqual([len(entry["rounds"]) for entry in result["scaling"]], [2, 2])
        order = "".join("m" if "--machine" in c else "g" if "genai" in c[1] else "o" if "operator" in c[1] else "i" for c in self.calls)
        self.assertEqual(order, "miiggiim" + "miiggiiom" + "miiggiiom" + "miiggiim", "A B B A, and types by turns")
        weights = next(c for c in self.calls if "operator" in c[1])
        self.assertEqual(weights[weights.index("--weights") + 1], str(2 * (8 * 4 * 2 * 3 + 3 * 8 * 16) + 80))

    def test_the_page_tells_what_was_measured(self):
        code, said = self.run_tool("--rounds", "1")
        self.assertEqual(code, 0, said)
        page = (self.folder / "page.md").read_text()
        self.assertIn("| f32 | prefill 512 | 110.0 (110.0 to 110.0) | 100.0 (100.0 to 100.0) | 1.10 (1.10 to 1.10) |", page)
        self.assertIn("| int4 | 8 streams; the other: in turn | 36.0 (36.0 to 36.0) | 9.0 (9.0 to 9.0) | 4.00 (4.00 to 4.00) |", page)
        self.assertIn("| int4 | 12.0 (12.0 to 12.0) | 12.0 (12.0 to 12.0) | 1.00 (1.00 to 1.00) | 4.50 (4.50 to 4.50) |", page)
        self.assertIn("Fewer than five rounds", page)
        self.assertIn("onnxruntime-genai 9.9; both with lib.so", page)
        self.assertIn("over those of onnxruntime-genai", (self.folder / "page.svg").read_text())
        self.assertEqual(self.run_tool("--from", str(self.folder / "page.json"))[0], 0)

    def test_types_that_were_not_begun_with_are_refused(self):
        self.assertEqual(self.run_tool("--types", "f32", "--one")[0], 0)
        (self.folder / "tiny-int8").mkdir()
        (self.folder / "tiny-int8" / "model.onnx").write_text("x")
        code, said = self.run_tool("--types", "int8", "--continue")
        self.assertEqual(code, 1)
        self.assertIn("leave --continue out", said)


class Instructions(unittest.TestCase):
    def test_counts_are_read_and_spread_over_tokens(self):
        self.assertEqual(instructions.total_of("events: Ir\nfn=x\n1 2\ntotals: 6400\n"), 6400)
        with self.assertRaises(instructions.Failed):
            instructions.total_of("summary: 0\n")
        for flags, tokens in instructions.CASES.values():
            steps = int(flags[flags.index("--steps") + 1])
            self.assertEqual(instructions.per_token(1000 * steps * tokens, flags, tokens), 1000)

    def test_growth_beyond_the_tolerance_is_named(self):
        lines, grown = instructions.compare({"a": 1020, "b": 1009, "c": 900, "d": 5}, {"a": 1000, "b": 1000, "c": 1000}, 0.01)
        self.assertEqual(grown, ["a"])
        self.assertIn("+2.00 %", lines[1])
        self.assertIn("-10.00 %", lines[3])
        self.assertEqual(len({len(line) for line in lines[:4]}), 1)

    def test_the_baseline_knows_every_case(self):
        baseline = json.loads(instructions.BASELINE.read_text())
        self.assertEqual(set(baseline["cases"]), set(instructions.CASES))
        self.assertEqual((baseline["model"], baseline["isa"]), (instructions.MODEL, instructions.ISA))

    def test_without_valgrind_it_says_so(self):
        done = subprocess.run([sys.executable, str(ROOT / "benchmarks/step/instructions.py")], capture_output=True, text=True,
                              env={"PATH": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"})
        self.assertEqual(done.returncode, 77)
        self.assertIn("valgrind is not there", done.stderr)


if __name__ == "__main__":
    unittest.main()
