"""Which lines the tests ran, C++ and Python together: a table by room, a total, and pages (tests/run_tests.py --coverage).

C++ lines are counted by gcov in a build with INFERNEO_COVERAGE and read by gcovr; Python's by coverage.py. The Rust of the
text room is not counted. Lines that no compiler made code of are in no count.
"""
import collections
import html
import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
COUNTED = ("src/", "include/", "cli/", "python/native/")
# What must be covered to this share, whatever the rest has.
BAR = 0.90
HELD = {
    "parsers": r"src/(formats|text|base/config|server/openai)/|src/server/(head_parser|body_decoder|json\w*)\.|"
               r"src/routing/(lexer|parser|condition|language)\.",
    "scheduler": r"src/engine/(scheduler|waiting_queue|step_\w+|kv_cache_manager|block_pool|prefix_cache)\.",
    "routing": r"src/(routing|experiments)/|src/serving/(traffic\w*|routed_service)\.",
}


def clear(folder):
    """Counts of earlier runs."""
    for path in folder.rglob("*.gcda"):
        path.unlink()
    for path in folder.glob("python.coverage*"):
        path.unlink()


def cpp_lines(folder, interpreter, jobs):
    """(covered, all) of each file."""
    out = folder / "coverage"
    out.mkdir(exist_ok=True)
    filters = [f"--filter={re.escape(str(ROOT))}/{part}" for part in COUNTED]
    command = [interpreter, "-m", "gcovr", "--root", str(ROOT), *filters, "-j", str(jobs), "--json", str(out / "cpp.json"),
               "--html-details", str(out / "cpp.html"), "--merge-mode-functions=merge-use-line-min",
               "--gcov-ignore-parse-errors=all", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
        return {}
    counts = {}
    for file in json.loads((out / "cpp.json").read_text())["files"]:
        hit = collections.defaultdict(int)
        for line in file["lines"]:
            if not line.get("gcovr/noncode"):
                hit[line["line_number"]] += line["count"]
        counts[file["file"]] = (sum(count > 0 for count in hit.values()), len(hit))
    return counts


def python_lines(folder, interpreter):
    data = folder / "python.coverage"
    if not data.is_file():
        return {}
    out = folder / "coverage"
    out.mkdir(exist_ok=True)
    base = [interpreter, "-m", "coverage"]
    for command in (["json", f"--data-file={data}", "-o", str(out / "python.json")],
                    ["html", f"--data-file={data}", "-d", str(out / "python")]):
        done = subprocess.run([*base, *command], cwd=ROOT, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout[-2000:], done.stderr[-2000:], sep="\n")
            return {}
    files = json.loads((out / "python.json").read_text())["files"]
    return {name: (file["summary"]["covered_lines"], file["summary"]["num_statements"]) for name, file in files.items()}


def added(counts):
    return sum(count[0] for count in counts), sum(count[1] for count in counts)


def share(covered, lines):
    return f"{100 * covered / lines:5.1f} %" if lines else "      -"


def rows_of(cpp, python):
    rooms = collections.defaultdict(list)
    for name, count in cpp.items():
        parts = name.split("/")
        rooms["/".join(parts[:2]) if parts[0] in ("src", "include", "python") else parts[0]].append(count)
    rows = [(room, *added(counts)) for room, counts in sorted(rooms.items())]
    if python:
        rows.append(("python/inferneo", *added(python.values())))
    rows.append(("total", *added([*cpp.values(), *python.values()])))
    return rows


def held_rows(cpp):
    return [(name, *added([count for file, count in cpp.items() if re.search(pattern, file)])) for name, pattern in HELD.items()]


def page(rows, held):
    def table(title, entries):
        body = "".join(f"<tr><td>{html.escape(name)}<td>{covered}<td>{lines}<td>{share(covered, lines)}"
                       for name, covered, lines in entries)
        return f"<h2>{title}</h2><table><tr><th><th>ran<th>lines<th>{body}</table>"

    return ("<!doctype html><meta charset=utf-8><title>Covered lines</title><style>body{font:14px sans-serif;margin:2em}"
            "td,th{padding:.2em .8em;text-align:right}td:first-child{text-align:left}</style><h1>Covered lines</h1>"
            '<p><a href="cpp.html">C++, by file</a> · <a href="python/index.html">Python, by file</a></p>'
            + table("By room", rows) + table("Held to 90 %", held) + "\n")


def report(folder, interpreter, jobs, whole=True):
    """Prints the table and writes the page. False: nothing was counted, or what is held to a share misses it.

    whole: every test ran; of some alone nothing is held to a share.
    """
    cpp, python = cpp_lines(folder, interpreter, jobs), python_lines(folder, interpreter)
    if not cpp and not python:
        print("no line was counted: is the build one of the preset coverage?")
        return False
    rows, held = rows_of(cpp, python), held_rows(cpp)
    print(f"\n{'':<24}{'ran':>8} {'lines':>8}")
    for name, covered, lines in [*rows, *held]:
        print(f"{name:<24}{covered:>8} {lines:>8}  {share(covered, lines)}")
    index = folder / "coverage" / "index.html"
    index.write_text(page(rows, held))
    print(f"by line: {index}")
    missed = [name for name, covered, lines in held if not lines or covered < BAR * lines]
    for name in missed if whole else ():
        print(f"{name}: less than {100 * BAR:.0f} % of the lines ran")
    return not (whole and missed)
