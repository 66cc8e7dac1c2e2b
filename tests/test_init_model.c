/* init-model: the folders it makes are read back whole, and their bytes are fixed by the seed. */
#include "base/hash.h"
#include "model/chat.h"
#include "model/init_model.h"
#include "model/safetensors.h"
#include "model/tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "tmpdir.h"

static vkm_status make(const char *preset, const char *folder, const char *tokenizer, uint64_t seed,
                       vkm_model_config *c, vkm_err *err) {
    const vkm_model_preset *p;
    *err = (vkm_err){0};
    if (vkm_model_preset_find(preset, &p, err)) return err->status;
    vkm_init_options o = {
        .config = p->config, .tokenizer = tokenizer, .output = folder, .seed = seed};
    return vkm_init_model(&o, c, err);
}

static vkm_hash128 file_hash(const char *folder, const char *name) {
    char path[VKM_PATH_MAX];
    vkm_map m;
    vkm_err err = {0};
    assert_int_equal(vkm_path_join(path, folder, name, &err), VKM_OK);
    assert_int_equal(vkm_map_open(&m, path, &err), VKM_OK);
    vkm_hash128 h = vkm_hash(m.data, m.n);
    vkm_map_close(&m);
    return h;
}

static void folders_are_read_back(void **state) {
    (void)state;
    static const char *const presets[] = {"tiny", "tiny-untied", "mini"};
    for (size_t i = 0; i < VKM_COUNTOF(presets); i++) {
        vkm_err err;
        vkm_model_config made, read;
        vkm_st *s;
        vkm_tokenizer *t;
        const char *folder = in_dir(presets[i]);
        assert_int_equal(make(presets[i], folder, NULL, 1, &made, &err), VKM_OK);
        assert_int_equal(vkm_model_config_load(folder, &read, &err), VKM_OK);
        assert_true(read.C == made.C && read.V == 512 && read.tied == made.tied && read.n_eos == 2);
        assert_true(read.top_k == 0 && read.temperature == 1);
        assert_int_equal(vkm_tokenizer_load(folder, &t, &err), VKM_OK);
        assert_int_equal(vkm_tokenizer_n_ids(t), 512);
        assert_int_equal(vkm_tokenizer_id(t, "<|im_end|>"), read.eos[0]);
        assert_int_equal(vkm_chat_style_of(t), VKM_CHAT_PLAIN);
        vkm_tokenizer_free(t);
        assert_int_equal(vkm_st_open(folder, &s, &err), VKM_OK);
        uint64_t n = 0;
        for (size_t k = 0; k < vkm_st_count(s); k++) n += vkm_st_at(s, k)->n_elems;
        assert_int_equal(n, vkm_model_config_n_params(&read));
        const vkm_st_tensor *w, *g;
        uint64_t shape[2] = {(uint64_t)read.H * read.D, read.C};
        assert_int_equal(
            vkm_st_expect(s, "model.layers.1.self_attn.q_proj.weight", 2, shape, &w, &err), VKM_OK);
        assert_int_equal(vkm_st_expect(s, "model.norm.weight", 1, shape + 1, &g, &err), VKM_OK);
        float *x = calloc(w->n_elems, sizeof *x), gain[128];
        assert_int_equal(vkm_st_to_f32(w, 0, w->n_elems, x, &err), VKM_OK);
        double sum = 0, squares = 0;
        for (uint64_t k = 0; k < w->n_elems; k++)
            sum += (double)x[k], squares += (double)x[k] * (double)x[k];
        double count = (double)w->n_elems;
        assert_true(fabs(sum / count) < 5 * 0.02 / sqrt(count));
        assert_true(fabs(sqrt(squares / count) / 0.02 - 1) < 5 / sqrt(2 * count));
        assert_int_equal(vkm_st_to_f32(g, 0, g->n_elems, gain, &err), VKM_OK);
        for (uint64_t k = 0; k < g->n_elems; k++) assert_true(gain[k] == 1);
        free(x);
        vkm_st_close(s);
        assert_int_equal(make(presets[i], folder, NULL, 1, &made, &err), VKM_USAGE);
        assert_has(err.msg, "is there already; choose another folder or give --force");
    }
}

static void bytes_depend_on_the_seed_only(void **state) {
    (void)state;
    vkm_err err;
    vkm_model_config c;
    char hex[VKM_HASH_HEX];
    assert_int_equal(make("tiny", in_dir("a"), NULL, 7, &c, &err), VKM_OK);
    vkm_init_options three = {.config = c, .output = in_dir("b"), .seed = 7, .threads = 3};
    assert_int_equal(vkm_init_model(&three, NULL, &err), VKM_OK);
    assert_int_equal(make("tiny", in_dir("c"), NULL, 8, &c, &err), VKM_OK);
    vkm_hash128 a = file_hash(in_dir("a"), "model.safetensors");
    vkm_hash128 b = file_hash(in_dir("b"), "model.safetensors");
    vkm_hash128 other = file_hash(in_dir("c"), "model.safetensors");
    assert_true(a.lo == b.lo && a.hi == b.hi && a.lo != other.lo);
    vkm_hash_hex(a, hex);
    assert_string_equal(hex, "c698d4ec8a6deb97d4b6caea9a3e59bb"); /* any machine, any compiler */
    vkm_hash_hex(file_hash(in_dir("a"), "tokenizer.json"), hex);
    assert_string_equal(hex, "59c6e52e4f71ed0f339d33d34184d705");
}

static void copies_a_tokenizer(void **state) {
    (void)state;
    vkm_err err;
    vkm_model_config c;
    const char *golden = VKM_SOURCE_DIR "/tests/golden/tokenizer";
    assert_int_equal(make("tiny", in_dir("copied"), golden, 1, &c, &err), VKM_OK);
    assert_true(c.V > 260 && c.V < 512);
    vkm_hash128 a = file_hash(golden, "tokenizer.json"),
                b = file_hash(in_dir("copied"), "tokenizer.json");
    assert_true(a.lo == b.lo && a.hi == b.hi);
    assert_int_equal(make("tiny", in_dir("none"), "/nonexistent", 1, &c, &err), VKM_FAILED);
    assert_has(err.msg, "/nonexistent/tokenizer.json: cannot open");
    assert_false(vkm_file_exists(in_dir("none/config.json")));
}

static void refuses_bad_shapes(void **state) {
    (void)state;
    vkm_err err;
    vkm_model_config c;
    assert_int_equal(make("tinny", in_dir("x"), NULL, 1, &c, &err), VKM_USAGE);
    assert_has(err.msg, "unknown preset 'tinny'; the presets are tiny, tiny-untied, ");
    const vkm_model_preset *p;
    err = (vkm_err){0};
    assert_int_equal(vkm_model_preset_find("tiny", &p, &err), VKM_OK);
    vkm_init_options o = {.config = p->config, .output = in_dir("x"), .seed = 1};
    o.config.K = 3;
    assert_int_equal(vkm_init_model(&o, NULL, &err), VKM_FAILED);
    assert_has(err.msg, "multiple of num_key_value_heads (3)");
    assert_false(vkm_dir_exists(in_dir("x")));
    err = (vkm_err){0};
    o.config.K = 2;
    o.config.V = 300;
    assert_int_equal(vkm_init_model(&o, NULL, &err), VKM_USAGE);
    assert_has(err.msg, "a vocabulary of 300 is too small for the tokenizer's 512 ids");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_read_back),
        cmocka_unit_test(bytes_depend_on_the_seed_only),
        cmocka_unit_test(copies_a_tokenizer),
        cmocka_unit_test(refuses_bad_shapes),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
