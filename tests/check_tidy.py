"""Runs clang-tidy over the sources of a build within a time budget: python3 tests/check_tidy.py BUILD_DIR [--budget SECONDS]

Files that changed come first, then the others in an order that the state of the tree decides. A file that is clean is
remembered by the hash of itself, its headers' state and .clang-tidy, so that repeated runs cover the whole tree; --all
takes no budget. Exits 77 (skipped) without clang-tidy 14 or later or a compile_commands.json.
"""
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from check_format import ROOT, find_tool


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()


def flags_for_clang(entry):
    """The file's include folders and definitions; GCC's own options are none of clang's business."""
    words, flags, take = entry["command"].split(), [], False
    for word in words:
        if take or word.startswith(("-I", "-D", "-std=", "-isystem")):
            flags.append(word.replace('\\"', '"'))
            take = word in ("-isystem", "-I", "-D")
    return flags or ["-std=c++20"]


def sources_of(entry):
    """The file itself; of one that CMake wrote to compile many at a time, those."""
    if "/Unity/" not in entry["file"]:
        return [entry["file"]]
    return re.findall(r'^#include "(.*)"$', pathlib.Path(entry["file"]).read_text(), re.MULTILINE)


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    budget = float(sys.argv[sys.argv.index("--budget") + 1]) if "--budget" in sys.argv else 120.0
    tool, database = find_tool("clang-tidy", 14, 99), build / "compile_commands.json"
    if not tool or not database.exists():
        print("no clang-tidy 14 or later, or no compile_commands.json; not checked")
        return 77
    entries = {}
    for entry, source in ((entry, source) for entry in json.loads(database.read_text()) for source in sources_of(entry)):
        name = os.path.relpath(source, ROOT)
        # The kernels of instruction sets and their choice use target options and feature names that clang reads otherwise.
        if name.startswith(("src/", "cli/", "python/native/")) and not re.match(r"src/kernels/cpu/(avx|peak|dispatch)", name):
            entries[name] = entry
    changed = set(git("diff", "--name-only", "HEAD")) | set(git("diff", "--name-only", "HEAD~1", "HEAD"))
    headers = hashlib.sha256()
    for name in sorted(git("ls-files", "*.h", ".clang-tidy")):
        headers.update((ROOT / name).read_bytes())
    state = headers.hexdigest()
    key = {name: hashlib.sha256((state + (ROOT / name).read_text()).encode()).hexdigest() for name in entries}
    cache = build / "tidy-clean"
    cache.mkdir(exist_ok=True)
    pending = [name for name in entries if not (cache / key[name]).exists()]
    pending.sort(key=lambda name: (name not in changed, key[name]))
    deadline, checked, bad = time.monotonic() + budget, 0, 0

    def check(name):
        if "--all" not in sys.argv and time.monotonic() > deadline:
            return name, None
        result = subprocess.run([tool[0], "--quiet", name, "--", "-x", "c++", "-w", *flags_for_clang(entries[name])], cwd=ROOT,
                                capture_output=True, text=True)
        return name, result

    with concurrent.futures.ThreadPoolExecutor(int(os.environ.get("INFERNEO_JOBS", len(os.sched_getaffinity(0))))) as pool:
        for name, result in pool.map(check, pending):
            if result is None:
                continue
            checked += 1
            if result.returncode:
                bad += 1
                print(result.stdout.strip() or result.stderr.strip()[-2000:])
            else:
                (cache / key[name]).touch()
    print(f"clang-tidy {tool[1]}: {checked} files checked now, {len(entries) - len(pending)} known clean, "
          f"{len(pending) - checked} left for another run, {bad} with findings")
    return 1 if bad else 0 if entries else 1


if __name__ == "__main__":
    sys.exit(main())
