#!/usr/bin/env bash
# Checks and measures a bundle (cmake --install) on the GPU of this machine, which needs nothing but its driver: kernels
# against double precision, golden models against transformers, the engine, models on two ranks, the program, then speed.
# Usage: scripts/gpu_check.sh [--quick] [--sanitize] [--device N] [--budget SECONDS] [BUNDLE]
#   BUNDLE       a folder, or a tar file of one (default: gpu-bundle beside this tree's root)
#   --quick      measures small models only
#   --sanitize   compute-sanitizer's memcheck and racecheck over the kernels' tests as well, where it is installed
#   --budget     seconds in all (default 540): what does not fit any more is cut short or left out, and named
# One failure does not end the rest; tests that failed, or that were not reached, run again, each in a process of its own.
# Results go to $OUT (default: build/gpu-check), eight files at most, table.txt as they come. Exit code: 0 all passed,
# 1 something failed, 77 no CUDA device here.
set -uo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT" || exit 1
bundle=gpu-bundle quick= sanitize= device=0 budget=540
while [ $# -gt 0 ]; do
  case $1 in
    --quick) quick=--quick ;;
    --sanitize) sanitize=1 ;;
    --device) device=${2:?--device needs a number}; shift ;;
    --budget) budget=${2:?--budget needs a number}; shift ;;
    -h | --help) sed -n '2,11s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    -*) echo "unknown option $1 (see --help)" >&2; exit 2 ;;
    *) bundle=$1 ;;
  esac
  shift
done
out=${OUT:-$ROOT/build/gpu-check}
mkdir -p "$out"
INFERNEO_HOME=$(mktemp -d)
export INFERNEO_HOME INFERNEO_CUDA_TEST_DEVICE=cuda:$device INFERNEO_TEST_ROOT=$ROOT
trap 'rm -rf "$INFERNEO_HOME"' EXIT
if [ -f "$bundle" ]; then
  mkdir "$INFERNEO_HOME/bundle" && tar -xf "$bundle" -C "$INFERNEO_HOME/bundle" --strip-components=1 || exit 1
  bundle=$INFERNEO_HOME/bundle
fi
bin=$bundle/bin
[ -x "$bin/inferneo" ] || { echo "no $bin/inferneo: make a bundle first (docs/cuda.md)" >&2; exit 1; }

# find_library PATTERN FOLDER...: adds the first of the folders that has it, where the system does not know it.
find_library() {
  local pattern=$1 folder
  shift
  ! ldconfig -p 2>/dev/null | grep -q "$pattern" || return 0
  for folder in "$@"; do
    if compgen -G "$folder/*" | grep -q "/$pattern"; then
      export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
      return 0
    fi
  done
}
find_library 'libcuda\.so\.1' /usr/local/nvidia/lib64 /usr/local/nvidia/lib /usr/lib/wsl/lib
# cuBLASLt and NCCL of the toolkit, or of a Python installation.
python_folders() {
  python3 -c 'import glob, sys
for p in sys.path:
    for f in sorted(glob.glob(p + "/nvidia/*/lib/" + sys.argv[1]), reverse=True): print(f.rpartition("/")[0])' "$1" 2>/dev/null
}
mapfile -t python_blas < <(python_folders 'libcublasLt.so.1[23]')
mapfile -t python_nccl < <(python_folders 'libnccl.so.2')
find_library 'libcublasLt\.so\.1[23]' /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib "${python_blas[@]}"
find_library 'libnccl\.so\.2' /usr/local/cuda/lib64 /usr/local/cuda/targets/x86_64-linux/lib "${python_nccl[@]}"

timeout 60 "$bin/inferneo" doctor >"$out/doctor.txt" 2>&1
doctor=$?
command -v nvidia-smi >/dev/null && timeout 30 nvidia-smi >>"$out/doctor.txt" 2>&1
cat "$out/doctor.txt"
[ $doctor = 0 ] || { echo "the bundle does not start on this machine"; exit 1; }
if ! grep -q "^cuda:$device " "$out/doctor.txt" || grep -q '^CUDA kernels *none' "$out/doctor.txt"; then
  echo "skipped: no CUDA device $device that this bundle can use"
  exit 77
fi

failed=0
: >"$out/table.txt"
row() { printf '%-10s %4s s  %s\n' "$1" "$2" "$3" >>"$out/table.txt"; }
# stage NAME SECONDS COMMAND...: its whole output in $out/NAME.txt, one line in the table.
stage() {
  local name=$1 limit=$2 from=$SECONDS left=$((budget - SECONDS)) status note
  shift 2
  if [ $left -lt 10 ]; then
    failed=1
    row "$name" 0 "FAILED: left out, the $budget s are over"
    return 1
  fi
  [ $left -ge "$limit" ] || limit=$left
  echo "== $name (at most $limit s)"
  timeout -k 5 "$limit" "$@" >"$out/$name.txt" 2>&1
  status=$?
  note=$(grep -E '^\[ +(PASSED|FAILED) +\] [0-9]+ tests?' "$out/$name.txt" | sed 's/^\[ *//; s/ *\]//' | paste -sd' ' -)
  if [ $status != 0 ]; then
    failed=1
    note="$note FAILED (exit $status)"
    grep -E ': Failure$|^ *Expected|FAILED|[Ee]rror|lost|not measured' -A2 "$out/$name.txt" | head -n 30
  fi
  row "$name" $((SECONDS - from)) "$note"
  return $status
}

tests_of() { "$1" --gtest_list_tests | awk '/^[^ ]/ { suite = $1; next } { print suite $1 }'; }
# What a test program's output says of its tests: "ok NAME" or "bad NAME", up to the first that cost the GPU's context, or
# ended the program: those behind it have not been seen.
verdicts() {
  awk '/^\[ RUN +\]/ { test = $4; next }
       test == "" { next }
       /is lost until the program/ { print "bad", test; test = ""; exit }
       /^\[ +(OK|SKIPPED) +\]/ { print "ok", test; test = "" }
       /^\[ +FAILED +\]/ { print "bad", test; test = "" }
       END { if (test != "") print "bad", test }' "$1"
}
# tests NAME SECONDS PROGRAM: as stage, and again for those that have not been seen, in at most twice the time. What has
# failed runs once more alone, with launches that are waited for, so that the error names its kernel.
tests() {
  local name=$1 limit=$2 program=$3 from=$SECONDS log=$INFERNEO_HOME/log.txt seen= bad= ok=0 round=0 left all skipped verdict test status=127 note
  all=$(tests_of "$program" | wc -l)
  : >"$out/$name.txt"
  while [ $((ok + $(wc -w <<<"$bad"))) -lt "$all" ]; do
    left=$((2 * limit - (SECONDS - from)))
    [ $left -le "$limit" ] || left=$limit
    [ $left -le $((budget - SECONDS)) ] || left=$((budget - SECONDS))
    [ $left -ge 5 ] || break
    echo "== $name (at most $left s)"
    CUDA_LAUNCH_BLOCKING=$((round > 0)) timeout -k 5 $left "$program" --gtest_filter="*${seen:+-$seen}" >"$log" 2>&1
    status=$?
    cat "$log" >>"$out/$name.txt"
    [ -n "$(verdicts "$log")" ] || break
    while read -r verdict test; do
      seen+=${seen:+:}$test
      if [ "$verdict" = ok ]; then ok=$((ok + 1)); else bad+=" $test"; fi
    done < <(verdicts "$log")
    round=$((round + 1))
  done
  left=$((all - ok - $(wc -w <<<"$bad")))
  skipped=$(sed -nE 's/^\[ +SKIPPED +\] ([^ ,]+).* \([0-9]+ ms\)$/\1/p' "$out/$name.txt" | sort -u | paste -sd' ' -)
  note="$ok of $all tests passed${skipped:+ (of them skipped: $skipped)}"
  if [ "$all" != 0 ] && [ "$ok" = "$all" ] && [ $status = 0 ]; then
    row "$name" $((SECONDS - from)) "$note"
    return 0
  fi
  note+="${bad:+, FAILED:$bad}"
  [ $left = 0 ] || note+=", FAILED: $left not run"
  [ -n "$bad" ] || [ $left != 0 ] || note+=", FAILED (exit $status)"
  row "$name" $((SECONDS - from)) "$note"
  failed=1
  grep -E ': Failure$|^ *Expected|is lost|Aborted' -A2 "$out/$name.txt" | head -n 30
  for test in $(head -n 3 < <(tr ' ' '\n' <<<"${bad# }")); do
    [ $((budget - SECONDS)) -ge 20 ] || return 1
    CUDA_LAUNCH_BLOCKING=1 timeout -k 5 20 "$program" --gtest_filter="$test" >"$log" 2>&1
    { echo "== alone: $test"; cat "$log"; } >>"$out/$name.txt"
    echo "-- alone: $test"; tail -n 8 "$log"
  done
  test=${bad# } test=${test%% *}
  if [ -n "$test" ] && command -v compute-sanitizer >/dev/null && [ $((budget - SECONDS)) -ge 60 ]; then
    timeout -k 5 60 compute-sanitizer "$program" --gtest_filter="$test" >>"$out/$name.txt" 2>&1
  fi
  return 1
}

# The same prompt, greedily, on both, with the cache and with everything in 8 bits: near ties may part, so what they say is
# shown and not compared.
program() {
  local where bits code=0
  for bits in "none auto" "none fp8" "int8 int8"; do
    for where in "cuda:$device" cpu; do
      echo "-- $where, quantization ${bits% *}, kv_cache_dtype ${bits#* }"
      timeout 60 "$bin/inferneo" run models/inferneo-story "Once upon a time" --device "$where" --temperature 0 --max-tokens 40 \
        --quantization "${bits% *}" --kv-cache-dtype "${bits#* }" || code=1
    done
  done
  return $code
}

sanitizers() {
  local tool code=0
  local filter='*Decode*:*Prompts*:*Int8*:*Fp8*:*OfLargeTiles*:*OfManyRows*:*OfFewRows*:*OfExperts*:*FiltersAtTheirEnds*:*Norms*:*HeadsAreNormed*'
  for tool in memcheck racecheck; do
    echo "-- $tool"
    timeout 120 compute-sanitizer --tool $tool --error-exitcode 9 "$bin/cuda_kernels_test" --gtest_filter="$filter" || code=9
  done
  return $code
}

# ranks: two of them, on two GPUs or on this one by the host's memory, and NCCL with one.
for name in kernels golden engine ranks; do
  case $name in kernels) limit=120 ;; golden) limit=140 ;; *) limit=40 ;; esac
  [ ! -x "$bin/cuda_${name}_test" ] || tests $name $limit "$bin/cuda_${name}_test"
done
stage program 130 bash -c "$(declare -f program); bin=$bin device=$device; program"
[ ! -f "$out/program.txt" ] || cat "$out/program.txt"
if [ -x "$bin/cuda_bench" ]; then
  stage bench 200 "$bin/cuda_bench" --device "$device" $quick
  [ ! -f "$out/bench.txt" ] || cat "$out/bench.txt"
fi
if [ -n "$sanitize" ]; then
  if command -v compute-sanitizer >/dev/null; then
    stage sanitize 240 bash -c "$(declare -f sanitizers); bin=$bin; sanitizers"
  else
    row sanitize 0 'left out: no compute-sanitizer here'
  fi
fi
echo
cat "$out/table.txt"
[ $failed = 0 ] && echo "all passed in $SECONDS s" || echo "something failed in $SECONDS s (see $out)"
exit $failed
