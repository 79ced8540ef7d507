"""Checks that every C++ and JavaScript file is formatted as .clang-format says: python3 tests/check_format.py [--fix]

Versions of clang-format disagree, so one is pinned: clang-format 14, from the system or, where that is another,
from the project's .venv (scripts/test.sh installs it there). Exits 77 (skipped) when it is not to be had.
"""
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PINNED = 14


def find_tool(name, oldest, newest):
    """The newest NAME or NAME-<version> in PATH or .venv within a range of versions, as (path, version); or None."""
    best = None
    for candidate in [str(ROOT / ".venv/bin" / name), name] + [f"{name}-{version}" for version in range(oldest, min(newest, 40) + 1)]:
        path = shutil.which(candidate)
        if not path:
            continue
        found = re.search(r"version (\d+)", subprocess.run([path, "--version"], capture_output=True, text=True).stdout)
        if found and oldest <= int(found.group(1)) <= newest and (best is None or int(found.group(1)) > best[1]):
            best = (path, int(found.group(1)))
    return best


def cpp_files():
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.h", "*.cc", "*.cu", "*.js"], cwd=ROOT, capture_output=True,
                         text=True, check=True)
    return [name for name in out.stdout.splitlines() if (ROOT / name).is_file()]


def main():
    tool = find_tool("clang-format", PINNED, PINNED)
    if not tool:
        print(f"no clang-format {PINNED} here; not checked")
        return 77
    files = cpp_files()
    if not files:
        print("no files found; this check saw nothing")
        return 1
    mode = ["-i"] if "--fix" in sys.argv[1:] else ["--dry-run", "-Werror"]
    result = subprocess.run([tool[0], "--style=file", *mode, *files], cwd=ROOT, capture_output=True, text=True)
    wrong = sorted(set(re.findall(r"^(\S+?):\d+:\d+: error", result.stderr, flags=re.M)))
    for name in wrong:
        print(f"{name}: not formatted")
    print(f"{len(files)} files with clang-format {tool[1]}, {len(wrong)} not formatted" + (" (tests/check_format.py --fix)" if wrong else ""))
    if result.returncode and not wrong:
        print(result.stderr[-2000:])
    return 1 if result.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
