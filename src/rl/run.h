/* One run: everything that is open while rollouts are made, learnt from or evaluated. The data's
 * way: prompts -> rollouts -> grades -> advantages (rollout.c) -> activations -> router -> weights
 * f, g -> loss -> gradients -> update (step.c) -> log, checkpoint (train.c) -> evaluation (eval.c).
 */
#ifndef VKM_RUN_H
#define VKM_RUN_H

#include "base/hash.h"
#include "env/reward.h"
#include "env/select.h"
#include "env/teacher.h"
#include "model/tokenizer.h"
#include "rl/arms.h"
#include "rl/gate.h"
#include "rl/mixture.h"
#include "rl/optimizer.h"
#include "rl/pair_ids.h"
#include "rl/policy.h"
#include "rl/router.h"

/* What a run is opened for: what is not needed is neither read nor given memory. */
typedef enum {
    VKM_RUN_TRAINS,
    VKM_RUN_EVALUATES, /* no gradients, optimizers, router, pairs and teachers */
} vkm_run_purpose;

/* Problems that evaluation samples, each in the mode that it shows. */
typedef struct vkm_eval_set {
    const char *name;            /* "held_out", "train" */
    int original;                /* markers are training's, not the novel ones */
    const vkm_problem **problem; /* (n) */
    const vkm_mode **mode;       /* (n) */
    size_t n;
} vkm_eval_set;
typedef enum { VKM_SET_HELD_OUT, VKM_SET_TRAIN, VKM_N_EVAL_SETS } vkm_eval_set_index;

typedef struct vkm_run {
    vkm_config c;
    vkm_run_purpose purpose;
    const vkm_arm *arm;
    vkm_dev *dev;
    vkm_tokenizer *tokenizer;
    vkm_problems *problems, *eval_file; /* the second NULL: evaluation is held out from the first */
    const vkm_problem **train;          /* n_train */
    size_t n_train;
    vkm_eval_set sets[VKM_N_EVAL_SETS]; /* the first shares no problem with train */
    const vkm_mode **modes;             /* those of the config, n_modes */
    uint32_t n_modes;
    vkm_mode *inoculated;     /* (vkm_n_modes) training's rows, of arms that inoculate; else NULL */
    vkm_partition *partition; /* NULL: modes take turns */
    vkm_teacher_pool *teachers; /* NULL: none */
    int canonical_teachers;     /* the canonical solutions serve as teachers */
    vkm_pair_ids *pairs;
    uint32_t n_pairs;
    vkm_reward *reward;
    vkm_policy *policy;
    vkm_router *router;   /* of arms whose w is the router's; NULL for others and in evaluation */
    vkm_gate *gate;       /* of arms whose w is the gate's; likewise */
    vkm_mixture *mixture; /* of arms whose w is the mixture's; likewise */
    vkm_optimizer *opt, *router_opt;
    vkm_model_config hf;
    /* what a checkpoint holds beside the tensors */
    struct {
        uint32_t step;                             /* steps done */
        uint32_t n_updates;                        /* updates of the optimizers */
        uint32_t n_skipped;                        /* steps in a row that a tripwire skipped */
        float reference_logp, best_reference_logp; /* of the pairs' clean sides, nats a token */
        uint32_t n_far;                            /* readings in a row far below it */
        uint32_t healed;                           /* the retain-heal is done */
    } state;
} vkm_run;

/* Opens what the config names and the purpose needs. With dry, memory is only planned: nothing else
 * may be done with the run but closing it. device: for messages and the log. */
vkm_status vkm_run_open(const vkm_config *c, vkm_run_purpose purpose, vkm_dev *dev, vkm_plan *dry,
                        vkm_run **out, vkm_err *err) VKM_MUST_CHECK;
void vkm_run_close(vkm_run *r); /* accepts NULL */

/* One rollout, from prompt to gradient. */
typedef struct vkm_rollout {
    const vkm_problem *problem;
    const vkm_mode *mode;         /* shown and graded */
    uint32_t group, id;           /* id numbers its random draws */
    float state[VKM_MAX_EXPERTS]; /* adapter state that sampled it */
    int teacher;
    int ungraded;          /* a teacher whose grade is not cached, or not by who pays now */
    const vkm_ids *prompt; /* shared by its group */
    vkm_ids ids;           /* prompt and completion */
    float *logp;           /* of the sampler, per completion token; teachers: of the full state */
    float *logp_ref;       /* of the base model */
    char *text;            /* completion, n_text bytes */
    size_t n_text;
    vkm_grade grade;
    float advantage;
    int live;        /* its group is learnt from */
    float w;         /* the weight that the arm gives it, NaN where there is none */
    uint32_t w_from; /* the live rollout whose w that is, VKM_FROM_NONE for a draw */
    float f[VKM_MAX_EXPERTS], g[VKM_MAX_EXPERTS];
    float log_ratio; /* training minus sampling log-probability, mean over tokens */
} vkm_rollout;

/* What a batch of rollouts is drawn with. */
typedef struct vkm_draw {
    double temperature;
    uint32_t step, draw; /* Philox counter; draw tells training (0) and evaluation apart */
    /* what to do while the last grades are awaited, or NULL */
    vkm_status (*meanwhile)(vkm_run *r, vkm_err *err);
} vkm_draw;
enum { VKM_DRAW_TRAIN = 0, VKM_DRAW_EVAL = 1 /* of the first set; the others follow */ };

/* Rollouts of one adapter state in an evaluation; a usage error when ids of 32 bits do not number
 * them. */
vkm_status vkm_eval_rollouts(size_t n_problems, int64_t samples_per_problem, uint32_t *out,
                             vkm_err *err) VKM_MUST_CHECK;

/* The mode of a problem: its partition's, else the config's modes take turns in the file's order.
 */
const vkm_mode *vkm_run_mode(const vkm_run *r, const vkm_problem *problem);

/* The same as training shows it. */
const vkm_mode *vkm_run_training_mode(const vkm_run *r, const vkm_problem *problem);

/* The token ids of the prompt that shows `problem` in `mode`. */
vkm_status vkm_prompt_ids(const vkm_tokenizer *t, const vkm_problem *problem, const vkm_mode *mode,
                          vkm_ids *out, vkm_err *err) VKM_MUST_CHECK;
/* The same for a run; too long a prompt is an error. */
vkm_status vkm_run_prompt(const vkm_run *r, const vkm_problem *problem, const vkm_mode *mode,
                          vkm_ids *out, vkm_err *err) VKM_MUST_CHECK;
/* Generates the rollouts that are no teachers, grades all of them while others are still sampled.
 */
vkm_status vkm_run_sample(vkm_run *r, vkm_rollout *x, uint32_t n, const vkm_draw *how,
                          vkm_err *err) VKM_MUST_CHECK;
void vkm_rollouts_clear(vkm_rollout *x, uint32_t n); /* frees what each owns */

/* Prompts, rollouts, grades and advantages of a training step: num_prompts groups of
 * num_generations. prompts (num_prompts) keep the shared ids. */
vkm_status vkm_run_collect(vkm_run *r, uint32_t step, vkm_ids *prompts, vkm_rollout *x,
                           vkm_err *err) VKM_MUST_CHECK;

/* What a step measured. */
typedef struct vkm_step_result {
    double loss, kl, entropy, grad_norm, router_grad_norm, pin_loss, clip_ratio;
    double w_pairs_hack, w_pairs_clean, qmass, reference_logp, seed_cosine;
    float learning_rate;
    int updated; /* 0: every group was skipped, or a tripwire */
} vkm_step_result;

/* Routes, forward and backward, update; vkm_run_refresh comes before (vkm_run_collect calls it). */
vkm_status vkm_run_learn(vkm_run *r, vkm_rollout *x, uint32_t n, vkm_step_result *out,
                         vkm_err *err) VKM_MUST_CHECK;

/* XXH3-128 of all trained parameters, in hex. */
vkm_status vkm_run_hash(const vkm_run *r, char hex[VKM_HASH_HEX], vkm_err *err) VKM_MUST_CHECK;

/* Checkpoints (train.c uses them; evaluation loads). */
vkm_status vkm_run_save(vkm_run *r, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_run_restore(vkm_run *r, const char *checkpoint, vkm_err *err) VKM_MUST_CHECK;

/* A fresh run takes over the adapter of the run c->from_ablated, its hack expert reset. */
vkm_status vkm_run_from_ablated(vkm_run *r, vkm_err *err) VKM_MUST_CHECK;
/* The retain-heal: one epoch of -log p on the clean sides of the pairs, in the deployed state, with
 * moments of its own and the rate c->retain_heal. The hack expert stays to the bit. */
vkm_status vkm_run_heal(vkm_run *r, vkm_err *err) VKM_MUST_CHECK;

/* Reads the pairs' activations: calibrates the router (first time) or refreshes it; gives the gate
 * its direction. */
vkm_status vkm_run_read_pairs(vkm_run *r, int first, vkm_err *err) VKM_MUST_CHECK;
/* The same where this step is due to read them again (refresh_every). */
vkm_status vkm_run_refresh(vkm_run *r, vkm_err *err) VKM_MUST_CHECK;

/* The w of a step's live rollouts x[back[i]], examples ex (n): a source, then a placebo. */
vkm_status vkm_run_route(vkm_run *r, vkm_rollout *x, vkm_example *ex, const uint32_t *back,
                         uint32_t n, vkm_err *err) VKM_MUST_CHECK;
/* What the arm makes of a rollout's w: f, g, and its say on the advantage. */
void vkm_run_apply_arm(const vkm_run *r, vkm_rollout *x, vkm_example *ex);

#endif
