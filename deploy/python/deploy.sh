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
    has_option --input_file "$@" || { ensure_demo_data >&2; demo+=(--input_file "$DEMO_DATA/sort/test_pairwise.csv"); }
    if ! has_option --model_dir "$@"; then
        # What stands there may be the user's own export, of whichever kind: it is only made where it is missing.
        [ -e "$ROOT/output/ranker.json" ] || bash "$ROOT/scripts/export_model.sh" >&2
        demo+=(--model_dir "$ROOT/output")
    fi
fi
run_single "$ROOT/deploy/python/predict.py" ${demo[@]+"${demo[@]}"} "$@"
