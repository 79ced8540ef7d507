#!/usr/bin/env bash
# The documents as a site, in build/site/: plain Markdown from docs/, with its links checked. Usage: scripts/docs.sh [--serve]
set -euo pipefail
# shellcheck source=scripts/lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
cd "$ROOT"

case "${1:-}" in
  -h | --help) sed -n '2s/^# //p' "${BASH_SOURCE[0]}"; exit 0 ;;
  --serve | '') ;;
  *) die "unknown option $1 (see --help)" ;;
esac
setup_venv 'mkdocs-material>=9.5,<10' || die "the site needs mkdocs-material"
if [ "${1:-}" = --serve ]; then exec .venv/bin/mkdocs serve; fi
NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict
say "build/site/index.html: $(find build/site -name index.html | wc -l) pages"
