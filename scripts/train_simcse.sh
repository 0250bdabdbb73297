#!/usr/bin/env bash
# Train a tower on texts alone (SimCSE). Without --train_set_file: on the demo data, from the starter encoder, and show
# what it finds.
#
#   bash scripts/train_simcse.sh [options of recall/train_simcse.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

train_tower_demo train_simcse train_unsupervised.csv "$ROOT/checkpoint/simcse" "--batch_size 64 --eval_step 60" \
    5e-4 "$@"
