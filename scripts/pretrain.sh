#!/usr/bin/env bash
# Make an encoder from raw text: a vocabulary, a masked language model, and examples of filled masks. Without
# --train_files: on the demo corpus, in minutes.
#
#   bash scripts/pretrain.sh [options of pretraining/train_mlm.py]
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
# shellcheck source=scripts/demo.sh
. "$(dirname "${BASH_SOURCE[0]}")/demo.sh"

ensure_environment
if has_any "$TRAIN_NAMES" "$@" || wants_help "$@"; then
    run_python "$ROOT/pretraining/train_mlm.py" "$@"
    exit
fi

ensure_demo_data
corpus="$DEMO_DATA/recall/corpus.csv"
folder="$ROOT/checkpoint/pretraining"
tokenizer="$folder/tokenizer"
trained="$(value_of "$OUTPUT_NAMES" "$folder/mlm" "$@")"
mkdir -p "$folder"
own=(--keep 1)
if ! has_any "$START_NAMES --init_from" "$@"; then # an existing encoder has its own tokenizer and shape
    if ! has_option --tokenizer "$@"; then
        if [ ! -e "$tokenizer/vocab.txt" ]; then
            run_single "$ROOT/pretraining/train_tokenizer.py" --files "$corpus" --vocab_size 4000 --output_dir "$tokenizer"
        fi
        own+=(--tokenizer "$tokenizer")
    fi
    # Small enough for a minute or two on two cores; use nano or larger for your own corpus. A narrow encoder learns
    # sooner with larger initial weights than BERT's 0.02.
    cat >"$folder/shape.json" <<'SHAPE'
{"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 512,
 "max_position_embeddings": 512, "initializer_range": 0.06}
SHAPE
    own+=(--config "$folder/shape.json")
fi
has_any "$OUTPUT_NAMES" "$@" || own+=(--save_dir "$trained")
# The arguments come last, so that they override the demo's.
run_python "$ROOT/pretraining/train_mlm.py" --train_files "$corpus" \
    --dropout 0 --max_seq_length 64 --batch_size 4 \
    --gradient_accumulation_steps 1 --epochs 4 --learning_rate 1e-3 --eval_step 400 --save_step 400 --logging_steps 100 \
    "${own[@]}" "$@"

best="$trained/best"
used="$(option_value --device --device auto "$@")"
say ""
say "What this model puts for the masks:"
run_single "$ROOT/pretraining/fill_mask.py" --model "$best" --device "$used" --top_k 3 "联邦[MASK]习的若干[MASK]考"
say ""
say "Next:"
say "  python pretraining/fill_mask.py --model '$best' 'YOUR SENTENCE WITH A [MASK]'"
say "  bash scripts/train_pairwise.sh --model_name_or_path '$best' --learning_rate 5e-4   # a ranker from it, on the demo data"
say "  python -m paddle_ranker convert '$best' HF_FOLDER --to hf   # for transformers"
say "  python pretraining/train_tokenizer.py --files YOUR_FILES --output_dir YOUR_TOKENIZER"
say "  bash scripts/pretrain.sh --train_files YOUR_FILES --tokenizer YOUR_TOKENIZER --config nano --save_dir YOUR_FOLDER"
