#!/usr/bin/env bash
# Score pairs with a pairwise ranker: the demo's test file with the demo's ranker, or as the arguments say.
#
#   bash scripts/predict_pairwise.sh [options of ernie_matching/predict_pairwise.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
here="$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/common.sh
. "$here/common.sh"
# shellcheck source=scripts/demo.sh
. "$here/demo.sh"

predict_demo ernie_matching/predict_pairwise.py "$@"
