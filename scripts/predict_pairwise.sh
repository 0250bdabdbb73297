#!/usr/bin/env bash
# Score pairs with a pairwise ranker: the demo's test file with the demo's ranker, or as the arguments say.
#
#   bash scripts/predict_pairwise.sh [options of ernie_matching/predict_pairwise.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

score_demo pairwise predict_pairwise.py --input_file sort/test_pairwise.csv --params_path "$@"
