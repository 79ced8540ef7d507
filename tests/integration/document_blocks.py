"""The fenced blocks of the documents, and how each kind of them is run.

Every block has a language. `text` and `ebnf` are no code. All others run, in their order within a document, unless the
comment before them says why not; comments are in the documents' sources and not on their pages:

  <!-- test: skip: REASON -->      this block is not run
  <!-- test: needs MODULE -->      it is not run where this Python has no such module
  <!-- test: hidden                a multi-line comment of shell commands that run at this place: what the page takes for
  COMMANDS -->                     granted; `ctrl_c` ends the server, as a reader does
  <!-- test: post PATH -->         of a JSON block: it is sent to the server there, which must take it
  <!-- test: keys of PATH -->      of a JSON block: what the server answers there has the same keys
  <!-- test: serve -->             of a YAML block: a server starts with it

sh        in one bash for a document, in a folder that looks like the repository's root, with an INFERNEO_HOME of its own;
          the first command that fails ends it. What listens on port 8000 in the text listens on a free port. `serve`
          goes to the background and is waited for until it is ready, as a reader with a second terminal does; a later one
          takes its place. curl fails where the server refuses, and looks at an endless stream for a moment alone.
python    in this process, from the repository's root, with top-level await; the names of a document's earlier blocks are there.
yaml      is read as a configuration file: unknown keys and bad values are errors.
json      must be JSON.
cpp       must compile with the public headers: as statements where it ends with a semicolon, else as an expression.
"""
import ast
import contextlib
import inspect
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NO_CODE = ("text", "ebnf")
LANGUAGES = ("sh", "python", "yaml", "json", "cpp", *NO_CODE)
PIECE = re.compile(r"^<!-- test: (?P<note>.*?)-->[ ]*$|^```(?P<language>\S*)[ ]*\n(?P<code>.*?)^```[ ]*$", re.M | re.S)


@dataclass
class Block:
    document: str
    line: int  # of its first line of code
    language: str
    code: str
    note: str = ""  # what the comment before it says

    @property
    def skipped(self):
        return self.note.removeprefix("skip:").strip() if self.note.startswith("skip:") else None

    @property
    def where(self):
        return f"{self.document}:{self.line}"


def documents():
    names = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
    return names + [str(path.relative_to(ROOT)) for path in sorted((ROOT / "examples").rglob("*.md"))]


def blocks_of(document):
    """Hidden commands come as blocks of the language `hidden`. ValueError: what nobody would run by mistake."""
    text = (ROOT / document).read_text()
    found, note, after = [], "", None
    for piece in PIECE.finditer(text):
        if piece["note"] is not None:
            note, after = piece["note"].strip(), piece.end()
            if note.startswith("hidden"):
                line = text[: piece.start()].count("\n") + 2
                found.append(Block(document, line, "hidden", note.removeprefix("hidden").lstrip("\n") + "\n"))
                note = ""
            continue
        line = text[: piece.start()].count("\n") + 2
        if note and text[after:piece.start()].strip():
            raise ValueError(f"{document}:{line}: a comment for a block stands right before it")
        if piece["language"] not in LANGUAGES:
            raise ValueError(f"{document}:{line}: the language of a block is one of {', '.join(LANGUAGES)}")
        found.append(Block(document, line, piece["language"], piece["code"], note))
        note = ""
    return [block for block in found if block.language not in NO_CODE]


SHIM = """#!/usr/bin/env bash
# inferneo as a document's reader uses it; see document_blocks.py.
if [ "${1:-}" != serve ]; then exec "$PROGRAM_UNDER_TEST" "$@"; fi
[ -f "$SESSION/server" ] && { kill "$(cat "$SESSION/server")" 2>/dev/null; tail --pid="$(cat "$SESSION/server")" -f /dev/null; }
"$PROGRAM_UNDER_TEST" "$@" >>"$SESSION/server.log" 2>&1 </dev/null &
echo $! >"$SESSION/server"
for _ in $(seq 600); do
  kill -0 $! 2>/dev/null || { echo "the server ended:" >&2; tail -n 5 "$SESSION/server.log" >&2; exit 1; }
  command curl -sf "http://127.0.0.1:$INFERNEO_PORT/ready" >/dev/null && exit 0
  sleep 0.1
done
echo "the server is not ready after a minute" >&2
exit 1
"""

PRELUDE = """set -euo pipefail
curl() {
  local status=0
  case "$*" in
    */admin/events*) command curl -sS --fail-with-body --max-time 2 "$@" || status=$?; [ $status = 28 ] || return $status ;;
    *) command curl -sS --fail-with-body "$@" || { status=$?; echo >&2; return $status; } ;;
  esac
  echo
}
ctrl_c() {  # in the terminal of the server
  kill "$(cat "$SESSION/server")"
  tail --pid="$(cat "$SESSION/server")" -f /dev/null
}
place=
trap 'echo "FAILED at $place: $BASH_COMMAND" >&2' ERR
"""
SERVE_BEHIND = re.compile(r"^(.*inferneo serve\b[^#\n]*?)[ ]*&([ ]*(?:#.*)?)$", re.M)


@dataclass
class Session:
    """A document's folder, home and server."""

    folder: pathlib.Path
    program: pathlib.Path
    interpreter: str = sys.executable
    port: int = 0
    environment: dict = field(default_factory=dict)

    def __post_init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        work = self.folder / "work"
        work.mkdir(parents=True)
        for entry in ROOT.iterdir():
            if entry.name not in (".git", ".venv", "build"):
                (work / entry.name).symlink_to(entry)
        build = self.program.parent
        (work / "build").mkdir()
        for preset in ("release", "dev", "ci"):
            (work / "build" / preset).mkdir()
            for entry in build.iterdir():
                if entry.name != "inferneo":
                    (work / "build" / preset / entry.name).symlink_to(entry)
            self._shim(work / "build" / preset / "inferneo")
        commands = self.folder / "bin"
        commands.mkdir()
        self._shim(commands / "inferneo")
        for name in ("python", "python3"):
            shim = commands / name
            shim.write_text(f'#!/bin/sh\nexec "{self.interpreter}" "$@"\n')
            shim.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INFERNEO_")}
        self.environment = {
            **kept, "PATH": f"{commands}:{kept.get('PATH', '')}", "SESSION": str(self.folder), "HOME": str(self.folder / "home"),
            "INFERNEO_HOME": str(self.folder / "home"), "INFERNEO_PORT": str(self.port), "INFERNEO_HUB_OFFLINE": "true",
            "INFERNEO_MAX_MEMORY_GB": "0.5", "INFERNEO_NUM_THREADS": "2", "INFERNEO_LOG_LEVEL": "info",
            "PROGRAM_UNDER_TEST": str(self.program),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(build / "python"), kept.get("PYTHONPATH", "")])),
        }
        (self.folder / "home").mkdir()

    def _shim(self, path):
        path.write_text(SHIM)
        path.chmod(0o755)

    def shell(self, blocks):
        """Runs them in one bash."""
        script = PRELUDE
        for block in blocks:
            script += f"place={block.where}\n" + SERVE_BEHIND.sub(r"\1\2", self.here(block.code))
        done = subprocess.run(["bash", "-c", script], cwd=self.folder / "work", env=self.environment, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, timeout=900)
        log = self.folder / "server.log"
        assert done.returncode == 0, f"{done.stdout[-3000:]}\n---- server\n{log.read_text()[-2000:] if log.is_file() else ''}"
        return done.stdout

    def here(self, code):
        return code.replace("localhost:8000", f"127.0.0.1:{self.port}").replace(":8000", f":{self.port}")

    def ask(self, method, path, body=None):
        command = ["curl", "-s", "--fail-with-body", "-X", method, f"http://127.0.0.1:{self.port}{path}"]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", body]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def serve(self, block):
        file = self.folder / "work" / "inferneo.yaml"
        file.write_text(block.code.replace("port: 8000", f"port: {self.port}"))
        self.shell([Block(block.document, block.line, "hidden", "inferneo serve --config inferneo.yaml\n")])
        file.unlink()

    def close(self):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self.folder / "server").read_text())
            os.kill(pid, 15)
            subprocess.run(["tail", f"--pid={pid}", "-f", "/dev/null"], timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)


async def run_python(block, names, session):
    code = compile("\n" * (block.line - 1) + session.here(block.code), block.document, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, names)
    if inspect.iscoroutine(result):
        await result


def check_yaml(block, folder):
    from inferneo import EngineConfig

    file = folder / "block.yaml"
    file.write_text(block.code)
    EngineConfig(config_file=file, use_environment=False)


def check_cpp(block, folder):
    file = folder / "block.cc"
    headers = "".join(f'#include "inferneo/{path.name}"\n' for path in sorted((ROOT / "include" / "inferneo").glob("*.h")))
    code = f"void block() {{\n{block.code}}}" if block.code.rstrip().endswith(";") else f"const auto value = {block.code};"
    file.write_text(f"{headers}namespace inferneo {{\n{code}\n}}\n")
    done = subprocess.run(["g++", "-std=c++20", f"-I{ROOT}/include", f"-I{ROOT}/src", "-fsyntax-only", str(file)],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{block.where}: {done.stderr[:2000]}"


def same_keys(expected, found, where="answer"):
    """Lists by their first entries; what one of both has none of is not compared."""
    if isinstance(expected, dict) and isinstance(found, dict):
        assert set(expected) == set(found), f"{where}: {sorted(set(expected) ^ set(found))}"
        for key in expected:
            same_keys(expected[key], found[key], f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list) and expected and found:
        same_keys(expected[0], found[0], f"{where}[0]")


async def run_document(blocks, session, names):
    """All of a document's blocks that are not skipped, in order; shell blocks that follow each other share one bash.

    Returns how many ran.
    """
    ran, shell = 0, []

    def flush():
        if shell:
            session.shell(shell)
            shell.clear()

    for block in blocks:
        if block.skipped is not None or (block.note.startswith("needs ") and find_spec(block.note.split()[1]) is None):
            continue
        ran += block.language != "hidden"
        if block.language in ("sh", "hidden"):
            shell.append(block)
            continue
        flush()
        if block.language == "python":
            await run_python(block, names, session)
        elif block.language == "yaml":
            check_yaml(block, session.folder)
            if block.note == "serve":
                session.serve(block)
        elif block.language == "cpp":
            check_cpp(block, session.folder)
        else:
            content = json.loads(block.code)
            if block.note.startswith("post "):
                session.ask("POST", block.note.removeprefix("post ").strip(), block.code)
            elif block.note.startswith("keys of "):
                same_keys(content, session.ask("GET", block.note.removeprefix("keys of ").strip()))
    flush()
    return ran
