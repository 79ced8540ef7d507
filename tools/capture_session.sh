#!/usr/bin/env bash
# Records the README's picture: runs a session on the release build in a terminal of its own, writes what it printed to
# docs/session.txt and draws it as docs/session.svg. Usage: tools/capture_session.sh (after scripts/quickstart.sh)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH=$PWD/build/release:$PATH TERM=xterm COLUMNS=100
port=18431

# typed COMMAND: shows it behind a prompt, then runs it where it believes that it has a terminal.
typed() {
  printf '$ %s\n' "$1"
  script -qec "$1" /dev/null </dev/null
  echo
}

session() {
  typed 'inferneo run models/inferneo-story "Once upon a time" --raw'
  typed 'inferneo run models/inferneo-code "Write a function that reverses a list."'
  printf '$ inferneo serve models/inferneo-story models/inferneo-code &\n'
  inferneo serve models/inferneo-story models/inferneo-code --port $port >build/session-server.log 2>&1 &
  # In here: session runs in a subshell of the pipe below, whose variables nobody outside sees.
  trap "kill $!" EXIT
  for _ in $(seq 50); do curl -sf "http://127.0.0.1:$port/ready" >/dev/null && break; sleep 0.1; done
  grep -hE '(ready|listening|http://)' build/session-server.log | tail -n 2
  typed "curl -s http://127.0.0.1:$port/v1/completions -H 'Content-Type: application/json' -d '{\"model\": \"inferneo-code\", \"prompt\": \"def \", \"max_tokens\": 48, \"temperature\": 0}'"
  typed "curl -s http://127.0.0.1:$port/metrics | grep -E '^vllm:(prompt|generation)_tokens_total'"
}

session | sed 's/\x1b\[[0-9;?]*[A-Za-z]//g; s/\r//g' >docs/session.txt
python3 tools/render_terminal.py docs/session.txt docs/session.svg
