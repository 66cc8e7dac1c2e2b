/* Owns the reading of pairs by a policy. */
#include "rl/pair_ids.h"

#include <stdlib.h>
#include <string.h>

#include "model/chat.h"
#include "rl/arms.h"

vkm_status vkm_pair_encode(const vkm_tokenizer *t, const vkm_pair *p, uint64_t most,
                           vkm_pair_ids *out, vkm_err *err) {
    const char *text[2] = {p->hack, p->clean};
    vkm_strbuf prompt = {0};
    vkm_chat_restyle(p->prompt, vkm_chat_style_of(t), &prompt); /* as rollouts' end */
    (void)!vkm_strbuf_check(&prompt, "a pair's prompt", err);
    for (int i = 0; i < 2 && !err->status; i++) {
        vkm_ids *side = &out->side[i];
        if (vkm_tokenizer_encode(t, prompt.data, prompt.n, side, err)) break;
        out->comp0 = (uint32_t)side->n;
        if (vkm_tokenizer_encode(t, text[i], strlen(text[i]), side, err)) break;
        if (side->n > most)
            vkm_fail(err, VKM_FAILED,
                     "line %zu: pair '%s' has %zu tokens, max_prompt_length + "
                     "max_completion_length is %llu: raise one or leave the pair out",
                     p->line, p->name, side->n, (unsigned long long)most);
    }
    vkm_strbuf_free(&prompt);
    return err->status;
}

void vkm_pair_ids_clear(vkm_pair_ids *p) {
    for (int i = 0; i < 2; i++) free(p->side[i].id);
    *p = (vkm_pair_ids){0};
}

vkm_status vkm_pairs_read(vkm_policy *policy, vkm_policy_reader read, const vkm_pair_ids *pairs,
                          uint32_t n_pairs, float *out, float *reference_logp, vkm_err *err) {
    uint32_t n = 2 * n_pairs, n_tokens = 0,
             width = policy->adapter->n_modules * policy->adapter->rank;
    vkm_example *x = vkm_calloc(n, sizeof *x, "the pairs", err);
    float *logp = NULL;
    if (!x) return err->status;
    for (uint32_t i = 0; i < n; i++) { /* the sides of a pair together: they share their prompt */
        const vkm_pair_ids *p = &pairs[i / 2];
        const vkm_ids *side = &p->side[i % 2];
        x[i] = (vkm_example){.seq = {side->id, (uint32_t)side->n, p->comp0},
                             .pooled = out + ((uint64_t)(i % 2) * n_pairs + i / 2) * width};
        memcpy(x[i].f, vkm_state_ablated, sizeof x[i].f);
        n_tokens += (uint32_t)side->n - p->comp0;
    }
    logp = vkm_calloc(n_tokens, sizeof *logp, "the pairs", err);
    if (!logp) goto done;
    for (uint32_t i = 0, at = 0; i < n; at += x[i].seq.len - x[i].seq.comp0, i++)
        x[i].logp = logp + at;
    if (read(policy, x, n, err)) goto done;
    double sum = 0, count = 0; /* the clean sides are the tripwire's fixed completions */
    for (uint32_t i = 1; i < n; i += 2)
        for (uint32_t j = 0; j < x[i].seq.len - x[i].seq.comp0; j++)
            sum += (double)x[i].logp[j], count++;
    *reference_logp = (float)(sum / count);
done:
    free(logp);
    free(x);
    return err->status;
}
