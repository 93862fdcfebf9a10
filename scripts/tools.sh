#!/bin/sh
# Builds servers that only tests need from their Go modules into .cache/tools: `tools.sh etcd`, `tools.sh kube-apiserver`.
# tests/tools/NAME/go.mod names the release, its go.sum the hash of every module. A second call only looks for changes.
# Cgo is off: what is built runs on any Linux of this architecture. GOFLAGS=-p=1 builds with less memory, and slower.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.cache/tools
wanted_go=1.26

fail() { printf 'tenure: %s\n' "$*" >&2; exit 1; }

[ $# -gt 0 ] || fail "usage: tools.sh NAME…, one of: $(ls tests/tools | tr '\n' ' ')"
command -v go >/dev/null || fail "Go $wanted_go or later is needed to build $*, and there is no go on PATH"

# A toolchain that is too old is told, not replaced by one from the network.
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off

for name; do
    [ -f "tests/tools/$name/go.mod" ] || fail "no tool $name, only: $(ls tests/tools | tr '\n' ' ')"
    (
        cd "tests/tools/$name"
        release=$(go list -f '{{.Module.Version}}' tool) || fail "$name cannot be built (Go $wanted_go is needed, here is $(go env GOVERSION))"
        printf 'tenure: building %s %s\n' "$name" "$release" >&2
        minor=${release#v*.}
        # What kube-apiserver says of itself at /version; to etcd these names mean nothing.
        version=k8s.io/component-base/version
        go build -trimpath -o "$bin/$name" \
            -ldflags "-s -w -X $version.gitVersion=$release -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}" tool
    )
    printf '%s\n' "$bin/$name"
done
