/* Rule 5 over one column by one invocation, which holds all 64 lanes, so that neighbouring
 * invocations read neighbouring columns. The sum ends in lane[0]. */
#define VKM_RULE5_ZERO(lane)                                                                       \
    precise float lane[64];                                                                        \
    for (uint l_ = 0u; l_ < 64u; l_++) lane[l_] = 0.0
#define VKM_RULE5_ADD(lane, i, x) lane[(i) % 64u] = lane[(i) % 64u] + (x)
#define VKM_RULE5_TREE(lane)                                                                       \
    for (uint w_ = 32u; w_ != 0u; w_ /= 2u)                                                        \
        for (uint l_ = 0u; l_ < w_; l_++) lane[l_] = lane[l_] + lane[l_ + w_]
