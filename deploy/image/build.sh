#!/bin/sh
# Builds the container image in two steps: `build.sh wheels` fetches what the lock names, by hash, through pip as this
# machine has it configured, and builds the project's wheel; `build.sh image` builds with no network. Without an
# argument it does both. Further arguments of `build.sh image` go to docker build.
# The same commit and base image give the same files (docs/IMAGE.md, "Verify").
#   TENURE_IMAGE    name of the result (tenure:VERSION)
#   PYTHON_IMAGE    the base, best with a digest (python:3.11-slim-bookworm)
#   PYTHON_VERSION  of the base, for which to fetch wheels (3.11)
#   ARCHITECTURE    x86_64 or aarch64 (this machine's)
set -eu
cd "$(dirname "$0")/../.."
base=${PYTHON_IMAGE:-python:3.11-slim-bookworm}
version=${PYTHON_VERSION:-3.11}
architecture=${ARCHITECTURE:-$(uname -m)}
folder=build/image/wheels
fetched=build/image/fetched
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

pip() { .venv/bin/python -m pip "$@"; }

fetch_wheels() {
    wanted=$(printf '%s %s ' "$version" "$architecture" && sha256sum <requirements/image.lock)
    [ "$(cat "$fetched" 2>/dev/null)" = "$wanted" ] && return
    rm -rf "$folder" "$fetched" && mkdir -p "$folder"
    platforms=""
    for libc in manylinux_2_28 manylinux_2_17 manylinux2014 manylinux_2_12 manylinux2010; do
        platforms="$platforms --platform ${libc}_$architecture"
    done
    # shellcheck disable=SC2086  # each platform is a word
    pip download --quiet --require-hashes --only-binary :all: --no-deps --python-version "$version" $platforms \
        --dest "$folder" --requirement requirements/image.lock
    printf '%s' "$wanted" >"$fetched"
}

build_wheel() {
    # From a copy of what git knows: no leftovers of other builds, no private files, the same modes everywhere.
    source=$(mktemp -d)
    trap 'rm -rf "$source"' EXIT
    git ls-files -z | tar --null --files-from - --create | tar --extract --directory "$source"
    chmod -R u=rwX,go=rX "$source"
    rm -f "$folder"/tenure-*.whl
    pip wheel --quiet --no-deps --no-build-isolation --no-index --wheel-dir "$folder" "$source"
}

build_image() {
    wheel=$(ls "$folder"/tenure-*.whl) || { echo "build.sh: no wheels in $folder: run build.sh wheels" >&2; exit 1; }
    release=${wheel#"$folder/tenure-"}
    release=${release%%-*}
    image=${TENURE_IMAGE:-tenure:$release}
    revision=$(git rev-parse HEAD)
    [ -z "$(git status --porcelain --untracked-files=no)" ] || revision=$revision-changed
    docker build --quiet --network none --file deploy/image/Dockerfile --tag "$image" \
        --build-arg "PYTHON_IMAGE=$base" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
        --build-arg "VERSION=$release" --build-arg "REVISION=$revision" \
        --build-arg "CREATED=$(date --utc --date "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" "$@" . >/dev/null
    docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' "$image"
}

case "${1:-all}" in
wheels) fetch_wheels && build_wheel ;;
image) shift && build_image "$@" ;;
all) fetch_wheels && build_wheel && build_image ;;
*) echo "usage: build.sh [wheels|image]" >&2; exit 2 ;;
esac
