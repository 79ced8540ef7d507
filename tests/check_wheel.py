"""Looks at a wheel and, with the Python that it is installed for, at what it does. scripts/wheel.sh runs it.

  venv/bin/python tests/check_wheel.py inferneo-0.1.0-....whl FOLDER-WITH-THE-EXAMPLES
"""
import asyncio
import multiprocessing
import pathlib
import re
import subprocess
import sys
import zipfile

BUNDLED = ("inferneo-story", "inferneo-code", "inferneo-story-draft")


def what_is_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    metadata = zipfile.ZipFile(wheel).read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    for pattern in (r"^Name: inferneo$", r"^Version: \d+\.\d+\.\d+$", r"^License(-Expression)?: .*Apache", r"^Requires-Python: >=3\.10$",
                    r"^Summary: .+", r"^Description-Content-Type: text/markdown"):
        assert re.search(pattern, metadata, re.M), f"METADATA has no line like {pattern}"
    wanted = ["inferneo/py.typed", "inferneo/_native.pyi", "inferneo/core/config.pyi", "inferneo/__init__.py",
              *(f"inferneo/bundled/{model}/{file}" for model in BUNDLED for file in ("config.json", "model.safetensors", "tokenizer.json"))]
    for name in wanted:
        assert name in names, f"{name} is missing"
    assert any(re.match(r"inferneo/_native\..*so$", name) for name in names), "the extension is missing"
    assert any(name.endswith(".data/scripts/inferneo") for name in names), "the command inferneo is missing"
    assert any(re.search(r"dist-info/.*LICENSE", name) for name in names), "the licence is missing"
    strangers = [name for name in names if re.search(r"__pycache__|tests/|\.cc$|\.h$|\.a$|/cmake/", name)]
    assert not strangers, f"what is that for: {strangers[:5]}"


def the_command(_):
    program = pathlib.Path(sys.executable).parent / "inferneo"
    import inferneo

    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert inferneo.__version__ in said, said
    text = subprocess.run([program, "run", inferneo.bundled_model("inferneo-story-draft"), "Once upon a time", "--max-tokens", "8",
                           "--max-memory-gb", "0.25"], capture_output=True, text=True, check=True).stdout
    assert len(text) > 8, text


def where_it_comes_from(_):
    import inferneo

    assert sys.prefix in inferneo.__file__, inferneo.__file__
    assert sys.prefix in inferneo.bundled_model("inferneo-story")


def ask(_=None):
    import inferneo

    with inferneo.LLM(inferneo.bundled_model("inferneo-story-draft"), max_memory_gb=0.25, num_threads=2) as llm:
        rows = llm.embed(["one", "two"])
        assert rows.shape[0] == 2 and rows.dtype.name == "float32"
        return llm.generate("Once", max_tokens=3, ignore_eos=True).completion_tokens == 3


def forked_and_spawned(_):
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            assert pool.apply_async(ask).get(timeout=120), method


def in_an_event_loop_that_is_there_already(_):
    """As Jupyter has one."""
    import inferneo

    async def cell():
        engine = inferneo.InferneoEngine(inferneo.EngineConfig(model=inferneo.bundled_model("inferneo-story-draft"), max_memory_gb=0.25))
        result = await engine.generate("Once", max_tokens=2, ignore_eos=True)
        await engine.stop()
        return result.completion_tokens

    loop = asyncio.new_event_loop()
    assert [loop.run_until_complete(cell()) for _ in range(2)] == [2, 2]
    loop.close()


def the_examples(folder):
    for example in sorted(pathlib.Path(folder).glob("*.py")):
        done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0 and len(done.stdout) > 100, f"{example.name}: {done.stdout}{done.stderr}"


def main():
    wheel, folder = sys.argv[1:]
    failed = 0
    checks = (what_is_in_it, where_it_comes_from, the_command, ask, forked_and_spawned, in_an_event_loop_that_is_there_already,
              the_examples)
    for check in checks:
        try:
            check(wheel if check is what_is_in_it else folder)
            print(f"passed: {check.__name__}")
        except Exception as error:  # whatever it was, the others still say what they know
            failed += 1
            print(f"FAILED: {check.__name__}: {error!r}")
    print(f"{len(checks) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
