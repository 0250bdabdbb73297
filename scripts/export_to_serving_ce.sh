#!/usr/bin/env bash
# Write an exported cross-encoder as the folders of Paddle Serving: the demo's into serving_server_ce/ and
# serving_client_ce/, or as the arguments say.
#
#   bash scripts/export_to_serving_ce.sh [options of cross_encoder/export_to_serving.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

export_serving_demo cross_encoder '_ce' "$@"
