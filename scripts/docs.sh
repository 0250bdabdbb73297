#!/usr/bin/env bash
# Build the documentation as a site in build/site, and check all links between its pages.
#
#   bash scripts/docs.sh            build; a broken link fails
#   bash scripts/docs.sh serve      show it at http://127.0.0.1:8000, and follow changes
#
# Makes .venv-docs from requirements/docs.txt; needs neither Paddle nor the project's own environment.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if ! cmp -s requirements/docs.txt .venv-docs/requirements.txt; then
    "${PYTHON:-python3}" -m venv --clear .venv-docs
    .venv-docs/bin/python -m pip install --quiet --require-hashes -r requirements/docs.txt
    cp requirements/docs.txt .venv-docs/requirements.txt
fi
exec .venv-docs/bin/python -m mkdocs "${1:-build}"
