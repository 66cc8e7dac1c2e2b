#!/bin/sh
# Installs what is missing to build and run vkmoe on Debian 12 (or a later Debian or Ubuntu).
#   tools/setup.sh          what building and running needs
#   tools/setup.sh --dev    and what the tests and checks need (tools/check.sh)
# Run as root or with sudo. Nothing is done when nothing is missing.
set -eu

run="gcc libc6-dev cmake ninja-build pkg-config
    libvulkan-dev libvulkan-volk-dev libvulkan1 glslang-tools spirv-tools
    libcjson-dev libpcre2-dev libutf8proc-dev zlib1g-dev libxxhash-dev libseccomp-dev
    libjs-chart.js bubblewrap python3 mesa-vulkan-drivers"
dev="git clang libclang-rt-14-dev clang-format clang-tidy cppcheck libcmocka-dev libopenblas-dev
    vulkan-validationlayers util-linux"

case "${1-}" in
--dev) wanted="$run $dev" ;;
"") wanted=$run ;;
*) echo "usage: tools/setup.sh [--dev]" >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null; then
    echo "tools/setup.sh: no apt-get here; install what these Debian packages hold, then go on:" >&2
    echo $wanted >&2
    exit 1
fi

missing=""
for p in $wanted; do
    case $(dpkg-query -W -f '${Status}' "$p" 2>/dev/null || true) in
    "install ok installed") ;;
    *) missing="$missing $p" ;;
    esac
done
[ -n "$missing" ] || exit 0

sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || {
        echo "tools/setup.sh: run it as root, or install sudo; missing:$missing" >&2
        exit 1
    }
    sudo=sudo
fi
echo "installing:$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
if ! { $apt update && $apt install --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "tools/setup.sh: apt-get failed (above); missing:$missing" >&2
    exit 1
fi
