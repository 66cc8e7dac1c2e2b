/* Owns the tiny model of the method gates. */
#include "verify/fixture.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/init_model.h"
#include "ops/gauss.h"
#include "rl/arms.h"
#include "verify/gates.h"

enum { RANK = 3, VOCAB_USED = 200, MAX_PROMPT = 40, MAX_NEW = 24 };

/* Lengths that straddle panels of 16 rows. */
static const uint32_t lengths[VKM_FIXTURE_ROLLOUTS][2] = {
    {33, 20}, {33, 20}, {64, 40}, {17, 16}, {48, 31}};

static void make_examples(vkm_fixture *fx) {
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) {
        uint32_t len = lengths[i][0], comp0 = lengths[i][1];
        for (uint32_t j = 0; j < len; j++)
            fx->tokens[i][j] = vkm_random4(11, 0, VKM_RNG_TEST, 0, i, j, 0).x % VOCAB_USED;
        fx->examples[i] = (vkm_example){.seq = {fx->tokens[i], len, comp0},
                                        .group = i < 2 ? 0 : 1,
                                        .advantage = i % 2 ? -0.75f : 1.25f,
                                        .weight = 0.03125f};
        fx->n_tokens += len - comp0;
    }
}

static vkm_status open_policy(vkm_fixture *fx, vkm_dev *dev, uint32_t micro_rows) {
    char folder[] = "/tmp/vkmoe-fixture-XXXXXX";
    if (!mkdtemp(folder)) return vkm_fail(&fx->err, VKM_FAILED, "cannot make a folder below /tmp");
    const vkm_model_preset *tiny;
    vkm_init_options o = {.output = folder, .seed = 5, .force = true};
    vkm_policy_limits max = {.max_prompt = MAX_PROMPT,
                             .max_new = MAX_NEW,
                             .rollouts = VKM_FIXTURE_ROLLOUTS,
                             .prompts = VKM_FIXTURE_ROLLOUTS,
                             .ids = VKM_FIXTURE_ROLLOUTS,
                             .micro_rows = micro_rows,
                             .n_experts = 2,
                             .rank = RANK,
                             .trains = 1,
                             .seed = 9};
    if (!vkm_model_preset_find("tiny", &tiny, &fx->err)) {
        o.config = tiny->config;
        if (!vkm_init_model(&o, NULL, &fx->err))
            (void)!vkm_policy_new(dev, folder, &max, NULL, &fx->policy, &fx->err);
    }
    vkm_err removing = {0};
    if (vkm_folder_remove(folder, &removing) && !fx->err.status) fx->err = removing;
    return fx->err.status;
}

vkm_fixture *vkm_fixture_new(vkm_dev *dev, uint32_t micro_rows) {
    vkm_fixture *fx = calloc(1, sizeof *fx);
    VKM_BUG_ON(!fx, "no memory for a fixture");
    make_examples(fx);
    (void)!open_policy(fx, dev, micro_rows);
    return fx;
}

void vkm_fixture_end(vkm_verify *v, vkm_fixture *fx) {
    if (v && fx->err.status) vkm_v_fail(v, "%s", fx->err.msg);
    vkm_policy_free(fx->policy);
    free(fx);
}

float *vkm_fixture_params(vkm_fixture *fx) {
    if (fx->err.status) return NULL;
    float *x = calloc(vkm_adapter_size(fx->policy->adapter, VKM_STATE_PARAM), sizeof *x);
    VKM_BUG_ON(!x, "no memory for a fixture");
    (void)!vkm_adapter_read(fx->policy->adapter, VKM_STATE_PARAM, x, &fx->err);
    return x;
}

void vkm_fixture_set_params(vkm_fixture *fx, const float *params) {
    if (!fx->err.status)
        (void)!vkm_adapter_write(fx->policy->adapter, VKM_STATE_PARAM, params, &fx->err);
}

static void perturb(vkm_fixture *fx, uint32_t first, uint32_t last, uint64_t seed) {
    float *x = vkm_fixture_params(fx), *at = x;
    const vkm_adapter *a = x ? fx->policy->adapter : NULL;
    for (uint32_t i = 0; x && i < a->n_modules; i++) {
        for (int f = 0; f < 2; f++) {
            uint32_t cols = f ? a->modules[i].d_out : a->modules[i].d_in;
            uint64_t row = (uint64_t)a->rank * cols;
            vkm_gauss(at + first * row, (last - first) * row, 0, seed, VKM_RNG_TEST, 2 * i + f,
                      0.03f);
            at += a->n_experts * row;
        }
    }
    if (x) vkm_fixture_set_params(fx, x);
    free(x);
}

void vkm_fixture_perturb(vkm_fixture *fx, uint64_t seed) {
    perturb(fx, 0, 2, seed);
}
void vkm_fixture_perturb_block(vkm_fixture *fx, uint32_t block, uint64_t seed) {
    perturb(fx, block, block + 1, seed);
}

float *vkm_fixture_logp(vkm_fixture *fx, const float f[VKM_MAX_EXPERTS]) {
    float *out = calloc(fx->n_tokens, sizeof *out), *at = out;
    VKM_BUG_ON(!out, "no memory for a fixture");
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) {
        vkm_example *x = &fx->examples[i];
        memcpy(x->f, f, sizeof x->f);
        x->logp = at;
        at += x->seq.len - x->seq.comp0;
    }
    if (!fx->err.status)
        (void)!vkm_policy_read(fx->policy, fx->examples, VKM_FIXTURE_ROLLOUTS, &fx->err);
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) fx->examples[i].logp = NULL;
    return out;
}

float *vkm_fixture_grad(vkm_fixture *fx, const float f[VKM_MAX_EXPERTS],
                        const float g[VKM_MAX_EXPERTS]) {
    const vkm_loss_options o = {
        .importance = VKM_importance_none, .eps_low = 0.2f, .eps_high = 0.2f};
    if (fx->err.status) return NULL;
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) {
        vkm_example *x = &fx->examples[i];
        memcpy(x->f, f, sizeof x->f);
        memcpy(x->g, g, sizeof x->g);
        memcpy(x->xs, fx->parameter_detach ? f : g, sizeof x->xs);
    }
    float *out = calloc(vkm_adapter_size(fx->policy->adapter, VKM_STATE_GRAD), sizeof *out);
    VKM_BUG_ON(!out, "no memory for a fixture");
    (void)!vkm_policy_zero_grad(fx->policy, &fx->err);
    for (uint32_t i = 0, n; i < VKM_FIXTURE_ROLLOUTS && !fx->err.status; i += n) {
        const vkm_example *x = &fx->examples[i];
        for (n = 1; i + n < VKM_FIXTURE_ROLLOUTS; n++)
            if (fx->by_group && x[n].group != x[0].group) break;
        (void)!vkm_policy_train(fx->policy, fx->examples + i, n, &o, &fx->err);
    }
    if (!fx->err.status)
        (void)!vkm_adapter_read(fx->policy->adapter, VKM_STATE_GRAD, out, &fx->err);
    return out;
}

/* ---- sampling against the training forward --------------------------------------------------- */

typedef struct sampled {
    uint32_t tokens[MAX_PROMPT + MAX_NEW], n;
    float logp[MAX_NEW], again[MAX_NEW];
} sampled;

static vkm_status keep(void *user, uint32_t row, const uint32_t *tokens, const float *logp,
                       uint32_t n, vkm_err *err) {
    (void)err;
    sampled *s = (sampled *)user + row;
    s->n = n;
    memcpy(s->tokens + MAX_PROMPT, tokens, n * sizeof *tokens);
    memcpy(s->logp, logp, n * sizeof *logp);
    return VKM_OK;
}

uint64_t vkm_fixture_compare_sampling(vkm_fixture *fx, const float f[VKM_MAX_EXPERTS],
                                      uint32_t *n) {
    const uint32_t eos[1] = {VOCAB_USED};
    vkm_gen_options how = {
        .dist = {.temperature = 1, .top_p = 1}, .seed = 3, .eos = eos, .n_eos = 1};
    vkm_gen_row rows[VKM_FIXTURE_ROLLOUTS];
    vkm_example x[VKM_FIXTURE_ROLLOUTS];
    sampled *got = calloc(VKM_FIXTURE_ROLLOUTS, sizeof *got);
    uint64_t wrong = 0;
    *n = 0;
    VKM_BUG_ON(!got, "no memory for a fixture");
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) {
        rows[i] = (vkm_gen_row){
            .prompt = fx->tokens[i < 3 ? 0 : i], .id = i, .prompt_len = lengths[i < 3 ? 0 : i][1]};
        memcpy(rows[i].f, f, sizeof rows[i].f);
    }
    if (fx->err.status ||
        vkm_generate(fx->policy->gen, rows, VKM_FIXTURE_ROLLOUTS, &how, keep, got, &fx->err))
        goto done;
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) {
        uint32_t *tokens = got[i].tokens + MAX_PROMPT - rows[i].prompt_len;
        memcpy(tokens, rows[i].prompt, rows[i].prompt_len * sizeof *tokens);
        x[i] = (vkm_example){.seq = {tokens, rows[i].prompt_len + got[i].n, rows[i].prompt_len},
                             .logp = got[i].again};
        memcpy(x[i].f, f, sizeof x[i].f);
    }
    if (vkm_policy_read(fx->policy, x, VKM_FIXTURE_ROLLOUTS, &fx->err)) goto done;
    for (uint32_t i = 0; i < VKM_FIXTURE_ROLLOUTS; i++) {
        *n += got[i].n;
        for (uint32_t j = 0; j < got[i].n; j++)
            wrong += memcmp(&got[i].logp[j], &got[i].again[j], sizeof(float)) != 0;
    }
done:
    free(got);
    return wrong;
}
