#!/usr/bin/env bash
# Export a tower as a static model, and for Paddle Serving: the demo's into output_recall/, serving_server_recall/ and
# serving_client_recall/, or as the arguments say.
#
#   bash scripts/export_recall.sh [options of recall/export_model.py]
#
# recall/export_to_serving.py names the folders for Paddle Serving, and the clients' name of the vector.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

export_tower_demo "$@"
