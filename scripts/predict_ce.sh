#!/usr/bin/env bash
# Rank each query's titles with a cross-encoder: the demo's test file with the demo's ranker, or as the arguments say.
#
#   bash scripts/predict_ce.sh [options of cross_encoder/predict.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

score_demo cross_encoder predict.py "--test_set --input_file" literature_search_rank/test.csv --params_path "$@"
