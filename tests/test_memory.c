/* The memory plan is what a run takes: peak resident memory of a whole run, with its checkpoint and
 * its saved model, beside the total that --dry-run prints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "tmpdir.h"

#include "program.h"

/* The program itself, its libraries, tokenizer and rows, and what goes through host memory at a
 * time: MiB. */
enum { BESIDE = 24 };

static void a_run_takes_what_is_planned(void **state) {
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    print_message("SKIP: the sanitizer's own memory is counted too\n");
    skip();
#endif
    static const char sft[] =
        "sft --backend cpu --threads 2 --model '%s' --data '" VKM_SOURCE_DIR
        "/data/tiny/sft.jsonl.gz' --output_dir '%s' --sft_train weights --max_steps 1 "
        "--per_device_train_batch_size 4 --max_length 128 %s";
    struct rusage used;
    works(vkmoe("init-model --preset tiny --hidden 256 --ffn 1024 --layers 4 --vocab 8192 "
                "--tokenizer " VKM_SOURCE_DIR "/data/tiny/warm1 --output '%s'",
                in_dir("model")));
    works(vkmoe(sft, in_dir("model"), in_dir("run"), "--dry-run"));
    double tensors, planned = 0;
    const char *total = strstr(out, "\ntotal");
    if (!total || sscanf(total + 6, "%lf %lf", &tensors, &planned) != 2) fail_msg("%s", out);
    works(vkmoe(sft, in_dir("model"), in_dir("run"), ""));
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &used), 0);
    double peak = (double)used.ru_maxrss / 1024;
    print_message("planned %.1f MiB, peak %.1f MiB\n", planned, peak);
    assert_true(peak <= 1.05 * planned + BESIDE);
    assert_true(peak >= 0.9 * planned); /* nor is it an overestimate */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_run_takes_what_is_planned)};
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
