/* The chains of LANES outputs, for ops/lanes.h; included by peak.c only. */
#define vec LANES_FN(vec)

LANES_TARGET static void LANES_FN(chains)(const real *x, real *y, uint32_t n, uint32_t steps,
                                          real factor, real term) {
    for (uint32_t i = 0; i < n; i += LANES) {
        vec v[VKM_CHAINS], add, sum = {0};
        for (uint32_t l = 0; l < LANES; l++) add[l] = term;
        for (uint32_t c = 0; c < VKM_CHAINS; c++)
            for (uint32_t l = 0; l < LANES; l++) v[c][l] = x[i + l] + (real)(int)c;
        for (uint32_t t = 0; t < steps; t++)
            for (uint32_t c = 0; c < VKM_CHAINS; c++) v[c] = LANES_MADD(add, v[c], factor);
        for (uint32_t c = 0; c < VKM_CHAINS; c++) sum += v[c];
        memcpy(y + i, &sum, sizeof sum);
    }
}
#undef vec
