#!/usr/bin/env bash
# The soak tests at their full counts, on the dev build. Its output is the evidence for those rows; it may run for hours.
set -euo pipefail
export INFERNEO_SOAK_SCALE=1
exec "$(dirname "${BASH_SOURCE[0]}")/test.sh" --label soak "$@"
