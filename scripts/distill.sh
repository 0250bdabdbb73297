#!/usr/bin/env bash
# Write a large ranker's scores into training data. Without arguments, run a demo: a small ranker (1 layer, 64 wide) with
# labels for 600 triples is trained on them alone, and then on the demo ranker's scores of all 6,000, in as many
# steps.
#
#   bash scripts/distill.sh [TEACHER DATA_FILE OUTPUT_FILE and options of python -m paddle_ranker distill]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
if [ $# -gt 0 ]; then
    run_single -m paddle_ranker distill "$@"
    exit
fi

describe pairwise
ensure_demo_data
ensure_demo_ranker
teacher="$DEMO_RANKER/best"
dev="$DEMO_DATA/sort/dev_pairwise.csv"
train="$DEMO_DATA/sort/train_pairwise.csv"
scored="$ROOT/checkpoint/distilled_triples.tsv"
ensure_starter --num_hidden_layers 1 --hidden_size 64 --num_attention_heads 2

# Train a student: NAME TRAIN_FILE LOSS EPOCHS
train_student() {
    say ""
    say "student, $1:"
    run_single "$ROOT/$COMMANDS/$TRAIN.py" --train_file "$2" --test_file "$dev" --save_dir "$ROOT/checkpoint/student_$1" \
        --model_name_or_path "$STARTER" --loss "$3" --epochs "$4" --eval_step 100 --logging_steps 100 --max_seq_length 64 \
        --learning_rate 1e-3 --new_parts_factor 1 --weight_decay 0.01 --warmup_proportion 0.06
}

head -n 601 "$train" >"$ROOT/checkpoint/few_triples.tsv" # with the header
train_student alone "$ROOT/checkpoint/few_triples.tsv" ranknet_bce 20
say ""
run_single -m paddle_ranker distill "$teacher" "$train" "$scored"
train_student taught "$scored" margin_mse 2

say ""
run_single -m paddle_ranker compare "alone=$ROOT/checkpoint/student_alone/best" \
    "taught=$ROOT/checkpoint/student_taught/best" "teacher=$teacher" --test_file "$dev" --baselines false
say ""
say "Next: bash scripts/distill.sh YOUR_RANKER YOUR_TRIPLES_OR_PAIRS OUTPUT_FILE   # then train on OUTPUT_FILE with --loss margin_mse"
