#!/usr/bin/env bash
# Export a cross-encoder as a static model: the demo's ranker into output_ce/, or as the arguments say.
#
#   bash scripts/export_model_ce.sh [options of cross_encoder/export_model.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

export_demo cross_encoder output_ce "$@"
