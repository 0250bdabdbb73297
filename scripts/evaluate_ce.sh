#!/usr/bin/env bash
# Evaluate a cross-encoder: the demo's on the demo's dev file, or as the arguments say.
#
#   bash scripts/evaluate_ce.sh [options of cross_encoder/evaluate.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

score_demo cross_encoder evaluate.py --test_file literature_search_rank/dev_pairwise.csv --init_from_ckpt "$@"
