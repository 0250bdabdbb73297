#!/usr/bin/env bash
# Export a pairwise ranker as a static model: the demo's ranker into output/, or as the arguments say.
#
#   bash scripts/export_model.sh [options of ernie_matching/export_model.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

export_demo pairwise output "$@"
