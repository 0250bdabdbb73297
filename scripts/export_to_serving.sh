#!/usr/bin/env bash
# Write an exported pairwise ranker as the folders of Paddle Serving: the demo's into serving_server/ and serving_client/,
# or as the arguments say.
#
#   bash scripts/export_to_serving.sh [options of ernie_matching/export_to_serving.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

export_serving_demo pairwise '' "$@"
