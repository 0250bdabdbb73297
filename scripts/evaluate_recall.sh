#!/usr/bin/env bash
# Evaluate the results of a search, with the arguments. Without --recall_result_file: train the demo's tower if there is
# none, search the demo's corpus by its vectors, build an index of words and vectors, measure both beside BM25, and
# search for a query.
#
#   bash scripts/evaluate_recall.sh [options of recall/evaluate.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
if has_any "--recall_result_file --input" "$@" || wants_help "$@"; then
    run_single "$ROOT/recall/evaluate.py" "$@"
    exit
fi

ensure_demo_data
ensure_demo_tower
DATA="$DEMO_DATA/recall" INDEX="$ROOT/checkpoint/index" RESULTS="$ROOT/checkpoint/recall_result"
say ""
say "By vectors alone, as the published scripts search and print it:"
run_single "$ROOT/recall/recall.py" --params_path "$DEMO_TOWER/best" --corpus_file "$DATA/corpus.csv" \
    --similar_text_pair "$DATA/dev.csv" --recall_result_dir "$RESULTS" --recall_result_file dev.tsv --recall_num 50
run_single "$ROOT/recall/evaluate.py" --similar_text_pair "$DATA/dev.csv" --recall_result_file "$RESULTS/dev.tsv" \
    --recall_num 50 "$@"

say ""
say "By words and vectors:"
bash "$ROOT/scripts/run_build_index.sh"
WEIGHTS="$ROOT/checkpoint/weights.json"
run_single -m paddle_ranker evaluate-recall --index "$INDEX" --test "$DATA/dev.csv" --plot "$RESULTS/recall.png" \
    --learn_weights "$WEIGHTS"
say "the picture of recall against k: $RESULTS/recall.png"
say ""
run_single -m paddle_ranker search "$(head -n 1 "$DATA/test.csv" | cut -f 1)" --index "$INDEX" --fusion "$WEIGHTS" \
    --top_k 5 --explain
say ""
say "Next:"
say "  paddle-ranker search --index '$INDEX' --fusion '$WEIGHTS' --ranker checkpoint/pairwise/best \"YOUR QUERY\""
say "  paddle-ranker index build --corpus YOUR_TEXTS --tower YOUR_TOWER --output YOUR_INDEX"
