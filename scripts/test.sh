#!/usr/bin/env bash
# Run every test. First those that wait for nobody's clock, two files at a time; then, alone on the
# machine, those that release, serve and fail over, whose limits are in milliseconds.
#
# Words that are given are pytest's: then it is one run, of what they name.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

if (($#)); then
    exec .venv/bin/pytest "$@"
fi
alone=(tests/cli tests/rollout tests/serving tests/stories)
status=0
.venv/bin/pytest -n 2 --dist loadfile "${alone[@]/#/--ignore=}" || status=$?
.venv/bin/pytest "${alone[@]}" || status=$?
exit "$status"
