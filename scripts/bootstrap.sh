#!/bin/sh
# Makes .venv ready: `bootstrap.sh run` for using tenure, `bootstrap.sh dev` for working on it (run is part of dev).
# Installs exactly what the lock names, by hash, then this checkout. A second call finds its stamp and does nothing.
# Needs Python 3.11 or later with the venv module; as root on Debian or Ubuntu it installs what is missing.
set -eu
cd "$(dirname "$0")/.."
wanted=${1:?usage: bootstrap.sh run|dev}

say() { printf 'tenure: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do
        # Run it: a name on PATH may be a version manager's stub.
        if "$candidate" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
}

apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -q --no-install-recommends "$@" >/dev/null 2>&1 || {
        apt-get update -q >/dev/null && apt-get install -y -q --no-install-recommends "$@" >/dev/null
    }
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

fingerprint() {
    { cat "requirements/$1.lock" pyproject.toml scripts/bootstrap.sh; pwd; } | sha256sum | cut -c1-64
}

ready() {
    [ -x .venv/bin/python ] && [ "$(cat ".venv/.stamp-$1" 2>/dev/null)" = "$(fingerprint "$1")" ]
}

if ready "$wanted" || { [ "$wanted" = run ] && ready dev; }; then
    exit 0
fi

mkdir -p .venv 2>/dev/null && [ -w .venv ] || fail ".venv belongs to another user: use a checkout of your own"
if command -v flock >/dev/null; then
    exec 9>.venv/.bootstrap.lock
    flock 9
fi

if ! .venv/bin/python -c 'import sys, pip; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$(find_python)
    if [ -z "$python" ]; then
        apt_install python3 python3-venv && python=$(find_python) || true
        [ -n "$python" ] || fail "Python 3.11 or later is needed (or name one: make PYTHON=/path/to/python3.11 …)"
    fi
    if ! can_make_venv "$python"; then
        release=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        apt_install "python$release-venv" || apt_install python3-venv || true
        can_make_venv "$python" || fail "$python cannot make virtual environments; as root: apt-get install python$release-venv"
    fi
    say "making .venv with $python"
    "$python" -m venv --clear .venv
    # --clear removed the lock file; whoever waited for it holds a deleted one and finds the stamp.
fi

say "installing the $wanted dependencies"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r "requirements/$wanted.lock"
PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index -e .
.venv/bin/python scripts/link_packages.py
fingerprint "$wanted" > ".venv/.stamp-$wanted"
