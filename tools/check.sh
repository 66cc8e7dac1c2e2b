#!/bin/bash
# Installs what is missing, builds, and passes every test and check. One line a stage; the log of each
# is build/check/<stage>.log. The last line is `N passed, N failed`; exit 1 if anything failed.
#   tools/check.sh [STAGE...]   only these stages (after the build)
set -u
cd "$(dirname "$0")/.."
tools/setup.sh --dev || exit 1

jobs=$(nproc)
logs=build/check
mkdir -p $logs
passed=0 failed=0
only=" $* "
begun=$SECONDS

# stage NAME COMMAND...: runs it quietly; a failure shows the end of its log.
stage() {
    local name=$1 start=$SECONDS
    shift
    [ "$only" = "  " ] || [ "$name" = build ] || [[ $only == *" $name "* ]] || return 0
    printf '%-11s ' "$name"
    if "$@" >$logs/$name.log 2>&1; then
        passed=$((passed + 1))
        echo "ok      $((SECONDS - start)) s"
        grep '^SKIP: ' $logs/$name.log
    else
        failed=$((failed + 1))
        echo "FAILED  $((SECONDS - start)) s, the end of $logs/$name.log:"
        tail -n 25 $logs/$name.log | cut -c 1-300
    fi
    # the tests of a stage count one by one, not as one stage more
    local n m
    while read -r n m; do
        passed=$((passed + m - n))
        failed=$((failed + n))
    done < <(sed -nE 's/.*tests passed, ([0-9]+) tests? failed out of ([0-9]+)/\1 \2/p' $logs/$name.log)
}

sources() { git ls-files --cached --others --exclude-standard 'src/*.[ch]' 'include/*.h' 'tests/*.[ch]'; }

build() { cmake --preset $1 && cmake --build --preset $1; }

# Sanitizers: addresses are not randomised where that can be chosen (old runtimes need it). Leaks are
# looked for where no driver is loaded: what a driver leaves behind is not ours.
sanitize() {
    build sanitize || return 1
    local fixed="" drivers
    setarch -R true 2>/dev/null && fixed="setarch -R"
    drivers=$(grep -lE 'VKM_VULKAN|lavapipe' tests/test_*.c | sed 's|.*/||; s|\.c$||' | paste -sd '|')
    export UBSAN_OPTIONS=print_stacktrace=1
    ASAN_OPTIONS=detect_leaks=1 $fixed ctest --test-dir build-sanitize -j "$jobs" --output-on-failure \
        --timeout 600 -LE slow -E "^($drivers)\$" &&
        ASAN_OPTIONS=detect_leaks=0 $fixed ctest --test-dir build-sanitize -j "$jobs" \
            --output-on-failure --timeout 600 -LE slow -R "^($drivers)\$" &&
        ASAN_OPTIONS=detect_leaks=1 $fixed build-sanitize/vkmoe smoke --backend cpu --skip-gates --quiet
}

tidy() { sources | grep '^src/.*\.c$' | xargs -P "$jobs" -n 4 clang-tidy -p build --quiet; }

lint() {
    cppcheck --enable=warning,performance,portability --inline-suppr --suppressions-list=tools/cppcheck.supp \
        --error-exitcode=1 --quiet -j "$jobs" --std=c11 -Isrc -Iinclude -Ibuild/gen src tests
}

format() { sources | xargs clang-format --dry-run --Werror; }

# One run, one hash: the lines of weights on two backends, of the smoke (on lavapipe also as a GPU runs it) and of
# ten steps of the tiny testbed.
weights() { grep -o 'weights_hash [0-9a-f]*'; }
hashes() { build/vkmoe smoke --quiet --skip-gates "$@" | weights; }
tiny_hashes() {
    rm -rf $logs/tiny
    build/vkmoe train tiny --max_steps 10 --num_prompts 2 --num_generations 4 --refresh_every 5 \
        --eval_every 0 --eval_data= --eval_problems 0 --quiet --output_dir $logs/tiny "$@" | weights
}
same() { [ -s "$1" ] && cmp "$1" "$2"; }
same_hash() {
    hashes --device lavapipe >$logs/hash-lavapipe.txt && hashes --backend cpu >$logs/hash-cpu.txt &&
        VKMOE_CLASS=gpu hashes --device lavapipe >$logs/hash-gpu-class.txt &&
        hashes --backend cpu --threads 1 --flush-denormals >$logs/hash-cpu-1-ftz.txt &&
        tiny_hashes --device lavapipe >$logs/tiny-lavapipe.txt && tiny_hashes --backend cpu >$logs/tiny-cpu.txt &&
        same $logs/hash-lavapipe.txt $logs/hash-cpu.txt && same $logs/hash-cpu.txt $logs/hash-cpu-1-ftz.txt &&
        same $logs/hash-gpu-class.txt $logs/hash-cpu.txt &&
        same $logs/tiny-lavapipe.txt $logs/tiny-cpu.txt && cat $logs/hash-cpu.txt $logs/tiny-cpu.txt
}

# The exact kernels of a GPU keep their sums in registers.
gpu_compile() { tools/gpu_stats.sh / mini && tools/gpu_stats.sh attn qwen3-0.6b; }

stage build build default
if [ $failed = 0 ]; then
    stage tests ctest --test-dir build -j "$jobs" --output-on-failure --timeout 600
    stage verify build/vkmoe verify --device lavapipe --validate
    stage gpu-compile gpu_compile
    stage same-hash same_hash
    stage clang build clang
    stage format format
    stage tidy tidy
    stage cppcheck lint
    stage sanitize sanitize
    stage fuzz tools/fuzz/run 5
fi
echo "$((SECONDS - begun)) s in all"
echo "$passed passed, $failed failed"
[ $failed = 0 ]
