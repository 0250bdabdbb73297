#!/usr/bin/env bash
# Train the pairwise ranker. Without --train_file: on the demo data, from the starter encoder, and rank with the result.
#
#   bash scripts/train_pairwise.sh [options of ernie_matching/train_pairwise.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

train_demo pairwise --train_file sort/train_pairwise.csv sort/dev_pairwise.csv sort/test_pairwise.csv \
    "--loss ranknet_bce --epochs 2 --eval_step 100" "$@"
