#!/usr/bin/env bash
# Evaluate a pairwise ranker: the demo's on the demo's dev file, or as the arguments say.
#
#   bash scripts/evaluate.sh [options of ernie_matching/evaluate.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

score_demo pairwise evaluate.py --test_file sort/dev_pairwise.csv --init_from_ckpt "$@"
