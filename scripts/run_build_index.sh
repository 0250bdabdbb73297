#!/usr/bin/env bash
# Build an index of words and vectors: of the demo's corpus by the demo's tower, in checkpoint/index, or as the
# arguments say; then check it.
#
#   bash scripts/run_build_index.sh [options of paddle-ranker index build]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
if wants_help "$@"; then
    run_single -m paddle_ranker index --help
    exit
fi

index="$(value_of "--output --index" "$ROOT/checkpoint/index" "$@")"
demo=()
has_any "--output --index" "$@" || demo+=(--output "$index")
if ! has_option --corpus "$@"; then
    ensure_demo_data
    demo+=(--corpus "$DEMO_DATA/recall/corpus.csv")
    # An existing index belongs to its tower; a demo tower that was trained later needs a new index.
    has_any "--output --index" "$@" || rm -rf "$index"
    if ! has_option --tower "$@"; then
        ensure_demo_tower
        demo+=(--tower "$DEMO_TOWER/best")
    fi
fi
run_single -m paddle_ranker index build ${demo[@]+"${demo[@]}"} "$@"
run_single -m paddle_ranker index check "$index"
