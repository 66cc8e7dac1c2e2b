/* Tables of the rotary embedding, made on the host once. */
#ifndef VKM_ROPE_TABLE_H
#define VKM_ROPE_TABLE_H

#include <stdint.h>

/* factor 0: plain. Else Llama 3's stretching: frequencies whose wave is longer than
 * original_max_pos / low_freq_factor are divided by factor, those shorter than original_max_pos /
 * high_freq_factor stay, between them the two are blended (transformers, rope type "llama3"). */
typedef struct vkm_rope {
    double theta, factor, low_freq_factor, high_freq_factor;
    uint32_t original_max_pos;
} vkm_rope;

/* cosines, sines: (max_pos, head_dim / 2), row p and column i the cosine and sine of the fp32 angle
 * p * inv_freq[i]. As Hugging Face transformers computes them: inv_freq[i] = 1 / theta^(2i / D),
 * the exponent, the power, the reciprocal and the angle each rounded to fp32. The power and the
 * tables are the fp32 nearest to the true value but for about one in 10^8. No libm: the same bits
 * everywhere. theta >= 1, max_pos <= 2^24, head_dim even. */
void vkm_rope_table(float *cosines, float *sines, uint32_t max_pos, uint32_t head_dim,
                    const vkm_rope *rope);

#endif
