"""Runs the tests and says in one table what came of them.

  python tests/run_tests.py                          the same as --all
  python tests/run_tests.py --unit --integration     some of them
  python tests/run_tests.py --coverage               all or some of them, and which lines they ran

C++ tests run through CTest in the build folder, which is set up if need be and brought up to date first; those of the
Python package through pytest, where its extension can be built. Exit code 1: something failed, could not be built, was
covered too little, or nothing ran. The soak tests are scripts/soak.sh's, the sanitizers scripts/test.sh's.
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

import coverage_report

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Which tests of CTest belong to which option; the Python ones run by themselves below.
CTEST_ARGUMENTS = {"unit": ["-L", "fast|full", "-LE", "integration|python"], "integration": ["-L", "integration", "-LE", "python"]}
NO_EXTENSION = 77


class Summary:
    def __init__(self):
        self.rows = []

    def add(self, name, seconds, passed, failed, skipped=0, note=""):
        self.rows.append((name, seconds, passed, failed, skipped, note))

    def show(self):
        print(f"\n{'':<24}{'time':>8} {'passed':>8} {'failed':>8} {'skipped':>8}")
        for name, seconds, passed, failed, skipped, note in self.rows:
            print(f"{name:<24}{seconds:>6.0f} s {passed:>8} {failed:>8} {skipped:>8}  {note}")
        passed, failed = (sum(row[place] for row in self.rows) for place in (2, 3))
        if sum(row[2] + row[3] for row in self.rows if row[0] != "coverage") == 0:
            print("nothing ran", file=sys.stderr)
        print(f"{passed} passed, {failed} failed")
        return 0 if passed > 0 and failed == 0 else 1


# What scripts/test.sh does before it builds: packages that are missing, Rust, the Python package's tools, the preset.
SETUP = """set -euo pipefail
. scripts/lib/setup.sh
setup_packages
setup_test_packages
setup_rust
python=()
if setup_python_package; then python=(-DINFERNEO_PYTHON=ON); fi
if [ "$1" = coverage ]; then setup_venv 'gcovr>=7' 'pytest-cov>=5'; fi
configure "$1" "${python[@]}"
"""
PRESETS = ("dev", "ci", "coverage", "asan", "tsan")


def set_up(folder):
    """Of a preset's folder; others are their makers' business."""
    if (folder / "CMakeCache.txt").is_file() and folder.name != "coverage":
        return True
    if folder.parent != ROOT / "build" or folder.name not in PRESETS:
        print(f"{folder} has not been configured: cmake --preset dev, or leave --build out", file=sys.stderr)
        return False
    return subprocess.run(["bash", "-c", SETUP, "setup", folder.name], cwd=ROOT).returncode == 0


def build(folder, summary, jobs):
    begin = time.monotonic()
    if not set_up(folder):
        summary.add("build", time.monotonic() - begin, 0, 1, note="could not be set up")
        return False
    print(f"== building {folder.name} (from scratch it takes some minutes)", flush=True)
    shown = sys.stdout.isatty()
    done = subprocess.run(["cmake", "--build", str(folder), "-j", str(jobs)], cwd=ROOT,
                          stdout=None if shown else subprocess.PIPE, stderr=None if shown else subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print((done.stdout or "")[-4000:], file=sys.stderr)
        summary.add("build", time.monotonic() - begin, 0, 1, note="FAILED")
    return done.returncode == 0


def counted_by_ctest(folder):
    """Cases, not programs: what scripts/lib/count_tests.py finds in the log."""
    log = folder / "Testing" / "Temporary" / "LastTest.log"
    if not log.is_file():
        return 0, 0
    done = subprocess.run([sys.executable, "scripts/lib/count_tests.py", str(log)], cwd=ROOT, capture_output=True, text=True)
    passed, failed = map(int, done.stdout.split())
    return passed, failed


def run_ctest(kind, folder, summary, jobs, pattern, counted=False):
    begin = time.monotonic()
    (folder / "Testing" / "Temporary" / "LastTest.log").unlink(missing_ok=True)
    further = ["-R", pattern] if pattern else []
    arguments = list(CTEST_ARGUMENTS[kind])
    if counted:  # the tree's own checks run no line of it, and counting takes time
        arguments[-1] += "|repo|timing"
    command = ["ctest", "--test-dir", str(folder), "-j", str(jobs), "--output-on-failure", *arguments, *further]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    passed, failed = counted_by_ctest(folder)
    if done.returncode != 0:
        failed = max(failed, 1)
        print(done.stdout[-8000:])
    skipped = len(re.findall(r"\*\*\*Skipped", done.stdout))
    summary.add(f"C++ {kind}", time.monotonic() - begin, passed, failed, skipped, "FAILED" if done.returncode else "")


def interpreter_of(folder):
    """What the extension was built for; else this one."""
    for line in (folder / "CMakeCache.txt").read_text(errors="replace").splitlines() if (folder / "CMakeCache.txt").is_file() else []:
        if line.startswith("INFERNEO_PYTHON_INTERPRETER:"):
            return line.partition("=")[2]
    return sys.executable


def run_pytest(kind, folder, summary, pattern, counted=False):
    begin = time.monotonic()
    junit = folder / f"python-{kind}.xml"
    junit.unlink(missing_ok=True)
    command = [interpreter_of(folder), "tests/run_pytest.py", "--package", str(folder / "python"), "-q", f"--junit-xml={junit}",
               f"tests/{kind}"]
    if pattern:
        command += ["-k", pattern.replace("|", " or ").replace("^", "").replace("$", "")]
    environment = dict(os.environ)
    if counted:
        command += ["--cov=inferneo", "--cov-append", "--cov-report="]
        environment["COVERAGE_FILE"] = str(folder / "python.coverage")
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    seconds = time.monotonic() - begin
    if done.returncode == NO_EXTENSION:
        return summary.add(f"Python {kind}", seconds, 0, 0, 1, done.stdout.strip().splitlines()[0])
    passed = failed = skipped = 0
    if junit.is_file():
        for suite in ElementTree.parse(junit).getroot().iter("testsuite"):
            number = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
            failed += number["failures"] + number["errors"]
            skipped += number["skipped"]
            passed += number["tests"] - number["failures"] - number["errors"] - number["skipped"]
    nothing_matched = done.returncode == 5 and pattern
    if done.returncode != 0 and not nothing_matched:
        failed = max(failed, 1)
        print(done.stdout[-8000:])
    summary.add(f"Python {kind}", seconds, passed, failed, skipped, "FAILED" if failed else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="unit and integration tests, C++ and Python (the default)")
    parser.add_argument("--unit", action="store_true", help="tests/unit")
    parser.add_argument("--integration", action="store_true", help="tests/integration")
    parser.add_argument("--coverage", action="store_true", help="also: which lines ran, C++ and Python, with a page")
    parser.add_argument("--build", metavar="FOLDER", help="the CMake build (build/dev; with --coverage build/coverage)")
    parser.add_argument("--no-build", action="store_true", help="test what has been built")
    parser.add_argument("--match", metavar="REGEX", help="only tests whose names match; words with | between them for pytest")
    parser.add_argument("-j", "--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    kinds = [kind for kind in ("unit", "integration") if getattr(options, kind)]
    if options.all or not kinds:
        kinds = ["unit", "integration"]
    folder = (ROOT / (options.build or ("build/coverage" if options.coverage else "build/dev"))).resolve()
    summary = Summary()
    if options.no_build or build(folder, summary, options.jobs):
        if options.coverage:
            coverage_report.clear(folder)
        for kind in kinds:
            if (folder / "CTestTestfile.cmake").is_file():
                run_ctest(kind, folder, summary, options.jobs, options.match, options.coverage)
            run_pytest(kind, folder, summary, options.match, options.coverage)
        if options.coverage:
            begin = time.monotonic()
            whole = len(kinds) == 2 and not options.match
            covered = coverage_report.report(folder, interpreter_of(folder), options.jobs, whole)
            summary.add("coverage", time.monotonic() - begin, 0, 0 if covered else 1, note="" if covered else "FAILED")
    return summary.show()


if __name__ == "__main__":
    sys.exit(main())
