#!/usr/bin/env bash
# Search texts by their vectors in Milvus: the demo's titles in a file of Milvus Lite, checkpoint/milvus.db, or in the
# server that MILVUS_HOST and MILVUS_PORT name; or as the arguments say.
#
#   bash scripts/search_milvus.sh [options of recall/milvus_ann_search.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
if has_any "--corpus --data_path --vectors --embedding_path" "$@" || wants_help "$@"; then
    run_single "$ROOT/recall/milvus_ann_search.py" "$@"
    exit
fi

ensure_demo_data
ensure_demo_tower
TEXTS="$ROOT/checkpoint/milvus_data.csv" VECTORS="$ROOT/checkpoint/milvus_embedding.npy"
head -n 5000 "$DEMO_DATA/milvus/milvus_data.csv" >"$TEXTS" # Milvus Lite is for small collections
run_single "$ROOT/recall/feature_extract.py" --model_dir "$DEMO_TOWER/best" --corpus_file "$TEXTS" --output "$VECTORS"
given=(--data_path "$TEXTS" --embedding_path "$VECTORS")
[ -n "${MILVUS_HOST:-}" ] || given+=(--uri "$ROOT/checkpoint/milvus.db")
run_single "$ROOT/recall/milvus_ann_search.py" "${given[@]}" --index 18 --insert --search "$@"
