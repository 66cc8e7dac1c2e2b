#!/bin/bash
# Makes the tiny testbed's warm starts again, to the bit (docs/testbed.md): about 5 minutes each on two cores.
#   tools/make_tiny_warm.sh DIR [SEED...]    builds DIR/warm1 and DIR/warm2 (seeds 1 and 2), prints their hashes and
#                                            compares them with data/tiny/warmSEED; exit 1 where one differs
set -eu
cd "$(dirname "$0")/.."
dir=${1:?usage: tools/make_tiny_warm.sh DIR [SEED...]}
shift
[ $# -gt 0 ] || set -- 1 2
failed=0
for seed in "$@"; do
    work=$dir/warm$seed.work
    build/vkmoe init-model --preset mini --tokenizer data/tiny --seed "$seed" --output "$work/init" --force --quiet
    build/vkmoe sft tiny-warm --model "$work/init" --seed "$seed" --output_dir "$work/sft" --backend cpu ${VKMOE_SFT_OPTIONS:-} |
        grep '^step .*00 weights_hash'
    rm -rf "${dir:?}/warm$seed"
    mv "$work/sft/model" "$dir/warm$seed"
    rm -rf "$work"
    if diff -r "$dir/warm$seed" "data/tiny/warm$seed" >/dev/null 2>&1; then
        echo "warm$seed: the same as data/tiny/warm$seed, to the bit"
    else
        echo "warm$seed: differs from data/tiny/warm$seed"
        failed=1
    fi
done
exit $failed
