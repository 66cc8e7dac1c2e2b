/* For tests that run single kernels: a device, a stream, and tensors made from host data. */
#ifndef VKM_TESTS_BENCH_H
#define VKM_TESTS_BENCH_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ops/kernels.h"

typedef struct bench {
    vkm_dev *dev;
    vkm_stream *s;
    vkm_mem *mem[64];
    uint32_t n;
} bench;

static inline void bench_check(vkm_status st, const vkm_err *err) {
    if (st) fail_msg("%s", err->msg);
}

/* Skips, loudly, where there is no Vulkan device. */
static inline bench bench_open(vkm_backend_id backend) {
    bench b = {0};
    vkm_err err = {0};
    vkm_dev_options o = {.backend = backend};
    if (vkm_dev_open(&o, &b.dev, &err)) {
        if (backend != VKM_VULKAN) fail_msg("%s", err.msg);
        print_message("SKIP: %s\n", err.msg);
        skip();
    }
    bench_check(vkm_stream_new(b.dev, &b.s, &err), &err);
    return b;
}

static inline void bench_run(bench *b) {
    vkm_err err = {0};
    bench_check(vkm_stream_flush(b->s, &err), &err);
}

static inline void bench_close(bench *b) {
    vkm_stream_free(b->s);
    while (b->n) vkm_mem_free(b->mem[--b->n]);
    vkm_dev_close(b->dev);
}

/* A zeroed tensor. */
static inline vkm_tensor bench_new(bench *b, vkm_dtype dtype, uint64_t n) {
    vkm_err err = {0};
    vkm_tensor t;
    vkm_plan *p = vkm_plan_new(b->dev);
    assert_true(b->n < VKM_COUNTOF(b->mem));
    vkm_plan_add(p, &t, dtype, n, "test");
    bench_check(vkm_plan_commit(p, &b->mem[b->n++], &err), &err);
    return t;
}

static inline void bench_write(bench *b, vkm_tensor t, const void *x) {
    vkm_err err = {0};
    bench_check(vkm_write(b->dev, t, x, &err), &err);
}
static inline void bench_write_f64(bench *b, vkm_tensor t, const double *x) {
    vkm_err err = {0};
    bench_check(vkm_write_f64(b->dev, t, x, &err), &err);
}
static inline void bench_read(bench *b, vkm_tensor t, void *x) {
    vkm_err err = {0};
    bench_check(vkm_read(b->dev, t, x, &err), &err);
}
static inline void bench_read_f64(bench *b, vkm_tensor t, double *x) {
    vkm_err err = {0};
    bench_check(vkm_read_f64(b->dev, t, x, &err), &err);
}

static inline vkm_tensor bench_f32(bench *b, uint64_t n, const float *x) {
    vkm_tensor t = bench_new(b, VKM_F32, n);
    bench_write(b, t, x);
    return t;
}
static inline vkm_tensor bench_f64(bench *b, uint64_t n, const double *x) {
    vkm_tensor t = bench_new(b, VKM_F32, n);
    bench_write_f64(b, t, x);
    return t;
}
static inline vkm_tensor bench_u32(bench *b, uint64_t n, const uint32_t *x) {
    vkm_tensor t = bench_new(b, VKM_U32, n);
    bench_write(b, t, x);
    return t;
}

/* Test data: xorshift64*, and a sum of uniforms that is nearly normal. */
static inline double bench_uniform(uint64_t *s) {
    *s ^= *s >> 12;
    *s ^= *s << 25;
    *s ^= *s >> 27;
    return (double)((*s * 2685821657736338717ull) >> 11) * 0x1p-53;
}
static inline double bench_normal(uint64_t *s) {
    double sum = -6;
    for (int i = 0; i < 12; i++) sum += bench_uniform(s);
    return sum;
}

#endif
