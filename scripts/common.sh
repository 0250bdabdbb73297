# shellcheck shell=bash
# Functions shared by the scripts. Sourced, never run; sourcing it starts nothing. Needs bash 3.2 or later.
#
#   ROOT                  the repository's folder
#   ensure_environment    make the stack's environment ready and set PYTHON to its interpreter
#   run_python FILE ...   run a training command, on all devices if there are several
#   run_single FILE ...   run any other command, in one process
#
# PADDLE_RANKER_STACK    modern (default), gpu, complete or complete-gpu
# PADDLE_RANKER_PYTHON   your own interpreter, which is used directly: nothing is set up
# PADDLE_RANKER_NPROC    number of training processes (default: one per visible GPU, or 1)

unset CDPATH # if a shell has exported it, cd prints the new folder
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

# Make it absolute, since scripts change the folder.
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
        gpu | complete | complete-gpu) say "$ROOT/.venv-$1" ;;
        *) complain "error: unknown stack '$1': choose modern, gpu, complete or complete-gpu"; return 2 ;;
    esac
}

# Print the address of Paddle's own package index for the CUDA version that the stack gpu is for.
cuda_index() { say "https://www.paddlepaddle.org.cn/packages/stable/${PADDLE_RANKER_CUDA:-cu126}/"; }

# Print the stack's lock files, one per line, relative to ROOT, in the order of installation.
lock_files() {
    case "$1" in
        modern | gpu) say requirements/modern.txt ;;
        complete) say requirements/complete.txt; say requirements/complete-serving.txt ;;
        complete-gpu) lock_files complete; say requirements/complete-gpu.txt ;;
    esac
}

# Print the lock file of the browser driver, for the tests of the search page.
browser_lock_file() { say requirements/browser.txt; }

# Print the lock file of the packages that the stack's environment holds without installing them, if any.
aside_lock_file() { case "$1" in complete | complete-gpu) say requirements/complete-native.txt ;; esac; }

digest() {
    if command -v sha256sum >/dev/null 2>&1; then sha256sum
    elif command -v shasum >/dev/null 2>&1; then shasum -a 256
    else cksum
    fi
}

# Print the stamp of a finished set-up of the stack: what a new one of it is made for (folder, package index of CUDA), its
# Python, and the packages to install.
# Python itself is not started, so that a command on a ready environment begins at once.
fingerprint() {
    local folder
    folder="$(environment_folder "$1")" || return
    say "$ROOT$(if [ "$1" = gpu ]; then say " $(cuda_index)"; fi)"
    grep -E '^(home|version|version_info) *=' "$folder/pyvenv.cfg" 2>/dev/null || say "no Python"
    # The project's packages are part of the stamp: an editable installation only knows those present when it was made.
    (cd "$ROOT" && { { lock_files "$1"; aside_lock_file "$1"; } | while read -r lock; do cat "$lock"; done
        cat pyproject.toml setup.py
        if [ "$1" = gpu ]; then cat requirements/modern-gpu.in; fi
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
        # The user's own environment need not have the project installed.
        export PYTHONPATH="$ROOT${PYTHONPATH:+:$PYTHONPATH}"
        return
    fi
    folder="$(environment_folder "$stack")" || return
    # The set-up prints on standard error, so that standard output only has the command's output.
    is_ready "$stack" || bash "$ROOT/scripts/setup.sh" "$stack" >&2 || return
    PYTHON="$folder/bin/python"
}

# Succeed if the arguments ask for the help of a command.
wants_help() { has_option --help "$@" || has_option -h "$@"; }

# Succeed if an option is among the arguments: `has_option --train_file "$@"`.
has_option() {
    local name="$1" argument
    shift
    for argument in "$@"; do
        case "$argument" in "$name" | "$name="*) return 0 ;; esac
    done
    return 1
}

# Print the number of GPUs that a command started here can use, as Paddle counts them: 0 with its CPU build.
usable_gpus() {
    local gpus found code='import paddle
print(paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else "cpu")'
    gpus="$(visible_gpus)"
    if [ "$gpus" != 0 ]; then
        found="$("$PYTHON" -W ignore -c "$code" 2>/dev/null | tail -n 1)"
        case "$found" in
            cpu)
                complain "a GPU is here, but Paddle's CPU build: using the CPU (PADDLE_RANKER_STACK=gpu sets up the build for GPUs)"
                found=0 ;;
            '' | 0 | *[!0-9]*)
                complain "GPUs here: $gpus, but Paddle finds none: using the CPU (is the driver too old for this build? '$PYTHON' -m paddle_ranker doctor)"
                found=0 ;;
            "$gpus") ;;
            *) complain "GPUs here: $gpus, but Paddle finds $found: using $found" ;;
        esac
        gpus="$found"
    fi
    say "$gpus"
}

# Print the number of GPUs that a process started here would see.
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

# Print the value of an option (first argument) in the other arguments (`--device cpu`, `--device=cpu`), or nothing.
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
    local processes="${PADDLE_RANKER_NPROC:-}" device gpus=0
    case "$processes" in
        *[!0-9]* | 0) complain "error: PADDLE_RANKER_NPROC=$processes: give a number of processes, 1 or more"; return 2 ;;
    esac
    device="$(option_value --device "$@")"
    case "$device" in '' | auto | gpu) gpus="$(usable_gpus)" ;; esac
    if [ "$gpus" -gt 0 ] && [ "${processes:-1}" -gt "$gpus" ]; then # the launcher would end in an IndexError
        complain "error: PADDLE_RANKER_NPROC=$processes: there are $gpus GPUs, one for each process: give $gpus or less"
        return 2
    fi
    : "${processes:=$gpus}"
    if [ "$processes" -gt 1 ]; then
        # --gpus and --devices are left out: the launcher then uses every visible GPU, and without a GPU both would crash
        # it. Whatever the training's --device, it gives each process one of the machine's GPUs, and crashes if they are
        # too few. So without GPUs it gets an entry for each process, which names none.
        case "$gpus,$device" in
            0, | 0,auto | 0,gpu | 0,cpu)
                local -x CUDA_VISIBLE_DEVICES=-1
                local process
                for ((process = 1; process < processes; process++)); do CUDA_VISIBLE_DEVICES+=,-1; done ;;
        esac
        # The launcher takes --train, even in the command's arguments, for the beginning of two of its own options.
        local argument arguments=()
        for argument in "$@"; do
            case "$argument" in
                --train) argument=--train_file ;;
                --train=*) argument="--train_file=${argument#*=}" ;;
            esac
            arguments+=("$argument")
        done
        # Importing Paddle would advise to install a compiler cache. PORT_RANGE: the launcher looks for a free port
        # seconds before the training listens there, by default among the ports that the system hands out.
        PORT_RANGE="${PORT_RANGE:-20000:32000}" \
            PYTHONWARNINGS="ignore:No ccache found,${PYTHONWARNINGS:-}" "$PYTHON" -u -m paddle.distributed.launch --nproc_per_node "$processes" "${arguments[@]}"
    else
        run_single "$@"
    fi
}
