# shellcheck shell=bash
# The set-up that quickstart.sh, test.sh and soak.sh share: system packages, Rust, Python, configuring and building.
# Sourced, not run. It installs only what is missing, names each package, and leaves one line for what it cannot install.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export DEBIAN_FRONTEND=noninteractive
JOBS=${INFERNEO_JOBS:-$(nproc)}
mkdir -p "$ROOT/build"

# What the C++ code is built with. Debian 12 needs Boost 1.81; later releases carry a newer one under the plain name.
BUILD_PACKAGES=(g++ cmake ninja-build pkg-config git ca-certificates libssl-dev libcurl4-openssl-dev libsimdjson-dev
                nlohmann-json3-dev libyaml-cpp-dev libsqlite3-dev libre2-dev libfmt-dev libspdlog-dev libcli11-dev)
TEST_PACKAGES=(libgtest-dev libgmock-dev python3 python3-venv clang-format clang-tidy)
# Worth having; a release without them still builds and tests.
OPTIONAL_PACKAGES=(ccache)

say() { printf '== %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }
# No pipe into grep -q: it leaves at the first match, and with pipefail the writer's broken pipe counts as "no".
has_candidate() { [[ $(apt-cache policy "$1" 2>/dev/null) =~ Candidate:\ [^\(] ]]; }
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# Runs a command as root: directly, or through sudo.
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else
    return 77
  fi
}

apt_get() { as_root apt-get -q -o DPkg::Lock::Timeout=300 -o APT::Update::Error-Mode=any "$@"; }

APT_UPDATED=
apt_update() {
  [ -n "$APT_UPDATED" ] && return 0
  say "apt-get update"
  apt_get update >"$ROOT/build/apt.log" 2>&1 || return 1
  APT_UPDATED=1
}

# install_packages required|optional PACKAGE...
install_packages() {
  local need=$1 package missing=()
  shift
  for package in "$@"; do is_installed "$package" || missing+=("$package"); done
  [ ${#missing[@]} = 0 ] && return 0
  local advice="install by hand: apt-get install ${missing[*]}"
  if ! command -v apt-get >/dev/null; then
    [ "$need" = optional ] && return 0
    die "this system has no apt-get; install what Debian calls: ${missing[*]}"
  fi
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    [ "$need" = optional ] && { warn "neither root nor sudo, so these stay out: ${missing[*]}"; return 0; }
    die "neither root nor sudo; as root run: apt-get install ${missing[*]}"
  fi
  say "installing: ${missing[*]}"
  if ! apt_update; then
    tail -n 3 "$ROOT/build/apt.log" >&2
    warn "apt-get update failed (no network?); trying with the package lists that are here"
    APT_UPDATED=failed
  fi
  if ! apt_get install -y --no-install-recommends "${missing[@]}" >"$ROOT/build/apt.log" 2>&1; then
    grep -E '^E:' "$ROOT/build/apt.log" | head -n 5 >&2
    [ "$need" = optional ] && { warn "could not install ${missing[*]}; going on without"; return 0; }
    die "could not install ${missing[*]} (log: build/apt.log); $advice"
  fi
}

# What is installed is asked first: where apt keeps no cache of its lists, as in containers, it takes a second to answer.
boost_package() {
  local package packages=(libboost-dev libboost1.83-dev libboost1.81-dev)
  for package in "${packages[@]}"; do
    version_at_least "$(dpkg-query -W -f '${db:Status-Status} ${Version}' "$package" 2>/dev/null | sed -n 's/^installed //p')" 1.81 &&
      { echo "$package"; return; }
  done
  for package in "${packages[@]}"; do
    has_candidate "$package" || continue
    version_at_least "$(apt-cache policy "$package" | sed -n 's/^  Candidate: //p')" 1.81 && { echo "$package"; return; }
  done
  echo libboost1.81-dev
}

setup_packages() {
  mkdir -p "$ROOT/build"
  # The lists of a fresh system are empty: without them no choice between Boost packages can be made.
  if ! is_installed libboost1.81-dev && ! is_installed libboost-dev && ! has_candidate libboost-dev; then apt_update || true; fi
  install_packages required "${BUILD_PACKAGES[@]}" "$(boost_package)"
  install_packages optional "${OPTIONAL_PACKAGES[@]}"
}

setup_test_packages() {
  install_packages required "${TEST_PACKAGES[@]}"
  install_packages optional mold
  setup_promtool
}

# promtool checks what /metrics says. Its package would start a Prometheus server, so only the program is taken out of it.
setup_promtool() {
  local folder=$ROOT/build/tools
  PATH=$PATH:$folder/usr/bin
  command -v promtool >/dev/null && return 0
  has_candidate prometheus || return 0
  say "fetching promtool (from the package prometheus, which is not installed)"
  mkdir -p "$folder"
  if ! (cd "$folder" && apt-get -q download prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .); then
    warn "could not fetch promtool; the metrics test does without"
  fi
  rm -f "$folder"/prometheus_*.deb
}

# ---- Rust -----------------------------------------------------------------------------------------------------------
rust_needed() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/rust/text/Cargo.toml"; }

# Prints the first cargo whose version will do, with a rustc of the same age beside it.
find_cargo() {
  local need=$1 dir tool dirs=()
  command -v cargo >/dev/null && dirs+=("$(dirname "$(command -v cargo)")")
  dirs+=("$HOME/.cargo/bin" /usr/bin /usr/lib/rust-1.*/bin)
  for dir in "${dirs[@]}"; do
    for tool in rustc cargo; do
      version_at_least "$("$dir/$tool" --version 2>/dev/null | cut -d' ' -f2)" "$need" || continue 2
    done
    echo "$dir/cargo"
    return 0
  done
  return 1
}

# The Debian packages that carry a Rust at least as new as needed, as "CARGO RUSTC".
rust_packages() {
  local need=$1 name version
  for name in '' -web $(apt-cache pkgnames rustc-1. 2>/dev/null | sed -n 's/^rustc\(-1\.[0-9]*\)$/\1/p' | sort -rV); do
    has_candidate "cargo$name" && has_candidate "rustc$name" || continue
    version=$(apt-cache policy "rustc$name" | sed -n 's/^  Candidate: //p')
    version_at_least "$version" "$need" && { echo "cargo$name rustc$name"; return 0; }
  done
  return 1
}

# Sets CARGO to a cargo that is new enough, and puts its folder first in PATH, so that it finds its own rustc.
setup_rust() {
  local need packages
  need=$(rust_needed)
  if ! CARGO=$(find_cargo "$need"); then
    say "no Rust $need or newer here"
    apt_update || true
    if packages=$(rust_packages "$need"); then
      # shellcheck disable=SC2086  # two names
      install_packages required $packages
    else
      install_packages required curl ca-certificates
      say "installing: Rust through rustup (no package of this release has Rust $need)"
      curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs 2>"$ROOT/build/rustup.log" |
        sh -s -- -y --profile minimal --no-modify-path >>"$ROOT/build/rustup.log" 2>&1 || true
    fi
    CARGO=$(find_cargo "$need") || die "no Rust $need or newer could be installed; get it from https://rustup.rs and run this again"
  fi
  PATH=$(dirname "$CARGO"):$PATH
  export PATH CARGO
}

# ---- Python: a virtual environment of the project's own, for the tests that need packages ----------------------------
# setup_venv PACKAGE...: what has been installed stays, so that each caller names only what it needs.
setup_venv() {
  local python=$ROOT/.venv/bin/python stamp="$ROOT/.venv/installed"
  [ -x "$python" ] || python3 -m venv "$ROOT/.venv" || { warn "python3 -m venv failed; install python3-venv"; return 1; }
  grep -qxF -- "$*" "$stamp" 2>/dev/null && return 0
  say "installing into .venv: $*"
  if ! "$python" -m pip install --quiet --disable-pip-version-check "$@" >"$ROOT/build/pip.log" 2>&1; then
    warn "pip could not install $* (log: build/pip.log); by hand: .venv/bin/pip install $*"
    return 1
  fi
  echo "$*" >>"$stamp"
}

# What the Python package is built and tested with; false where it cannot be, which leaves its tests out.
setup_python_package() {
  install_packages optional python3-dev python3-venv
  setup_venv 'nanobind>=2.4' 'pytest>=8' 'numpy>=1.24' && "$ROOT/.venv/bin/python" -c 'import sysconfig, os, sys
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'
}

# ---- ONNX Runtime: a shared library that the program opens at run time; a build does without ---------------------------
# build/onnxruntime/libonnxruntime.so.1, where programs built here look: a link to the one that ONNXRUNTIME_ROOT or the
# system has, else that of the Python package, pinned and compared with its hash. False: there is none.
ONNXRUNTIME_VERSION=1.30.0
declare -A ONNXRUNTIME_SHA256=([x86_64]=fd54b314ea385bcecac69ab431f020ba503e3878dad4ebb645fec5a24b041242
                               [aarch64]=bac3aee7b40acd805659fd81a2acd6096312d5b0f014c97ddfe75fb4c1644627)

setup_onnxruntime() {
  local folder=$ROOT/build/onnxruntime machine installed
  local library=$folder/libonnxruntime.so.1
  mkdir -p "$folder"
  for installed in ${ONNXRUNTIME_ROOT:+"$ONNXRUNTIME_ROOT"/lib*/libonnxruntime.so*} \
                   $(ldconfig -p 2>/dev/null | sed -n 's/.*libonnxruntime\.so\.1 .*=> //p'); do
    [ -f "$installed" ] && ln -sf "$installed" "$library" && return 0
  done
  if [ -n "${ONNXRUNTIME_ROOT:-}" ]; then warn "no lib/libonnxruntime.so below ONNXRUNTIME_ROOT=$ONNXRUNTIME_ROOT"; return 1; fi
  [ -f "$library" ] && [ "$(cat "$folder/version" 2>/dev/null)" = $ONNXRUNTIME_VERSION ] && return 0
  machine=$(uname -m)
  [ -n "${ONNXRUNTIME_SHA256[$machine]:-}" ] || { warn "no ONNX Runtime is known for $machine; set ONNXRUNTIME_ROOT"; return 1; }
  setup_venv pip || return 1
  say "fetching ONNX Runtime $ONNXRUNTIME_VERSION"
  # Any Python may unpack it: the library does not depend on the interpreter that the package is for.
  if ! "$ROOT/.venv/bin/python" - "$folder" $ONNXRUNTIME_VERSION "${ONNXRUNTIME_SHA256[$machine]}" "$machine" <<'END' >"$ROOT/build/onnxruntime.log" 2>&1
import pathlib, subprocess, sys, tempfile, zipfile
folder, version, sha256, machine = sys.argv[1:]
with tempfile.TemporaryDirectory() as temporary:
    wanted = pathlib.Path(temporary, "wanted.txt")
    wanted.write_text(f"onnxruntime=={version} --hash=sha256:{sha256}\n")
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes",
                    "--platform", f"manylinux_2_28_{machine}", "--python-version", "3.11", "--implementation", "cp", "--abi", "cp311",
                    "--dest", temporary, "--requirement", str(wanted)], check=True)
    with zipfile.ZipFile(next(pathlib.Path(temporary).glob("onnxruntime-*.whl"))) as wheel:
        name = f"onnxruntime/capi/libonnxruntime.so.{version}"
        target = pathlib.Path(folder, "libonnxruntime.so.1")
        target.with_suffix(".new").write_bytes(wheel.read(name))
        target.with_suffix(".new").replace(target)
        pathlib.Path(folder, "LICENSE").write_bytes(wheel.read("onnxruntime/LICENSE"))
        pathlib.Path(folder, "version").write_text(version + "\n")
END
  then
    warn "could not fetch ONNX Runtime (log: build/onnxruntime.log); ONNX models are refused without it, all else works"
    return 1
  fi
}

# ---- CUDA: the toolkit's compiler, without root ----------------------------------------------------------------------
# Prints an nvcc that is here: on PATH, of CUDA_HOME, of the usual place, or as setup_cuda has put it.
find_nvcc() {
  local nvcc
  for nvcc in "$(command -v nvcc)" "${CUDA_HOME:-}/bin/nvcc" /usr/local/cuda/bin/nvcc \
              "$ROOT"/build/cuda-toolkit/lib/python3*/site-packages/nvidia/cu13/bin/nvcc; do
    [ -n "$nvcc" ] && [ -x "$nvcc" ] && { echo "$nvcc"; return 0; }
  done
  return 1
}

# The compiler of CUDA 13.0 from the Python packages that carry it, about 200 MB, into build/cuda-toolkit.
setup_cuda() {
  find_nvcc >/dev/null && return 0
  say "installing: nvcc 13.0 into build/cuda-toolkit"
  python3 -m venv "$ROOT/build/cuda-toolkit" || return 1
  "$ROOT/build/cuda-toolkit/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-nvvm==13.0.*' \
    'nvidia-cuda-cccl==13.0.*' >"$ROOT/build/pip.log" 2>&1 || { warn "pip could not install nvcc (log: build/pip.log)"; return 1; }
}

# ---- Configure and build --------------------------------------------------------------------------------------------
# configure PRESET [OPTION...]: again only where an option is not what it was.
configure() {
  local preset=$1 log="$ROOT/build/configure-$1.log" option known=1
  shift
  for option in "$@"; do
    option=${option#-D}
    grep -q "^${option%%=*}:[A-Z]*=${option#*=}\$" "$ROOT/build/$preset/CMakeCache.txt" 2>/dev/null || known=
  done
  # ninja configures again by itself when a CMake file changes.
  [ -f "$ROOT/build/$preset/build.ninja" ] && [ -n "$known" ] && return 0
  say "configuring $preset"
  if ! (cd "$ROOT" && cmake --preset "$preset" -DINFERNEO_CARGO="$CARGO" "$@" >"$log" 2>&1); then
    tail -n 30 "$log" >&2
    die "cmake --preset $preset failed (log: build/configure-$preset.log)"
  fi
}

# build PRESET [TARGET...]
build() {
  local preset=$1 log="$ROOT/build/build-$1.log" targets=()
  shift
  [ $# = 0 ] || targets=(--target "$@")
  configure "$preset"
  # What ninja prints goes to the log; a terminal sees its progress line.
  if [ -t 1 ]; then
    (cd "$ROOT" && cmake --build --preset "$preset" -j "$JOBS" "${targets[@]}") && return 0
  else
    (cd "$ROOT" && cmake --build --preset "$preset" -j "$JOBS" "${targets[@]}" >"$log" 2>&1) && return 0
    grep -E -A8 'error|FAILED' "$log" | tail -n 40 >&2
  fi
  return 1
}
