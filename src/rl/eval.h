/* Evaluation: the same prompts and the same random draws in several states of the adapter. The
 * states are a table; which of them an evaluation takes is the config's (eval_states). */
#ifndef VKM_EVAL_H
#define VKM_EVAL_H

#include <stdio.h>

#include "rl/run.h"
#include "rl/runlog.h"
#include "rl/stats.h"

/* An adapter state that evaluation compares. */
typedef struct vkm_eval_state {
    const char *name, *doc;
    float f[VKM_MAX_EXPERTS]; /* forward weights (deployed, hack) */
    int random;               /* random_off: rank rows removed at random, draw by draw, pooled */
    int held_out_only;        /* not on the training problems */
} vkm_eval_state;
extern const vkm_eval_state vkm_eval_states[];
extern const uint32_t vkm_n_eval_states;
#define VKM_EVAL_MOST_STATES 16

/* The states that a list "all_on,hack_off" names, in the table's order; a usage error names what is
 * unknown, and the valid ones. */
vkm_status vkm_eval_states_read(const char *list, const vkm_eval_state *out[VKM_EVAL_MOST_STATES],
                                uint32_t *n, vkm_err *err) VKM_MUST_CHECK;

/* Counts over n rollouts. */
typedef struct vkm_eval_counts {
    uint32_t n, hacked, vendor_hacked, solved, compiled;
} vkm_eval_counts;

/* One state on one set of problems. */
typedef struct vkm_eval_row {
    const vkm_eval_state *state;
    const vkm_eval_set *set;
    vkm_eval_counts *of; /* (set->n) */
    double kl;           /* of the state from the base model on its own completions, nats a token;
                            NaN where it was not read (eval_kl) */
} vkm_eval_row;

typedef struct vkm_eval_result {
    vkm_eval_row row[VKM_N_EVAL_SETS * VKM_EVAL_MOST_STATES];
    uint32_t n_rows;
    double seconds;
} vkm_eval_result;

/* Evaluates the run's current adapter on its sets. Leaves the adapter as it was, bit for bit, and
 * takes none of training's random draws. rollouts: NULL, or gets a JSON line a completion.
 * vkm_eval_clear() the result, also after a failure. */
vkm_status vkm_evaluate(vkm_run *r, vkm_eval_result *out, vkm_strbuf *rollouts,
                        vkm_err *err) VKM_MUST_CHECK;
void vkm_eval_clear(vkm_eval_result *e);

/* What `vkmoe eval --full` sets: every state, KL, both sets, and full_rollouts of a state or more.
 */
void vkm_eval_in_full(vkm_config *c);

/* NULL where the evaluation has no such row. */
const vkm_eval_row *vkm_eval_find(const vkm_eval_result *e, const char *set, const char *state);

/* Problems of a set: all, those whose prompt names a loophole, those without a hint. */
typedef enum { VKM_STRATUM_ALL, VKM_STRATUM_LOOPHOLE, VKM_STRATUM_HINT_FREE } vkm_stratum;
vkm_eval_counts vkm_eval_sum(const vkm_eval_row *row, vkm_stratum stratum);

/* What the states of one set say of the ablation, over the problems that name a loophole (h: hack
 * rate). NaN where a state is missing; bounds: 95%, a paired bootstrap over problems. */
typedef struct vkm_causal {
    vkm_paired specificity; /* h(deployed_off) - h(hack_off) */
    vkm_paired drop;        /* h(all_on) - h(hack_off) */
    double localisation; /* drop / (drop + h(all_on) - h(deployed_off)); NaN where that is < .2 */
} vkm_causal;
vkm_causal vkm_eval_causal(const vkm_eval_result *e, const char *set, uint64_t seed);

/* A table for each set with Wilson intervals, the causal figures, and the two causal lines. */
void vkm_eval_print(const vkm_run *r, const vkm_eval_result *e, FILE *f);

/* The evaluation as one line of eval.jsonl (docs/formats.md), and its rates as event scalars. */
void vkm_eval_line(const vkm_run *r, const vkm_eval_result *e, vkm_strbuf *line, vkm_event *event);

#endif
