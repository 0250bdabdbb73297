#!/usr/bin/env bash
# Train on pairs of posts (texts and images). Without --train_file: on demo posts, from the starter encoder and a small
# vision encoder with random parameters; then measure it.
#
#   bash scripts/train_entailment.sh [options of multimodal_entailment/train.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
if has_any "$TRAIN_NAMES" "$@" || wants_help "$@"; then
    run_python "$ROOT/multimodal_entailment/train.py" "$@"
    exit
fi

posts="$DEMO_DATA/entailment"
folder="$ROOT/checkpoint/entailment"
run_single "$ROOT/multimodal_entailment/make_demo_posts.py" --output_dir "$posts" --size 8000 --if_missing true
demo=()
if ! has_any "$START_NAMES" "$@"; then
    demo+=(--model_name_or_path "$("$PYTHON" -m paddle_ranker starter --corpus "$posts/train.csv" --vocab_size 1000)")
fi
has_any "--test --validation_file" "$@" || demo+=(--validation_file "$posts/validation.csv")
has_any "$OUTPUT_NAMES" "$@" || demo+=(--save_dir "$folder")
modalities="$(option_value --modalities --modalities both "$@")"
fusion=() explain=' --explain'
if [ "$modalities" = both ]; then fusion=(--fusion dot_attention); fi # only with both kinds of input
if [ "$modalities" = text ]; then explain=''; fi # which needs images
# The arguments come last: they win over the demo's.
run_python "$ROOT/multimodal_entailment/train.py" --train_file "$posts/train.csv" \
    ${demo[@]+"${demo[@]}"} --max_seq_length 64 \
    --image_size 64 --epochs 8 --batch_size 16 --learning_rate 2.5e-4 --new_parts_factor 2 --eval_step 500 \
    --save_step 1000 --keep 1 --logging_steps 100 ${fusion[@]+"${fusion[@]}"} "$@"

best="$(value_of "$OUTPUT_NAMES" "$folder" "$@")/best"
used="$(option_value --device --device auto "$@")"
say ""
say "On posts whose scenes and phrasings were in no training pair (what is possible: $posts/truth.json):"
run_single "$ROOT/multimodal_entailment/evaluate.py" --model "$best" --test_file "$posts/test.csv" --device "$used"
say ""
say "Next:"
say "  python multimodal_entailment/predict.py --model '$best' --input_file '$posts/test.csv'$explain --device $used"
say "  python multimodal_entailment/export_model.py --model '$best' --output_dir output_entailment"
say "  bash scripts/train_entailment.sh --train_file YOUR_FILE --model_name_or_path YOUR_ENCODER --save_dir YOUR_FOLDER"
