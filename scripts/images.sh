#!/usr/bin/env bash
# Build the images of Penstock with buildah, write what is in them, print their digests and sizes.
#
#   scripts/images.sh [--base REF] [--fresh] [--out FOLDER] [--push REGISTRY] [TARGET...]
#
# Targets are data, train, engine, control and serve, which are built when none is named, and
# engine-gpu and serve-gpu. With --fresh no layer of an earlier build is taken.
# Without --base a Debian is bootstrapped once and used again until `buildah rmi penstock-base:bookworm`
# removes it; DEBIAN_MIRROR and DEBIAN_SECURITY say where it comes from. UV_DEFAULT_INDEX or
# PIP_INDEX_URL, UV_EXTRA_INDEX_URL and SSL_CERT_FILE say where packages come from; no image tells them.
# The folder, build/images by default, gets images.json (references by digest, for a profile) and a
# bill of materials for each image. With --push the images go to a registry, under their tags, and
# images.env names each by the digest that it has there; `buildah login` says who you are.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

out=build/images
base=
fresh=()
registry=
suite=bookworm
targets=()
# One time for every file of every layer: what is in a layer, not when it was made, decides its digest.
epoch=1767225600
export BUILDAH_ISOLATION=chroot

say() { printf 'images: %s\n' "$*" >&2; }
stop() {
    say "$*"
    exit 1
}

while (($#)); do
    case $1 in
        --base) base=${2:?--base needs an image} && shift 2 ;;
        --fresh) fresh=(--no-cache) && shift ;;
        --out) out=${2:?--out needs a folder} && shift 2 ;;
        --push) registry=${2:?--push needs a registry, with a path if it has one} && shift 2 ;;
        data | train | engine | control | serve | engine-gpu | serve-gpu) targets+=("$1") && shift ;;
        *) stop "there is no target '$1'; see the head of scripts/images.sh." ;;
    esac
done
((${#targets[@]})) || targets=(data train engine control serve)

need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null ||
            stop "$program is not installed; on Debian: apt-get install $program"
    done
}

in_root() {
    DEBIAN_FRONTEND=noninteractive chroot "$@" >>"$work/base.log" 2>&1 ||
        stop "${*:2} failed in the base:" "$(tail -n 3 "$work/base.log")"
}

# Bytecode last: Debian makes its own, which goes by a file's time.
bootstrap() {
    local root=$1 mirror security
    debootstrap --variant=minbase \
        --include=ca-certificates,libgomp1,media-types,netbase,python3-minimal,python3.11 \
        "$suite" "$root" ${DEBIAN_MIRROR:+"$DEBIAN_MIRROR"} >"$work/base.log" 2>&1 ||
        stop "debootstrap failed:" "$(tail -n 3 "$work/base.log")"
    read -r _ mirror _ <"$root/etc/apt/sources.list"
    security=${DEBIAN_SECURITY:-${mirror%/}-security}
    printf 'deb %s %s-security main\n' "$security" "$suite" >>"$root/etc/apt/sources.list"
    in_root "$root" apt-get update
    in_root "$root" apt-get upgrade -y
    python3 components/images/slim.py "$root"
    chroot "$root" ldconfig -X
    cp components/images/install.py "$root/run/"
    PYTHONHASHSEED=0 chroot "$root" python3 /run/install.py sources /usr/lib/python3.11
    rm "$root/run/install.py" "$root/var/cache/ldconfig/aux-cache"
}

make_base() {
    local root=$work/root container
    need debootstrap
    [[ $(id -u) -eq 0 ]] || stop "a base is bootstrapped as root; be root, or name one: --base REF"
    say "bootstrapping a base of Debian $suite"
    bootstrap "$root"
    # Names in order and one time: the same packages give the same bytes.
    tar --create --file "$work/base.tar" --directory "$root" --sort=name --numeric-owner \
        --mtime="@$epoch" --exclude=./dev/* --exclude=./proc/* --exclude=./sys/* .
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$work/base.tar" / >/dev/null
    buildah config --label org.opencontainers.image.title="penstock base" "$container"
    buildah commit --quiet --timestamp "$epoch" --identity-label=false --rm "$container" \
        "localhost/penstock-base:$suite" >/dev/null
    rm -rf "$root" "$work/base.tar"
}

# Settings with addresses, and maybe passwords, reach a build as secrets: they end in no layer, no
# history and no file of this repository. The programs and caches are mounted in the same way.
prepare() {
    local index extra=${UV_EXTRA_INDEX_URL:-${UV_INDEX:-}}
    mkdir -p "$work/uv" "$work/cache"
    cp "$(command -v .venv/bin/uv)" "$work/uv/uv"
    index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-}}}
    : >"$work/uv.toml"
    if [[ -n $index ]]; then printf 'index-url = "%s"\n' "$index" >>"$work/uv.toml"; fi
    if [[ -n $extra ]]; then printf 'extra-index-url = ["%s"]\n' "${extra// /\", \"}" >>"$work/uv.toml"; fi
    with=(
        --build-context "uv=$work/uv"
        --build-context "cache=$(.venv/bin/uv cache dir 2>/dev/null || printf '%s' "$work/cache")"
        --secret "id=uv,src=$work/uv.toml"
    )
    if [[ -s ${SSL_CERT_FILE:-} ]]; then
        with+=(--secret "id=certificates,src=$SSL_CERT_FILE")
    fi
}

build() {
    local target=$1 name=$2
    say "building $target"
    buildah build --quiet --layers --timestamp "$epoch" --identity-label=false --pull-never \
        "${fresh[@]}" --file components/images/Containerfile --ignorefile components/images/.containerignore \
        --build-arg "BASE=$base" --build-arg "REVISION=$revision" "${with[@]}" \
        --target "$target" --tag "localhost/$name" . >"$work/build.log" 2>&1 ||
        stop "the build of $target failed:" "$(tail -n 20 "$work/build.log")"
}

# A registry compresses what it holds, so the digest there is another than here.
push() {
    local target=$1 name=$2 variable
    say "pushing $target"
    buildah push --quiet --digestfile "$work/digest" "localhost/$name" "docker://$registry/$name" ||
        stop "the push of $target to $registry failed"
    variable=PENSTOCK_IMAGE_${target^^}
    printf '%s=%s/%s@%s\n' "${variable//-/_}" "$registry" "${name%%:*}" "$(<"$work/digest")" \
        >>"$out/images.env"
}

need buildah
[[ -x .venv/bin/uv ]] || stop "there is no .venv/bin/uv; type: make setup"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [[ -z $base ]]; then
    base=localhost/penstock-base:$suite
    buildah inspect --type image "$base" >/dev/null 2>&1 || make_base
    base=localhost/penstock-base@$(buildah inspect --type image --format '{{.FromImageDigest}}' "$base")
fi
# The last commit that changed what images hold, so that another one changes no digest.
held=(components feature_repo penstock pipelines requirements serving workloads)
revision=$(git log -1 --format=%H -- "${held[@]}" 2>/dev/null || true)
if [[ -n $(git status --porcelain -- "${held[@]}" 2>/dev/null) ]]; then revision+=+changes; fi
prepare
made=()
for target in "${targets[@]}"; do
    name=$(.venv/bin/python -c 'import sys; from components import images
print(images.local(sys.argv[1]))' "$target")
    build "$target" "$name"
    made+=("$target=localhost/$name")
done
.venv/bin/python -m components.images.record --out "$out" --base "$base" "${made[@]}"
if [[ -n $registry ]]; then
    : >"$out/images.env"
    for named in "${made[@]}"; do
        push "${named%%=*}" "${named#*=localhost/}"
    done
    cat "$out/images.env"
fi
