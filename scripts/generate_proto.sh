#!/bin/sh
# Regenerates the committed Python stubs from proto/. `--check DIR` writes them below DIR instead, to compare.
set -eu
cd "$(dirname "$0")/.."
out=${1:-proto}
python=${PYTHON:-.venv/bin/python}
"$python" -m grpc_tools.protoc -Iproto --python_out="$out" --pyi_out="$out" proto/tenure/v1/*.proto proto/tenure/etcdpb/*.proto
"$python" -m grpc_tools.protoc -Iproto --grpc_python_out="$out" proto/tenure/v1/*_service.proto
