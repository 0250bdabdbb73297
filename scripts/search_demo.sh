#!/usr/bin/env bash
# Search the demo's 9,700 titles in a browser, by words and vectors, with the ranker's order. Ctrl-C ends it.
#
#   bash scripts/search_demo.sh [options of paddle-ranker search-serve]
#
# Uses the demo's ranker and tower if they are trained; otherwise trains both for an epoch, in checkpoint/search, where
# the index is as well, and a copy of the ranker that is calibrated for it. A second run reuses all of it, and serves at
# once.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

FOLDER="$ROOT/checkpoint/search"

# Run a command that makes a folder, which gets its name once the command has succeeded: `make FOLDER COMMAND...`; the
# temporary name of the folder is the command's last argument.
make() {
    local folder="$1"
    shift
    rm -rf "$folder" "$folder.part"
    "$@" "$folder.part"
    mv "$folder.part" "$folder"
}

# Train for an epoch: `train WHAT FOLDER FILE OPTIONS...`
train() {
    local what="$1" folder="$2" file="$3"
    shift 3
    say "search demo: training a $what for an epoch"
    make "$folder" run_python "$ROOT/$file" --model_name_or_path "$STARTER" --max_seq_length 64 --epochs 1 \
        --learning_rate 5e-4 --new_parts_factor 1 --cpu_threads "$THREADS" "$@" --save_dir
}

# Set RANKER to the demo's ranker, else to this script's ranker; succeed if it exists.
has_ranker() {
    RANKER="$ROOT/checkpoint/pairwise/best"
    [ -e "$RANKER" ] && return
    RANKER="$FOLDER/ranker/last"
    [ -e "$RANKER" ]
}

ensure_ranker() {
    has_ranker && return
    train ranker "$FOLDER/ranker" ernie_matching/train_pairwise.py --train_file "$DEMO_DATA/sort/train_pairwise.csv" \
        --test_file "$DEMO_DATA/sort/dev_pairwise.csv" --loss ranknet_bce --weight_decay 0.01 --warmup_proportion 0.06 \
        --lexical_features true
}

# Set TOWER to the demo's tower, or train one.
ensure_tower() {
    TOWER="$DEMO_TOWER/best"
    [ -e "$TOWER" ] && return
    TOWER="$FOLDER/tower/last"
    [ -e "$TOWER" ] && return
    train tower "$FOLDER/tower" recall/train_batch_neg.py --train_set_file "$DEMO_DATA/recall/train.csv" \
        --batch_size 64 --margin 0 --scale 20 --pooling mean
}

# Build the index, unless it exists and belongs to the current tower.
ensure_index() {
    ensure_tower
    [ -e "$FOLDER/titles" ] && [ ! "$TOWER/" -nt "$FOLDER/titles/index.json" ] && return
    make "$FOLDER/titles" run_single -m paddle_ranker index build --corpus "$DEMO_DATA/recall/corpus.csv" \
        --tower "$TOWER" --cpu_threads "$THREADS" --output
}

# Train the ranker while the index is made: such small models hardly train faster with a second core.
ensure_ranker_and_index() {
    local cores log="$FOLDER/index.log" index
    cores="$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
    if [ "$cores" -gt 1 ] && ! has_ranker; then
        mkdir -p "$FOLDER"
        THREADS=$((cores / 2))
        set -m # a separate process group, which ends with this script
        ensure_index >"$log" 2>&1 &
        index=$!
        set +m
        # shellcheck disable=SC2064
        trap "kill -- -$index 2>/dev/null || true" EXIT
        ensure_ranker
        wait "$index" || { cat "$log" >&2; return 1; }
        trap - EXIT
        cat "$log"
        rm "$log"
    fi
    ensure_ranker
    ensure_index
}

# Set RANKER to a copy that is calibrated for the index, on queries that neither trained nor chose it; make it unless it
# is current. If it cannot be made, as for a ranker of a few steps, the ranker stays as it is.
ensure_calibrated() {
    local folder="$FOLDER/calibrated"
    if [ ! -e "$folder" ] || [ "$RANKER/" -nt "$folder" ] || [ "$FOLDER/titles/index.json" -nt "$folder" ]; then
        say "search demo: calibrating the ranker"
        rm -rf "$folder" "$folder.part"
        # The file labels some of a query's answers, so a title without a label may be one.
        run_single -m paddle_ranker calibrate "$RANKER" "$DEMO_DATA/sort/test_graded.csv" --index "$FOLDER/titles" \
            --unjudged left_out --cpu_threads "$THREADS" --output "$folder.part" || return 0
        mv "$folder.part" "$folder"
    fi
    RANKER="$folder"
}

THREADS=0 # threads of each training; 0: one per core
ensure_environment
demo=()
if ! wants_help "$@"; then
    ensure_demo_data
    ensure_starter
    own_ranker=no own_index=no
    has_any "--model --ranker" "$@" || own_ranker=yes
    has_option --index "$@" || own_index=yes
    if [ "$own_ranker" = yes ]; then note_if_unfinished "$ROOT/checkpoint/pairwise" train_pairwise; fi
    if [ "$own_index" = yes ]; then note_if_unfinished "$DEMO_TOWER" train_batch_neg; fi
    case "$own_ranker $own_index" in
        'yes yes')
            ensure_ranker_and_index
            ensure_calibrated
            ;;
        'yes no') ensure_ranker ;;
        'no yes') ensure_index ;;
    esac
    if [ "$own_ranker" = yes ]; then demo+=(--ranker "$RANKER"); fi
    if [ "$own_index" = yes ]; then
        # Queries of the demo's dev file, each at the head of its rows.
        while read -r query; do queries+=("$query"); done < <(cut -f 1 "$DEMO_DATA/recall/dev.csv" | uniq | sed -n '1p;4p;13p;15p')
        demo+=(--index "$FOLDER/titles" --examples "${queries[@]}")
    fi
fi
exec "$PYTHON" -u -m paddle_ranker search-serve ${demo[@]+"${demo[@]}"} "$@"
