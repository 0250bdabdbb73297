#!/usr/bin/env bash
# Print the cosine of each pair of texts: by the demo's tower on the demo's test file, or as the arguments say.
#
#   bash scripts/predict_recall.sh [options of recall/predict.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
demo=()
if ! wants_help "$@"; then
    has_any "--input --text_pair_file --test" "$@" || { ensure_demo_data >&2; demo+=(--text_pair_file "$DEMO_DATA/recall/test.csv"); }
    has_any "$MODEL_NAMES" "$@" || { ensure_demo_tower >&2; demo+=(--params_path "$DEMO_TOWER/best"); }
fi
run_single "$ROOT/recall/predict.py" ${demo[@]+"${demo[@]}"} "$@"
