#!/bin/sh
# Verifies, runs the smoke and the benchmarks on this machine's GPU, and compares the smoke's hashes
# with those of the machine that made this folder. At most nine minutes. Logs go to the folder that is
# named (default: results). Exit 1 if anything failed.
#   ./run_on_gpu.sh [FOLDER] [--device NAME]
set -u
case ${1-} in "" | --*) out=results ;; *) out=$1; shift ;; esac
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "$(dirname "$0")" || exit 1
mkdir -p "$out" || exit 1
failed=0

# step SECONDS NAME COMMAND...
step() {
    limit=$1 name=$2
    shift 2
    begun=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.txt" 2>"$out/$name.log"
    rc=$?
    result=ok
    case $rc in
    0) ;;
    124) result="FAILED (over $limit s)" ;;
    *) result="FAILED ($rc): $(tail -n 1 "$out/$name.log")" ;;
    esac
    [ $rc = 0 ] || failed=$((failed + 1))
    echo "$name: $result, $(($(date +%s) - begun)) s"
}

# Grading needs python3 and a sandbox; say what is missing and what follows from it.
sandbox=bwrap
if ! command -v python3 >/dev/null; then
    echo "no python3 here: the smoke, which grades Python, is left out"
    sandbox=none
elif ! bwrap --unshare-all --ro-bind / / true 2>/dev/null; then
    echo "bubblewrap is missing or may not make namespaces: Python runs unsandboxed (--sandbox unsafe-none)"
    sandbox=unsafe-none
fi

# Containers may have the vendor's driver file where no loader looks.
for f in /usr/local/nvidia/share/vulkan/icd.d/*.json; do
    [ ! -e "$f" ] || export VK_DRIVER_FILES="${VK_DRIVER_FILES:-$f}"
done

./vkmoe --version
step 30 devices ./vkmoe devices
cat "$out/devices.txt"
step 120 verify ./vkmoe verify "$@"
tail -n 1 "$out/verify.txt"
if [ $sandbox != none ]; then
    step 100 smoke ./vkmoe smoke --skip-gates --sandbox $sandbox "$@"
    tail -n 3 "$out/smoke.txt"
    grep -o 'weights_hash [0-9a-f]*' "$out/smoke.txt" >"$out/hash_here.txt"
    grep -o 'weights_hash [0-9a-f]*' expected_smoke.txt >"$out/hash_expected.txt"
    if [ -s "$out/hash_here.txt" ] && cmp -s "$out/hash_expected.txt" "$out/hash_here.txt"; then
        echo "hashes: all $(wc -l <"$out/hash_here.txt") equal those of the CPU reference"
    else
        echo "hashes: FAILED, they differ from those of the CPU reference"
        failed=$((failed + 1))
    fi
fi
step 80 bench ./vkmoe bench --min-ms 20 "$@"
cat "$out/bench.txt"
step 15 bench_plain_attention env VKMOE_ATTENTION=plain ./vkmoe bench attn "$@"
cat "$out/bench_plain_attention.txt"
step 20 bench_4b ./vkmoe bench linear --preset qwen3-4b --min-ms 20 "$@"
cat "$out/bench_4b.txt"
step 155 tune ./vkmoe tune --repeat 2 --min-ms 5 "$@"
cat "$out/tune.txt"
step 30 bench_tuned ./vkmoe bench ge "$@" # gemm, gemm_seg, the head's
cat "$out/bench_tuned.txt"
if grep -q ', fast\]' "$out/devices.txt"; then
    step 25 verify_fast ./vkmoe verify kernel --numerics fast "$@"
    tail -n 1 "$out/verify_fast.txt"
    step 25 bench_fast ./vkmoe bench ge --numerics fast "$@"
    cat "$out/bench_fast.txt"
    step 20 bench_fast_4b ./vkmoe bench linear --preset qwen3-4b --min-ms 20 --numerics fast "$@"
    cat "$out/bench_fast_4b.txt"
    step 15 bench_fast_attention ./vkmoe bench attn --min-ms 20 --numerics fast "$@"
    cat "$out/bench_fast_attention.txt"
else
    echo "no fast tier here: the device, or the build, has no cooperative matrices"
fi
echo "$failed failed; logs in $out"
[ $failed = 0 ]
