#!/bin/sh
# Per-ISA objects must share no code with the rest of the program: an inline function compiled there for AVX-512 could be
# the copy that the linker keeps for everyone. Usage: check_isa_objects.sh OBJECT...
# Fails on weak symbols (other than of the sanitizers), and when no object is given.
set -eu
[ "$#" -gt 0 ] || { echo "no objects to look at" >&2; exit 1; }
failed=0
for object in "$@"; do
  shared=$(nm -C "$object" | awk '$2 ~ /^[WwVvu]$/ && $0 !~ /asan|ubsan|tsan|DW.ref/' || true)
  [ "$(nm -C "$object" | grep -c ' T ')" -gt 0 ] || { echo "$object defines nothing" >&2; failed=1; }
  if [ -n "$shared" ]; then
    printf '%s shares code with the rest of the program:\n%s\n' "$object" "$shared" >&2
    failed=1
  fi
done
exit "$failed"
