#!/usr/bin/env bash
# Train the pairwise ranker. Without --train_file: on the demo data, from the starter encoder, and rank with the result.
#
#   bash scripts/train_pairwise.sh [options of ernie_matching/train_pairwise.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
read -ra device <<<"$(default_device "$@")"
if has_option --train_file "$@" || wants_help "$@"; then
    run_python "$ROOT/ernie_matching/train_pairwise.py" ${device[@]+"${device[@]}"} "$@"
    exit
fi

ensure_demo_data
start=()
if ! has_option --model_name_or_path "$@" && ! has_option --init_from_ckpt "$@"; then
    ensure_starter
    start=(--model_name_or_path "$STARTER" --learning_rate 5e-4 --new_parts_factor 1 --weight_decay 0.01
        --warmup_proportion 0.06)
fi
# The arguments come last: they win over the demo's.
run_python "$ROOT/ernie_matching/train_pairwise.py" \
    --train_file "$DEMO_DATA/sort/train_pairwise.csv" --test_file "$DEMO_DATA/sort/dev_pairwise.csv" \
    --save_dir "$DEMO_PAIRWISE" --max_seq_length 64 --loss ranknet_bce --epochs 2 --eval_step 100 \
    ${start[@]+"${start[@]}"} ${device[@]+"${device[@]}"} "$@"

trained="$(option_value --save_dir --save_dir "$DEMO_PAIRWISE" "$@")/best"
say ""
say "The titles of three queries, as this ranker orders them:"
run_single -m paddle_ranker rank --params_path "$trained" --input_file "$DEMO_DATA/sort/test_pairwise.csv" \
    --max_queries 3 --top_k 5 --device "$(option_value --device --device gpu ${device[@]+"${device[@]}"} "$@")"
say ""
say "Next:"
say "  bash scripts/evaluate.sh --init_from_ckpt '$trained'          # all figures on the dev file"
say "  bash scripts/predict_pairwise.sh --params_path '$trained'     # a probability for every pair of the test file"
say "  bash scripts/train_pairwise.sh --train_file YOUR_TRIPLES --test_file YOUR_PAIRS --model_name_or_path YOUR_MODEL"
