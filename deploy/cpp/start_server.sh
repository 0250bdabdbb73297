#!/usr/bin/env bash
# Serve a ranker or a tower as Paddle Serving's C++ server does, with the tutorial's options: the demo's pairwise ranker
# on port 8600, or as the arguments say.
#
#   bash deploy/cpp/start_server.sh [--model FOLDER] [--port 8600] [--thread 5] [...]
#
# On the complete stack Paddle Serving's own launcher starts the server: the executable that SERVING_BIN names, or this
# project's if SERVING_BIN is not set. On the modern stack this project's server is started with the same options.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/demo.sh"

ensure_environment
options=()
if ! wants_help "$@" && ! has_option --model "$@"; then
    # The folder may hold the user's own export. It is only made if it is missing, or is the other stack's demo.
    describe pairwise
    if [ ! -e "$ROOT/serving_server/ranker.json" ] || is_left_by_the_other_stack "$ROOT/serving_server" run; then
        bash "$ROOT/scripts/export_to_serving.sh" >&2
    else
        note_if_older "$ROOT/serving_server" "bash scripts/export_model.sh && bash scripts/export_to_serving.sh"
    fi
    cd "$ROOT" # the launcher uses the model's path unquoted in shell commands, and this path has no spaces
    options+=(--model serving_server)
fi
model="$(option_value --model ${options[@]+"${options[@]}"} "$@")"
if [ -n "$model" ] && [ ! -d "$model" ]; then
    complain "start_server.sh: error: --model $model: there is no such folder; bash $ROOT/scripts/export_to_serving.sh makes one"
    exit 2
fi
has_option --port "$@" || options+=(--port 8600)
has_option --thread "$@" || options+=(--thread 5)
has_option --ir_optim "$@" || options+=(--ir_optim True)
if "$PYTHON" -c 'import importlib.util as u; raise SystemExit(u.find_spec("paddle_serving_server") is None)'; then
    export PADDLE_RANKER_PYTHON="$PYTHON"
    if [ -n "$model" ] && [ ! -f "$model/serving_server_conf.prototxt" ]; then
        complain "start_server.sh: error: --model $model: is not made for Paddle Serving; bash" \
            "$ROOT/scripts/export_to_serving.sh --dirname $model makes a folder of it that is (its --server_path)"
        exit 2
    fi
    # The path is quoted, because the launcher uses it unquoted in a shell command.
    export SERVING_BIN="${SERVING_BIN:-$(printf '%q' "$ROOT/deploy/cpp/serving")}"
    # The package imports the module that runpy then runs; hide the warning about that.
    exec "$PYTHON" -u -W ignore::RuntimeWarning:runpy -m paddle_serving_server.serve ${options[@]+"${options[@]}"} "$@"
fi
exec "$PYTHON" -u -m paddle_ranker.paddle_serving.launchers.brpc_server ${options[@]+"${options[@]}"} "$@"
