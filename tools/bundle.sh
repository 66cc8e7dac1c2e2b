#!/bin/bash
# Makes DIR: vkmoe with the libraries it needs, configs, data and a tiny model, which runs on another
# x86-64 Linux machine without a package registry or a shader compiler.
#   tools/bundle.sh DIR        then there: DIR/run_on_gpu.sh
# VKMOE_BUILD names a build that exists already, as that of tools/sid.sh, which has the fast tier:
#   tools/sid.sh CHROOT env VKMOE_BUILD=/build tools/bundle.sh /tmp/bundle     (CHROOT/tmp/bundle)
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: tools/bundle.sh DIR" >&2; exit 2; }
dir=$1
[ ! -e "$dir" ] || { echo "tools/bundle.sh: $dir exists; name a new folder" >&2; exit 2; }

build=${VKMOE_BUILD:-build}
if [ -z "${VKMOE_BUILD-}" ]; then
    cmake --preset default >/dev/null
    cmake --build --preset default --target vkmoe >/dev/null
fi
mkdir -p "$dir"/{bin,lib/glibc,lib/loader,models}
cp "$build/vkmoe" "$dir/bin/vkmoe"
strip --strip-debug "$dir/bin/vkmoe"

# Libraries: those of glibc apart (the machine's own are better if they are new enough), the Vulkan
# loader apart (its own is better if it has one).
loader=$(ldconfig -p | awk '/libvulkan\.so\.1 .*x86-64/ {print $NF; exit}')
[ -n "$loader" ] || { echo "tools/bundle.sh: no libvulkan.so.1 here; run tools/setup.sh" >&2; exit 1; }
cp -L "$loader" "$dir/lib/loader/libvulkan.so.1"
for lib in $(ldd "$build/vkmoe" "$loader" | awk '$2 == "=>" {print $3} $1 ~ /^\/.*ld-linux/ {print $1}' | sort -u); do
    case $(basename "$lib") in
    libc.so.* | libm.so.* | libdl.so.* | libpthread.so.* | librt.so.* | ld-linux*) to=lib/glibc ;;
    *) to=lib ;;
    esac
    cp -L "$lib" "$dir/$to/"
done

cp -r configs "$dir/configs"
[ ! -d data ] || cp -r data "$dir/data"
"$build/vkmoe" init-model --preset tiny --output "$dir/models/tiny" --quiet
cp tools/run_on_gpu.sh "$dir/run_on_gpu.sh"

cat >"$dir/vkmoe" <<'EOF'
#!/bin/sh
# Runs the program with the machine's glibc and Vulkan loader where they will do, else with ours.
here=$(cd "$(dirname "$0")" && pwd)
libs=$here/lib
ldconfig=$(command -v ldconfig || echo /sbin/ldconfig)
$ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1 ' || libs=$libs:$here/lib/loader
if LD_LIBRARY_PATH=$libs "$here/bin/vkmoe" --version >/dev/null 2>&1; then
    LD_LIBRARY_PATH=$libs exec "$here/bin/vkmoe" "$@"
fi
exec "$here/lib/glibc/ld-linux-x86-64.so.2" --library-path "$here/lib/glibc:$libs" "$here/bin/vkmoe" "$@"
EOF
chmod +x "$dir/vkmoe" "$dir/run_on_gpu.sh"

# What this machine's CPU says, for comparison there.
(cd "$dir" && ./vkmoe smoke --backend cpu --skip-gates --quiet >expected_smoke.txt 2>expected_smoke.log) ||
    echo "tools/bundle.sh: the smoke did not pass here; see $dir/expected_smoke.log" >&2
echo "$dir: $(du -sh "$dir" | cut -f 1), run $dir/run_on_gpu.sh there"
