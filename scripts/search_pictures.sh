#!/usr/bin/env bash
# Search 1,563 pictures in a browser, by names in English and Chinese and by pictures. Ctrl-C ends it.
#
#   bash scripts/search_pictures.sh [options of paddle-ranker search-serve]
#
# Fetches emoji in three drawing styles by npm (160 MB), trains a tower on two of the styles in a few minutes, measures it
# on the third, and makes an index of the third in checkpoint/pictures. A second run reuses all of it.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DATA="$ROOT/datasets/emoji"
FOLDER="$ROOT/checkpoint/pictures"
TOWER="$FOLDER/tower-1000/last"

ensure_environment
served=()
if ! wants_help "$@" && ! has_option --index "$@"; then
    [ -e "$DATA" ] || run_single "$ROOT/datasets/make_emoji.py" --output "$DATA"
    if [ ! -e "$TOWER" ]; then
        say "search of pictures: training a tower of pictures and names"
        (cd "$ROOT" && run_single -m benchmarks.pictures --data "$DATA" --output "$FOLDER" --seeds 1000 --alike_epochs 20)
    fi
    if [ ! -e "$FOLDER/emoji" ] || [ "$TOWER/" -nt "$FOLDER/emoji/index.json" ]; then
        rm -rf "$FOLDER/emoji" "$FOLDER/emoji.part"
        run_single -m paddle_ranker index build --corpus "$DATA/documents.jsonl" --field picture:picture \
            --field_tower "picture=$TOWER" --output "$FOLDER/emoji.part"
        mv "$FOLDER/emoji.part" "$FOLDER/emoji"
    fi
    served=(--index "$FOLDER/emoji" --examples "red apple" 红苹果 dog 雨伞)
fi
exec "$PYTHON" -u -m paddle_ranker search-serve ${served[@]+"${served[@]}"} "$@"
