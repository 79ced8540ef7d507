#!/usr/bin/env bash
# From a fresh clone to text: installs what is missing, builds Release, and lets the bundled model write.
# Debian 12/13 or Ubuntu 24.04, as root or with sudo. Usage: scripts/quickstart.sh [PROMPT]
set -euo pipefail
# shellcheck source=scripts/lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"

case "${1:-}" in -h | --help) sed -n '2,3s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;; esac
prompt=${1:-Once upon a time}
started=$SECONDS
binary=build/release/inferneo

setup_packages
setup_rust
# The Python package joins where it can; the rest does without.
targets=(inferneo)
if setup_python_package; then
  configure release -DINFERNEO_PYTHON=ON
  targets+=(inferneo_python)
fi
[ -x "$ROOT/$binary" ] || say "building Release (the first time takes some minutes on two cores)"
build release "${targets[@]}" || die "the build failed (log: build/build-release.log)"

cd "$ROOT"
say "models/inferneo-story continues: $prompt"
"$binary" run models/inferneo-story "$prompt" --stats
cat <<LINES

== ready in $((SECONDS - started)) s. Start the server:
     $ROOT/$binary serve $ROOT/models/inferneo-story
   and, in another terminal, try:
     curl -N http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
       -d '{"model": "inferneo-story", "stream": true, "messages": [{"role": "user", "content": "Tell me a story about a fox."}]}'
LINES
if ls build/release/python/inferneo/_native*.so >/dev/null 2>&1; then
  cat <<LINES
   From Python:
     . .venv/bin/activate
     python examples/basic/basic_usage.py
LINES
fi
