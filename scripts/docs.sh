#!/usr/bin/env bash
# Build the documentation as a site in build/site, and check all links between its pages.
#
#   bash scripts/docs.sh            build; a broken link fails
#   bash scripts/docs.sh serve      show it at http://127.0.0.1:8000, and follow changes
#
# Makes .venv-docs from requirements/docs.txt, with uv if it is on PATH, else with pip; needs neither Paddle nor the project's own environment.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! cmp -s requirements/docs.txt .venv-docs/requirements.txt; then
    if command -v uv >/dev/null 2>&1; then
        uv venv --quiet --no-project --clear --python "${PYTHON:-3.11}" .venv-docs
        uv pip install --quiet --python .venv-docs/bin/python --require-hashes -r requirements/docs.txt
    else
        "${PYTHON:-python3}" -m venv --clear .venv-docs
        .venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements/docs.txt
    fi
    cp requirements/docs.txt .venv-docs/requirements.txt
fi
exec .venv-docs/bin/python -m mkdocs "${1:-build}"
