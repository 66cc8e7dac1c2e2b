#!/usr/bin/env bash
# What the fixed order of additions (rule 4 of docs/numerics.md) costs: products of this tree beside the same
# kernels with the order left free, by turns in one run.
#
# usage: tools/order_cost.sh [ROUNDS]
#
# Free means: sums run on over K = 512 or 1024 elements, on a device over all of K, where the contract cuts them at
# 256. The other trees are copies in a temporary folder. Shown is the best of the rounds for each row, and the
# contract's time over the best free one.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-5}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
rows=(gemm/1024 gemm/head linear/train linear/decode-8)

build() { # name, chunk of the processor's kernels, chunk of the shaders
  mkdir "$tmp/$1"
  git ls-files | tar -cf - -T - | tar -xf - -C "$tmp/$1"
  sed -i "s/VKM_CHUNK = 256,/VKM_CHUNK = $2,/" "$tmp/$1/src/ops/rule4.h"
  sed -i "s/256u/$3u/g" "$tmp/$1/shaders/rule4_tile.glsl"
  cmake -S "$tmp/$1" -B "$tmp/$1/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF >/dev/null
  cmake --build "$tmp/$1/build" --target vkmoe >/dev/null
}
build contract 256 256
build free512 512 1048576
build free1024 1024 1048576

measure() { # tree, device options...
  local tree=$1 row
  shift
  for row in "${rows[@]}"; do
    "$tmp/$tree/build/vkmoe" bench "$row" --quiet --json --repeat 2 "$@" |
      sed -E "s/.*\"name\":\"([^\"]*)\".*\"seconds\":([^,]*),.*/$tree \1 \2/"
  done
}

for device in "--backend cpu" "--device lavapipe"; do
  trees=(contract free512 free1024)
  [ "$device" = "--backend cpu" ] || trees=(contract free512)
  for ((i = 0; i < rounds; i++)); do
    for tree in "${trees[@]}"; do
      # shellcheck disable=SC2086
      measure "$tree" $device
    done
  done >"$tmp/times"
  echo "$device"
  awk '{ k = $1 " " $2; if (!(k in t) || $3 < t[k]) t[k] = $3; rows[$2] }
       END { for (r in rows) { free = 1e9
               for (k in t) { split(k, p, " "); if (p[2] == r && p[1] != "contract" && t[k] < free) free = t[k] }
               printf "  %-18s contract %9.3f ms, free %9.3f ms: %.3f\n", r, 1e3 * t["contract " r], 1e3 * free, t["contract " r] / free } }' \
    "$tmp/times" | sort
done
