"""Runs a folder of the Python tests for CTest.

  python tests/run_pytest.py --package build/dev/python tests/unit

Exit code 77 (skipped, with the reason in one line) when there is no extension to test or no pytest.
"""
import argparse
import importlib.util
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIPPED = 77


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", help="the folder in which the package inferneo stands; none: an installed one")
    parser.add_argument("arguments", nargs="*", help="of pytest")
    options, further = parser.parse_known_args()
    environment = dict(os.environ)
    if options.package:
        environment["PYTHONPATH"] = os.pathsep.join([options.package, environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    if importlib.util.find_spec("pytest") is None:
        print(f"skipped: no pytest for {sys.executable}")
        return SKIPPED
    found = subprocess.run([sys.executable, "-c", "import inferneo"], env=environment, capture_output=True, text=True)
    if found.returncode != 0:
        print("skipped: no Python extension (cmake -DINFERNEO_PYTHON=ON builds it)")
        print(found.stderr.strip().splitlines()[-1] if found.stderr.strip() else "")
        return SKIPPED
    return subprocess.run([sys.executable, "-m", "pytest", *options.arguments, *further], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
