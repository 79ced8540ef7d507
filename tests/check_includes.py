"""Holds the source tree to its laws: include direction, where device and JSON headers may stand, what a release build or a
locale would change, file lengths, clean text.

A room may include the rooms of its row and itself; a file that is not listed is in the room of its folder. Prints each
breach as path:line: what; exits 1 when there is one.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOW = {"base", "tensor", "text", "api"}
ROOMS = {
    "api": {"api", "base"},
    "base": {"base", "api"},
    "tensor": {"base", "tensor", "api"},
    "text": {"base", "text", "api"},
    "formats": LOW | {"formats"},
    "kernels": {"base", "tensor", "kernels", "api"},
    # What every runner shares: the seam, the sampler, the description of an architecture.
    "models": LOW | {"formats", "kernels", "models"},
    "models/sampling": LOW | {"models", "models/sampling"},
    "models/transformers": LOW | {"formats", "kernels", "models", "models/sampling", "models/transformers"},
    "models/onnx": LOW | {"formats", "models", "models/sampling", "models/onnx"},
    "models/onnx_convert": LOW | {"formats", "kernels", "models", "models/transformers", "models/onnx_convert"},
    # Pure: who may join a queue, how long it takes, who is served next.
    "admission": {"base", "admission", "api"},
    "models/cuda": LOW | {"formats", "kernels", "models", "models/sampling", "models/transformers", "models/cuda"},
    # The engine knows neither formats nor devices.
    "engine": LOW | {"models", "admission", "engine"},
    # Files and threads behind the engine's interface.
    "kv_disk": LOW | {"engine", "kv_disk"},
    # Pure: definitions, assignment, outcomes and statistics of A/B tests.
    "experiments": {"base", "experiments", "api"},
    # Pure: which model, test, chain or refusal a request gets.
    "routing": {"base", "routing", "api"},
    # Pure: whose trace a request belongs to, and what a span is.
    "tracing": {"base", "tracing", "api"},
    "manager": LOW | {"formats", "kernels", "models", "models/sampling", "models/transformers", "admission", "engine", "manager"},
}
ROOMS["serving"] = ROOMS["manager"] - {"models/transformers", "kernels"} | {"routing", "experiments", "tracing", "serving"}
ROOMS["server"] = LOW | {"admission", "routing", "experiments", "tracing", "serving", "server"}
# The operators' API knows what it operates; the rest of the server does not.
ROOMS["server/admin"] = ROOMS["server"] | {"formats", "manager", "server/admin"}
# Spans to a collector: the server's JSON over the HTTP client of the hub's files.
ROOMS["server/otlp"] = ROOMS["server"] | {"formats", "server/otlp"}
ROOMS["app"] = set(ROOMS) | {"app"}
ROOMS["cli"] = ROOMS["app"] | {"cli"}
# The Python face of the public API; of the rooms below it knows configuration and logging alone.
ROOMS["python"] = {"api", "base", "python"}

DEVICE_HEADER = re.compile(r"^(cuda|cublas|curand|nvrtc|cudnn|NvInfer|hip/)")
DEVICE_FOLDERS = ("src/kernels/cuda/", "src/tensor/cuda/")
JSON_FOLDERS = ("src/server/", "src/formats/", "src/text/", "tests/", "cli/", "benchmarks/")
ROOM_OF_FILE = {}  # file -> room, for what stands in a folder but belongs to another room

# Text that each instruction set's file includes into its own anonymous namespace.
TEXTUAL = re.compile(r"^src/kernels/cpu/(\w+_inl|simd_\w+)\.h$")
# Code of the program: an assert is gone where NDEBUG is defined, and these read or write numbers as the locale has them.
PROGRAM_FOLDERS = ("src/", "cli/", "include/", "rust/", "python/native/")
ASSERT = re.compile(r"(?<![\w:])(debug_)?assert(_eq|_ne)?!?\s*\(|#\s*include\s*<(cassert|assert\.h)>|\bNDEBUG\b")
LOCALE = re.compile(r"\b(strto(d|f|ld)|ato[fil]|sto(d|f|ld)|v?[sf]?s?n?printf|v?[sf]?scanf|setlocale|imbue|ostringstream|to_string\(\s*\d*\.\d)\b|\{:[^}]*L\}")
LOCALE_SAFE = {"src/base/result.cc"}  # prints a line number and text
HARD_LIMIT, SOFT_LIMIT, HEADER_LIMIT = 800, 500, 150
GENERATED = re.compile(r"^(tests/(golden|integration|unit/experiments/data)/.*\.json|models/|rust/.*\.lock|docs/.*\.svg|deploy/grafana/)")
# Placeholders and machine paths that do not belong into what people read.
UNWANTED = re.compile(r"\b(FIXME|XXX|HACK)\b|lorem ipsum|/tmp/wt/|/work/(main|shared)\b", re.I)


def tracked():
    try:
        out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
        names = out.stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive has no git
        names = [str(p.relative_to(ROOT)) for top in ("src", "include", "cli", "tests", "tools") for p in (ROOT / top).rglob("*")]
    return [name for name in names if (ROOT / name).is_file()]


def room_of(name):
    if name in ROOM_OF_FILE:
        return ROOM_OF_FILE[name]
    parts = name.split("/")
    if parts[0] == "include":
        return "api"
    if parts[0] == "cli":
        return "cli"
    if name.startswith("python/native/"):
        return "python"
    if parts[0] != "src" or len(parts) < 3:
        return None
    nested = "/".join(parts[1:3])
    if nested in ROOMS and len(parts) > 3:
        return nested
    return parts[1] if parts[1] in ROOMS else "?"


def check_source(name, lines):
    room = room_of(name)
    if room == "?":
        yield 1, f"no room is declared for this folder in {pathlib.Path(__file__).name}"
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
        if not match:
            continue
        quoted, header = match.group(1) == '"', match.group(2)
        if DEVICE_HEADER.match(header) and not name.startswith(DEVICE_FOLDERS):
            yield number, f"device header {header} outside {' and '.join(DEVICE_FOLDERS)}"
        if header.startswith("nlohmann/") and not name.startswith(JSON_FOLDERS):
            yield number, "JSON stays in server, formats and text"
        if ".." in pathlib.PurePosixPath(header).parts:
            yield number, "includes are written from src/ or include/, never with .."
        if room is None or not quoted:
            continue
        path = f"include/{header}" if header.startswith("inferneo/") else f"src/{header}"
        if not (ROOT / path).exists() and room == "python":
            continue  # beside it
        if not (ROOT / path).exists():
            if name.startswith("src/") and "/" in header:
                yield number, f"{header} is not in src/ or include/"
            continue
        target = room_of(path)
        if target not in ROOMS[room]:
            yield number, f"{room} may not include {target} ({header})"


def check_build_and_locale(name, lines):
    for number, line in enumerate(lines, 1):
        code = re.sub(r'"(\\.|[^"\\])*"|//.*', '""', line)
        if ASSERT.search(code):
            yield number, "an assert, which a release build leaves out: INFERNEO_CHECK for bugs, a Status for input"
        if LOCALE.search(code) and name not in LOCALE_SAFE and not name.endswith(".rs"):
            yield number, "numbers as the locale has them: use std::to_chars, std::from_chars or fmt"


def check_file(name):
    path = ROOT / name
    data = path.read_bytes()
    if b"\0" in data[:4096] or GENERATED.match(name):
        return
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        yield 1, "not UTF-8"
        return
    source = name.endswith((".h", ".cc", ".rs", ".py", ".sh", ".cmake", ".cu", ".cuh"))
    if source and len(lines) > HARD_LIMIT:
        yield len(lines), f"{len(lines)} lines; split it (the limit is {HARD_LIMIT}, {SOFT_LIMIT} is the aim)"
    if name.startswith("include/") and len(lines) > HEADER_LIMIT:
        yield len(lines), f"a public header of {len(lines)} lines; the limit is {HEADER_LIMIT}"
    if name.endswith((".h", ".cuh")) and "#pragma once" not in lines and not TEXTUAL.match(name):
        yield 1, "a header without #pragma once"
    if name.endswith((".h", ".cc", ".cu", ".cuh")):
        yield from check_source(name, lines)
    if name.startswith(PROGRAM_FOLDERS) and source:
        yield from check_build_and_locale(name, lines)
    if name == "tests/check_includes.py":  # the words themselves
        return
    for number, line in enumerate(lines, 1):
        if UNWANTED.search(line):
            yield number, f"does not belong here: {UNWANTED.search(line).group(0)}"


def main():
    breaches = 0
    names = tracked()
    for name in names:
        for number, what in check_file(name):
            print(f"{name}:{number}: {what}")
            breaches += 1
    if not any(name.startswith("src/") for name in names):
        print("no sources found; this check saw nothing")
        return 1
    print(f"{len(names)} files, {breaches} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
