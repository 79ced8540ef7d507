#!/usr/bin/env bash
# Builds the wheel, looks at what is in it, installs it into a virtual environment of its own outside this tree, and runs
# the examples there. The wheel stays in build/wheel/; the last line is "N passed, N failed".
# Usage: scripts/wheel.sh [--check-only WHEEL]
set -euo pipefail
# shellcheck source=scripts/lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"

wheel=
case "${1:-}" in
  -h | --help) sed -n '2,4s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --check-only) wheel=$(realpath -e -- "${2:?--check-only needs a wheel}") ;;  # as the caller's folder names it
  '') ;;
  *) die "unknown option $1 (see --help)" ;;
esac
cd "$ROOT"

if [ -z "$wheel" ]; then
  setup_packages
  setup_rust
  setup_python_package || die "a wheel needs python3-dev and python3-venv"
  say "building the wheel (the first time takes some minutes)"
  rm -rf build/wheel
  .venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps -w build/wheel . >build/wheel.log 2>&1 ||
    { tail -n 30 build/wheel.log >&2; die "the wheel could not be built (log: build/wheel.log)"; }
  wheel=$(echo "$ROOT"/build/wheel/inferneo-*.whl)
fi
say "$(basename "$wheel"): $(du -h "$wheel" | cut -f1)"
away=$(mktemp -d)
trap 'rm -rf "$away"' EXIT
python3 -m venv "$away/venv"
"$away/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel" 'numpy>=1.24'
mkdir "$away/examples"
cp examples/basic/basic_usage.py examples/multi_model/multi_model_serving.py "$away/examples"
cd "$away"
env -u PYTHONPATH INFERNEO_HOME="$away/home" "$away/venv/bin/python" "$ROOT/tests/check_wheel.py" "$wheel" "$away/examples"
