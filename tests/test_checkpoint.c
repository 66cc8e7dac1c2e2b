/* Checkpoints and the run's folder: whole or absent, damage is found, resuming cuts the logs. */
#include "rl/checkpoint.h"
#include "rl/runlog.h"
#include "vk/dev.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static vkm_config config;
static char root[64];

static float adapter[1000], moments[2][500];
static uint64_t state[4];
static const vkm_ckpt_array adapter_arrays[] = {
    {"layers.0.dA", VKM_ST_F32, 2, {10, 100}, .data = adapter}};
static const vkm_ckpt_array optimizer_arrays[] = {{"m", VKM_ST_F32, 1, {500}, .data = moments[0]},
                                                  {"v", VKM_ST_F32, 1, {500}, .data = moments[1]}};
static const vkm_ckpt_array state_arrays[] = {{"counters", VKM_ST_U64, 1, {4}, .data = state}};
static const vkm_ckpt_file files[] = {
    {"adapter", adapter_arrays, 1}, {"optimizer", optimizer_arrays, 2}, {"state", state_arrays, 1}};
#define N_FILES VKM_COUNTOF(files)

static void fill(float seed) {
    for (int i = 0; i < 1000; i++) adapter[i] = seed + 0.5f * (float)i;
    for (int i = 0; i < 1000; i++) moments[i / 500][i % 500] = seed * (float)i;
    for (int i = 0; i < 4; i++) state[i] = (uint64_t)seed + ((uint64_t)i << 60);
}

static int setup(void **ignored) {
    (void)ignored;
    strcpy(root, "/tmp/vkmoe-ckpt-XXXXXX");
    if (!mkdtemp(root)) return 1;
    vkm_log_verbosity = VKM_LOG_QUIET;
    vkm_config_default(&config);
    snprintf(config.output_dir, sizeof config.output_dir, "%s/run", root);
    config.save_total_limit = 0;
    return 0;
}

static int teardown(void **ignored) {
    (void)ignored;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void save(uint32_t step) {
    vkm_err err = {0};
    fill((float)step);
    if (vkm_ckpt_save(&config, step, NULL, files, N_FILES, &err)) fail_msg("%s", err.msg);
}

static const char *in_checkpoint(uint32_t step, const char *name) {
    static char path[512];
    snprintf(path, sizeof path, "%s/run/checkpoints/step-%06u/%s", root, step, name);
    return path;
}

static size_t count(vkm_err *err) {
    uint32_t *steps;
    size_t n;
    if (vkm_ckpt_list(config.output_dir, &steps, &n, err)) return 0;
    free(steps);
    return n;
}

static void what_is_saved_is_loaded(void **ignored) {
    (void)ignored;
    uint32_t step = 0;
    vkm_err err = {0};
    char path[VKM_PATH_MAX];
    save(3);
    save(12);
    save(12); /* again, over itself */
    strcpy(config.resume_from_checkpoint, "latest");
    assert_int_equal(vkm_ckpt_find(&config, path, &err), VKM_OK);
    fill(0);
    if (vkm_ckpt_load(&config, path, NULL, files, N_FILES, &step, &err)) fail_msg("%s", err.msg);
    assert_int_equal(step, 12);
    assert_true(adapter[999] == 12 + 499.5f && moments[1][499] == 12 * 999.f);
    assert_true(state[3] == 12 + (3ull << 60));
    assert_int_equal(count(&err), 2);
}

/* Tensors of the device, the first larger than what goes through host memory at a time. */
static void what_is_on_the_device_goes_piece_by_piece(void **ignored) {
    (void)ignored;
    enum { N = 2500000, M = 7 };
    vkm_err err = {0};
    vkm_dev *dev;
    vkm_mem *mem;
    vkm_tensor t[2];
    uint32_t step;
    if (vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU, .threads = 1}, &dev, &err))
        fail_msg("%s", err.msg);
    vkm_plan *plan = vkm_plan_new(dev);
    vkm_plan_add(plan, &t[0], VKM_F32, N, "test");
    vkm_plan_add(plan, &t[1], VKM_F32, M, "test");
    if (vkm_plan_commit(plan, &mem, &err)) fail_msg("%s", err.msg);
    float *x = malloc((N + M) * sizeof *x), *y = malloc((N + M) * sizeof *y);
    assert_true(x && y);
    for (int i = 0; i < N + M; i++) x[i] = (float)i * 0.25f;
    const vkm_tensor *const parts[] = {&t[0], &t[1]};
    const vkm_ckpt_array on_device[] = {
        {"x", VKM_ST_F32, 1, {N + M}, .parts = parts, .n_parts = 2}};
    const vkm_ckpt_array on_host[] = {{"x", VKM_ST_F32, 1, {N + M}, .data = y}};
    const vkm_ckpt_file there = {"adapter", on_device, 1}, here = {"adapter", on_host, 1};
    if (vkm_write(dev, t[0], x, &err) || vkm_write(dev, t[1], x + N, &err) ||
        vkm_ckpt_save(&config, 4, dev, &there, 1, &err) || vkm_zero(dev, t[0], &err) ||
        vkm_zero(dev, t[1], &err) ||
        vkm_ckpt_load(&config, in_checkpoint(4, ""), NULL, &here, 1, &step, &err))
        fail_msg("%s", err.msg);
    assert_memory_equal(x, y, (N + M) * sizeof *x);
    memset(y, 0, (N + M) * sizeof *y);
    if (vkm_ckpt_load(&config, in_checkpoint(4, ""), dev, &there, 1, &step, &err) ||
        vkm_read(dev, t[0], y, &err) || vkm_read(dev, t[1], y + N, &err))
        fail_msg("%s", err.msg);
    assert_memory_equal(x, y, (N + M) * sizeof *x);
    free(x), free(y);
    vkm_mem_free(mem);
    vkm_dev_close(dev);
}

static void only_the_newest_are_kept(void **ignored) {
    (void)ignored;
    vkm_err err = {0};
    config.save_total_limit = 2;
    for (uint32_t step = 1; step <= 5; step++) save(step * 10);
    assert_int_equal(count(&err), 2);
    assert_int_equal(vkm_ckpt_verify(in_checkpoint(40, ""), NULL, NULL, &err), VKM_OK);
    assert_int_equal(vkm_ckpt_verify(in_checkpoint(50, ""), NULL, NULL, &err), VKM_OK);
}

static void flip_bit(const char *path) {
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fseek(f, -3, SEEK_END);
    int c = fgetc(f);
    fseek(f, -3, SEEK_END);
    fputc(c ^ 1, f);
    fclose(f);
}

static void damage_is_found_and_passed_over(void **ignored) {
    (void)ignored;
    char path[VKM_PATH_MAX];
    for (size_t i = 0; i < N_FILES + 2; i++) {
        vkm_err err = {0};
        save(1);
        save(2);
        if (i < N_FILES) {
            char name[64];
            snprintf(name, sizeof name, "%s.safetensors", files[i].name);
            flip_bit(in_checkpoint(2, name));
        } else if (i == N_FILES) {
            assert_int_equal(unlink(in_checkpoint(2, "manifest.json")), 0);
        } else {
            assert_int_equal(truncate(in_checkpoint(2, "adapter.safetensors"), 100), 0);
        }
        assert_int_equal(vkm_ckpt_verify(in_checkpoint(2, ""), NULL, NULL, &err), VKM_FAILED);
        err = (vkm_err){0};
        strcpy(config.resume_from_checkpoint, "latest");
        assert_int_equal(vkm_ckpt_find(&config, path, &err), VKM_OK);
        assert_non_null(strstr(path, "step-000001"));
    }
    vkm_err err = {0};
    flip_bit(in_checkpoint(1, "state.safetensors"));
    assert_int_equal(vkm_ckpt_find(&config, path, &err), VKM_FAILED);
    assert_non_null(strstr(err.msg, "none whole"));
}

static void another_config_is_refused(void **ignored) {
    (void)ignored;
    vkm_err err = {0};
    save(1);
    config.lora_rank = 8;
    assert_int_equal(vkm_ckpt_load(&config, in_checkpoint(1, ""), NULL, files, N_FILES, NULL, &err),
                     VKM_USAGE);
    assert_non_null(strstr(err.msg, "lora_rank was '32' and is now '8'"));
}

static void other_shapes_are_refused(void **ignored) {
    (void)ignored;
    vkm_err err = {0};
    const vkm_ckpt_array wide[] = {{"layers.0.dA", VKM_ST_F32, 2, {10, 99}, .data = adapter}};
    const vkm_ckpt_file other[] = {{"adapter", wide, 1}};
    save(1);
    assert_int_equal(vkm_ckpt_load(&config, in_checkpoint(1, ""), NULL, other, 1, NULL, &err),
                     VKM_FAILED);
    const vkm_ckpt_file fewer[] = {{"optimizer", optimizer_arrays, 1}};
    err = (vkm_err){0};
    assert_int_equal(vkm_ckpt_load(&config, in_checkpoint(1, ""), NULL, fewer, 1, NULL, &err),
                     VKM_FAILED);
}

static void a_full_disk_leaves_the_old_ones_whole(void **ignored) {
    (void)ignored;
    struct rlimit old, small;
    char path[VKM_PATH_MAX];
    save(1);
    (void)signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    for (rlim_t bytes = 100; bytes < 4000; bytes += 900) { /* no file is longer than 4,200 bytes */
        vkm_err err = {0};
        small = old;
        small.rlim_cur = bytes;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
        vkm_status st = vkm_ckpt_save(&config, 2, NULL, files, N_FILES, &err);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(st, VKM_FAILED);
        assert_non_null(strstr(err.msg, "checkpoint of step 2 was not saved"));
        err = (vkm_err){0};
        assert_int_equal(count(&err), 1);
        strcpy(config.resume_from_checkpoint, "latest");
        assert_int_equal(vkm_ckpt_find(&config, path, &err), VKM_OK);
        assert_int_equal(access(in_checkpoint(1, "../.tmp-step-000002"), F_OK), -1);
    }
    save(2);
}

static void what_a_kill_left_is_in_nobodys_way(void **ignored) {
    (void)ignored;
    vkm_err err = {0};
    save(1);
    assert_int_equal(mkdir(in_checkpoint(1, "../.tmp-step-000002"), 0755), 0);
    int fd =
        open(in_checkpoint(1, "../.tmp-step-000002/adapter.safetensors"), O_CREAT | O_WRONLY, 0644);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(count(&err), 1);
    save(2);
    assert_int_equal(vkm_ckpt_verify(in_checkpoint(2, ""), NULL, NULL, &err), VKM_OK);
    assert_int_equal(access(in_checkpoint(1, "../.tmp-step-000002"), F_OK), -1);
}

/* Killed between the two renames of a step that is saved again, or behind them. */
static void a_save_cut_short_is_undone(void **ignored) {
    (void)ignored;
    char old[512], path[VKM_PATH_MAX];
    vkm_err err = {0};
    uint32_t step = 0;
    save(1);
    save(2);
    snprintf(old, sizeof old, "%s/run/checkpoints/.old-step-000002", root);
    assert_int_equal(rename(in_checkpoint(2, ""), old), 0);
    assert_int_equal(mkdir(in_checkpoint(1, "../.tmp-step-000002"), 0755), 0);
    assert_int_equal(mkdir(in_checkpoint(1, "../.old-step-x"), 0755), 0); /* not ours */
    if (vkm_ckpt_recover(config.output_dir, &err)) fail_msg("%s", err.msg);
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(access(in_checkpoint(1, "../.tmp-step-000002"), F_OK), -1);
    assert_int_equal(access(in_checkpoint(1, "../.old-step-x"), F_OK), 0);
    strcpy(config.resume_from_checkpoint, "latest");
    assert_int_equal(vkm_ckpt_find(&config, path, &err), VKM_OK);
    assert_int_equal(vkm_ckpt_load(&config, path, NULL, files, N_FILES, &step, &err), VKM_OK);
    assert_int_equal(step, 2);
    assert_int_equal(rename(in_checkpoint(1, ""), old), 0); /* the new one is there: no use */
    if (vkm_ckpt_recover(config.output_dir, &err)) fail_msg("%s", err.msg);
    assert_int_equal(access(old, F_OK), -1);
    assert_int_equal(count(&err), 1);
    assert_int_equal(vkm_ckpt_recover("/nowhere", &err), VKM_OK);
}

/* ---- run folder ------------------------------------------------------------------------------ */

static const vkm_run_info machine = {"cpu", "a \"device\"", "driver", "{\"fma\": true}"};

static char *contents(const char *name) {
    char path[512];
    vkm_err err = {0};
    char *text;
    size_t n;
    snprintf(path, sizeof path, "%s/run/%s", root, name);
    if (vkm_file_read(path, 1 << 20, &text, &n, &err)) fail_msg("%s", err.msg);
    return text;
}

static void log_steps(int64_t resume_step, uint32_t to) {
    vkm_err err = {0};
    vkm_runlog *r = NULL;
    vkm_strbuf line = {0};
    if (vkm_runlog_open(&config, &machine, resume_step, &r, &err)) fail_msg("%s", err.msg);
    for (uint32_t step = resume_step < 0 ? 1 : (uint32_t)resume_step + 1; step <= to; step++) {
        const vkm_metric m[] = {{"reward", 0.5 * step, NULL, "reward"},
                                {"kl", NAN, NULL, NULL},
                                {"weights_hash", 0, "abc", "hash"}};
        assert_int_equal(vkm_runlog_step(r, step, m, 3, &err), VKM_OK);
        for (int i = 0; i < 2; i++) {
            vkm_jw w = vkm_runlog_begin_line(&line, step);
            vkm_jw_i64(&w, "rollout", i);
            vkm_jw_end_obj(&w);
            assert_int_equal(vkm_runlog_append(r, "rollouts", &line, &err), VKM_OK);
        }
    }
    vkm_strbuf_free(&line);
    vkm_runlog_close(r);
}

static void a_resumed_log_reads_as_if_never_cut(void **ignored) {
    (void)ignored;
    log_steps(-1, 4);
    char *steps = contents("steps.jsonl"), *rollouts = contents("rollouts.jsonl");
    char path[512];
    snprintf(path, sizeof path, "%s/run/rollouts.jsonl", root);
    assert_int_equal(truncate(path, (off_t)strlen(rollouts) - 7), 0); /* cut inside a line */
    log_steps(2, 4);
    char *again = contents("steps.jsonl"), *rollouts_again = contents("rollouts.jsonl");
    assert_string_equal(steps, again);
    assert_string_equal(rollouts, rollouts_again);
    assert_non_null(
        strstr(steps, "{\"step\": 3, \"reward\": 1.5, \"kl\": null, \"weights_hash\": \"abc\"}\n"));
    free(steps), free(rollouts), free(again), free(rollouts_again);
}

static void a_run_folder_is_never_written_over(void **ignored) {
    (void)ignored;
    vkm_err err = {0};
    vkm_runlog *r = NULL;
    log_steps(-1, 1);
    assert_int_equal(vkm_runlog_open(&config, &machine, -1, &r, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "exists and is not empty"));
    err = (vkm_err){0};
    config.output_dir[0] = 0;
    assert_int_equal(vkm_runlog_open(&config, &machine, -1, &r, &err), VKM_USAGE);
}

static void config_json_is_a_config_file(void **ignored) {
    (void)ignored;
    vkm_err err = {0};
    vkm_config back;
    char path[512];
    config.max_steps = 17;
    log_steps(-1, 1);
    snprintf(path, sizeof path, "%s/run/config.json", root);
    vkm_config_default(&back);
    if (vkm_config_load(&back, path, &err)) fail_msg("%s", err.msg);
    assert_int_equal(back.max_steps, 17);
    assert_int_equal(vkm_config_same_run(&config, &back, &err), VKM_OK);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(what_is_saved_is_loaded),
        TEST(what_is_on_the_device_goes_piece_by_piece),
        TEST(only_the_newest_are_kept),
        TEST(damage_is_found_and_passed_over),
        TEST(another_config_is_refused),
        TEST(other_shapes_are_refused),
        TEST(a_full_disk_leaves_the_old_ones_whole),
        TEST(what_a_kill_left_is_in_nobodys_way),
        TEST(a_save_cut_short_is_undone),
        TEST(a_resumed_log_reads_as_if_never_cut),
        TEST(a_run_folder_is_never_written_over),
        TEST(config_json_is_a_config_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
