#!/bin/bash
# What a GPU's compiler makes of the shaders, without the GPU: a line a pipeline.
#   tools/gpu_stats.sh [ROW [PRESET]]     rows of `vkmoe bench`, all by default; at the shapes of a preset [mini]
# RADV compiles for a device that is not there, FAMILY (navi21; vega10, navi31, ...) in the environment; Mesa 26 no
# longer does. Exit 1 if an exact kernel spills vector registers.
set -u -o pipefail
cd "$(dirname "$0")/.."
row=${1-/} preset=${2-mini}
icd=$(ls /usr/share/vulkan/icd.d/radeon_icd*.json 2>/dev/null | head -n 1)
stats() { RADV_FORCE_FAMILY=${FAMILY:-navi21} VK_DRIVER_FILES=$icd build/gpu_stats build/gen; }
rc=3
[ -z "$icd" ] || { stats </dev/null >/dev/null; rc=$?; }
if [ $rc = 3 ]; then
    echo "SKIP: no RADV here that compiles for a device which is not there"
    exit 0
fi
[ $rc = 0 ] || exit 1
VKMOE_CLASS=gpu build/vkmoe bench "$row" --preset "$preset" --device lavapipe --repeat 1 --min-ms 0 --verbose 2>&1 >/dev/null |
    grep -E '^debug: pipeline ' | sed -E 's/: [0-9]+ ms$//' | sort -u | stats | awk '
    function of(name,  at) { at = index($0, "  " name " "); return at ? substr($0, at + length(name) + 3) + 0 : 0 }
    NR == 1 { print; printf "%-24s %-32s %9s %7s %10s %8s %12s %9s\n", "pipeline", "constants", "registers", "spilled",
              "shared B", "waves", "instructions", "estimate"; next }
    {
        constants = $2
        for (i = 3; i <= 13; i++) constants = constants " " $i
        sub(/( 0)+$/, "", constants)
        printf "%-24s %-32s %9d %7d %10d %8d %12d %9d\n", $1, constants, of("VGPRs"), of("Spilled VGPRs"), of("LDS size"),
               of("Subgroups per SIMD"), of("Instructions"), of("Inverse Throughput") | "sort -k1,1"
        spills += of("Spilled VGPRs") > 0
        n++
    }
    END {
        close("sort -k1,1")
        print n + 0 " pipelines, " spills + 0 " spill"
        exit n == 0 || spills > 0
    }'
