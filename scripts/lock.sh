#!/usr/bin/env bash
# Resolve pyproject.toml into requirement files with hashes: all.txt, one per extra, stores.txt,
# rtx.txt, uv.txt.
#
# A pin stays until its requirement forbids it; pass --upgrade or --upgrade-package NAME to move on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras=(data train engine control serve pipelines)

compile() {
    .venv/bin/uv pip compile --quiet --python-version 3.11 --generate-hashes --no-emit-index-url \
        --no-annotate --custom-compile-command "make lock" "$@"
}

all=()
for extra in "${extras[@]}"; do all+=(--extra "$extra"); done
compile pyproject.toml "${all[@]}" --group dev -o requirements/all.txt "$@"
for extra in "${extras[@]}"; do
    compile pyproject.toml --extra "$extra" -c requirements/all.txt -o "requirements/$extra.txt"
done
compile --group pyproject.toml:stores -c requirements/all.txt -o requirements/stores.txt
compile --group pyproject.toml:rtx -c requirements/all.txt -o requirements/rtx.txt
compile --group pyproject.toml:bootstrap -c requirements/all.txt -o requirements/uv.txt
