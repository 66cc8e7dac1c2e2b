/* Where the seconds of a training step go: one stopwatch, of the thread that trains. */
#ifndef VKM_PHASE_H
#define VKM_PHASE_H

/* PHASE(name, what it is) */
#define VKM_PHASES(PHASE)                                                                          \
    PHASE(prefill, "the prompts' keys and values")                                                 \
    PHASE(decode, "sampling, token by token")                                                      \
    PHASE(grade, "waiting for grades when all is sampled")                                         \
    PHASE(activations, "what routes: of the pairs and of the rollouts")                            \
    PHASE(reference, "log-probabilities of the base model")                                        \
    PHASE(forward, "the policy and its loss")                                                      \
    PHASE(backward, "gradients")                                                                   \
    PHASE(update, "norms, optimizers, hash")                                                       \
    PHASE(host, "the rest: prompts, texts, logs")

typedef enum {
#define VKM_PHASE_ENUM(name, what) VKM_PHASE_##name,
    VKM_PHASES(VKM_PHASE_ENUM)
#undef VKM_PHASE_ENUM
        VKM_N_PHASES
} vkm_phase;

typedef struct vkm_phase_row {
    const char *name, *what;
} vkm_phase_row;
extern const vkm_phase_row vkm_phases[VKM_N_PHASES];

/* From now on time counts to `next`; returns what it counted to, to go back to. */
vkm_phase vkm_phase_go(vkm_phase next);
/* Seconds of every phase since the last call (or the start); counting goes on from 0. */
void vkm_phase_take(double seconds[VKM_N_PHASES]);

#endif
