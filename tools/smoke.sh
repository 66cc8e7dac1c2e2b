#!/bin/sh
# Installs what is missing, builds, and runs the main job on real input: `vkmoe smoke`, on the GPU if
# there is one, else on the software driver. Arguments go to `vkmoe smoke`.
set -eu
cd "$(dirname "$0")/.."
tools/setup.sh
mkdir -p build
echo "building (log: build/build.log)" >&2
if ! { cmake -S . -B build -G Ninja && cmake --build build --target vkmoe; } >build/build.log 2>&1; then
    tail -n 30 build/build.log >&2
    exit 1
fi
exec build/vkmoe smoke "$@"
