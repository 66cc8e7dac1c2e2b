#!/usr/bin/env bash
# Builds vkmoe in a Debian sid chroot and runs a command there: the newest compiler, Vulkan headers, glslang and
# Mesa, so cooperative matrices (the fast tier), fused fma and flushed denormals on its lavapipe.
#
# usage: tools/sid.sh DIR [COMMAND ...]      (as root; DIR is made by debootstrap if it does not exist, 1.5 GB)
#
# Without a command: the tests of the fast tier and of tiles, and every kernel's gate in both tiers, under the
# validation layers, in the fast tier also as a GPU would run it. The tree is /src there, the program /build/vkmoe.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "tools/sid.sh: a root folder of its own needs root" >&2; exit 2; }
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$1
shift
if [ ! -e "$dir/etc/debian_version" ]; then
    command -v debootstrap >/dev/null || { echo "tools/sid.sh: install debootstrap" >&2; exit 1; }
    mirror=$(awk '/^URIs:/ {print $2; exit} /^deb / {print $2; exit}' /etc/apt/sources.list.d/*.sources \
        /etc/apt/sources.list 2>/dev/null || true)
    debootstrap --variant=minbase sid "$dir" "${mirror:-http://deb.debian.org/debian}" >&2
fi
mkdir -p "$dir/src" "$dir/build" "$dir/proc" "$dir/tmp"
# A mirror that lags a few weeks behind serves a list of files that apt calls expired.
echo 'Acquire::Check-Valid-Until "false";' >"$dir/etc/apt/apt.conf.d/99-mirror"

# Mounts live in a namespace of their own and end with this script. The folder becomes the root by pivot_root,
# since from within a chroot no box can be made for grading.
export here dir
exec unshare --mount bash -euo pipefail -c '
mount --bind "$dir" "$dir"
mount --bind "$here" "$dir/src"
mount -t proc proc "$dir/proc"
mount --bind /dev "$dir/dev"
cd "$dir"
pivot_root . .
umount -l .
run() { /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@"; }
run /src/tools/setup.sh
run apt-get -q -y --no-install-recommends install libcmocka-dev libopenblas-dev vulkan-validationlayers git >/dev/null
run cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
run cmake --build /build >&2
if [ $# -gt 0 ]; then
    run /bin/sh -c "cd /src && exec \"\$@\"" sh "$@"
else
    run /build/vkmoe devices
    run /build/test_fast
    run /build/test_tiles
    run /build/vkmoe verify kernel --device llvmpipe --validate
    run /build/vkmoe verify kernel --device llvmpipe --validate --numerics fast
    run VKMOE_CLASS=gpu /build/vkmoe verify kernel --device llvmpipe --validate --numerics fast
fi' sh "$@"
