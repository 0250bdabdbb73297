#!/usr/bin/env bash
# Train the cross-encoder. Without --train_set: on the demo data, from the starter encoder, and rank with the result.
#
#   bash scripts/train_ce.sh [options of cross_encoder/train_ce.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

demo=literature_search_rank
train_demo cross_encoder --train_set "$demo/train.csv" "$demo/dev_pairwise.csv" "$demo/test.csv" \
    "--epochs 2 --batch_size 64" "$@"
