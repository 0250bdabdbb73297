# shellcheck shell=bash
# What the scripts beside this one share. Sourced, never run; sourcing it starts nothing. Needs bash 3.2 or later.
#
#   ROOT                  the repository's folder
#   ensure_environment    make the stack's environment ready and set PYTHON to its interpreter
#   run_python FILE ...   run a training command, on several devices where there are several
#   run_single FILE ...   run any other command, in one process
#
# PADDLE_RANKER_STACK    modern (default) or complete
# PADDLE_RANKER_PYTHON   an interpreter of your own: nothing is set up, it is used as it is
# PADDLE_RANKER_NPROC    how many processes train (default: one a visible GPU, or 1)

unset CDPATH # with it, which a shell may have exported, cd prints where it went
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

# From here on whatever folder a script goes to.
case "${PADDLE_RANKER_PYTHON:-}" in
    /*) ;;
    */*) export PADDLE_RANKER_PYTHON="$PWD/$PADDLE_RANKER_PYTHON" ;;
esac

say() { printf '%s\n' "$*"; }
complain() { printf '%s\n' "$*" >&2; }

# Print the environment's folder of a stack; fail on a stack that does not exist.
environment_folder() {
    case "$1" in
        modern) say "$ROOT/.venv" ;;
        complete) say "$ROOT/.venv-complete" ;;
        *) complain "error: unknown stack '$1': choose modern or complete"; return 2 ;;
    esac
}

# Print the stack's lock files, one a line, relative to ROOT, in the order they are installed.
lock_files() {
    case "$1" in
        modern) say requirements/modern.txt ;;
        complete) say requirements/complete.txt; say requirements/complete-serving.txt ;;
    esac
}

# Print the lock file of what drives a browser, for the tests of the search page.
browser_lock_file() { say requirements/browser.txt; }

# Print the lock file of what lies in the stack's environment without being installed, where it has any.
aside_lock_file() { if [ "$1" = complete ]; then say requirements/complete-native.txt; fi; }

digest() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum
    elif command -v shasum >/dev/null 2>&1; then shasum -a 256
    else cksum
    fi
}

# Print what a finished set-up of the stack is stamped with: where it is, which Python, what was to be installed.
# Python itself is not started, so that a command on a ready environment begins at once.
fingerprint() {
    local folder
    folder="$(environment_folder "$1")" || return
    say "$ROOT"
    grep -E '^(home|version|version_info) *=' "$folder/pyvenv.cfg" 2>/dev/null || say "no Python"
    # The names of our packages count: an editable installation knows only those it was made with.
    (cd "$ROOT" && { { lock_files "$1"; aside_lock_file "$1"; } | while read -r lock; do cat "$lock"; done
        cat pyproject.toml setup.py
        echo */__init__.py; } | digest)
}

stamp_file() { say "$(environment_folder "$1")/.set-up-finished"; }

is_ready() {
    local folder
    folder="$(environment_folder "$1")" || return
    [ -x "$folder/bin/python" ] && [ -f "$folder/.set-up-finished" ] &&
        [ "$(fingerprint "$1")" = "$(cat "$folder/.set-up-finished")" ]
}

ensure_environment() {
    local stack="${PADDLE_RANKER_STACK:-modern}" folder
    if [ -n "${PADDLE_RANKER_PYTHON:-}" ]; then
        PYTHON="$PADDLE_RANKER_PYTHON"
        "$PYTHON" -c '' 2>/dev/null || {
            complain "error: PADDLE_RANKER_PYTHON=$PYTHON does not run: set it to a Python interpreter, or unset it"
            return 2
        }
        # An environment of one's own need not have the project installed.
        export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
        return
    fi
    folder="$(environment_folder "$stack")" || return
    # What sets up prints on standard error: a command's standard output stays its own.
    is_ready "$stack" || bash "$ROOT/scripts/setup.sh" "$stack" >&2 || return
    PYTHON="$folder/bin/python"
}

# Whether the arguments ask for the help of a command.
wants_help() { has_option --help "$@" || has_option -h "$@"; }

# Whether an option is among the arguments: `has_option --train_file "$@"`.
has_option() {
    local name="$1" argument
    shift
    for argument in "$@"; do
        case "$argument" in "$name" | "$name="*) return 0 ;; esac
    done
    return 1
}

# Print how many GPUs a command started here can use: none with the CPU build of Paddle, whatever the machine has.
usable_gpus() {
    local gpus
    gpus="$(visible_gpus)"
    if [ "$gpus" != 0 ] && ! "$PYTHON" -c 'import importlib.metadata as m; m.version("paddlepaddle-gpu")' 2>/dev/null; then
        complain "a GPU is here, but the CPU build of Paddle is installed (docs/setup.md says how to change that): using the CPU"
        gpus=0
    fi
    say "$gpus"
}

# Print how many GPUs a process started here would see.
visible_gpus() {
    if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
        case "$CUDA_VISIBLE_DEVICES" in
            '' | -1* | NoDevFiles) say 0 ;;
            *) say "$CUDA_VISIBLE_DEVICES" | awk -F, '{ print NF }' ;;
        esac
    elif command -v nvidia-smi >/dev/null 2>&1; then
        nvidia-smi -L 2>/dev/null | grep -c '^GPU ' || true
    else
        say 0
    fi
}

# Print the value of an option among the arguments after its name (`--device cpu` or `--device=cpu`), or nothing.
option_value() {
    local name="$1" value='' previous='' argument
    shift
    for argument in "$@"; do
        case "$argument" in "$name="*) value="${argument#*=}" ;; esac
        [ "$previous" = "$name" ] && value="$argument"
        previous="$argument"
    done
    say "$value"
}

run_single() { "$PYTHON" -u "$@"; }

run_python() {
    local processes="${PADDLE_RANKER_NPROC:-}" device
    case "$processes" in
        *[!0-9]* | 0) complain "error: PADDLE_RANKER_NPROC=$processes: give a number of processes, 1 or more"; return 2 ;;
    esac
    device="$(option_value --device "$@")"
    if [ -z "$processes" ]; then
        case "$device" in
            '' | auto | gpu) processes="$(usable_gpus)" ;;
            *) processes=1 ;;
        esac
    fi
    if [ "$processes" -gt 1 ]; then
        # Without --gpus or --devices: the launcher then takes every visible GPU, and where there is none, where both
        # options crash it, it joins CPU processes by gloo.
        # Where no GPU is to be seen the variable goes too: set to nothing, it crashes the launcher.
        if [ -z "${CUDA_VISIBLE_DEVICES-unset}" ]; then unset CUDA_VISIBLE_DEVICES; fi
        # The launcher takes --train, also of the command behind it, for the beginning of two options of its own.
        local argument arguments=()
        for argument in "$@"; do
            case "$argument" in
                --train) argument=--train_file ;;
                --train=*) argument="--train_file=${argument#*=}" ;;
            esac
            arguments+=("$argument")
        done
        # Paddle's import, in the launcher as in ours, would advise to install a compiler's cache. And the launcher looks
        # for a free port seconds before the training listens there: by itself where the system gives ports away.
        PORT_RANGE="${PORT_RANGE:-20000:32000}" \
            PYTHONWARNINGS="ignore:No ccache found,${PYTHONWARNINGS:-}" "$PYTHON" -u -m paddle.distributed.launch --nproc_per_node "$processes" "${arguments[@]}"
    else
        run_single "$@"
    fi
}
