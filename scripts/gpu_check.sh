#!/usr/bin/env bash
# Checks and measures a bundle (cmake --install) on the GPU of this machine, which needs nothing but its driver: kernels
# against double precision, golden models against transformers, the program itself, then speed. Under five minutes.
# Usage: scripts/gpu_check.sh [--quick] [--sanitize] [--device N] [BUNDLE]      (BUNDLE: gpu-bundle beside this tree's root)
#   --quick      small models only, a minute in all
#   --sanitize   compute-sanitizer's memcheck over the kernels' tests as well, where it is installed
# Results go to $OUT (default: build/gpu-check). Exit code: 0 all passed, 1 something failed, 77 no CUDA device here.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
bundle=gpu-bundle quick= sanitize= device=0
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=--quick ;;
    --sanitize) sanitize=1 ;;
    --device) device=${2:?--device needs a number}; shift ;;
    -h | --help) sed -n '2,8s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "unknown option $1 (see --help)" >&2; exit 2 ;;
    *) bundle=$1 ;;
  esac
  shift
done
out=${OUT:-$ROOT/build/gpu-check}
mkdir -p "$out"
bin=$bundle/bin
[ -x "$bin/inferneo" ] || { echo "no $bin/inferneo: make a bundle first (docs/cuda.md)" >&2; exit 1; }

# cuBLASLt of a Python installation, where the system has none.
if ! ldconfig -p 2>/dev/null | grep -q libcublasLt; then
  blas=$(python3 -c 'import glob, sys
print(next((f.rpartition("/")[0] for p in sys.path for f in sorted(glob.glob(p + "/nvidia/*/lib/libcublasLt.so.1[23]"), reverse=True)), ""))' 2>/dev/null)
  [ -z "$blas" ] || export LD_LIBRARY_PATH=$blas${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi

"$bin/inferneo" doctor | tee "$out/doctor.txt"
if ! grep -q "^cuda:$device " "$out/doctor.txt" || grep -q '^CUDA kernels *none' "$out/doctor.txt"; then
  echo "skipped: no CUDA device $device that this bundle can use"
  exit 77
fi

export INFERNEO_CUDA_TEST_DEVICE=cuda:$device INFERNEO_TEST_ROOT=$ROOT
INFERNEO_HOME=$(mktemp -d)
export INFERNEO_HOME
failed=0 table=
# stage NAME SECONDS COMMAND...: its whole output in $out/NAME.txt, one line in the table.
stage() {
  local name=$1 limit=$2 from=$SECONDS status note
  shift 2
  echo "== $name"
  timeout "$limit" "$@" >"$out/$name.txt" 2>&1
  status=$?
  note=$(grep -E '^\[  (PASSED|FAILED)  \] [0-9]+ tests?' "$out/$name.txt" | sed 's/^\[ *//; s/ *\]//' | paste -sd' ' -)
  [ $status = 0 ] || { failed=1; note="$note FAILED (exit $status)"; grep -E ': Failure$|^ *Expected|FAILED|error' -A2 "$out/$name.txt" | head -n 30; }
  table+=$(printf '%-10s %4s s  %s' "$name" $((SECONDS - from)) "$note")$'\n'
}

# The same prompt, greedily, on both: near ties may part, so what they say is shown and not compared.
program() {
  local where
  for where in cpu "cuda:$device"; do
    echo "-- $where"
    timeout 60 "$bin/inferneo" run models/inferneo-story "Once upon a time" --device "$where" --temperature 0 --max-tokens 40 || return 1
  done
}

stage kernels 120 "$bin/cuda_kernels_test"
stage golden 120 "$bin/cuda_golden_test"
stage program 130 bash -c "$(declare -f program); bin=$bin device=$device; program"
cat "$out/program.txt"
if [ -n "$sanitize" ]; then
  if command -v compute-sanitizer >/dev/null; then
    stage memcheck 240 compute-sanitizer --error-exitcode 9 "$bin/cuda_kernels_test" --gtest_filter='*Decode*:*Prompts*:*OfManyRows*:*FiltersAtTheirEnds*'
  else
    table+='memcheck   left out: no compute-sanitizer here'$'\n'
  fi
fi
if [ -x "$bin/cuda_bench" ]; then
  stage bench 200 "$bin/cuda_bench" --device "$device" $quick
  cat "$out/bench.txt"
fi
command -v nvidia-smi >/dev/null && nvidia-smi >"$out/nvidia-smi.txt" 2>&1
printf '\n%s' "$table" | tee "$out/table.txt"
[ $failed = 0 ] && echo "all passed in $SECONDS s" || echo "something failed in $SECONDS s (see $out)"
exit $failed
