#!/usr/bin/env bash
# What the fixed order of additions (rule 4 of docs/numerics.md) costs: products of this tree beside the same
# kernels with the order left free, by turns in one run.
#
# usage: tools/order_cost.sh [ROUNDS [device options of vkmoe bench]]      (15 rounds, --backend cpu)
#
# Free means: sums run on over 512 or 1024 elements of K, all that these rows have, where the contract cuts them at
# 256. The other trees are copies in a temporary folder. Shown are, for each row and each free tree, the median over
# the rounds of the contract's time by the free one's, and the quartiles: machines are shared and noisy.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-15}
shift || true
[ $# -gt 0 ] || set -- --backend cpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
rows=(gemm/1024 gemm-head/qwen3-0.6b linear-gate/qwen3-0.6b linear-gate-8/qwen3-0.6b)

build() { # name, elements of a sum
  mkdir "$tmp/$1"
  git ls-files | tar -cf - -T - | tar -xf - -C "$tmp/$1"
  sed -i "s/VKM_CHUNK = 256,/VKM_CHUNK = $2,/" "$tmp/$1/src/ops/rule4.h"
  sed -i "s/256u/$2u/g" "$tmp/$1/shaders/tile_plain.glsl"
  cmake -S "$tmp/$1" -B "$tmp/$1/build" -G Ninja -DCMAKE_BUILD_TYPE=Release >/dev/null
  cmake --build "$tmp/$1/build" --target vkmoe >/dev/null
}
build contract 256
build free512 512
build free1024 1024

measure() { # tree, device options...
  local tree=$1 row
  shift
  for row in "${rows[@]}"; do
    "$tmp/$tree/build/vkmoe" bench "$row" --quiet --json --repeat 2 "$@" |
      sed -nE "s/.*\"name\":\"([^\"]*)\".*\"seconds\":([^,]*),.*/$tree \1 \2/p"
  done
}

for ((i = 0; i < rounds; i++)); do
  for tree in contract free512 free1024; do
    measure "$tree" "$@"
  done
done >"$tmp/times"
echo "$@"
awk '{ t[$1 " " $2] = $3 } $1 == "contract" { next }
     { print $2, $1, t["contract " $2] / $3 }' "$tmp/times" | sort -k1,2 -k3,3n |
  awk 'function show() { if (n) printf "  %-18s over %-9s %.3f (%.3f to %.3f)\n", row, tree, v[int((n + 1) / 2)], v[int((n + 3) / 4)], v[int((3 * n + 1) / 4)] }
       $1 != row || $2 != tree { show(); n = 0; row = $1; tree = $2 } { v[++n] = $3 } END { show() }'
