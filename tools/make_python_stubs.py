"""Writes the type stubs of the Python package from what the extension says of itself.

  PYTHONPATH=build/dev/python python tools/make_python_stubs.py [--check]

The fields of data classes and of EngineConfig are declared once, in C++; python/inferneo/_native.pyi and
python/inferneo/core/config.pyi follow from them. --check: nothing is written; exits 1 when a file is not current.
"""
import argparse
import pathlib
import sys
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
HEADER = "# Made by tools/make_python_stubs.py; do not edit.\n"

# What is not plain data.
OPAQUE = '''
class Starting:
    def __init__(self) -> None: ...
    def give_up(self) -> None: ...

class Ticket:
    def cancel(self) -> None: ...

class Answer:
    ticket: _bridge.Ticket | None
    def __init__(self, loop: asyncio.AbstractEventLoop, waiters: dict[int, Any], request: int) -> None: ...
    def __await__(self) -> Generator[Any, None, Any]: ...
    def done(self) -> bool: ...

class EventQueue:
    def __init__(self) -> None: ...
    def take(self, timeout: float) -> list[tuple[int, int, Any]]: ...
    def deliver(self, waiters: dict[int, Any]) -> None: ...
    def fileno(self) -> int: ...
    def new_id(self) -> int: ...
    def put_text(self, request: int, sample: int, text: str) -> None: ...
    def put_error(self, request: int, code: str, message: str, param: str, retry_after: int) -> None: ...
    def put_result(self, request: int, model: str, samples: list[tuple[str, str]], prompt_tokens: int, cached_tokens: int,
                   completion_tokens: int, time_to_first_token: float, total_time: float) -> None: ...
    def put_embedding(self, request: int, model: str, vectors: bytes, dimensions: int, prompt_tokens: int) -> None: ...

class Embeddings:
    @property
    def model(self) -> str: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def vectors(self) -> NDArray[np.float32]: ...

class Config:
    routing_rules: list[RoutingRule]
    ab_tests: list[ABTestConfig]
    shadow: list[ShadowConfig]
    warnings: list[str]
    notices: list[str]
    @staticmethod
    def load(values: dict[str, list[str]], file: str | None, use_environment: bool) -> Config: ...
    @staticmethod
    def fields() -> list[dict[str, Any]]: ...
    def get(self, name: str) -> Any: ...
    def set(self, name: str, values: list[str]) -> None: ...
    def changed(self) -> dict[str, str]: ...
    def written(self) -> dict[str, list[str]]: ...
    given: list[str]
    def copy(self) -> Config: ...

class Lease:
    def id(self) -> str: ...
    def submit(self, queue: EventQueue, request: int, prompt: str, sampling: SamplingParams, stream: bool) -> Ticket: ...
    def begin(self, prompt: str, sampling: SamplingParams | None, fields: dict[str, Any]) -> Answer | None: ...
    def wait_for(self, prompt: str, sampling: SamplingParams | None, fields: dict[str, Any]) -> GenerationResult | None: ...
    def embed(self, queue: EventQueue, request: int, texts: list[str], pooling: str, normalize: bool | None) -> Ticket: ...
    def end(self) -> None: ...

class Converter:
    def __init__(self, config: Config) -> None: ...
    def convert_model(self, *, model: str, output: str, precision: Precision, block_size: int, accuracy_level: int,
                      operators: OnnxOperators, half_activations: bool, max_model_len: int, verify: bool, overwrite: bool,
                      on_progress: Callable[[str, int, int], object] | None) -> ConvertedModel: ...
    def end(self) -> None: ...

class Engine:
    def __init__(self, config: Config) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class EnhancedEngine:
    def __init__(self, config: Config) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

class Manager:
    def __init__(self, max_models: int, max_memory_gb: float, enable_lazy_loading: bool, registry: str,
                 config: Config) -> None: ...
    def __getattr__(self, name: str) -> Any: ...

def make_model_info(*, id: str, name: str, version: str, path: str, format: ModelFormat | None, state: str, failure: str,
                    active: bool, pinned: bool, aliases: list[str], leases: int, memory_bytes: int, sleep_bytes: int,
                    load_count: int, load_seconds: float, last_used: int) -> ModelInfo: ...
def set_only_loop(loop: asyncio.AbstractEventLoop, events: _bridge._LoopEvents) -> None: ...
def forget_only_loop() -> None: ...
def only_loop_events(loop: asyncio.AbstractEventLoop) -> _bridge._LoopEvents | None: ...
def close_waits() -> None: ...
def num_waits() -> int: ...
def reset_waits() -> None: ...
def error_codes() -> list[str]: ...
def set_log_level(name: str) -> None: ...
'''


def indented(text, depth=4):
    return textwrap.indent(text, " " * depth)


def default_of(cls, field):
    """As Python writes it; objects have no short form."""
    value = cls.__defaults__[field]
    return repr(value) if isinstance(value, (type(None), bool, int, float, str)) or value in ([], {}) else "..."


def data_class(name, cls):
    rows = cls.__fields__
    lines = [f'class {name}:\n    """{cls.__doc__}"""\n']
    for field, kind, doc in rows:
        if cls.__made_by_users__:
            lines.append(f'    {field}: {kind}\n    """{doc}"""\n')
        else:
            lines.append(f'    @property\n    def {field}(self) -> {kind}:\n        """{doc}"""\n')
    if name == "GenerationResult":
        lines.append('    @property\n    def text(self) -> str:\n        """The first sample\'s text."""\n')
        lines.append(f'    @property\n    def prompt_rows(self) -> NDArray[np.float32] | None:\n'
                     f'        """{cls.prompt_rows.__doc__}"""\n')
    if cls.__made_by_users__:
        given = ", ".join(f"{field}: {kind} = {default_of(cls, field)}" for field, kind, _ in rows)
        lines.append(f"    def __init__(self, *, {given}) -> None: ...\n")
        lines.append(f"    def replace(self, **fields: Any) -> {name}:\n        \"\"\"A copy with these fields changed.\"\"\"\n")
    return "".join(lines)


def native_stub(native):
    parts = [HEADER, "import asyncio\nimport enum\nfrom collections.abc import Callable, Generator\nfrom typing import Any, Literal\n\nimport numpy as np\nfrom numpy.typing import NDArray\n\nfrom inferneo import _bridge\n\n__version__: str\n\n"]
    for kind in (native.ModelFormat, native.OnnxOperators, native.Precision):
        members = "".join(f"    {member.name} = {member.value}\n" for member in kind)
        parts.append(f'class {kind.__name__}(enum.Enum):\n    """{kind.__doc__}"""\n{members}\n')
    for name, cls in sorted(vars(native).items()):
        if hasattr(cls, "__fields__"):
            parts.append(data_class(name, cls) + "\n")
    return "".join(parts).rstrip() + "\n" + OPAQUE


def config_stub(native):
    lines = [HEADER, "import os\nfrom collections.abc import Iterable\nfrom typing import Any\n\nfrom inferneo import _native\n",
             "from inferneo._native import ABTestConfig, RoutingRule, ShadowConfig\n\n",
             'class EngineConfig:\n    """What an engine is told; docs/configuration.md has every field."""\n\n',
             "    _native: _native.Config\n"]
    rows = native.Config.fields()
    for row in rows:
        lines.append(f'    {row["name"]}: {row["type"]}\n    """{row["help"]}. Expected: {row["expected"]}."""\n')
    lines.append("    routing_rules: list[RoutingRule]\n    ab_tests: list[ABTestConfig]\n    shadow: list[ShadowConfig]\n\n")
    lines.append("    def __init__(self, *, config_file: str | os.PathLike[str] | None = None, use_environment: bool = True,\n")
    for row in rows:
        kind = row["type"]
        if kind == "list[str]":
            kind = "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]"
        elif kind == "str" and row["is_path"]:
            kind = "str | os.PathLike[str]"
        lines.append(f"                 {row['name']}: {kind} = ...,\n")
    lines.append("                 routing_rules: Iterable[RoutingRule] = ..., ab_tests: Iterable[ABTestConfig] = ...,\n")
    lines.append("                 shadow: Iterable[ShadowConfig] = ...) -> None: ...\n")
    lines.append("    @staticmethod\n    def fields() -> list[dict[str, Any]]: ...\n")
    lines.append("    def replace(self, **fields: Any) -> EngineConfig: ...\n")
    lines.append("    def _as_used(self) -> EngineConfig: ...\n")
    return "".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    from inferneo import _native

    package = ROOT / "python" / "inferneo"
    stale = 0
    for path, text in ((package / "_native.pyi", native_stub(_native)), (package / "core" / "config.pyi", config_stub(_native))):
        if check:
            if not path.is_file() or path.read_text() != text:
                print(f"{path.relative_to(ROOT)} is not current: run tools/make_python_stubs.py")
                stale += 1
        else:
            path.write_text(text)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
