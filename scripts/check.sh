#!/bin/sh
# Everything that can be said of the code without running it. Runs all checks, names those that fail.
set -u
cd "$(dirname "$0")/.."
failed=""

run() {
    name=$1
    shift
    began=$(date +%s)
    if output=$("$@" 2>&1); then
        printf 'ok    %-12s %s s\n' "$name" "$(($(date +%s) - began))"
    else
        printf 'FAIL  %-12s %s s\n%s\n' "$name" "$(($(date +%s) - began))" "$output"
        failed="$failed $name"
    fi
}

stubs_are_fresh() {
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    sh scripts/generate_proto.sh "$fresh" || return 1
    (cd "$fresh" && find . -type f) | sort > "$fresh/made"
    (cd proto && find . -name '*_pb2*.py' -o -name '*_pb2*.pyi') | sort > "$fresh/committed"
    sed -i '/\/made$\|\/committed$/d' "$fresh/made"
    diff "$fresh/committed" "$fresh/made" && while read -r stub; do
        cmp "proto/$stub" "$fresh/$stub" || return 1
    done < "$fresh/made"
}

run lint .venv/bin/ruff check .
run format .venv/bin/ruff format --check --quiet .
run types .venv/bin/mypy .dev/tenure tests scripts
run imports .venv/bin/lint-imports --no-logo
run stubs stubs_are_fresh # red: make proto
run client .venv/bin/python scripts/generate_sync_client.py --check
run reference .venv/bin/python scripts/generate_reference.py --check
run metrics .venv/bin/python scripts/generate_metrics.py --check
run events .venv/bin/python scripts/generate_events.py --check
run keyspace .venv/bin/python scripts/generate_keyspace.py --check
run commands .venv/bin/python scripts/generate_cli.py --check
run figures .venv/bin/python scripts/generate_performance.py --check
run record .venv/bin/python scripts/generate_reliability.py --check
run chart .venv/bin/python scripts/generate_chart_readme.py --check

[ -z "$failed" ] || { printf 'failed:%s\n' "$failed"; exit 1; }
