#!/usr/bin/env bash
# Make .venv hold exactly what requirements/all.txt locks, with this repository importable in it.
#
# Needs Python 3.11 and nothing else: uv is used if there is one, and fetched if there is none.
# Done once per change of the lock or of this script; a setup that was interrupted can be repeated.
# A word adds an optional group: "stores" for Feast's stores for larger data (Spark, PostgreSQL,
# DuckDB), "rtx" for TensorRT-RTX, NVIDIA's compiler of engines.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
bootstrap=.venv-bootstrap
lock=requirements/all.txt
stamp=$venv/.setup-stamp
group=${1:-}

say() { printf 'setup: %s\n' "$*" >&2; }
stop() {
    say "$*"
    exit 1
}

# A name on PATH may be a shim that does not run, so each candidate is tried.
find_python() {
    local candidate
    for candidate in python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    stop "Penstock needs Python 3.11 and found none on PATH. Install it (on Debian 12:" \
        "apt-get install python3.11), then run make setup again."
}

# Debian and Ubuntu ship Python without the parts that make an environment.
need_venv_module() {
    local python=$1 as_root=()
    if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        return
    fi
    if [[ $(id -u) -ne 0 ]]; then
        as_root=(sudo -n)
    fi
    if command -v apt-get >/dev/null && "${as_root[@]}" true 2>/dev/null; then
        say "installing Python's venv module with apt-get"
        "${as_root[@]}" apt-get update -qq >&2 </dev/null || true
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends python3.11-venv >&2 </dev/null ||
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -qq --no-install-recommends python3-venv >&2 </dev/null || true
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        stop "this Python has no venv module. Type: sudo apt-get install python3.11-venv" \
            "and then: make setup"
}

# Print the path of a uv that runs.
find_uv() {
    local python=$1
    if uv --version >/dev/null 2>&1; then
        printf 'uv'
        return
    fi
    if ! "$bootstrap/bin/uv" --version >/dev/null 2>&1; then
        need_venv_module "$python"
        say "fetching uv into $bootstrap"
        rm -rf "$bootstrap"
        "$python" -m venv "$bootstrap"
        "$bootstrap/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-hashes -r requirements/uv.txt >&2
    fi
    printf '%s' "$bootstrap/bin/uv"
}

# uv does not read pip's settings; a machine whose pip is told of a mirror means uv too.
follow_pip_settings() {
    local python=$1 index
    if [[ -n ${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-} ]]; then
        return
    fi
    index=${PIP_INDEX_URL:-}
    if [[ -z $index ]]; then
        index=$("$python" -m pip config get global.index-url 2>/dev/null ||
            "$bootstrap/bin/python" -m pip config get global.index-url 2>/dev/null || true)
    fi
    if [[ -n $index ]]; then
        export UV_DEFAULT_INDEX=$index
    fi
}

# Neither needs a build, so both work without a network. The line in the .pth file is relative to
# the folder it lies in; imports follow the checkout when it is moved.
make_importable() {
    printf '%s\n' ../../../.. >"$venv/lib/python3.11/site-packages/penstock.pth"
    cat >"$venv/bin/penstock" <<'SCRIPT'
#!/bin/sh
'''exec' "$(dirname "$0")/python" "$0" "$@"
' '''
import sys

from penstock.cli.main import main

sys.exit(main())
SCRIPT
    chmod +x "$venv/bin/penstock"
}

hash_of() { cat "$@" requirements/uv.txt scripts/setup.sh | sha256sum | cut -d' ' -f1; }
up_to_date() { [[ -x $venv/bin/python && $(cat "$1" 2>/dev/null) == "$2" ]]; }

case $group in
    "") ;;
    stores) says="Feast's stores for larger data" ;;
    rtx) says="TensorRT-RTX" ;;
    *) stop "there is no group '$group'; there is stores and rtx." ;;
esac

wanted=$(hash_of "$lock")
if [[ -n $group ]]; then
    group_lock=requirements/$group.txt
    wanted_group=$(hash_of "$lock" "$group_lock")
fi
if up_to_date "$stamp" "$wanted"; then
    if [[ -z $group ]] || up_to_date "$stamp-$group" "$wanted_group"; then
        exit 0
    fi
fi

python=$(find_python)
uv=$(find_uv "$python")
follow_pip_settings "$python"
export UV_PYTHON_DOWNLOADS=never
# Compiled once here: a run starts a dozen processes, and where Python may not write bytecode each of
# them would compile every library it imports, which doubles the time until it begins.
install=(--require-hashes --compile-bytecode --python "$venv/bin/python")
[[ -t 2 ]] || install+=(--quiet)

if [[ -n $group ]] && up_to_date "$stamp" "$wanted"; then
    say "adding $says to $venv"
    "$uv" pip install "${install[@]}" -r "$group_lock"
    printf '%s\n' "$wanted_group" >"$stamp-$group"
    say "done in $SECONDS s"
    exit 0
fi

rm -f "$stamp" "$stamp"-*
if ! "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    say "making $venv"
    rm -rf "$venv"
    "$uv" venv --quiet --python "$(command -v "$python")" "$venv"
fi
say "installing $(grep -c '^[a-zA-Z0-9].*==' "$lock") locked packages into $venv"
"$uv" pip sync "${install[@]}" "$lock"
make_importable
printf '%s\n' "$wanted" >"$stamp"
say "done in $SECONDS s"
if [[ -n $group ]]; then
    exec scripts/setup.sh "$group"
fi
