#!/usr/bin/env bash
# Run every test. First all that hold on a machine with something else to do, two files at a time;
# then, alone on it, those that time servers in milliseconds or carry whole releases.
#
# Words that are given are pytest's: then it is one run, of what they name.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

if (($#)); then
    exec .venv/bin/pytest "$@"
fi
alone=(tests/cli/test_run.py tests/serving tests/stories)
status=0
.venv/bin/pytest -n 2 --dist loadfile "${alone[@]/#/--ignore=}" || status=$?
.venv/bin/pytest "${alone[@]}" || status=$?
exit "$status"
