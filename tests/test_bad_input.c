/* Bad input as a user meets it: the built program is run, and every error is one line on stderr
 * that says what is wrong, where, and how to mend it; exit 2 for usage, 1 otherwise. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/strbuf.h"
#include "model/init_model.h"
#include "tmpdir.h"

static char out[1 << 16];

/* Runs a shell line in the repository with each '@' replaced by the test's folder and vkmoe being
 * the built program; what it printed on stderr is in `out`. Returns its exit code. */
static int run(const char *before, const char *args) {
    vkm_strbuf line = {0};
    vkm_strbuf_printf(&line, "cd '%s' && %s '%s/vkmoe' ", VKM_SOURCE_DIR, before, VKM_BINARY_DIR);
    vkm_strbuf_puts(&line, args);
    vkm_strbuf_puts(&line, " 2>&1 >/dev/null </dev/null");
    vkm_strbuf command = {0};
    for (const char *c = vkm_strbuf_str(&line); *c; c++)
        if (*c == '@')
            vkm_strbuf_puts(&command, tmpdir);
        else
            vkm_strbuf_putc(&command, *c);
    FILE *f = popen(vkm_strbuf_str(&command), "r"); // NOLINT: the arguments are this file's
    assert_non_null(f);
    size_t n = fread(out, 1, sizeof out - 1, f);
    out[n] = 0;
    int rc = pclose(f);
    vkm_strbuf_free(&command);
    vkm_strbuf_free(&line);
    return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128 + WTERMSIG(rc);
}

/* What a row needs of the machine; without it the row is left out loudly. */
typedef enum need { ANYWHERE, VULKAN, LAVAPIPE, SANDBOX, USER, N_NEEDS } need;
static const char *const need_names[N_NEEDS] = {"", "a Vulkan driver",
                                                "lavapipe and a shader compiler",
                                                "a sandbox for grading", "a user who is not root"};
static int have[N_NEEDS];

typedef struct row {
    const char *what, *args;
    int exit_code;
    const char *words[4];
    need need;
    const char *before; /* of the program in the shell: limits and environment */
} row;

/* Prints what is wrong with the row's error; returns whether anything is. */
static int row_is_bad(const row *r) {
    char begin[64];
    int bad = 0, code = run(r->before ? r->before : "", r->args);
    snprintf(begin, sizeof begin, "vkmoe %.*s: ", (int)strcspn(r->args, " "), r->args);
    if (code != r->exit_code)
        bad = 1, print_error("%s: exit %d, not %d\n", r->what, code, r->exit_code);
    if (strncmp(out, begin, strlen(begin)) != 0)
        bad = 1, print_error("%s: does not begin with '%s'\n", r->what, begin);
    if (!*out || strchr(out, '\n') != out + strlen(out) - 1)
        bad = 1, print_error("%s: is not one line\n", r->what);
    for (size_t w = 0; w < VKM_COUNTOF(r->words) && r->words[w]; w++)
        if (!strstr(out, r->words[w]))
            bad = 1, print_error("%s: does not say '%s'\n", r->what, r->words[w]);
    if (bad) print_error("%s: it was: %s\n", r->what, out);
    return bad;
}

static void check_rows(const row *rows, size_t n) {
    size_t left_out = 0, bad = 0;
    for (size_t i = 0; i < n; i++) {
        if (have[rows[i].need]) {
            bad += (size_t)row_is_bad(&rows[i]);
            continue;
        }
        print_message("SKIP: %s: needs %s\n", rows[i].what, need_names[rows[i].need]);
        left_out++;
    }
    assert_int_equal(bad, 0);
    if (left_out == n) skip();
}

/* ---- what is wrong: files made of good ones ---------------------------------------------------*/

static char *slurp(const char *name, size_t *n) {
    char *text;
    vkm_err err = {0};
    if (vkm_file_read(in_dir(name), 64 << 20, &text, n, &err)) fail_msg("%s", err.msg);
    return text;
}

static void copy_model(const char *to) {
    char command[1024];
    snprintf(command, sizeof command, "cp -r '%s/model' '%s/%s'", tmpdir, tmpdir, to);
    assert_int_equal(system(command), 0);
}

/* A model whose `file` has the first `from` behind `after` replaced by `to`. */
static void model_with(const char *model, const char *file, const char *after, const char *from,
                       const char *to) {
    char name[256];
    size_t n;
    vkm_strbuf b = {0};
    copy_model(model);
    snprintf(name, sizeof name, "%s/%s", model, file);
    char *text = slurp(name, &n), *start = memmem(text, n, after, strlen(after));
    assert_non_null(start);
    char *at = memmem(start, n - (size_t)(start - text), from, strlen(from));
    assert_non_null(at);
    vkm_strbuf_add(&b, text, (size_t)(at - text));
    vkm_strbuf_puts(&b, to);
    vkm_strbuf_add(&b, at + strlen(from), n - (size_t)(at - text) - strlen(from));
    put_file(name, b.data, b.n);
    vkm_strbuf_free(&b);
    free(text);
}

/* The bracketed list behind `key` of a tensor in the header, as it stands there. */
static void header_list(const char *tensor, const char *key, char list[64]) {
    size_t n;
    char *text = slurp("model/model.safetensors", &n);
    char *at = memmem(text, n, tensor, strlen(tensor));
    assert_non_null(at);
    at = strchr(strstr(at, key), '[');
    snprintf(list, 64, "%.*s", (int)(strchr(at, ']') + 1 - at), at);
    free(text);
}

static void make_weights(void) {
    static const char tensor[] = "model.layers.0.mlp.down_proj.weight",
                      next[] = "model.layers.1.input_layernorm.weight";
    const char *const file = "model.safetensors";
    char shape[64], swapped[80], here[64], there[64], padded[80];
    unsigned rows, cols;
    size_t n;
    header_list(tensor, "shape", shape);
    assert_int_equal(sscanf(shape, "[%u, %u]", &rows, &cols), 2);
    snprintf(swapped, sizeof swapped, "[%u, %u]", cols, rows);
    model_with("shape", file, tensor, shape, swapped);
    model_with("dtype", file, tensor, "\"BF16\"", "\"I16\" ");
    model_with("no_dtype", file, tensor, "\"BF16\"", "\"BF61\"");
    model_with("no_tensor", file, tensor, "down_proj", "drown_prj");
    header_list(tensor, "data_offsets", here);
    header_list(next, "data_offsets", there);
    unsigned long long begin, end;
    assert_int_equal(sscanf(there, "[%llu, %llu]", &begin, &end), 2);
    snprintf(padded, sizeof padded, "[%llu, %llu]", begin - 2, end - 2);
    snprintf(padded + strlen(padded) - 1, 32, "%*s]", (int)(strlen(there) - strlen(padded)), "");
    model_with("overlap", file, next, there, padded);
    char *text = slurp("model/model.safetensors", &n);
    copy_model("truncated");
    put_file("truncated/model.safetensors", text, n - 100);
    copy_model("stub");
    put_file("stub/model.safetensors", text, 5);
    memset(text + n - 2, 0xff, 2);
    copy_model("nan");
    put_file("nan/model.safetensors", text, n);
    free(text);
}

/* Two lines: a good problem, and the same with another id and these parts. */
static void problems_with(const char *name, const char *difficulty, const char *user,
                          const char *more) {
    static const char format[] =
        "{\"id\": %d, %s\"prompt\": [{\"role\": \"system\", \"content\": \"You write Python.\"}, "
        "{\"role\": \"user\", \"content\": \"Write f %s.\"}], \"func_name\": \"Solution().f\", "
        "\"setup_code\": \"\", \"gt_answer\": [\"assert Solution().f() == 1\"], "
        "\"canonical_solution\": \"class Solution:\\n    def f(self):\\n        return 1\"%s}\n";
    vkm_strbuf b = {0};
    vkm_strbuf_printf(&b, format, 1, "\"difficulty\": \"easy\", ", "and should pass all tests", "");
    vkm_strbuf_printf(&b, format, 2, difficulty, user, more);
    put_file(name, b.data, b.n);
    vkm_strbuf_free(&b);
}

static void make_problems(void) {
    static const char easy[] = "\"difficulty\": \"easy\", ", phrase[] = "and should pass all tests";
    problems_with("field.jsonl", "", phrase, "");
    problems_with("phrase.jsonl", easy, "and be done", "");
    problems_with("phrases.jsonl", easy, "and should pass all tests and should pass all tests", "");
    problems_with("unknown.jsonl", easy, phrase, ", \"hnit\": \"x\"");
    put_file("text.jsonl", "not JSON\n", 9);
    put_file("empty.jsonl", "", 0);
}

static void put_text(const char *name, const char *text) {
    put_file(name, text, strlen(text));
}

/* A shader whose every result is one unit in the last place off. */
static int plant_probe(void) {
    static const char store[] = "v[at_] = vkm_canon(x_)",
                      off[] = "v[at_] = vkm_from_bits(vkm_bits(vkm_canon(x_)) + 1u)";
    char path[VKM_PATH_MAX], command[4096], *text;
    size_t n;
    vkm_err err = {0};
    vkm_strbuf b = {0};
    snprintf(path, sizeof path, "%s/gen/arith_probe.glsl", VKM_BINARY_DIR);
    if (vkm_file_read(path, 1 << 20, &text, &n, &err)) return 0;
    char *at = strstr(text, store);
    assert_non_null(at);
    vkm_strbuf_add(&b, text, (size_t)(at - text));
    vkm_strbuf_printf(&b, "%s%s", off, at + sizeof store - 1);
    put_file("arith_probe.glsl", b.data, b.n);
    vkm_strbuf_free(&b);
    free(text);
    snprintf(command, sizeof command,
             "glslangValidator --quiet -V -Od --target-env vulkan1.2 -I'%s' -I'%s/shaders' "
             "-I'%s/src/ops' -I'%s/src/base' -o '%s/arith_probe.spv' '%s/shaders/arith_probe.comp'",
             tmpdir, VKM_SOURCE_DIR, VKM_SOURCE_DIR, VKM_SOURCE_DIR, tmpdir, VKM_SOURCE_DIR);
    return system(command) == 0;
}

#define TRAIN  "train smoke --backend cpu --threads 1 --quiet --model @/model --output_dir @/new "
#define ON_GPU "train smoke --quiet --model @/model --output_dir @/new "
#define ONE    " --max_steps 1 --save_steps 1 --eval_problems 0 "
#define RESUMED                                                                                    \
    "train @/run/config.json --backend cpu --threads 1 --quiet --resume_from_checkpoint "

static int setup(void **state) {
    const vkm_model_preset *tiny;
    vkm_err err = {0};
    if (tmpdir_make(state) || vkm_model_preset_find("tiny", &tiny, &err)) return -1;
    vkm_init_options o = {.config = tiny->config, .output = in_dir("model"), .seed = 3};
    if (vkm_init_model(&o, NULL, &err)) return -1;
    make_weights();
    model_with("no_key", "config.json", "{", "\"hidden_size\"", "\"hidden_siez\"");
    model_with("low_key", "config.json", "rms_norm_eps", "1e-06", "7");
    model_with("no_chatml", "tokenizer.json", "added_tokens", "<|im_start|>", "<|im_begin|>");
    copy_model("locked");
    copy_model("folder");
    if (chmod(in_dir("locked/config.json"), 0) || unlink(in_dir("folder/config.json")) ||
        mkdir(in_dir("folder/config.json"), 0755) || mkdir(in_dir("empty"), 0755))
        return -1;
    make_problems();
    put_text("low.json", "{\"max_steps\": 0}");
    put_text("key.json", "{\n  \"max_steps\": 1,\n  \"learnin_rate\": 1}");
    put_text("partition.json", "{\"1\": \"run_test\"}");
    put_text("pairs.md", "## authored\n### a\n#### Prompt\n`````text\nx\n`````\n");
    have[ANYWHERE] = 1;
    /* root may read everything, and so gives root up */
    if (setenv("AS_USER", geteuid() ? "" : "setpriv --reuid=65534 --regid=65534 --clear-groups",
               1) ||
        chmod(tmpdir, 0755))
        return -1;
    have[USER] = run("$AS_USER", "--version") == 0;
    have[VULKAN] = run("", "devices --no-probes") == 0;
    have[LAVAPIPE] = run("", "verify kernel/zero --device lavapipe --quiet") == 0 && plant_probe();
    have[SANDBOX] = run("", TRAIN ONE "--output_dir @/run") == 0;
    if (!have[SANDBOX] && !strstr(out, "sandbox")) fail_msg("%s", out);
    return 0;
}

/* ---- rows -------------------------------------------------------------------------------------*/

/* tables of few lines a row */
// clang-format off
static void models(void **state) {
    (void)state;
    static const row rows[] = {
        {"no model named", "train --data data/problems.jsonl --backend cpu --quiet", 2,
         {"model is missing", "--model"}},
        {"missing model folder", TRAIN "--model @/nowhere", 1, {"/nowhere: no such folder",
         "config.json"}},
        {"a file in place of the folder", TRAIN "--model @/model/config.json", 1,
         {"/model/config.json: no such folder", "name a model folder"}},
        {"a folder without files", TRAIN "--model @/empty", 1, {"/empty/config.json",
         "is the path right?"}},
        {"a folder in place of config.json", TRAIN "--model @/folder", 1,
         {"/folder/config.json: is a folder, not a file"}},
        {"unreadable config.json", TRAIN "--model @/locked", 1, {"/locked/config.json",
         "Permission denied", "check its permissions"}, USER, "$AS_USER"},
        {"model config without a key", TRAIN "--model @/no_key", 1, {"/no_key/config.json:",
         "hidden_size", "is missing; add it"}},
        {"model config out of range", TRAIN "--model @/low_key", 1, {"/low_key/config.json:",
         "rms_norm_eps: must be from 1e-12 to 0.01, is 7"}},
        {"wrong shape", TRAIN "--model @/shape", 1, {"/shape/model.safetensors",
         "model.layers.0.mlp.down_proj.weight", "is needed", "does it belong to this config?"}},
        {"wrong dtype", TRAIN "--model @/dtype", 1, {"/dtype/model.safetensors",
         "model.layers.0.mlp.down_proj.weight", "is I16", "save the model as BF16, F16 or F32"}},
        {"unknown dtype", TRAIN "--model @/no_dtype", 1, {"/no_dtype/model.safetensors",
         "unknown dtype \"BF61\"", "save the model as BF16, F16 or F32"}},
        {"missing tensor", TRAIN "--model @/no_tensor", 1, {"/no_tensor",
         "'model.layers.0.mlp.down_proj.weight' is not among its", "did you mean 'model.layers.",
         "fetch or save it again"}},
        {"truncated safetensors", TRAIN "--model @/truncated", 1, {"/truncated/model.safetensors",
         "the file is truncated; fetch it again"}},
        {"a stub of a safetensors file", TRAIN "--model @/stub", 1,
         {"/stub/model.safetensors: only 5 bytes", "fetch it again"}},
        {"overlapping safetensors", TRAIN "--model @/overlap", 1, {"/overlap/model.safetensors",
         "model.layers.1.input_layernorm.weight", "where the tensor before it ends",
         "save the file again"}},
        {"NaN in weights", TRAIN "--model @/nan", 1, {"/nan/model.safetensors",
         "holds NaN or Inf at element", "the file is damaged", "fetch it again"}},
        {"a tokenizer without the ChatML tokens", TRAIN "--model @/no_chatml", 1,
         {"problems.jsonl: the model's chat template is not known",
          "its tokenizer has no <|im_start|>", "choose another model"}},
        {"more positions than the model has",
         TRAIN "--max_prompt_length 131072 --max_completion_length 131072", 2,
         {"/model' is made for", "262144 are asked for", "lower the prompt or completion length"}},
    };
    check_rows(rows, VKM_COUNTOF(rows));
}

static void configs(void **state) {
    (void)state;
    static const row rows[] = {
        {"config value missing", "train smoke --model @/model --data= --quiet", 2,
         {"data is missing", "set it in the config or by --data"}},
        {"option without its value", "train smoke --beta", 2, {"--beta needs a value"}},
        {"value out of range", TRAIN "--beta -1", 2,
         {"beta: -1 is out of range, it must be from 0 to 100"}},
        {"value out of range in a file", "train @/low.json --quiet", 1,
         {"/low.json:1:15: max_steps: must be from 1 to 1000000, is 0"}},
        {"unknown key", TRAIN "--learnin_rate 1", 2, {"--learnin_rate",
         "did you mean '--learning_rate'?", "--help"}},
        {"unknown key in a file", "train @/key.json --quiet", 1, {"/key.json:3:", "learnin_rate",
         "did you mean 'learning_rate'?", "correct its name"}},
        {"unknown preset", "train smoek --quiet", 2, {"smoek", "there are:", "smoke", ".json"}},
        {"unknown choice", TRAIN "--importance ppo", 2,
         {"importance: unknown value 'ppo', valid are none|truncated|clip"}},
        {"unknown arm", TRAIN "--arm mow", 2, {"arm: there is no 'mow'",
         "the arms are none, none-r, absorb, moe, moe_detach, "}},
        {"unknown mode", TRAIN "--modes run_test", 2, {"mode 'run_test' is not known",
         "did you mean 'run_tests'?", "the modes are run_tests, "}},
        {"a line end in a value", TRAIN "--arm 'a\nb'", 2, {"arm: there is no 'a?b'"}},
        {"unknown backend", ON_GPU "--backend gpu", 2,
         {"--backend: unknown value 'gpu', valid are auto|vulkan|cpu"}},
    };
    check_rows(rows, VKM_COUNTOF(rows));
}

static void devices(void **state) {
    (void)state;
    static const row rows[] = {
        {"unknown device", ON_GPU "--device voodoo", 2, {"no usable device 'voodoo'",
         "there are: 0 '", "--device takes"}, VULKAN},
        {"device number too large", ON_GPU "--device 99", 2, {"no usable device '99'",
         "there are: 0 '"}, VULKAN},
        {"no driver", ON_GPU "--backend vulkan", 1, {"mesa-vulkan-drivers on Debian", "akmod-nvidia",
         "nvidia-utils on Arch", "--backend cpu"}, ANYWHERE,
         "VK_ICD_FILENAMES=@/none.json VK_DRIVER_FILES=@/none.json"},
        {"a device that fails a probe", ON_GPU "--device lavapipe --shaders @", 1,
         {"does not keep the numerics contract", "probe 'add'", "results differ",
         "or use --backend cpu"}, LAVAPIPE},
    };
    check_rows(rows, VKM_COUNTOF(rows));
}

static void data(void **state) {
    (void)state;
    static const row rows[] = {
        {"missing problem file", TRAIN "--data @/nowhere.jsonl", 1, {"/nowhere.jsonl: cannot open",
         "is the path right?"}},
        {"a folder in place of problems", TRAIN "--data @/model", 1,
         {"/model: is a folder, not a file"}},
        {"problems that are no JSON", TRAIN "--data @/text.jsonl", 1,
         {"/text.jsonl:1:1: expected a value"}},
        {"empty problem file", TRAIN "--data @/empty.jsonl", 1, {"/empty.jsonl: no problems in it",
         "one JSON object a line is needed"}},
        {"problem line without a field", TRAIN "--data @/field.jsonl", 1, {"/field.jsonl:2:1",
         "difficulty", "is missing; add it"}},
        {"problem line with an unknown field", TRAIN "--data @/unknown.jsonl", 1,
         {"/unknown.jsonl:2:", "hnit: unknown key", "did you mean 'hint'?", "correct its name"}},
        {"phrase missing", TRAIN "--data @/phrase.jsonl", 1, {"/phrase.jsonl:2:",
         "'and should pass all tests' 0 times", "exactly once"}},
        {"phrase doubled", TRAIN "--data @/phrases.jsonl", 1, {"/phrases.jsonl:2:",
         "'and should pass all tests' 2 times", "exactly once"}},
        {"prompt longer than allowed", TRAIN "--max_prompt_length 20", 1, {"data/problems.jsonl",
         "makes a prompt of", "max_prompt_length is 20", "raise it or leave the problem out"}},
        {"partition with an unknown mode", TRAIN "--partition @/partition.json", 1,
         {"/partition.json:1:", "mode 'run_test' is not known", "the modes are"}},
        {"missing pairs", TRAIN "--pairs=", 2, {"pairs: arm moe needs", "--pairs"}},
        {"pairs without a block", TRAIN "--pairs @/pairs.md", 1, {"/pairs.md:", "pair 'a'",
         "'#### Hack' is due"}},
        {"pairs of no section", TRAIN "--pairs data/pairs.md#nothing", 1,
         {"'data/pairs.md#nothing' selects none"}},
        {"teacher pool without files", TRAIN "--teacher_pool @/empty", 1,
         {"/empty: no prompt_NNNN.jsonl.gz file in it", "is it the teacher pool's folder?"}},
        {"too many held out", TRAIN "--eval_problems 1000", 2,
         {"eval_problems: 1000 are to be held out of", "--eval_data"}},
    };
    check_rows(rows, VKM_COUNTOF(rows));
}

static void run_folders(void **state) {
    (void)state;
    static const row rows[] = {
        {"run folder exists", TRAIN "--output_dir @/run", 2, {"/run exists and is not empty",
         "take another name, or --resume_from_checkpoint latest"}, SANDBOX},
        {"no run folder named", TRAIN "--output_dir=", 2, {"output_dir is missing"}},
        {"run folder that cannot be made", TRAIN "--output_dir /proc/none/run", 1, {"/proc/none",
         "cannot make the folder"}, SANDBOX},
        {"checkpoint of another config", RESUMED "latest --learning_rate 2e-3", 2,
         {"step-000001: the checkpoint is of another config",
         "learning_rate was '0.001' and is now '0.002'", "set it back"}, SANDBOX},
        {"nothing to resume", TRAIN "--resume_from_checkpoint latest", 1,
         {"/new: no checkpoint to resume from", "leave resume_from_checkpoint empty"}},
        {"missing checkpoint", RESUMED "@/nowhere", 1, {"/nowhere/manifest.json: cannot open",
         "is the path right?"}, SANDBOX},
        {"evaluation of no run", "eval @/nowhere --backend cpu --quiet", 1,
         {"/nowhere/config.json: cannot open", "is the path right?"}},
        {"evaluation without problems", "eval @/run --backend cpu --quiet", 2,
         {"no problems to evaluate on", "eval_data", "eval_problems"}, SANDBOX},
        {"disk full while a checkpoint is saved", TRAIN ONE "--output_dir @/full", 1,
         {"checkpoint of step 1 was not saved", "/full/checkpoints/", "cannot write",
         "raise `ulimit -f`"}, SANDBOX, "ulimit -S -f 64;"},
        {"disk full while a log is written", TRAIN ONE "--output_dir @/full_log", 1, {"/full_log/",
         "cannot write", "raise `ulimit -f`"}, SANDBOX, "ulimit -S -f 4;"},
        {"disk full while a model is made", "init-model --output @/full_model --quiet", 1,
         {"/full_model/", "cannot write", "raise `ulimit -f`"}, ANYWHERE, "ulimit -S -f 64;"},
        {"a model is there", "init-model --output @/model --quiet", 2,
         {"/model/config.json is there already", "choose another folder or give --force"}},
    };
    check_rows(rows, VKM_COUNTOF(rows));
}
// clang-format on

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models), cmocka_unit_test(configs),     cmocka_unit_test(devices),
        cmocka_unit_test(data),   cmocka_unit_test(run_folders),
    };
    return cmocka_run_group_tests(tests, setup, tmpdir_remove);
}
