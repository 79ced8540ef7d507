#!/usr/bin/env bash
# Puts ONNX Runtime, which runs ONNX models, where programs built here look for it (build/onnxruntime). A library that
# ONNXRUNTIME_ROOT names or that the system has is taken; else the one of the Python package is fetched.
set -euo pipefail
# shellcheck source=scripts/lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
cd "$ROOT"
setup_onnxruntime
say "ONNX Runtime: $(readlink -f build/onnxruntime/libonnxruntime.so.1)"
