/* Supervised fine-tuning runs: `vkmoe sft`. */
#ifndef VKM_SFT_H
#define VKM_SFT_H

#include "rl/sft_data.h"
#include "rl/tuner.h"

typedef struct vkm_sft {
    vkm_config c;
    vkm_dev *dev;
    vkm_sft_data data;
    vkm_tuner *tuner;
    /* what a checkpoint holds beside the tensors */
    struct {
        uint32_t step, n_updates, n_skipped; /* n_skipped: in a row, by the tripwire */
        uint64_t n_tokens;                   /* of all sequences so far */
    } state;
} vkm_sft;

/* What the rows of config.def cannot say of an sft run. */
vkm_status vkm_sft_check(const vkm_config *c, vkm_err *err) VKM_MUST_CHECK;

/* Opens data, model and memory; with num_train_epochs, c.max_steps becomes the steps of that many
 * epochs. With dry, memory is only planned: nothing else may be done with the run but closing it.
 */
vkm_status vkm_sft_open(const vkm_config *c, vkm_dev *dev, vkm_plan *dry, vkm_sft **out,
                        vkm_err *err) VKM_MUST_CHECK;
void vkm_sft_close(vkm_sft *r); /* accepts NULL */

/* Trains by the config until max_steps (or stop_at_step): run folder, one line a step, checkpoints;
 * at the end, where weights learnt, the model folder output_dir/model. */
vkm_status vkm_sft_run(const vkm_config *c, vkm_dev *dev, vkm_err *err) VKM_MUST_CHECK;

/* Checkpoints. */
vkm_status vkm_sft_save(vkm_sft *r, vkm_err *err) VKM_MUST_CHECK;
vkm_status vkm_sft_restore(vkm_sft *r, const char *checkpoint, vkm_err *err) VKM_MUST_CHECK;

#endif
