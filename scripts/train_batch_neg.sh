#!/usr/bin/env bash
# Train a tower with in-batch negatives. Without --train_set_file: on the demo data, from the starter encoder, and show
# its search.
#
#   bash scripts/train_batch_neg.sh [options of recall/train_batch_neg.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

train_tower_demo train_batch_neg train.csv "$DEMO_TOWER" \
    "--batch_size 256 --epochs 4 --eval_step 48 --margin 0 --scale 20" 1e-3 "$@"
