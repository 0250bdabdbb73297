# shellcheck shell=bash
# What the scripts need to run without arguments: demo data, a starter encoder, a trained demo ranker. Sourced, never
# run; brings common.sh with it.
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

DEMO_DATA="$ROOT/datasets"
DEMO_PAIRWISE="$ROOT/checkpoint/pairwise"

# Print `--device cpu` where no device is named and no GPU is there: the commands' own default is gpu.
default_device() {
    if ! has_option --device "$@" && [ "$(usable_gpus)" = 0 ]; then say "--device cpu"; fi
}

ensure_demo_data() { "$PYTHON" "$ROOT/datasets/make_demo.py" --output_dir "$DEMO_DATA" --if_missing true; }

# Make the starter encoder, or find it in the user's cache; set STARTER to its folder.
ensure_starter() {
    STARTER="$("$PYTHON" -m paddle_ranker starter \
        --corpus "$DEMO_DATA/recall/corpus.csv:$DEMO_DATA/sort/train_pairwise.csv")"
    say "starter encoder: $STARTER"
}

ensure_demo_ranker() {
    [ -e "$DEMO_PAIRWISE/best" ] && return
    say "there is no demo ranker yet: training one"
    bash "$ROOT/scripts/train_pairwise.sh"
}

# Run a command that scores with a pairwise ranker; what the arguments leave open is the demo's.
# `score_demo FILE INPUT_OPTION DEMO_INPUT RANKER_OPTION "$@"`
score_demo() {
    local file="$1" input_option="$2" input="$3" ranker_option="$4" demo=() device=()
    shift 4
    ensure_environment
    read -ra device <<<"$(default_device "$@")"
    if ! wants_help "$@"; then
        has_option "$input_option" "$@" || { ensure_demo_data >&2; demo+=("$input_option" "$DEMO_DATA/$input"); }
        has_option "$ranker_option" "$@" || { ensure_demo_ranker >&2; demo+=("$ranker_option" "$DEMO_PAIRWISE/best"); }
    fi
    run_single "$ROOT/$file" ${demo[@]+"${demo[@]}"} ${device[@]+"${device[@]}"} "$@"
}
