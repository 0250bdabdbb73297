#!/usr/bin/env bash
# Lint, type check and test; set up missing environments.
#
#   bash scripts/test.sh [--quick | --all | --thorough] [--lint] [pytest arguments]
#
# No argument: the modern stack, tests marked unit, parity, server or browser, in that order; those of the browser need
#              what `bash scripts/setup.sh browser` installs, and are skipped without it.
# --quick      while you change a line: lint, types, and the unit tests of the rooms that differ from the last commit
# --all        the slow tests and those on real data as well, then the stack complete (what calls Paddle: tests/conftest.py),
#              the documentation site, and the wheel with the newest packages (scripts/try_wheel.py), unless
#              PADDLE_RANKER_PYTHON names the Python to use
# --thorough   as --all, and all cases of the tests marked thorough and of the generated changes of models' settings: hours
# --lint       lint and types only, which the stacks modern and gpu have
# PADDLE_RANKER_STACK=gpu, or another stack: that one alone, with --all too
# Further arguments go to pytest: `bash scripts/test.sh -k auc -x`; a path or -m of your own replaces the choice above.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -uo pipefail
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

FAILED=()
SUMMARIES=()
trap 'complain "test: interrupted"; exit 130' INT TERM

# Run a check; record its name if it fails; `check NAME COMMAND...`.
check() {
    local name="$1" began=$SECONDS
    shift
    say "test: $name"
    if "$@"; then
        say "test: $name: passed in $((SECONDS - began)) s"
    else
        say "test: $name: FAILED after $((SECONDS - began)) s"
        FAILED+=("$name")
    fi
}

# Wait for a process in the background, print its output from a file, and return its status; `ended PID FILE`.
ended() {
    local status=0
    wait "$1" || status=$?
    cat "$2"
    rm -f "$2"
    return "$status"
}

# Run pytest in this stack's environment and keep its last line for the end; `tests STACK NAME ARGUMENTS...`.
tests() {
    local stack="$1" name="$2" output status
    shift 2
    output="$(mktemp)" || return
    # pytest ends with 5 if it collected nothing, which is a failure here too, unless a room has no quick tests.
    "$PYTHON" -m pytest -q "$@" 2>&1 | tee "$output"
    status=${PIPESTATUS[0]}
    if [ "$QUICK" = yes ] && [ "$status" = 5 ]; then status=0; fi
    SUMMARIES+=("$stack, $name: $(grep -E '(passed|failed|error|skipped|no tests ran|deselected).* in [0-9.]+s' "$output" |
        tail -n 1 | sed 's/^=* *//; s/ *=*$//')")
    rm -f "$output"
    return "$status"
}

# Print the options that run test files in parallel, one process per core, at most four; `-n 0` after them disables it.
# The files come in the order of tests/conftest.py, not by their number of tests. Where a test ends its process, all end
# and name it: xdist 3.8 waits without end for a process that takes the place of another one by files.
side_by_side() {
    local cores
    cores="$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)"
    if [ "$cores" -gt 1 ] && "$PYTHON" -c 'import xdist' 2>/dev/null; then
        echo "-n $((cores < 4 ? cores : 4)) --dist loadfile --no-loadscope-reorder --max-worker-restart 0"
    fi
}

# Print the tests of what differs from the last commit, one path per line: a test file itself, and the room in tests/ of the
# name of a changed file's folder, in the package (paddle_ranker/data/...: tests/data) or beside it.
changed_tests() {
    { git diff --name-only HEAD && git ls-files --others --exclude-standard; } | while IFS= read -r path; do
        case "$path" in
            tests/*/test_*.py | tests/test_*.py) room="$path" ;;
            paddle_ranker/*/*) room="${path#paddle_ranker/}" room="tests/${room%%/*}" ;;
            paddle_ranker/*.py) room="tests/test_${path#paddle_ranker/}" ;;
            tests/*/*) room="${path%/*}" ;;
            *) room="tests/${path%%/*}" ;;
        esac
        if [ -e "$room" ]; then say "$room"; fi
    done | sort -u
}

test_stack() {
    local stack="$1" site='' site_output wheel='' wheel_output types='' types_output
    shift
    if ! PADDLE_RANKER_STACK="$stack" ensure_environment; then
        FAILED+=("$stack: set-up")
        return
    fi
    if [ "$BOTH" = yes ] && [ "$stack" = modern ]; then # beside mypy, which uses one core
        site_output="$(mktemp)" || return
        PYTHON="$PYTHON" bash scripts/docs.sh >"$site_output" 2>&1 &
        site=$!
        if [ -n "${PADDLE_RANKER_PYTHON:-}" ]; then
            say 'test: wheel with the newest packages: not tried, as PADDLE_RANKER_PYTHON is set and nothing is installed'
        elif [ "$OWN_CHOICE" = no ]; then
            wheel_output="$(mktemp)" || return
            "$PYTHON" scripts/try_wheel.py >"$wheel_output" 2>&1 &
            wheel=$!
        fi
    fi
    if [ "$stack" = modern ] || [ "$stack" = gpu ]; then
        check 'ruff check' "$PYTHON" -m ruff check .
        check 'ruff format' "$PYTHON" -m ruff format --check .
        if [ "$QUICK" = yes ] && [ "$LINT_ONLY" = no ]; then # types beside the tests
            types_output="$(mktemp)" || return
            "$PYTHON" -m mypy >"$types_output" 2>&1 &
            types=$!
        else
            check 'mypy' "$PYTHON" -m mypy
        fi
    fi
    if [ -n "$site" ]; then check 'documentation site' ended "$site" "$site_output"; fi
    if [ "$LINT_ONLY" = yes ]; then
        case "$stack" in
            complete*) FAILED+=("--lint: the stack $stack has neither ruff nor mypy; unset PADDLE_RANKER_STACK") ;;
        esac
        return
    fi
    if [ "$OWN_CHOICE" = yes ]; then
        check "$stack: pytest" tests "$stack" 'your choice' "$@"
        return
    fi
    if [ "$QUICK" = yes ]; then
        local changed=()
        while IFS= read -r path; do changed+=("$path"); done < <(changed_tests)
        if [ ${#changed[@]} -gt 0 ]; then
            # shellcheck disable=SC2046
            check "$stack: quick tests" tests "$stack" "${changed[*]}" $(side_by_side) \
                -m 'unit and not slow and not real_data' "${changed[@]}" "$@"
        else
            say 'test: no tests: no room of tests/ has the name of a folder that differs from the last commit'
        fi
        if [ -n "$types" ]; then check 'mypy' ended "$types" "$types_output"; fi
        return
    fi
    # A single run for all, since each start imports Paddle and reads every test. tests/conftest.py puts them in order.
    local name='unit, parity, server and browser' marks='(unit or parity or server or browser) and not slow and not real_data'
    if [ "$ALL" = yes ]; then name=all marks='unit or parity or server or browser or slow or real_data'; fi
    # shellcheck disable=SC2046
    check "$stack: $name tests" tests "$stack" "$name" $(side_by_side) -m "$marks" "$@"
    if [ -n "$wheel" ]; then check 'wheel with the newest packages' ended "$wheel" "$wheel_output"; fi
}

ALL=no QUICK=no LINT_ONLY=no OWN_CHOICE=no
ARGUMENTS=()
for argument in "$@"; do
    case "$argument" in
        --all) ALL=yes ;;
        --thorough) ALL=yes; export PADDLE_RANKER_THOROUGH=1 ;;
        --quick) QUICK=yes ;;
        --lint) LINT_ONLY=yes ;;
        -h | --help) sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
        *)
            case "$argument" in -m | -m?* | *.py | *::* | tests/*) OWN_CHOICE=yes ;; esac
            ARGUMENTS+=("$argument")
            ;;
    esac
done

cd "$ROOT" || exit 1
# Small products gain nothing from threads, which wait for each other if every core is busy.
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}"
# Threads of Intel's OpenMP spin for 200 ms after each product: a fourth of the processor time of tests with small models.
export KMP_BLOCKTIME="${KMP_BLOCKTIME:-0}" OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
STACK="${PADDLE_RANKER_STACK:-}" BOTH=no
if [ "$ALL" = yes ] && [ "$LINT_ONLY" = no ] && [ -z "$STACK" ]; then BOTH=yes; fi
if [ "$BOTH" = yes ] && [ -z "${PADDLE_RANKER_PYTHON:-}" ]; then
    # Beside the first stack's set-up and tests; `test_stack` waits for it, or repeats it and shows what fails.
    bash scripts/setup.sh complete >/dev/null 2>&1 &
fi
test_stack "${STACK:-modern}" ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
if [ "$BOTH" = yes ]; then
    test_stack complete ${ARGUMENTS[@]+"${ARGUMENTS[@]}"}
fi

say ''
for summary in ${SUMMARIES[@]+"${SUMMARIES[@]}"}; do say "test: $summary"; done
if [ ${#FAILED[@]} -gt 0 ]; then
    printf 'test: FAILED after %d s:\n' "$SECONDS"
    printf '  %s\n' "${FAILED[@]}"
    exit 1
fi
say "test: all passed in $SECONDS s"
