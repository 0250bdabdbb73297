#!/usr/bin/env bash
# Make the environment of a stack: .venv (modern, the default), or .venv-STACK.
#
#   bash scripts/setup.sh [modern|complete]
#   PADDLE_RANKER_CUDA=cu126 bash scripts/setup.sh gpu   the modern stack with Paddle for that CUDA version
#   bash scripts/setup.sh complete-gpu        the complete stack with Paddle for CUDA 11
#   bash scripts/setup.sh browser             the modern stack, and browsers and Playwright for the tests of the search page
#
# Exactly the packages of the lock files in requirements/, checked by their hashes, and this project itself (editable).
# Installs with uv if it is on PATH, else with pip. Set PYTHON to choose the environment's Python interpreter.
# A second run returns at once if nothing has changed; the next run completes an interrupted one.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

readonly PROBE='import ctypes, platform, ssl, struct, sys, venv, zlib
ok = platform.python_implementation() == "CPython" and struct.calcsize("P") == 8
print("%d.%d" % sys.version_info[:2] if ok else "unsuitable", "%d.%d.%d" % sys.version_info[:3])'
CHILD=''

fail() {
    complain "setup: error: $*"
    exit 1
}

usage() {
    say 'usage: setup.sh [modern|gpu|complete|complete-gpu|browser]   (default: modern; see requirements/ for what is in each;' \
        'browser: modern, Chromium, Firefox and Playwright)'
}

# --- a Python -------------------------------------------------------------------------------------------------------

# Print every possible path of a Python `$1` (such as 3.11), best first: PATH, then version managers' installations.
python_candidates() {
    local version="$1" folder name
    local IFS=:
    for name in "python$version" python3 python; do
        for folder in $PATH; do
            if [ -x "${folder:-.}/$name" ]; then say "${folder:-.}/$name"; fi
        done
    done
    for folder in "${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}/versions" "${HOME:-/nonexistent}/.asdf/installs/python" \
        "${HOME:-/nonexistent}/.local/share/mise/installs/python"; do
        for name in "$folder/$version".*/bin/python "$folder/$version/bin/python"; do
            if [ -x "$name" ]; then say "$name"; fi
        done
    done
}

# Print the first candidate for version `$1` that runs and has that version. Version managers leave shims that exist but
# fail, and some systems ship a Python without the modules that an environment needs.
find_python() {
    local version="$1" candidate answer
    python_candidates "$version" | while read -r candidate; do
        answer="$(env -u PYTHONPATH -u PYTHONHOME "$candidate" -c "$PROBE" 2>/dev/null </dev/null)" || continue
        [ "${answer%% *}" = "$version" ] || continue
        # pip comes from ensurepip, which Debian keeps in a separate package; uv does not need it.
        if [ "$INSTALLER" = pip ]; then "$candidate" -c 'import ensurepip' 2>/dev/null </dev/null || continue; fi
        say "$candidate"
        break
    done
}

choose_python() {
    local version answer
    BASE=''
    if [ -n "${PYTHON:-}" ]; then
        answer="$("$PYTHON" -c "$PROBE" 2>/dev/null)" || fail "PYTHON=$PYTHON does not run: set it to a Python of $VERSIONS, or unset it"
        case " $VERSIONS " in
            *" ${answer%% *} "*) BASE="$PYTHON" ;;
            *) fail "PYTHON=$PYTHON is Python ${answer##* }, and the $STACK stack needs one of: $VERSIONS" ;;
        esac
        return
    fi
    for version in $VERSIONS; do
        BASE="$(find_python "$version")"
        if [ -n "$BASE" ]; then return; fi
    done
    if [ "$INSTALLER" = uv ]; then
        BASE="${VERSIONS%% *}" # uv accepts a version instead of a path, and fetches it
        say "setup: no Python of $VERSIONS found; uv fetches $BASE"
        return
    fi
    fail "no working Python of: $VERSIONS (with venv and ensurepip) on PATH or in ~/.pyenv/versions;" \
        "install python${VERSIONS%% *} and python${VERSIONS%% *}-venv (or: pyenv install ${VERSIONS%% *}), or install uv, which fetches one"
}

# --- one at a time --------------------------------------------------------------------------------------------------

take_lock() {
    if command -v flock >/dev/null 2>&1; then
        exec 9>>"$LOCK" || fail "cannot write $LOCK: make the folder writable"
        if ! flock -n 9; then
            say "setup: another set-up of $STACK is at work; waiting for it"
            flock 9
        fi
        return
    fi
    # Without flock, a folder is the lock; if its owner is gone, it is taken over.
    touch "$LOCK" || fail "cannot write $LOCK: make the folder writable"
    while ! mkdir "$LOCK.d" 2>/dev/null; do
        kill -0 "$(cat "$LOCK.d/pid" 2>/dev/null || echo 0)" 2>/dev/null || { rm -rf "$LOCK.d"; continue; }
        sleep 1
    done
    say $$ >"$LOCK.d/pid"
}

on_exit() {
    local status=$?
    if [ -n "$CHILD" ]; then
        kill -- "-$CHILD" 2>/dev/null || true
        wait "$CHILD" 2>/dev/null || true
    fi
    if [ "$(cat "$LOCK.d/pid" 2>/dev/null)" = $$ ]; then rm -rf "$LOCK.d"; fi
    exit "$status"
}

on_signal() {
    complain ''
    complain 'setup: interrupted; run it again to finish'
    exit 130
}

# --- steps ----------------------------------------------------------------------------------------------------------

# Run a command with its output in the log, and show progress; `step LABEL COMMAND...`.
step() {
    local label="$1" began=$SECONDS shown=0 status=0
    shift
    say "== $label: $*" >>"$LOG"
    # A separate process group, so that an interruption ends everything that it has started.
    set -m
    "$@" >>"$LOG" 2>&1 9>&- </dev/null &
    CHILD=$!
    set +m
    if [ ! -t 1 ]; then say "setup: $label ..."; fi
    while kill -0 "$CHILD" 2>/dev/null; do
        if [ -t 1 ]; then
            printf '\rsetup: %s ... %d s ' "$label" $((SECONDS - began))
        elif [ $((SECONDS - began - shown)) -ge 30 ]; then
            shown=$((SECONDS - began))
            say "setup:   still at it, $shown s"
        fi
        sleep 0.2
    done
    wait "$CHILD" || status=$?
    CHILD=''
    if [ -t 1 ]; then printf '\r'; fi
    if [ "$status" -ne 0 ]; then
        if [ -t 1 ]; then say ''; fi
        fail "$label failed: $(reason); whole log: $LOG"
    fi
    say "setup: $label: $((SECONDS - began)) s          "
}

# Print in one line why the last step failed and what to do, as far as its part of the log tells.
reason() {
    local text
    text="$(awk '/^== /{ part = "" } { part = part "\n" $0 } END { print part }' "$LOG")"
    case "$text" in
        *'No space left'* | *'os error 28'* | *'Errno 28'*)
            say "no space left on the disk; an environment takes about 2 GB: free some and run again" ;;
        *'THESE PACKAGES DO NOT MATCH THE HASHES'* | *'Hash mismatch'*)
            say "a package is not the one that was locked (its hash differs); try another package index" ;;
        *'Permission denied'*)
            say "permission denied; make $ROOT writable and run again" ;;
        *[Nn]'ame resolution'* | *'resolve host'* | *'dns error'* | *[Cc]'onnection refused'* | *'Failed to fetch'* | \
            *'Connection'*'error'* | *'ConnectTimeout'* | *'timed out'* | *'client error (Connect)'* | \
            *'No matching distribution'* | *'Network is unreachable'* | *'not found in the package registry'* | *'request failed'*)
            say "the package index cannot be reached or lacks a package; check the network or name a mirror" \
                "(PIP_INDEX_URL, UV_DEFAULT_INDEX) and run again" ;;
        *'libgomp.so'*)
            say "a system library is missing; install libgomp1 (Debian, Ubuntu) or libgomp (Fedora)" ;;
        *)
            say "$(say "$text" | grep -v '^ *$' | tail -n 1 | cut -c 1-200)" ;;
    esac
}

# --- installing -----------------------------------------------------------------------------------------------------

create() {
    rm -rf "$FOLDER"
    if [ "$INSTALLER" = uv ]; then
        uv venv --no-project --python "$BASE" "$FOLDER"
    else
        "$BASE" -m venv "$FOLDER"
    fi
}

install() { # the lock resolves everything: nothing is left to choose, and builds use locked packages
    if [ "$INSTALLER" = uv ]; then
        uv pip install --python "$FOLDER/bin/python" --no-deps --no-build-isolation "$@"
    else
        "$FOLDER/bin/python" -m pip install --no-deps --no-build-isolation --no-compile --no-input \
            --disable-pip-version-check --progress-bar off "$@"
    fi
}

# Install the build requirements of packages without wheels, from the lock itself.
install_builders() {
    awk '/^[A-Za-z0-9]/{ keep = /^(packaging|pip|setuptools|setuptools-scm|tomli|typing-extensions|wheel)==/ } keep' "$ROOT/$1" >"$FOLDER/builders.txt"
    install --require-hashes -r "$FOLDER/builders.txt"
}

# Print the packages whose builds for GPUs the environment has, or is to have, each with a space after it.
gpu_builds() {
    local name folder
    case "$STACK" in gpu | complete-gpu) printf 'paddlepaddle ' ;; esac
    for name in paddlepaddle onnxruntime; do
        for folder in "$FOLDER"/lib/python*/site-packages/"${name}_gpu"-*.dist-info; do
            if [ -d "$folder" ]; then printf '%s ' "$name"; fi
        done
    done
}

# Print a lock file without the packages whose builds for GPUs take their place: both builds have the same files.
locked() {
    awk -v others=" $(gpu_builds)" '/^[A-Za-z0-9]/{ split($1, part, "=="); keep = !index(others, " " part[1] " ") } keep' \
        "$ROOT/$1"
}

install_locked() {
    local lock
    for lock in "$@"; do
        locked "$lock" >"$FOLDER/locked.txt"
        install --require-hashes -r "$FOLDER/locked.txt"
    done
}

# Install Paddle for CUDA, with NVIDIA's libraries, from Paddle's own index, which has no hashes to lock.
install_cuda_paddle() {
    local index
    index="$(cuda_index)"
    if [ "$INSTALLER" = uv ]; then
        uv pip install --python "$FOLDER/bin/python" --default-index "$index" -r "$ROOT/requirements/modern-gpu.in"
    else
        "$FOLDER/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off --index-url "$index" \
            -r "$ROOT/requirements/modern-gpu.in"
    fi
}

# Unpack the wheel that contains OpenSSL 1.0 to a place where only paddle_ranker.paddle_serving.launchers.native_client looks for
# it. The manylinux2014 build contains it, so that platform is requested.
unpack_aside() {
    local target="$FOLDER/openssl10"
    rm -rf "$target"
    if [ "$INSTALLER" = uv ]; then
        uv pip install --python "$FOLDER/bin/python" --target "$target" --no-deps --only-binary :all: \
            --python-platform x86_64-manylinux2014 --require-hashes -r "$ROOT/$1"
    else
        "$FOLDER/bin/python" -m pip install --target "$target" --no-deps --only-binary :all: --no-compile --no-input \
            --platform manylinux2014_x86_64 --disable-pip-version-check --progress-bar off --require-hashes -r "$ROOT/$1"
    fi
}

install_project() { install --editable "$ROOT"; }

check_imports() {
    # Also compiles the modules that every command imports, so that the first command does not wait for it. The build for
    # GPUs needs a library of the driver, which a container only gets when it runs.
    "$FOLDER/bin/python" -W ignore -c 'try:
    import paddle, paddlenlp.transformers
except ImportError as error:
    if "libcuda.so" not in str(error): raise'
}

# Print the path of a browser for the tests, chromium or firefox, or nothing.
find_browser() {
    local name names="${PADDLE_RANKER_CHROMIUM:-} chromium chromium-browser google-chrome google-chrome-stable"
    if [ "$1" = firefox ]; then names="${PADDLE_RANKER_FIREFOX:-} firefox-esr firefox"; fi
    for name in $names; do
        if command -v "$name" 2>/dev/null; then return; fi
    done
}

# Run a command of the system's package manager, as root.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

install_system_packages() {
    as_root apt-get update && DEBIAN_FRONTEND=noninteractive as_root apt-get install -y --no-install-recommends "$@"
}

# Install Debian's Firefox; the set-up goes on where that cannot be had.
install_firefox() { install_system_packages firefox-esr || true; }

# Add the browsers' driver to the modern stack, and the browsers that are missing, with Chinese fonts.
set_up_browser() {
    FOLDER="$(environment_folder modern)"
    LOG="$FOLDER.browser.log" CHILD='' INSTALLER=pip LOCK="$FOLDER.lock"
    local lock stamp="$FOLDER/.browser-set-up-finished"
    lock="$(browser_lock_file)"
    bash "$ROOT/scripts/setup.sh" modern || exit
    trap on_exit EXIT
    trap on_signal INT TERM HUP
    take_lock
    : >"$LOG" || fail "cannot write $LOG: make the folder writable"
    if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then INSTALLER=uv; fi
    if ! cmp -s "$ROOT/$lock" "$stamp"; then
        step 'install Playwright and axe' install_locked "$lock"
        cat "$ROOT/$lock" >"$stamp"
    fi
    if [ -z "$(find_browser chromium)" ]; then
        command -v apt-get >/dev/null 2>&1 ||
            fail "no Chromium found: install it with Chinese fonts, or name it by PADDLE_RANKER_CHROMIUM"
        step 'install Chromium and Chinese fonts' install_system_packages chromium fonts-noto-cjk
    fi
    if [ -z "$(find_browser firefox)" ] && command -v apt-get >/dev/null 2>&1; then
        step 'install Firefox' install_firefox
    fi
    local firefox
    firefox="$(find_browser firefox)"
    say "setup: ready: $(find_browser chromium), ${firefox:-no Firefox: its tests are skipped; name it by PADDLE_RANKER_FIREFOX}"
}

main() {
    STACK="${1:-modern}"
    case "$STACK" in
        -h | --help) usage; exit 0 ;;
        browser) if [ $# = 1 ]; then set_up_browser; exit; fi ;;
        modern | gpu) VERSIONS='3.11 3.12 3.10' ;;
        complete | complete-gpu) VERSIONS='3.9' ;;
        *) complain "setup: error: unknown stack '$STACK': choose modern, gpu, complete, complete-gpu or browser"; exit 2 ;;
    esac
    if [ $# -gt 1 ]; then complain "setup: error: one stack at a time; found: $*"; exit 2; fi
    FOLDER="$(environment_folder "$STACK")"
    LOG="$FOLDER.log" LOCK="$FOLDER.lock"
    if is_ready "$STACK"; then say "setup: $FOLDER is ready, nothing to do"; exit 0; fi

    if [ -d "$FOLDER" ] && [ ! -e "$LOCK" ]; then
        fail "$FOLDER exists and is not from this script: move it away, or use it with PADDLE_RANKER_PYTHON=$FOLDER/bin/python"
    fi
    trap on_exit EXIT
    trap on_signal INT TERM HUP
    take_lock
    if is_ready "$STACK"; then say "setup: $FOLDER is ready"; exit 0; fi

    # Ignore the user's settings that would install packages elsewhere, or take them from elsewhere.
    unset PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV VIRTUAL_ENV CONDA_PREFIX
    export PIP_USER=0 PYTHONNOUSERSITE=1
    : >"$LOG" || fail "cannot write $LOG: make the folder writable"
    INSTALLER=pip
    if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then INSTALLER=uv; fi

    local stamp="$FOLDER/.set-up-finished" locks count aside
    # Unquoted on purpose below: the names have no spaces and are relative to ROOT.
    locks="$(lock_files "$STACK")"
    count="$(for lock in $locks; do locked "$lock"; done | grep -cE '^[A-Za-z0-9].*==')"
    if [ -f "$stamp" ] && [ "$(sed -n 1p "$stamp")" = "$(fingerprint "$STACK" | sed -n 1p)" ] &&
        "$FOLDER/bin/python" -m pip --version >/dev/null 2>&1; then
        say "setup: bringing $FOLDER up to date with $INSTALLER"
        rm -f "$stamp"
    else
        choose_python
        say "setup: $STACK stack in $FOLDER with $INSTALLER, from Python: $BASE"
        step 'make the environment' create
    fi
    # shellcheck disable=SC2086
    step 'install pip and the build tools' install_builders ${locks%%$'\n'*}
    # shellcheck disable=SC2086
    step "install $count packages, about 1 GB" install_locked $locks
    if [ "$STACK" = gpu ]; then
        step "install Paddle for CUDA, some GB, from $(cuda_index)" install_cuda_paddle
    fi
    aside="$(aside_lock_file "$STACK")"
    if [ -n "$aside" ] && [ "$(uname -m)" = x86_64 ]; then
        say "setup: Paddle Serving's native client needs OpenSSL 1.0, which has had no security fixes since 2019. It goes" \
            "into a folder aside; only that client loads it: for conformance tests and clients on this machine"
        step 'unpack OpenSSL 1.0 aside' unpack_aside "$aside"
    fi
    step 'install paddle-ranker itself' install_project
    step 'check that everything imports' check_imports
    fingerprint "$STACK" >"$stamp.part" && mv "$stamp.part" "$stamp"
    say "setup: ready after $SECONDS s: $FOLDER/bin/python"
}

main "$@"
