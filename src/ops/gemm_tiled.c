/* Register tiles for rule 4 on the CPU. A word of a panel holds (k, k + 1) of one of 16 rows, so
 * one load gives 16 columns of B at two k: the low halves shifted up, the high halves masked. A
 * goes to fp32 once for each chunk of K, and a tile keeps its chunk's sums in registers; the chunk
 * is then added to the output. The order of additions in an output is that of vkm_rule4_naive, and
 * products of bf16 values are exact, so fused multiply-add changes nothing. */
#include "ops/gemm_tiled.h"

#ifndef VKM_TWIN64

#define INLINE static inline __attribute__((always_inline))

/* The loops over a register tile's rows and panels: unrolled whole, or its sums would be an array
 * in memory (gcc 16 keeps one for a loop that it leaves standing). */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* A chunk of A in fp32: [panel][k][row of the panel]. */
typedef float chunk_a[VKM_TILE_ROWS / VKM_PANEL][VKM_CHUNK][VKM_PANEL];

typedef struct pass {
    const float *a;        /* first row's element at the chunk's start; rows adjacent, k 16 apart */
    const uint16_t *b;     /* the same place in the first panel of B */
    uint64_t b_stride;     /* elements from panel to panel */
    const uint16_t *ahead; /* what is next of B, to be fetched meanwhile; or NULL */
    uint32_t k;            /* of this chunk */
    const float *scale;    /* of the rows, or NULL */
    float *out;
    uint64_t ld;
    uint32_t first; /* first chunk: out = sums, else out += sums; unread with a scale */
} pass;
typedef void (*micro_fn)(const pass *p);

INLINE void widen(const uint16_t *panel, uint32_t k, float (*out)[VKM_PANEL]) {
    for (uint32_t i = 0; i < k; i += 2) {
        uint32_t w[VKM_PANEL];
        memcpy(w, panel + i * VKM_PANEL, sizeof w);
        for (uint32_t j = 0; j < VKM_PANEL; j++) out[i][j] = vkm_from_bits(w[j] << 16);
        for (uint32_t j = 0; j < VKM_PANEL; j++) out[i + 1][j] = vkm_from_bits(w[j] & 0xffff0000u);
    }
}

/* Walks chunks, panels of B (max_panels at once) and rows (max_rows at once, then halves). micro is
 * a table [row class][panels - 1], row class c doing max_rows >> c rows. */
INLINE void walk(vkm_operand a, uint32_t i0, uint32_t rows, vkm_operand b, uint32_t j0,
                 uint32_t cols, uint32_t k, const float *scale, float *out, uint64_t ld,
                 uint32_t max_rows, uint32_t max_panels, const micro_fn *micro) {
    _Alignas(64) chunk_a wide;
    uint32_t panels = vkm_div_up(cols, VKM_PANEL);
    if (!k && !scale)
        for (uint32_t i = 0; i < rows; i++)
            memset(out + i * ld, 0, panels * VKM_PANEL * sizeof *out);
    for (uint32_t k0 = 0; k0 < k; k0 += VKM_CHUNK) {
        uint32_t kn = k - k0 < VKM_CHUNK ? k - k0 : VKM_CHUNK;
        for (uint32_t i = 0; i < rows; i += VKM_PANEL)
            widen(vkm_panel(a, (i0 + i) / VKM_PANEL) + (uint64_t)k0 * VKM_PANEL, kn,
                  wide[i / VKM_PANEL]);
        for (uint32_t j = 0, step; j < panels; j += step) {
            step = panels - j;
            if (step > max_panels) /* one panel alone would be the slowest */
                step = step == max_panels + 1 ? (step + 1) / 2 : max_panels;
            pass p = {.b = vkm_panel(b, j0 / VKM_PANEL + j) + (uint64_t)k0 * VKM_PANEL,
                      .b_stride = (uint64_t)VKM_PANEL * b.kp,
                      .k = kn,
                      .ld = ld,
                      .first = k0 == 0};
            for (uint32_t i = 0, class; i < rows; i += max_rows >> class) {
                for (class = 0; max_rows >> class > rows - i; class ++) continue;
                p.a = &wide[i / VKM_PANEL][0][i % VKM_PANEL];
                p.ahead = i + (max_rows >> class) < rows || j + step >= panels
                              ? NULL
                              : p.b + step * p.b_stride;
                p.scale = scale ? scale + i : NULL;
                p.out = out + i * ld + j * VKM_PANEL;
                micro[class * max_panels + step - 1](&p);
            }
        }
    }
}

#define TILER(name, target, MAX_ROWS, MAX_PANELS)                                                  \
    target static void tiler_##name(vkm_operand a, uint32_t i0, uint32_t rows, vkm_operand b,      \
                                    uint32_t j0, uint32_t cols, uint32_t k, const float *scale,    \
                                    float *out, uint64_t ld) {                                     \
        walk(a, i0, rows, b, j0, cols, k, scale, out, ld, MAX_ROWS, MAX_PANELS, micro_##name);     \
    }

/* ---- portable C ---------------------------------------------------------------------------------
 */

INLINE void micro_c(const pass *p, uint32_t rows) {
    float sum[4][VKM_PANEL] = {{0}};
    for (uint32_t i = 0; i < p->k; i += 2) {
        uint32_t w[VKM_PANEL];
        memcpy(w, p->b + i * VKM_PANEL, sizeof w);
        for (uint32_t h = 0; h < 2; h++) {
            const float *a = p->a + (i + h) * VKM_PANEL;
            for (uint32_t r = 0; r < rows; r++)
                for (uint32_t j = 0; j < VKM_PANEL; j++)
                    sum[r][j] += a[r] * vkm_from_bits(h ? w[j] & 0xffff0000u : w[j] << 16);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t j = 0; j < VKM_PANEL; j++) {
            float *o = p->out + r * p->ld + j;
            if (p->scale)
                *o = p->scale[r] == 0 ? *o : vkm_canon(*o + vkm_canon(p->scale[r] * sum[r][j]));
            else
                *o = p->first ? sum[r][j] : *o + sum[r][j];
        }
}
static void micro_c4(const pass *p) {
    micro_c(p, 4);
}
static void micro_c2(const pass *p) {
    micro_c(p, 2);
}
static void micro_c1(const pass *p) {
    micro_c(p, 1);
}
static const micro_fn micro_portable[] = {micro_c4, micro_c2, micro_c1};
TILER(portable, , 4, 1)

static int always(void) {
    return 1;
}

#if defined(__x86_64__)
#include <immintrin.h>

/* ---- AVX2 ---------------------------------------------------------------------------------------
 */

#define AVX2 __attribute__((target("avx2,fma")))

AVX2 INLINE __m256 canon_avx2(__m256 x) {
    const __m256i exponent = _mm256_set1_epi32(0x7f800000);
    __m256i none = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(x), exponent),
                                      _mm256_setzero_si256());
    return _mm256_andnot_ps(_mm256_castsi256_ps(none), x);
}

AVX2 INLINE void micro_avx2(const pass *p, uint32_t rows) {
    const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
    __m256 sum[4][2];
    UNROLL for (uint32_t r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (uint32_t i = 0; i < p->k; i += 2) {
        const __m256i *w = (const __m256i *)(const void *)(p->b + i * VKM_PANEL);
        __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
        UNROLL for (uint32_t h = 0; h < 2; h++) {
            const float *a = p->a + (i + h) * VKM_PANEL;
            __m256i b0 = h ? _mm256_and_si256(w0, high) : _mm256_slli_epi32(w0, 16);
            __m256i b1 = h ? _mm256_and_si256(w1, high) : _mm256_slli_epi32(w1, 16);
            UNROLL for (uint32_t r = 0; r < rows; r++) {
                __m256 x = _mm256_broadcast_ss(a + r);
                sum[r][0] = _mm256_fmadd_ps(x, _mm256_castsi256_ps(b0), sum[r][0]);
                sum[r][1] = _mm256_fmadd_ps(x, _mm256_castsi256_ps(b1), sum[r][1]);
            }
        }
    }
    UNROLL for (uint32_t r = 0; r < rows; r++) UNROLL for (uint32_t j = 0; j < 2; j++) {
        float *o = p->out + r * p->ld + 8 * j;
        __m256 s = sum[r][j];
        if (!p->scale)
            _mm256_storeu_ps(o, p->first ? s : _mm256_add_ps(_mm256_loadu_ps(o), s));
        else if (p->scale[r] != 0) {
            s = canon_avx2(_mm256_mul_ps(_mm256_set1_ps(p->scale[r]), s));
            _mm256_storeu_ps(o, canon_avx2(_mm256_add_ps(_mm256_loadu_ps(o), s)));
        }
    }
}
#define AVX2_MICRO(R)                                                                              \
    AVX2 static void micro_avx2_##R(const pass *p) {                                               \
        micro_avx2(p, R);                                                                          \
    }
AVX2_MICRO(4)
AVX2_MICRO(2)
AVX2_MICRO(1)
static const micro_fn micro_with_avx2[] = {micro_avx2_4, micro_avx2_2, micro_avx2_1};
TILER(with_avx2, AVX2, 4, 1)

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

/* ---- AVX-512 ------------------------------------------------------------------------------------
 */

#define AVX512 __attribute__((target("avx512f")))

AVX512 INLINE __m512 canon_avx512(__m512 x) {
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    return _mm512_maskz_mov_ps(_mm512_test_epi32_mask(_mm512_castps_si512(x), exponent), x);
}

AVX512 INLINE void micro_avx512(const pass *p, uint32_t rows, uint32_t panels) {
    const __m512i high = _mm512_set1_epi32((int)0xffff0000u);
    __m512 sum[8][3];
    __m512i w[3];
    UNROLL for (uint32_t r = 0; r < rows; r++) UNROLL for (uint32_t j = 0; j < panels; j++)
        sum[r][j] = _mm512_setzero_ps();
    for (uint32_t i = 0; i < p->k; i += 2) {
        UNROLL for (uint32_t j = 0; j < panels; j++) w[j] =
            _mm512_loadu_si512(p->b + j * p->b_stride + i * VKM_PANEL);
        if (p->ahead)
            UNROLL for (uint32_t j = 0; j < panels; j++) _mm_prefetch(
                (const char *)(p->ahead + j * p->b_stride + i * VKM_PANEL), _MM_HINT_T0);
        UNROLL for (uint32_t h = 0; h < 2; h++) {
            const float *a = p->a + (i + h) * VKM_PANEL;
            __m512 b[3];
            UNROLL for (uint32_t j = 0; j < panels; j++) b[j] =
                _mm512_castsi512_ps(h ? _mm512_and_si512(w[j], high) : _mm512_slli_epi32(w[j], 16));
            UNROLL for (uint32_t r = 0; r < rows; r++) {
                __m512 x = _mm512_set1_ps(a[r]);
                UNROLL for (uint32_t j = 0; j < panels; j++) sum[r][j] =
                    _mm512_fmadd_ps(x, b[j], sum[r][j]);
            }
        }
    }
    UNROLL for (uint32_t r = 0; r < rows; r++) UNROLL for (uint32_t j = 0; j < panels; j++) {
        float *o = p->out + r * p->ld + j * VKM_PANEL;
        __m512 s = sum[r][j];
        if (!p->scale)
            _mm512_storeu_ps(o, p->first ? s : _mm512_add_ps(_mm512_loadu_ps(o), s));
        else if (p->scale[r] != 0) {
            s = canon_avx512(_mm512_mul_ps(_mm512_set1_ps(p->scale[r]), s));
            _mm512_storeu_ps(o, canon_avx512(_mm512_add_ps(_mm512_loadu_ps(o), s)));
        }
    }
}
#define AVX512_MICRO(R, P)                                                                         \
    AVX512 static void micro_avx512_##R##_##P(const pass *p) {                                     \
        micro_avx512(p, R, P);                                                                     \
    }
#define AVX512_ROW(R) AVX512_MICRO(R, 1) AVX512_MICRO(R, 2) AVX512_MICRO(R, 3)
AVX512_ROW(8)
AVX512_ROW(4)
AVX512_ROW(2)
AVX512_ROW(1)
#define AVX512_ENTRY(R) micro_avx512_##R##_1, micro_avx512_##R##_2, micro_avx512_##R##_3
static const micro_fn micro_with_avx512[] = {AVX512_ENTRY(8), AVX512_ENTRY(4), AVX512_ENTRY(2),
                                             AVX512_ENTRY(1)};
TILER(with_avx512, AVX512, 8, 3)

static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") != 0;
}
#endif

/* ---- table --------------------------------------------------------------------------------------
 */

const vkm_tiler vkm_tilers[] = {
#if defined(__x86_64__)
    {"avx512", has_avx512, tiler_with_avx512},
    {"avx2", has_avx2, tiler_with_avx2},
#endif
    {"portable", always, tiler_portable},
};
const uint32_t vkm_n_tilers = VKM_COUNTOF(vkm_tilers);

vkm_tiler_fn vkm_tiler_best(void) {
    uint32_t i = 0;
    while (!vkm_tilers[i].usable()) i++;
    return vkm_tilers[i].run;
}

#endif
