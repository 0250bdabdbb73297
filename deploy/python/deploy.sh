#!/usr/bin/env bash
# Score pairs with an exported ranker: the demo's test file with the demo's pairwise ranker, or as the arguments say.
#
#   bash deploy/python/deploy.sh [options of deploy/python/predict.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/demo.sh"

ensure_environment
demo=()
if ! wants_help "$@"; then
    has_any "$INPUT_NAMES" "$@" || { ensure_demo_data >&2; demo+=(--input_file "$DEMO_DATA/sort/test_pairwise.csv"); }
    if ! has_any "--model --model_dir" "$@"; then
        ensure_export pairwise '' run >&2
        demo+=(--model_dir "$ROOT/output")
    fi
fi
run_single "$ROOT/deploy/python/predict.py" ${demo[@]+"${demo[@]}"} "$@"
