#!/usr/bin/env bash
# Sets up, builds and runs every test that needs no GPU; the last line is "N passed, N failed".
# Usage: scripts/test.sh [--sanitizers | --quick | --label fast|full|soak]
#   --sanitizers  also under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer: two more builds
#   --quick       the fast tests of the dev build alone
#   --label L     the tests of one label of the dev build alone
# INFERNEO_SOAK_SCALE (default 0.02 here, 1 in soak.sh) scales the counts of the soak tests.
set -uo pipefail
# shellcheck source=scripts/lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
cd "$ROOT" || exit 1

only_label= sanitizers=
while [ $# -gt 0 ]; do
  case $1 in
    --quick) only_label=fast ;;
    --sanitizers) sanitizers=1 ;;
    --label) only_label=${2:?--label needs fast, full or soak}; shift ;;
    -h | --help) sed -n '2,7s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) die "unknown option $1 (see --help)" ;;
  esac
  shift
done
export INFERNEO_SOAK_SCALE=${INFERNEO_SOAK_SCALE:-0.02}
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1:second_deadlock_stack=1}

passed=0 failed=0 table=
# row STAGE SECONDS PASSED FAILED NOTE: one line of the closing table.
row() {
  table+=$(printf '%-22s %6s s %7s %7s  %s' "$@")$'\n'
  passed=$((passed + $3)) failed=$((failed + $4))
}

# counted_stage NAME COMMAND...: a program of its own, whose last line is "N passed, N failed".
counted_stage() {
  local name=$1 from=$SECONDS log counts status
  shift
  log=build/test-${name// /-}.log
  say "$name"
  "$@" >"$log" 2>&1
  status=$?
  counts=$(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p')
  # shellcheck disable=SC2086  # two numbers
  set -- ${counts:-0 0}
  if [ $status = 0 ] && [ "$1" -gt 0 ]; then
    row "$name" $((SECONDS - from)) "$1" "$2" ''
    return
  fi
  grep -A 20 '^FAILED' "$log" >&2 || tail -n 20 "$log" >&2
  [ "$2" -gt 0 ] || set -- "$1" 1
  row "$name" $((SECONDS - from)) "$1" "$2" "FAILED (log: $log)"
  return 1
}

# build_stage PRESET [TARGET...]: counts only when it fails.
build_stage() {
  local from=$SECONDS
  say "building $1"
  if build "$@"; then row "build $1" $((SECONDS - from)) 0 0 ''; else row "build $1" $((SECONDS - from)) 0 1 FAILED; return 1; fi
}

# ctest_stage NAME PRESET CTEST-ARGUMENTS...: the count is of GoogleTest's cases, not of programs.
ctest_stage() {
  local name=$1 preset=$2 from=$SECONDS log counts status
  shift 2
  log=build/test-${name// /-}.log
  say "$name"
  rm -f "build/$preset/Testing/Temporary/LastTest.log"
  ctest --preset "$preset" -j "$JOBS" --no-tests=error "$@" >"$log" 2>&1
  status=$?
  counts=$(python3 scripts/lib/count_tests.py "build/$preset/Testing/Temporary/LastTest.log" 2>/dev/null || echo 0 1)
  # shellcheck disable=SC2086  # two numbers
  set -- $counts
  if [ $status -ne 0 ]; then
    sed -n '/The following tests FAILED/,$p' "$log" >&2
    grep -E '^\[  FAILED  \]|: Failure$|ERROR: |WARNING: ThreadSanitizer|: (error|warning): ' "$log" | sort -u | head -n 40 >&2
    [ "$2" -gt 0 ] || set -- "$1" 1
    row "$name" $((SECONDS - from)) "$1" "$2" "FAILED (log: $log)"
    return 1
  fi
  row "$name" $((SECONDS - from)) "$1" "$2" ''
}

# The official client against the real program and a bundled model.
openai_client() {
  setup_venv 'openai>=1.50,<3' &&
    .venv/bin/python tests/integration/openai_client.py --binary build/ci/inferneo --model models/inferneo-story
}

# Words planted in all that a client can send, looked for in all that the server says elsewhere.
canary() { python3 tests/integration/canary.py --binary build/ci/inferneo --model models/inferneo-story; }

# The dashboard in a browser, where there is one.
dashboard() {
  setup_venv 'openai>=1.50,<3' && setup_venv 'playwright>=1.40,<2' &&
    .venv/bin/python tests/integration/dashboard.py --binary build/ci/inferneo --model models/inferneo-story
}

# The programs of a preset's tests, which have their names: what is not run there is not built either.
targets_of() {
  local preset=$1
  shift
  (cd "build/$preset" && ctest -N "$@") | sed -n 's/^ *Test *#[0-9]*: //p' |
    grep -Fxf <(ninja -C "build/$preset" -t targets all | sed -n 's/: phony$//p')
}

# Versions of clang-format disagree; where the system's is not the pinned one, .venv gets that.
setup_clang_format() {
  [[ $(clang-format --version 2>/dev/null) == *'version 14.'* ]] || setup_venv clang-format==14.0.6
}

main() {
  setup_packages
  setup_test_packages
  setup_rust
  setup_clang_format
  setup_onnxruntime || true  # without it the tests of ONNX models say that they are left out
  if [ -n "$only_label" ]; then
    if [ "$only_label" = soak ] && setup_python_package; then configure dev -DINFERNEO_PYTHON=ON; fi
    build_stage dev && ctest_stage "$only_label" dev -L "$only_label"
    return
  fi
  # The Python package joins this build where it can; its tests say that they are skipped where not.
  if setup_python_package; then configure ci -DINFERNEO_PYTHON=ON; fi
  setup_venv 'openai>=1.50,<3'  # of one example, and of a stage below
  # The CUDA kernels are compiled into it where nvcc is; their tests run on an emulated GPU either way.
  local nvcc
  if nvcc=$(find_nvcc); then
    configure ci -DINFERNEO_CUDA=ON -DINFERNEO_NVCC="$nvcc"
  else
    row "CUDA kernels" 0 0 0 'not compiled: no nvcc here (docs/cuda.md)'
  fi
  if build_stage ci; then
    ctest_stage "fast" ci -L fast
    ctest_stage "full" ci -L full
    ctest_stage "soak (x$INFERNEO_SOAK_SCALE)" ci -L soak
    counted_stage "openai client" openai_client
    counted_stage "canary" canary
    if command -v chromium >/dev/null; then
      counted_stage "dashboard" dashboard
    else
      row "dashboard" 0 0 0 'left out: no chromium here'
    fi
  fi
  [ -n "$sanitizers" ] || return
  local targets
  configure asan
  mapfile -t targets < <(targets_of asan -L 'fast|full' -LE 'repo|timing')
  if build_stage asan "${targets[@]}"; then ctest_stage "asan" asan -L 'fast|full' -LE 'repo|timing'; fi
  # Threads meet in these rooms; ThreadSanitizer watches their tests.
  configure tsan
  mapfile -t targets < <(targets_of tsan -L 'fast|full' | grep -E '^(base|tensor|engine|manager|routing|serving|server|app|admin)_')
  if [ ${#targets[@]} -gt 0 ] && build_stage tsan "${targets[@]}"; then
    ctest_stage "tsan" tsan -L 'fast|full' -R "^($(IFS='|'; echo "${targets[*]}"))\$"
  fi
}

main
printf '\n%-22s %8s %7s %7s\n%s' stage time passed failed "$table"
echo "in $((SECONDS / 60)) min $((SECONDS % 60)) s"
[ $((passed + failed)) -gt 0 ] || { echo "nothing ran" >&2; failed=1; }
echo "$passed passed, $failed failed"
[ $failed = 0 ]
