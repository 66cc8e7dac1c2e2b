/* Supervised fine-tuning: rows as token ids; whole runs on the CPU reference (the loss falls, a
 * resumed run and any micro-batch give the same bits, so does a Vulkan device); the saved model
 * computes what was trained. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "model/init_model.h"
#include "rl/checkpoint.h"
#include "rl/sft.h"
#include "tmpdir.h"

enum { STEPS = 6, ROWS = 8 };

static void check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

/* Sums of two digits: short rows of different lengths. */
static int make_files(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    char text[8192] = "";
    size_t n = 0;
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    o.config.C = 32, o.config.F = 48;
    if (vkm_init_model(&o, NULL, &err)) return -1;
    for (int i = 0; i < 40; i++)
        n +=
            (size_t)snprintf(text + n, sizeof text - n,
                             "{\"messages\": [{\"role\": \"user\", \"content\": \"%d plus %d%s\"}, "
                             "{\"role\": \"assistant\", \"content\": \"it is %d\"}]}\n",
                             i % 10, i / 10, i % 3 ? "" : ", what is it?", i % 10 + i / 10);
    put_file("rows.jsonl", text, n);
    return 0;
}

static void config(vkm_config *c, const char *run) {
    vkm_err err = {0};
    static const char *const keys[][2] = {{"max_steps", "6"},
                                          {"per_device_train_batch_size", "4"},
                                          {"gradient_accumulation_steps", "2"},
                                          {"learning_rate", "3e-3"},
                                          {"warmup_steps", "2"},
                                          {"weight_decay", "0.01"},
                                          {"max_length", "64"},
                                          {"lora_rank", "2"},
                                          {"save_steps", "3"}};
    vkm_config_default(c);
    for (size_t i = 0; i < VKM_COUNTOF(keys); i++)
        check(vkm_config_set(c, keys[i][0], keys[i][1], &err), &err);
    check(vkm_config_set(c, "model", in_dir("model"), &err), &err);
    check(vkm_config_set(c, "data", in_dir("rows.jsonl"), &err), &err);
    check(vkm_config_set(c, "output_dir", in_dir(run), &err), &err);
}

static void run_on(const vkm_config *c, const vkm_dev_options *o) {
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    check(vkm_dev_open(o, &dev, &err), &err);
    check(vkm_sft_run(c, dev, &err), &err);
    vkm_dev_close(dev);
}

static void run(const vkm_config *c) {
    run_on(c, &(vkm_dev_options){.backend = VKM_CPU});
}

/* `n` values of a key of steps.jsonl as text. */
static void values(const char *run_name, const char *key, uint32_t n, char out[][40]) {
    char path[VKM_PATH_MAX], *text, name[64];
    size_t bytes;
    vkm_err err = {0};
    snprintf(path, sizeof path, "%s/steps.jsonl", in_dir(run_name));
    snprintf(name, sizeof name, "\"%s\": ", key);
    check(vkm_file_read(path, 1 << 20, &text, &bytes, &err), &err);
    const char *at = text;
    for (uint32_t i = 0; i < n; i++) {
        at = strstr(at, name);
        assert_non_null(at);
        at += strlen(name);
        snprintf(out[i], 40, "%.*s", (int)strcspn(at, ",}"), at);
    }
    assert_null(strstr(at, name));
    free(text);
}

static void expect_same(const char *a, const char *b, const char *key, uint32_t n) {
    char x[STEPS][40], y[STEPS][40];
    values(a, key, n, x);
    values(b, key, n, y);
    for (uint32_t i = 0; i < n; i++) assert_string_equal(x[i], y[i]);
}

/* ---- runs ------------------------------------------------------------------------------------ */

static const char *const kinds[] = {"weights", "deployed", "both"};

static void loss_falls(void **state) {
    (void)state;
    static vkm_config c;
    for (size_t k = 0; k < VKM_COUNTOF(kinds); k++) {
        vkm_err err = {0};
        char loss[STEPS][40], hash[STEPS][40];
        config(&c, kinds[k]);
        check(vkm_config_set(&c, "sft_train", kinds[k], &err), &err);
        if (k) c.learning_rate = 3e-2;
        run(&c);
        values(kinds[k], "loss", STEPS, loss);
        values(kinds[k], "weights_hash", STEPS, hash);
        assert_true(atof(loss[STEPS - 1]) < (k ? 1 : 0.9) * atof(loss[0]));
        for (int i = 1; i < STEPS; i++) assert_string_not_equal(hash[i], hash[i - 1]);
    }
}

static void resumed_equals_straight(void **state) {
    (void)state;
    static const char *const names[] = {"weights-cut", "deployed-cut", "both-cut"};
    static vkm_config c;
    for (size_t k = 0; k < VKM_COUNTOF(kinds); k++) {
        vkm_err err = {0};
        config(&c, names[k]);
        check(vkm_config_set(&c, "sft_train", kinds[k], &err), &err);
        if (k) c.learning_rate = 3e-2;
        c.stop_at_step = 4;
        run(&c);
        c.stop_at_step = 0;
        strcpy(c.resume_from_checkpoint, "latest");
        run(&c);
        expect_same(kinds[k], names[k], "weights_hash", STEPS);
        expect_same(kinds[k], names[k], "loss", STEPS);
        expect_same(kinds[k], names[k], "num_tokens", STEPS);
    }
}

static void micro_batches_change_nothing(void **state) {
    (void)state;
    static vkm_config c;
    static const int64_t tokens[] = {16, 100};
    for (size_t i = 0; i < VKM_COUNTOF(tokens); i++) {
        config(&c, i ? "micro-1" : "micro-0");
        c.micro_batch_tokens = tokens[i];
        c.stop_at_step = 3;
        run_on(&c,
               &(vkm_dev_options){
                   .backend = VKM_CPU, .threads = 3, .thread_all = 1, .flush_denormals = i == 1});
        expect_same("micro-0", i ? "micro-1" : "micro-0", "weights_hash", 3);
    }
    char straight[STEPS][40], cut[3][40];
    values("weights", "weights_hash", STEPS, straight);
    values("micro-0", "weights_hash", 3, cut);
    for (int i = 0; i < 3; i++) assert_string_equal(straight[i], cut[i]);
}

static void device_gives_the_same_hash(void **state) {
    (void)state;
    static vkm_config c;
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    const vkm_dev_options o = {.backend = VKM_VULKAN};
    if (vkm_dev_open(&o, &dev, &err)) {
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    vkm_dev_close(dev);
    config(&c, "device");
    c.stop_at_step = 3;
    run_on(&c, &o);
    char straight[STEPS][40], device[3][40];
    values("weights", "weights_hash", STEPS, straight);
    values("device", "weights_hash", 3, device);
    for (int i = 0; i < 3; i++) assert_string_equal(straight[i], device[i]);
}

/* A tuner after two updates, and one that opens the model that the first saves: the same sums. */
static void saved_model_computes_the_same(void **state) {
    (void)state;
    static vkm_config c;
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    vkm_sft *r = NULL;
    vkm_seq seqs[ROWS];
    vkm_tuner_sums sums[2];
    const vkm_adam_rates rates = {
        .lr = 1e-2f, .beta1 = 0.9f, .beta2 = 0.99f, .epsilon = 1e-8f, .max_norm = 1};
    float norm;
    int finite;
    config(&c, "unused");
    check(vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU}, &dev, &err), &err);
    check(vkm_sft_open(&c, dev, NULL, &r, &err), &err);
    check(vkm_sft_data_batch(&r->data, 7, 0, ROWS, seqs, &err), &err);
    for (int i = 0; i < 2; i++) {
        check(vkm_tuner_gradient(r->tuner, seqs, ROWS, &sums[0], &err), &err);
        check(vkm_tuner_update(r->tuner, &rates, &norm, &finite, &err), &err);
        assert_true(finite);
    }
    double before = sums[0].nll;
    check(vkm_tuner_gradient(r->tuner, seqs, ROWS, &sums[0], &err), &err);
    assert_true(sums[0].nll < before);
    check(vkm_dir_make(in_dir("saved"), &err), &err);
    check(vkm_model_copy_tokenizer(c.model, in_dir("saved"), &err), &err);
    check(vkm_weights_save(r->tuner->weights, in_dir("saved"), &err), &err);
    check(vkm_model_copy_config(c.model, in_dir("saved"), &err), &err);
    vkm_tuner *again = NULL;
    check(vkm_config_set(&c, "model", in_dir("saved"), &err), &err);
    check(vkm_tuner_new(dev, &c, r->data.longest, NULL, &again, &err), &err);
    check(vkm_tuner_gradient(again, seqs, ROWS, &sums[1], &err), &err);
    assert_memory_equal(&sums[0], &sums[1], sizeof sums[0]);
    vkm_tuner_free(again);
    vkm_sft_close(r);
    vkm_dev_close(dev);
}

static void run_leaves_a_model(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_dev *dev = NULL;
    vkm_model *m = NULL;
    char path[VKM_PATH_MAX];
    snprintf(path, sizeof path, "%s/model", in_dir("weights"));
    check(vkm_dev_open(&(vkm_dev_options){.backend = VKM_CPU}, &dev, &err), &err);
    check(vkm_model_load(dev, path, 64, 1, NULL, &m, &err), &err);
    vkm_model_free(m);
    vkm_dev_close(dev);
}

/* ---- data ------------------------------------------------------------------------------------ */

static vkm_status load(const char *text, uint32_t max_length, vkm_sft_data *d, vkm_err *err) {
    vkm_tokenizer *t = NULL;
    check(vkm_tokenizer_load(in_dir("model"), &t, err), err);
    put_file("data.jsonl", text, strlen(text));
    uint32_t eos = (uint32_t)vkm_tokenizer_id(t, "<|endoftext|>");
    vkm_status st = vkm_sft_data_load(in_dir("data.jsonl"), t, eos, max_length, d, err);
    vkm_tokenizer_free(t);
    return st;
}

static void forms_of_rows(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_sft_data d;
    vkm_tokenizer *t = NULL;
    check(
        load(
            "{\"messages\": [{\"role\": \"user\", \"content\": \"a b\"}, {\"role\": \"assistant\", "
            "\"content\": \"c\"}], \"id\": 3}\n\n"
            "{\"prompt\": [{\"role\": \"user\", \"content\": \"a b\"}], \"completion\": "
            "[{\"role\": \"assistant\", \"content\": \"c\"}]}\n"
            "{\"prompt\": \"a b\", \"completion\": \" c\"}\n"
            "{\"prompt\": \"a b\", \"completion\": \" c<|endoftext|>\"}\n",
            64, &d, &err),
        &err);
    check(vkm_tokenizer_load(in_dir("model"), &t, &err), &err);
    assert_int_equal(d.n, 4);
    assert_int_equal(d.n_cut, 0);
    for (int i = 1; i < 4; i += 2) { /* each pair is one row in two forms */
        assert_int_equal(d.ids[i].n, d.ids[i - 1].n);
        assert_int_equal(d.comp0[i], d.comp0[i - 1]);
        assert_memory_equal(d.ids[i].id, d.ids[i - 1].id, d.ids[i].n * sizeof *d.ids[i].id);
    }
    vkm_strbuf text = {0};
    vkm_tokenizer_decode(t, d.ids[0].id, d.ids[0].n, false, &text);
    assert_string_equal(vkm_strbuf_str(&text),
                        "<|im_start|>user\na b<|im_end|>\n<|im_start|>assistant\nc<|im_end|>");
    vkm_strbuf_clear(&text);
    vkm_tokenizer_decode(t, d.ids[2].id + d.comp0[2], d.ids[2].n - d.comp0[2], false, &text);
    assert_string_equal(vkm_strbuf_str(&text), " c<|endoftext|>");
    vkm_strbuf_free(&text);
    vkm_tokenizer_free(t);
    vkm_sft_data_free(&d);
    check(load("{\"prompt\": \"a b\", \"completion\": \" c d e f g h\"}\n", 6, &d, &err), &err);
    assert_int_equal(d.ids[0].n, 6);
    assert_int_equal(d.n_cut, 1);
    vkm_sft_data_free(&d);
}

static void bad_rows(void **state) {
    (void)state;
    static const struct {
        const char *line, *says;
    } rows[] = {
        {"{\"mesages\": []}", "neither 'messages' nor"},
        {"[1]", "neither 'messages' nor"},
        {"{\"messages\": []}", "no messages"},
        {"{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}", "must be the assistant's"},
        {"{\"messages\": [{\"role\": \"tool\", \"content\": \"a\"}, {\"role\": \"assistant\", "
         "\"content\": \"b\"}]}",
         "the roles are"},
        {"{\"messages\": [{\"role\": \"user\"}]}", "content"},
        {"{\"prompt\": \"a\"}", "completion"},
        {"{\"prompt\": \"\", \"completion\": \"b\"}", "the prompt is empty"},
        {"{\"prompt\": [], \"completion\": \"b\"}", "completion"},
        {"{\"prompt\": \"a b c d e f g h i j k l m n o p\", \"completion\": \"b\"}", "no room"},
        {"", "no rows"},
        {"{\"prompt\": \"a\", \"completion\"", "data.jsonl:1"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        vkm_err err = {0};
        vkm_sft_data d;
        assert_int_not_equal(load(rows[i].line, 8, &d, &err), VKM_OK);
        if (!strstr(err.msg, rows[i].says)) fail_msg("row %zu: %s", i, err.msg);
        assert_non_null(strstr(err.msg, "data.jsonl"));
    }
}

/* Every epoch holds every row once, in an order of its own, whatever the size of a step. */
static void epochs(void **state) {
    (void)state;
    enum { N = 40 };
    vkm_err err = {0};
    vkm_sft_data d;
    vkm_tokenizer *t = NULL;
    vkm_seq one[3 * N], many[3 * N];
    check(vkm_tokenizer_load(in_dir("model"), &t, &err), &err);
    check(vkm_sft_data_load(in_dir("rows.jsonl"), t, 0, 64, &d, &err), &err);
    assert_int_equal(d.n, N);
    check(vkm_sft_data_batch(&d, 5, 0, 3 * N, many, &err), &err);
    for (uint32_t i = 0; i < 3 * N; i++)
        check(vkm_sft_data_batch(&d, 5, i, 1, &one[i], &err), &err);
    assert_memory_equal(one, many, sizeof one);
    int moved = 0;
    for (uint32_t e = 0; e < 3; e++)
        for (uint32_t i = 0; i < N; i++) {
            for (uint32_t j = 0; j < i; j++)
                assert_ptr_not_equal(many[e * N + i].tokens, many[e * N + j].tokens);
            moved += many[e * N + i].tokens != many[i].tokens;
        }
    assert_true(moved > N);
    vkm_tokenizer_free(t);
    vkm_sft_data_free(&d);
}

static void bad_configs(void **state) {
    (void)state;
    static vkm_config c;
    vkm_err err = {0};
    config(&c, "none");
    c.data[0] = 0;
    assert_int_equal(vkm_sft_check(&c, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "data is missing"));
    config(&c, "none");
    c.per_device_train_batch_size = c.gradient_accumulation_steps = 65535;
    err = (vkm_err){0};
    assert_int_equal(vkm_sft_check(&c, &err), VKM_USAGE);
    assert_non_null(strstr(err.msg, "per_device_train_batch_size"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_falls),
        cmocka_unit_test(resumed_equals_straight),
        cmocka_unit_test(micro_batches_change_nothing),
        cmocka_unit_test(device_gives_the_same_hash),
        cmocka_unit_test(saved_model_computes_the_same),
        cmocka_unit_test(run_leaves_a_model),
        cmocka_unit_test(forms_of_rows),
        cmocka_unit_test(bad_rows),
        cmocka_unit_test(epochs),
        cmocka_unit_test(bad_configs),
    };
    return cmocka_run_group_tests(tests, make_files, tmpdir_remove);
}
