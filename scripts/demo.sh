# shellcheck shell=bash
# Prepare runs of the scripts without arguments: demo data, a starter encoder, a trained demo ranker. Sourced, never
# run; it sources common.sh.
#
# A ranker's kind is pairwise or cross_encoder; its demo ranker is in checkpoint/KIND. The demo's tower, which
# finds the titles for a ranker, is in checkpoint/tower.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DEMO_DATA="$ROOT/datasets"
DEMO_TOWER="$ROOT/checkpoint/tower"

# Set the names of files and folders of a kind of ranker.
describe() {
    case "$1" in
        pairwise) COMMANDS=ernie_matching TRAIN=train_pairwise EVALUATE=evaluate PREDICT=predict_pairwise ;;
        cross_encoder) COMMANDS=cross_encoder TRAIN=train_ce EVALUATE=evaluate_ce PREDICT=predict_ce ;;
    esac
    DEMO_RANKER="$ROOT/checkpoint/$1"
}

# All names of an option: the one that every command shows, and the tutorial's.
TRAIN_NAMES="--train --train_file --train_set --train_files --train_set_file"
TOWER_TEST_NAMES="--test --similar_text_pair --similar_text_pair_file --test_set_file"
TEST_NAMES="--test --test_file"
INPUT_NAMES="--input --input_file --test_set --test --test_file"
MODEL_NAMES="--model --params_path --init_from_ckpt"
START_NAMES="--model --model_name_or_path --init_from_ckpt"
EXPORT_NAMES="--model --dirname"
OUTPUT_NAMES="--output --save_dir --output_path"

# Print the value of an option in the arguments, under any of its names; otherwise the default.
# `value_of "$OUTPUT_NAMES" DEFAULT "$@"`
value_of() {
    local names="$1" value="$2" name given
    shift 2
    for name in $names; do
        given="$(option_value "$name" "$@")"
        if [ -n "$given" ]; then value="$given"; fi
    done
    say "$value"
}

# Succeed if an option is in the arguments under any of its names: `has_any "$TRAIN_NAMES" "$@"`.
has_any() {
    local names="$1" name
    shift
    for name in $names; do
        if has_option "$name" "$@"; then return 0; fi
    done
    return 1
}

ensure_demo_data() { "$PYTHON" "$ROOT/datasets/make_demo.py" --output_dir "$DEMO_DATA" --if_missing true; }

# Make the starter encoder, or find it in the user's cache; set STARTER to its folder. Its vocabulary is learned from
# the training triples alone, plus the common characters, as in published vocabularies: dev and test hold many
# characters that no training title has. Arguments are passed on: `ensure_starter --hidden_size 64`.
ensure_starter() {
    STARTER="$("$PYTHON" -m paddle_ranker starter \
        --corpus "$DEMO_DATA/sort/train_pairwise.csv" --characters gb2312 "$@")"
    say "starter encoder: $STARTER"
}

# Print a note if a demo model's training stopped early, after an evaluation. `note_if_unfinished FOLDER SCRIPT`
note_if_unfinished() {
    if grep -qs '"finished": false' "$1"/state_*/state.json; then
        complain "note: the training in $1 did not finish: bash scripts/$2.sh --resume goes on with it"
    fi
}

ensure_demo_ranker() {
    [ -e "$DEMO_RANKER/best" ] && { note_if_unfinished "$DEMO_RANKER" "$TRAIN"; return; }
    say "there is no demo ranker yet: training one"
    bash "$ROOT/scripts/$TRAIN.sh"
}

ensure_demo_tower() {
    [ -e "$DEMO_TOWER/best" ] && { note_if_unfinished "$DEMO_TOWER" train_batch_neg; return; }
    say "there is no demo tower yet: training one"
    bash "$ROOT/scripts/train_batch_neg.sh"
}

# Ensure an export in output SUFFIX that this stack can use: the user's own export of any kind if there is one, else that
# of the demo's ranker. The latter is made if it is missing, and made again if the other stack has made it.
# PURPOSE: run, or rewrite. `ensure_export KIND SUFFIX PURPOSE`
ensure_export() {
    local folder="$ROOT/output$2" script=export_model
    if [ "$1" = cross_encoder ]; then script=export_model_ce; fi
    describe "$1"
    if [ -e "$folder/ranker.json" ]; then
        if ! is_left_by_the_other_stack "$folder" "$3"; then
            note_if_older "$folder" "bash scripts/$script.sh"
            return 0
        fi
        say "$folder: the other stack has exported the demo's ranker, which this one cannot $3: exporting it again"
    fi
    bash "$ROOT/scripts/$script.sh"
}

# Print a note if an existing export is older than the demo's ranker, which `describe` names.
# `note_if_older FOLDER COMMANDS`
note_if_older() {
    if [ "$DEMO_RANKER/best/ranker.json" -nt "$1/ranker.json" ]; then
        complain "note: $1 is older than the demo's ranker, $DEMO_RANKER/best, which this exports: $2"
    fi
}

# Succeed if an export of the demo's ranker, which `describe` names, needs the other stack's Paddle: Paddle 3 runs exports
# of Paddle 2, but cannot rewrite them; Paddle 2 can do neither with those of Paddle 3. `is_left_by_the_other_stack FOLDER PURPOSE`
is_left_by_the_other_stack() {
    "$PYTHON" - "$1" "$2" "$DEMO_RANKER/best" <<'END'
import json, pathlib, sys
from importlib.metadata import distributions

folder, purpose, ranker = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
names = ("paddlepaddle", "paddlepaddle-gpu")
is_paddle_2 = any(d.version.startswith("2.") for d in distributions() if d.metadata["Name"] in names)


def facts(place):
    path = place / "ranker.json"
    return {**json.loads(path.read_text(encoding="utf-8")), "export": None} if path.is_file() else None


format = (json.loads((folder / "ranker.json").read_text(encoding="utf-8")).get("export") or {}).get("format")
others = format == "json" if is_paddle_2 else format == "pdmodel" and purpose == "rewrite"
raise SystemExit(not (others and facts(folder) == facts(ranker)))
END
}

# Train a ranker with the arguments; without TRAIN_OPTION train the demo's ranker, and rank with the result.
# `train_demo KIND TRAIN_OPTION TRAIN_FILE DEV_FILE TEST_FILE "RECIPE" "$@"`
train_demo() {
    local option="$2" train="$DEMO_DATA/$3" dev="$DEMO_DATA/$4" test="$DEMO_DATA/$5" trained recipe=()
    describe "$1"
    read -ra recipe <<<"$6"
    shift 6
    ensure_environment
    if has_any "$TRAIN_NAMES" "$@" || wants_help "$@"; then
        run_python "$ROOT/$COMMANDS/$TRAIN.py" "$@"
        return
    fi

    ensure_demo_data
    has_any "--max_seq_length --max_seq_len" "$@" || recipe+=(--max_seq_length 64)
    has_any "$TEST_NAMES" "$@" || recipe+=(--test_file "$dev")
    has_any "$OUTPUT_NAMES" "$@" || recipe+=(--save_dir "$DEMO_RANKER")
    if ! has_any "$START_NAMES" "$@"; then
        ensure_starter
        recipe+=(--model_name_or_path "$STARTER" --learning_rate 5e-4 --new_parts_factor 1 --weight_decay 0.01
            --warmup_proportion 0.06)
    fi
    # The arguments come last, so that they override the demo's.
    run_python "$ROOT/$COMMANDS/$TRAIN.py" "$option" "$train" "${recipe[@]}" "$@"

    trained="$(value_of "$OUTPUT_NAMES" "$DEMO_RANKER" "$@")/best"
    say ""
    say "The titles of three queries, as this ranker orders them:"
    run_single -m paddle_ranker rank --params_path "$trained" --input_file "$test" --max_queries 3 --top_k 5 \
        --device "$(option_value --device --device auto "$@")"
    say ""
    say "Next:"
    say "  bash scripts/$EVALUATE.sh --init_from_ckpt '$trained'     # all measures on the dev file"
    say "  bash scripts/$PREDICT.sh --params_path '$trained'     # probabilities for the pairs of the test file"
    say "  bash scripts/$TRAIN.sh $option YOUR_FILE --test_file YOUR_PAIRS --model_name_or_path YOUR_MODEL"
}

# Train a tower with the arguments; without a training file train on the demo's, and show the result's search.
# `train_tower_demo TRAIN FILE FOLDER "RECIPE" RATE "$@"`; RATE: the learning rate from the starter encoder.
train_tower_demo() {
    local command="$1" train="$DEMO_DATA/recall/$2" folder="$3" rate="$5" output results recipe=()
    read -ra recipe <<<"$4"
    shift 5
    ensure_environment
    if has_any "$TRAIN_NAMES" "$@" || wants_help "$@"; then
        run_python "$ROOT/recall/$command.py" "$@"
        return
    fi

    ensure_demo_data
    output="$(value_of "$OUTPUT_NAMES" "$folder" "$@")"
    results="$output/dev_results.tsv"
    has_option --max_seq_length "$@" || recipe+=(--max_seq_length 64)
    if ! has_any "$TOWER_TEST_NAMES" "$@"; then
        recipe+=(--similar_text_pair "$DEMO_DATA/recall/dev.csv")
        has_any "--corpus --corpus_file" "$@" || recipe+=(--corpus_file "$DEMO_DATA/recall/corpus.csv")
    fi
    if ! has_any "--recall_result_dir --recall_result_file" "$@"; then
        recipe+=(--recall_result_dir "$output" --recall_result_file "${results##*/}")
    fi
    has_any "$OUTPUT_NAMES" "$@" || recipe+=(--save_dir "$folder")
    if ! has_any "$START_NAMES" "$@"; then
        ensure_starter
        recipe+=(--model_name_or_path "$STARTER" --pooling mean --learning_rate "$rate" --new_parts_factor 1)
    fi
    run_python "$ROOT/recall/$command.py" --train_set_file "$train" "${recipe[@]}" "$@"

    if [ -e "$results" ]; then
        say ""
        say "The first five of what this tower finds for three queries of the dev file, with their cosines:"
        awk -F'\t' '$1 != query { query = $1; if (++queries > 3) exit; rank = 0; print query }
            ++rank <= 5 { print "  " $3 "  " $2 }' "$results"
    fi
    say ""
    say "Next:"
    say "  bash scripts/$command.sh --train_set_file YOUR_PAIRS --similar_text_pair YOUR_DEV --model_name_or_path YOUR_MODEL"
}

# Run a command that scores with a ranker; missing arguments are the demo's. INPUT_OPTION may be several names,
# separated by spaces.
# `score_demo KIND FILE INPUT_OPTION DEMO_INPUT RANKER_OPTION "$@"`
score_demo() {
    local file="$2" input_option="$3" input="$4" ranker_option="$5" demo=()
    describe "$1"
    shift 5
    ensure_environment
    if ! wants_help "$@"; then
        has_any "$INPUT_NAMES" "$@" || { ensure_demo_data >&2; demo+=("${input_option%% *}" "$DEMO_DATA/$input"); }
        has_any "$MODEL_NAMES" "$@" || { ensure_demo_ranker >&2; demo+=("$ranker_option" "$DEMO_RANKER/best"); }
    fi
    run_single "$ROOT/$COMMANDS/$file" ${demo[@]+"${demo[@]}"} "$@"
}

# Export a ranker with the arguments; without --params_path the demo's, without --output_path into FOLDER.
# `export_demo KIND FOLDER "$@"`
export_demo() {
    local folder="$2" demo=()
    describe "$1"
    shift 2
    ensure_environment
    if ! wants_help "$@"; then
        has_any "$MODEL_NAMES" "$@" || { ensure_demo_ranker; demo+=(--params_path "$DEMO_RANKER/best"); }
        has_any "$OUTPUT_NAMES" "$@" || demo+=(--output_path "$ROOT/$folder")
    fi
    run_single "$ROOT/$COMMANDS/export_model.py" ${demo[@]+"${demo[@]}"} "$@"
}

# Export a tower with the arguments, and write the export as the folders of Paddle Serving; without --params_path the
# demo's, without --output_path into output_recall. `export_tower_demo "$@"`
export_tower_demo() {
    local output demo=()
    ensure_environment
    if wants_help "$@"; then
        run_single "$ROOT/recall/export_model.py" "$@"
        return
    fi
    has_any "$MODEL_NAMES" "$@" || { ensure_demo_tower; demo+=(--params_path "$DEMO_TOWER/best"); }
    has_any "$OUTPUT_NAMES" "$@" || demo+=(--output_path "$ROOT/output_recall")
    output="$(value_of "$OUTPUT_NAMES" "$ROOT/output_recall" "$@")"
    run_single "$ROOT/recall/export_model.py" ${demo[@]+"${demo[@]}"} "$@"
    run_single "$ROOT/recall/export_to_serving.py" --dirname "$output" \
        --server_path "$ROOT/serving_server_recall" --client_path "$ROOT/serving_client_recall"
    say ""
    say "Next:"
    say "  paddle-ranker serve '$output'     # POST /v1/embeddings, /embed and Paddle Serving's protocols"
    say "  bash deploy/cpp/start_server.sh --model '$ROOT/serving_server_recall'"
}

# Write an export as the folders of Paddle Serving, with the arguments; without --dirname the demo's export, and
# without paths into serving_server and serving_client with SUFFIX.
# `export_serving_demo KIND SUFFIX "$@"`
export_serving_demo() {
    local kind="$1" suffix="$2" demo=()
    describe "$1"
    shift 2
    ensure_environment
    if ! wants_help "$@"; then
        if ! has_any "$EXPORT_NAMES" "$@"; then
            ensure_export "$kind" "$suffix" rewrite
            demo+=(--dirname "$ROOT/output$suffix")
        fi
        has_option --server_path "$@" || demo+=(--server_path "$ROOT/serving_server$suffix")
        has_option --client_path "$@" || demo+=(--client_path "$ROOT/serving_client$suffix")
    fi
    run_single "$ROOT/$COMMANDS/export_to_serving.py" ${demo[@]+"${demo[@]}"} "$@"
}
