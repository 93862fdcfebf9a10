#!/bin/sh
# Renews the locks from pyproject.toml. Keeps what is locked where it still fits; `lock.sh --upgrade` takes the newest.
set -eu
cd "$(dirname "$0")/.."
compile() {
    lock=$1
    shift
    # setuptools is locked too, as it builds this project without isolation.
    printf 'setuptools>=77\n' |
        uv pip compile --quiet --generate-hashes --no-header --no-annotate --universal --python-version 3.11 \
            --output-file "requirements/$lock.lock" "$@" pyproject.toml -
}
compile dev --all-extras "$@"
# The same versions for users as for tests.
compile run --extra embedded --constraints requirements/dev.lock
# The container image: no servers, and nothing that builds (pbr asks for setuptools, and runs without it).
compile image --extra archive --extra otel --extra s3 --no-emit-package setuptools --constraints requirements/dev.lock
