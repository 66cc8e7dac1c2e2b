/* `vkmoe generate`, `score` and `export` as a user meets them, on a random model and an adapter
 * that `vkmoe sft` trained a little. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "model/init_model.h"
#include "model/safetensors.h"
#include "tmpdir.h"
#include "program.h"

/* What a line of the output has under a key, as text. */
static char *value_of(const char *line, const char *key) {
    static char value[4][1 << 16];
    static int next;
    char *v = value[next++ & 3], quoted[64];
    snprintf(quoted, sizeof quoted, "\"%s\": ", key);
    const char *at = strstr(line, quoted);
    if (!at) fail_msg("no %s in %s", key, line);
    at += strlen(quoted);
    size_t n = *at == '[' ? strcspn(at, "]") + 1 : strcspn(at, ",}\n");
    memcpy(v, at, n);
    v[n] = 0;
    return v;
}

static const char *line(size_t i) {
    const char *at = out;
    for (; i; i--) {
        at = strchr(at, '\n');
        if (!at) fail_msg("line %zu is missing: %s", i, out);
        at++;
    }
    return at;
}

/* A random model, and an sft run `run` of both experts whose steps are large. */
static int make_run(void **state) {
    static const char rows[] = "{\"prompt\": \"one two\", \"completion\": \" three four\"}\n"
                               "{\"prompt\": \"a b c\", \"completion\": \" d e f g\"}\n";
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 5};
    if (vkm_init_model(&o, NULL, &err)) return -1;
    put_file("rows.jsonl", rows, sizeof rows - 1);
    return vkmoe("sft --backend cpu --model '%s' --data '%s' --output_dir '%s' --sft_train both "
                 "--lora_rank 3 --max_steps 4 --warmup_steps 0 --learning_rate 0.02 "
                 "--per_device_train_batch_size 2",
                 in_dir("model"), in_dir("rows.jsonl"), in_dir("run"));
}

/* ---- score ----------------------------------------------------------------------------------- */

/* Decoding, prefill and the pass over whole sequences agree to the bit, on both backends. */
static void a_sample_scores_as_it_was_drawn(void **state) {
    (void)state;
    char scored[1 << 16];
    works(vkmoe("generate --backend cpu --run '%s' --w 0.5 --prompt 'x y' --json --temperature 1 "
                "--num_return_sequences 3 --max_new_tokens 19 --seed 7",
                in_dir("run")));
    size_t n = 0;
    for (size_t i = 0; i < 3; i++)
        n += (size_t)snprintf(scored + n, sizeof scored - n,
                              "{\"prompt\": \"x y\", \"completion_ids\": %s}\n",
                              value_of(line(i), "ids"));
    put_file("scored.jsonl", scored, n);
    char drawn[3][1 << 12];
    for (size_t i = 0; i < 3; i++)
        snprintf(drawn[i], sizeof drawn[i], "%s", value_of(line(i), "logprobs"));
    assert_string_not_equal(drawn[0], drawn[1]);
    static const char *const ways[] = {"--backend cpu", "--backend cpu --micro_batch_tokens 16",
                                       "--device lavapipe"};
    for (size_t k = 0; k < VKM_COUNTOF(ways); k++) {
        works(vkmoe("score %s --run '%s' --w 0.5 --data '%s'", ways[k], in_dir("run"),
                    in_dir("scored.jsonl")));
        for (size_t i = 0; i < 3; i++) assert_string_equal(value_of(line(i), "logprobs"), drawn[i]);
    }
    works(vkmoe("score --backend cpu --run '%s' --w 0.25 --data '%s'", in_dir("run"),
                in_dir("scored.jsonl")));
    assert_string_not_equal(value_of(line(0), "logprobs"), drawn[0]);
}

/* The log-softmax of the dumped rows is what the line says. */
static void logits_are_those_of_the_scores(void **state) {
    (void)state;
    static const char rows[] = "{\"prompt_ids\": [1, 2, 3], \"completion_ids\": [4, 5]}\n"
                               "{\"prompt\": [{\"role\": \"user\", \"content\": \"hi\"}], "
                               "\"completion\": \"there\"}\n";
    vkm_err err = {0};
    vkm_st *st;
    const vkm_st_tensor *t;
    put_file("two.jsonl", rows, sizeof rows - 1);
    works(vkmoe("score --backend cpu --model '%s' --data '%s' --logits '%s'", in_dir("model"),
                in_dir("two.jsonl"), in_dir("logits.safetensors")));
    assert_int_equal(vkm_st_open(in_dir("logits.safetensors"), &st, &err), VKM_OK);
    assert_int_equal(vkm_st_count(st), 2);
    const uint64_t shape[2] = {2, 512};
    assert_int_equal(vkm_st_get(st, "logits.0", VKM_ST_F32, 2, shape, &t, &err), VKM_OK);
    double want[2], sum = 0;
    assert_int_equal(sscanf(value_of(line(0), "logprobs"), "[%lf, %lf", &want[0], &want[1]), 2);
    for (uint32_t j = 0; j < 2; j++) {
        double total = 0;
        float z[512];
        memcpy(z, t->data + j * sizeof z, sizeof z);
        for (int v = 0; v < 512; v++) total += exp((double)z[v]);
        assert_float_equal((double)z[4 + j] - log(total), want[j], 1e-5);
        sum += want[j];
    }
    assert_float_equal(atof(value_of(line(0), "sum")), sum, 1e-5);
    vkm_st_close(st);
}

/* The base state is the model; the states of an adapter differ. */
static void states_are_told_apart(void **state) {
    (void)state;
    char *base, *full;
    works(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir("model"),
                in_dir("two.jsonl")));
    base = strdup(out);
    works(vkmoe("score --backend cpu --run '%s' --state base --data '%s'", in_dir("run"),
                in_dir("two.jsonl")));
    assert_string_equal(out, base);
    works(vkmoe("score --backend cpu --run '%s' --data '%s'", in_dir("run"), in_dir("two.jsonl")));
    full = strdup(out);
    works(vkmoe("score --backend cpu --run '%s' --state ablated --data '%s'", in_dir("run"),
                in_dir("two.jsonl")));
    assert_string_not_equal(out, full);
    assert_string_not_equal(out, base);
    works(vkmoe("score --backend cpu --run '%s' --w 1 --data '%s'", in_dir("run"),
                in_dir("two.jsonl")));
    assert_string_equal(out, full);
    free(base), free(full);
}

/* ---- generate -------------------------------------------------------------------------------- */

static void no_bit_depends_on_the_batch(void **state) {
    (void)state;
    char *together = NULL;
    static const char rows[] = "{\"prompt\": \"one\"}\n{\"prompt_ids\": [9, 8, 7]}\n"
                               "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}]}\n";
    put_file("prompts.jsonl", rows, sizeof rows - 1);
    static const char *const sizes[] = {"64", "1", "4"};
    for (size_t i = 0; i < VKM_COUNTOF(sizes); i++) {
        works(vkmoe("generate --backend cpu --run '%s' --data '%s' --num_return_sequences 2 "
                    "--temperature 1 --max_new_tokens 11 --seed 3 --batch_size %s",
                    in_dir("run"), in_dir("prompts.jsonl"), sizes[i]));
        if (!i) together = strdup(out);
        assert_string_equal(out, together);
    }
    assert_string_equal(value_of(line(5), "prompt"), "2");
    assert_string_equal(value_of(line(5), "sample"), "1");
    assert_string_not_equal(value_of(line(0), "ids"), value_of(line(1), "ids"));
    works(vkmoe("generate --backend cpu --run '%s' --data '%s' --num_return_sequences 2 "
                "--temperature 1 --max_new_tokens 11 --seed 4",
                in_dir("run"), in_dir("prompts.jsonl")));
    assert_string_not_equal(out, together);
    free(together);
}

/* What comes bit by bit on the terminal is the text of the JSON line. */
static void a_stream_is_the_whole_text(void **state) {
    (void)state;
    char *text;
    const char *common = "generate --backend cpu --model '%s' --prompt abc --temperature 1 "
                         "--max_new_tokens 60 --seed 11 %s";
    vkm_err err = {0};
    vkm_json *doc;
    const char *want;
    works(vkmoe(common, in_dir("model"), ""));
    text = strdup(out);
    works(vkmoe(common, in_dir("model"), "--json"));
    assert_int_equal(vkm_json_parse(out, strlen(out) - 1, "out", NULL, &doc, &err), VKM_OK);
    assert_int_equal(vkm_json_get_str(vkm_json_root(doc), "text", VKM_JSON_REQ, &want, &err),
                     VKM_OK);
    size_t n = strlen(want);
    assert_int_equal(strlen(text), n + 1);
    assert_memory_equal(text, want, n);
    /* its middle stops it before itself; a text that only begins like it, at the end too, does not
     */
    size_t at = n / 2, last = n - 1;
    while ((want[at] & 0x80) || want[at] == '\'') at++;
    while ((want[last] & 0x80) || want[last] == '\'') last--;
    const char one[] = {want[at], 0}, never[] = {want[last], 1, 2, 3, 0};
    const struct {
        const char *stop;
        size_t n;
    } cases[] = {{one, (size_t)(strchr(want, one[0]) - want)}, {never, n}};
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        works(vkmoe("generate --backend cpu --model '%s' --prompt abc --temperature 1 "
                    "--max_new_tokens 60 --seed 11 --stop '%s'",
                    in_dir("model"), cases[i].stop));
        assert_int_equal(strlen(out), cases[i].n + 1);
        assert_memory_equal(out, want, cases[i].n);
    }
    vkm_json_free(doc);
    free(text);
}

/* ---- export ---------------------------------------------------------------------------------- */

static float *floats_of(const char *folder, const char *file, const char *name, uint64_t rows,
                        uint64_t cols) {
    char path[VKM_PATH_MAX];
    vkm_err err = {0};
    vkm_st *st;
    const vkm_st_tensor *t;
    const uint64_t shape[2] = {rows, cols};
    float *x = malloc(rows * cols * sizeof *x);
    snprintf(path, sizeof path, "%s/%s", folder, file);
    if (vkm_st_open(path, &st, &err) || vkm_st_expect(st, name, 2, shape, &t, &err) ||
        vkm_st_to_f32(t, 0, rows * cols, x, &err))
        fail_msg("%s", err.msg);
    vkm_st_close(st);
    return x;
}

/* lora_B lora_A of the adapter is what the merged model has more than the model. */
static void adapter_and_merged_model_agree(void **state) {
    (void)state;
    static const struct {
        const char *state, *name;
        uint64_t rank;
    } cases[] = {{"full", "full", 12}, {"ablated", "ablated", 6}};
    for (size_t i = 0; i < VKM_COUNTOF(cases); i++) {
        char adapter[64], model[64];
        snprintf(adapter, sizeof adapter, "adapter-%s", cases[i].name);
        snprintf(model, sizeof model, "merged-%s", cases[i].name);
        works(vkmoe("export --run '%s' --state %s --output '%s'", in_dir("run"), cases[i].state,
                    in_dir(adapter)));
        works(vkmoe("export --run '%s' --state %s --to model --dtype fp32 --output '%s'",
                    in_dir("run"), cases[i].state, in_dir(model)));
        uint64_t c = 64, f = 128, r = cases[i].rank; /* gate_proj of layer 1 */
        const char *layer = "model.layers.1.mlp.gate_proj";
        char a_name[160], b_name[160], w_name[160];
        snprintf(a_name, sizeof a_name, "base_model.model.%s.lora_A.weight", layer);
        snprintf(b_name, sizeof b_name, "base_model.model.%s.lora_B.weight", layer);
        snprintf(w_name, sizeof w_name, "%s.weight", layer);
        float *a = floats_of(in_dir(adapter), "adapter_model.safetensors", a_name, r, c);
        float *b = floats_of(in_dir(adapter), "adapter_model.safetensors", b_name, f, r);
        float *w = floats_of(in_dir("model"), "model.safetensors", w_name, f, c);
        float *m = floats_of(in_dir(model), "model.safetensors", w_name, f, c);
        double largest = 0;
        for (uint64_t row = 0; row < f; row++)
            for (uint64_t col = 0; col < c; col++) {
                double d = 0;
                for (uint64_t k = 0; k < r; k++)
                    d += (double)b[row * r + k] * (double)a[k * c + col];
                assert_float_equal((double)w[row * c + col] + d, (double)m[row * c + col], 1e-5);
                if (fabs(d) > largest) largest = fabs(d);
            }
        assert_true(largest > 1e-3);
        free(a), free(b), free(w), free(m);
    }
}

static void a_merged_model_scores_as_the_run(void **state) {
    (void)state;
    static const char *const states[] = {"full", "ablated"};
    for (size_t i = 0; i < 2; i++) {
        double of[2][2], sum[2];
        char model[64];
        snprintf(model, sizeof model, "merged-%s", states[i]);
        works(vkmoe("score --backend cpu --run '%s' --state %s --data '%s'", in_dir("run"),
                    states[i], in_dir("two.jsonl")));
        assert_int_equal(sscanf(value_of(out, "logprobs"), "[%lf, %lf", &of[0][0], &of[0][1]), 2);
        sum[0] = atof(value_of(line(1), "sum"));
        works(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir(model),
                    in_dir("two.jsonl")));
        assert_int_equal(sscanf(value_of(out, "logprobs"), "[%lf, %lf", &of[1][0], &of[1][1]), 2);
        sum[1] = atof(value_of(line(1), "sum"));
        /* the merged weights are rounded to bf16 as one, the run's factors each: up to 2e-2 nats */
        for (int j = 0; j < 2; j++) assert_float_equal(of[0][j], of[1][j], 2e-2);
        assert_float_equal(sum[0], sum[1], 0.1);
    }
}

/* tests/golden/export.json: transformers over the exported adapter (PEFT) and over the merged
 * model, in fp32. Our operands are bf16: up to 2e-2 nats a token, 2e-3 in the mean. */
static void transformers_agrees_with_the_scores(void **state) {
    (void)state;
    static const char *const states[] = {"full", "ablated"}, *const kinds[] = {"adapter", "merged"};
    vkm_err err = {0};
    vkm_json *golden;
    vkm_strbuf ids = {0};
    assert_int_equal(vkm_json_load(VKM_SOURCE_DIR "/tests/golden/export.json", NULL, &golden, &err),
                     VKM_OK);
    vkm_jv rows = vkm_json_find(vkm_json_root(golden), "rows");
    for (vkm_jv r = vkm_json_first(rows); r.v; r = vkm_json_next(r)) {
        static const char *const keys[] = {"prompt_ids", "completion_ids"};
        for (int k = 0; k < 2; k++) {
            vkm_strbuf_printf(&ids, "%s\"%s\": ", k ? ", " : "{", keys[k]);
            char sign = '[';
            vkm_jv list = vkm_json_find(r, keys[k]);
            for (vkm_jv e = vkm_json_first(list); e.v; e = vkm_json_next(e), sign = ',') {
                int64_t id;
                assert_int_equal(vkm_json_i64(e, 0, 511, &id, &err), VKM_OK);
                vkm_strbuf_printf(&ids, "%c%lld", sign, (long long)id);
            }
            vkm_strbuf_puts(&ids, k ? "]}\n" : "]");
        }
    }
    put_file("ids.jsonl", ids.data, ids.n);
    vkm_strbuf_free(&ids);
    for (size_t i = 0; i < 4; i++) {
        char key[32];
        works(vkmoe("score --backend cpu --run '%s' --state %s --data '%s'", in_dir("run"),
                    states[i / 2], in_dir("ids.jsonl")));
        snprintf(key, sizeof key, "%s-%s", kinds[i % 2], states[i / 2]);
        vkm_jv want = vkm_json_first(vkm_json_find(vkm_json_root(golden), key));
        double sum = 0, most = 0;
        size_t n = 0, n_rows = 0;
        for (; want.v; want = vkm_json_next(want), n_rows++) {
            char *at = value_of(line(n_rows), "logprobs");
            for (vkm_jv e = vkm_json_first(want); e.v; e = vkm_json_next(e), n++) {
                double x;
                assert_int_equal(vkm_json_double(e, -1e3, 0, &x, &err), VKM_OK);
                double d = fabs(strtod(at + 1, &at) - x);
                sum += d;
                most = d > most ? d : most;
            }
        }
        assert_int_equal(n_rows, 8);
        assert_int_equal(n, 158);
        if (most > 2e-2 || sum / (double)n > 2e-3)
            fail_msg("%s: largest %g, mean %g", key, most, sum / (double)n);
    }
    vkm_json_free(golden);
}

/* The same with PEFT and transformers themselves, where $VKM_PYTHON (or python3) has them. */
static void python_loads_what_is_exported(void **state) {
    (void)state;
    const char *python = getenv("VKM_PYTHON");
    char command[4096];
    if (!python) python = "python3";
    snprintf(command, sizeof command,
             "'%s' -c 'import torch, transformers, peft, safetensors' >'%s' 2>&1", python,
             in_dir("python.log"));
    if (system(command)) { // NOLINT: the tester's own choice
        print_message("SKIP: %s has no torch, transformers and peft: the golden record stands "
                      "alone\n",
                      python);
        skip();
    }
    snprintf(command, sizeof command, "'%s' '%s/tools/make_golden_export.py' --check '%s/vkmoe'",
             python, VKM_SOURCE_DIR, VKM_BINARY_DIR);
    assert_int_equal(system(command), 0); // NOLINT: likewise
}

/* Shards hold what one file holds, and a model without a run is copied to the bit. */
static void shards_are_the_same_model(void **state) {
    (void)state;
    char *whole;
    works(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir("model"),
                in_dir("two.jsonl")));
    whole = strdup(out);
    works(vkmoe("export --run '%s' --state base --to model --max_shard_mb 0.1 --output '%s'",
                in_dir("run"), in_dir("sharded")));
    assert_true(vkm_file_exists(in_dir("sharded/model.safetensors.index.json")));
    assert_true(vkm_file_exists(in_dir("sharded/model-00002-of-00003.safetensors")));
    works(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir("sharded"),
                in_dir("two.jsonl")));
    assert_string_equal(out, whole);
    free(whole);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void bad_input_is_told(void **state) {
    (void)state;
    static const struct {
        const char *line, *part;
    } rows[] = {
        {"[1]", "an object"},
        {"{\"completion\": \"a\"}", "one of 'prompt' and 'prompt_ids'"},
        {"{\"prompt\": \"a\", \"prompt_ids\": [1], \"completion\": \"a\"}", "'prompt_ids'"},
        {"{\"prompt\": \"a\"}", "one of 'completion' and 'completion_ids'"},
        {"{\"prompt\": \"\", \"completion\": \"a\"}", "prompt: no token"},
        {"{\"prompt\": \"a\", \"completion\": \"\"}", "completion: no token: nothing to score"},
        {"{\"prompt\": \"a\", \"completion\": [1]}", "completion: must be a string"},
        {"{\"prompt_ids\": [512], \"completion_ids\": [1]}", "prompt_ids[0]: "},
        {"{\"prompt_ids\": [1.5], \"completion_ids\": [1]}", "prompt_ids[0]: "},
        {"{\"prompt\": [], \"completion\": \"a\"}", "prompt: no messages"},
        {"{\"prompt\": [{\"role\": \"robot\", \"content\": \"\"}], \"completion\": \"a\"}",
         "prompt[0].role: 'robot'"},
    };
    for (size_t i = 0; i < VKM_COUNTOF(rows); i++) {
        put_file("bad.jsonl", rows[i].line, strlen(rows[i].line));
        fails_with(vkmoe("score --backend cpu --model '%s' --data '%s'", in_dir("model"),
                         in_dir("bad.jsonl")),
                   1, rows[i].part);
    }
    static const struct {
        const char *arguments, *part;
        int rc;
    } calls[] = {
        {"score --data @/two.jsonl", "--model is missing", 2},
        {"score --model @/nowhere --data @/two.jsonl", "nowhere: no such folder", 1},
        {"score --run @/nowhere --data @/two.jsonl", "nowhere: no such folder", 1},
        {"score --run @/model --data @/two.jsonl", "no checkpoint", 1},
        {"score --model @/model --state base --data @/two.jsonl", "--state is of a run's adapter",
         2},
        {"score --run @/run --state ablated --w 1 --data @/two.jsonl", "--state and --w", 2},
        {"score --model @/model --data @/empty", "no lines", 1},
        {"generate --model @/model", "one of --prompt, --message and --data", 2},
        {"generate --model @/model --prompt a --system b", "--system goes with --message", 2},
        {"generate --model @/model --prompt a --max_new_tokens 100000", "lower it", 2},
        {"generate --model @/model --prompt a --stop ''", "an empty text", 2},
        {"generate --model @/model --data @/bad.jsonl", "prompt[0].role: 'robot'", 1},
        {"export --run @/run", "--output is missing", 2},
        {"export --model @/model --output @/x", "an adapter is a run's", 2},
        {"export --run @/run --state base --output @/x", "the adapter without its experts", 2},
        {"export --run @/run --to model --output @/model", "is there already", 2},
    };
    put_file("empty", "", 0);
    for (size_t i = 0; i < VKM_COUNTOF(calls); i++) {
        char args[2048] = "", *end = args;
        for (const char *p = calls[i].arguments; *p; p++)
            end += *p == '@' ? sprintf(end, "%s", tmpdir) : sprintf(end, "%c", *p);
        fails_with(vkmoe("%s", args), calls[i].rc, calls[i].part);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_scores_as_it_was_drawn),
        cmocka_unit_test(logits_are_those_of_the_scores),
        cmocka_unit_test(states_are_told_apart),
        cmocka_unit_test(no_bit_depends_on_the_batch),
        cmocka_unit_test(a_stream_is_the_whole_text),
        cmocka_unit_test(adapter_and_merged_model_agree),
        cmocka_unit_test(a_merged_model_scores_as_the_run),
        cmocka_unit_test(transformers_agrees_with_the_scores),
        cmocka_unit_test(python_loads_what_is_exported),
        cmocka_unit_test(shards_are_the_same_model),
        cmocka_unit_test(bad_input_is_told),
    };
    return cmocka_run_group_tests(tests, make_run, tmpdir_remove);
}
