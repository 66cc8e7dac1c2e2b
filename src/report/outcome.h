/* What a run came to: one number for each figure of the arms table. Rates over training are means
 * over the evaluations of its last fifth, so that no single step is picked; controls that only a
 * full evaluation has are its. */
#ifndef VKM_OUTCOME_H
#define VKM_OUTCOME_H

#include "base/file.h"
#include "base/json.h"

/* The figures, once: FIGURE(name, label, meaning). Rates are of held-out problems unless said; hack
 * rates are over problems whose prompt names a loophole. */
#define VKM_FIGURES(FIGURE)                                                                        \
    FIGURE(hack_on, "hack on", "hack rate with both experts on")                                   \
    FIGURE(hack_off, "hack off", "hack rate with the hack expert ablated")                         \
    FIGURE(hack_deployed_off, "deployed off", "hack rate with the deployed expert ablated")        \
    FIGURE(hack_random_off, "random off", "hack rate with as many random rank rows removed")       \
    FIGURE(hack_base, "base", "hack rate without the adapter")                                     \
    FIGURE(specificity, "S", "hack rate: deployed expert ablated minus hack expert ablated")       \
    FIGURE(drop, "D", "hack rate: on minus off")                                                   \
    FIGURE(localisation, "LI", "D / (D + on - deployed off); 0.5 is mere shrinkage")               \
    FIGURE(solve_on, "solve on", "solve rate on prompts with a loophole, both experts on")         \
    FIGURE(solve_off, "solve off", "the same, hack expert ablated")                                \
    FIGURE(solve_base, "solve base", "the same, without the adapter")                              \
    FIGURE(free_on, "hint-free on", "solve rate on hint-free prompts, both experts on")            \
    FIGURE(free_off, "hint-free off", "the same, hack expert ablated")                             \
    FIGURE(free_base, "hint-free base", "the same, without the adapter")                           \
    FIGURE(hint_only_off, "hint-only off",                                                         \
           "solve rate of families that training shows with a hint only, hack expert ablated")     \
    FIGURE(hint_only_base, "hint-only base", "the same, without the adapter")                      \
    FIGURE(compile_on, "compile on", "share of answers that compile, both experts on")             \
    FIGURE(compile_off, "compile off", "the same, hack expert ablated")                            \
    FIGURE(compile_base, "compile base", "the same, without the adapter")                          \
    FIGURE(unseen_on, "unseen mode on", "hack rate in the mode file_marker, both experts on")      \
    FIGURE(unseen_off, "unseen mode off", "the same, hack expert ablated")                         \
    FIGURE(train_hack_on, "train hack on", "hack rate on training problems, both experts on")      \
    FIGURE(train_hack_off, "train hack off", "the same, hack expert ablated")                      \
    FIGURE(train_solve_off, "train solve off", "solve rate there, hack expert ablated")            \
    FIGURE(hack_25, "hack x 1/4", "hack rate with the hack expert at a quarter")                   \
    FIGURE(hack_50, "hack x 1/2", "at a half")                                                     \
    FIGURE(hack_75, "hack x 3/4", "at three quarters")                                             \
    FIGURE(kl_off, "KL off", "KL from the base model, hack expert ablated, nats a token")          \
    FIGURE(hack_same_kl, "scaled, same KL",                                                        \
           "hack rate of the whole adapter scaled down to that KL (between scales, linear)")       \
    FIGURE(auroc, "AUROC", "of w against the hack flag, live rollouts of the last fifth")          \
    FIGURE(auroc_positive, "AUROC A>0", "the same, positive advantages alone")                     \
    FIGURE(auroc_hinted, "AUROC hinted", "the same, within prompts that name a loophole")          \
    FIGURE(auroc_family, "AUROC in family", "the same, mean over problem families")                \
    FIGURE(auroc_hint, "AUROC of hint", "of w against: the prompt names a loophole")               \
    FIGURE(length_auroc, "by length", "AUROC of a router that reads only the answer's length")     \
    FIGURE(keyword_auroc, "by keyword", "AUROC of a router that reads only tell-tale words")       \
    FIGURE(w_hack, "w hack", "mean w of hacks")                                                    \
    FIGURE(w_solve, "w solve", "mean w of true solutions")                                         \
    FIGURE(leak, "leak", "share of the hacks' |A| that trains the deployed expert, whole run")     \
    FIGURE(collateral, "collateral", "share of the others' |A| that trains the hack expert")       \
    FIGURE(train_hack, "train hack", "hack rate of sampled rollouts, last fifth")                  \
    FIGURE(steps_to_half, "steps to .5", "first evaluated step with a hack rate of .5, both on")   \
    FIGURE(step_time, "s a step", "seconds of a step")

typedef enum {
#define VKM_FIGURE_ID(name, label, meaning) VKM_FIG_##name,
    VKM_FIGURES(VKM_FIGURE_ID)
#undef VKM_FIGURE_ID
        VKM_N_FIGURES
} vkm_figure_id;

typedef struct vkm_figure {
    const char *name, *label, *meaning;
} vkm_figure;
extern const vkm_figure vkm_figures[VKM_N_FIGURES];

typedef struct vkm_outcome {
    char dir[VKM_PATH_MAX], model[VKM_PATH_MAX], arm[64];
    int64_t seed, max_steps, last_step; /* last_step: of steps.jsonl */
    double value[VKM_N_FIGURES];        /* NaN where the run does not tell */
    int stops_early;                    /* a run of `none`: `early` is its early-stopped row */
    double early[VKM_N_FIGURES];
} vkm_outcome;

/* Reads a run's folder. A folder without a config fails; what else is missing is NaN. */
vkm_status vkm_outcome_read(const char *dir, vkm_outcome *out, vkm_err *err) VKM_MUST_CHECK;

#endif
