#!/usr/bin/env bash
# Evaluate a pairwise ranker: the demo's on the demo's dev file, or as the arguments say.
#
#   bash scripts/evaluate.sh [options of ernie_matching/evaluate.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
read -ra device <<<"$(default_device "$@")"
demo=()
if ! wants_help "$@"; then
    has_option --test_file "$@" || { ensure_demo_data; demo+=(--test_file "$DEMO_DATA/sort/dev_pairwise.csv"); }
    has_option --init_from_ckpt "$@" || { ensure_demo_ranker; demo+=(--init_from_ckpt "$DEMO_PAIRWISE/best"); }
fi
run_single "$ROOT/ernie_matching/evaluate.py" ${demo[@]+"${demo[@]}"} ${device[@]+"${device[@]}"} "$@"
