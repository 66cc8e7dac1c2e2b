/* Owns the event file of a run's folder. */
#include "report/events.h"

#include <endian.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"

enum { BINS = 30, HEAD_BYTES = 12, TAIL_BYTES = 4, MOST_FILE_BYTES = 1 << 30 };

uint32_t vkm_events_crc(const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    uint32_t c = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int b = 0; b < 8; b++) c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
    }
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* ---- protocol buffers ------------------------------------------------------------------------ */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 }; /* wire types */
/* fields by message */
enum { EVENT_WALL_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_SIMPLE = 2, VALUE_HISTOGRAM = 5 };
enum { HISTO_MIN = 1, HISTO_MAX, HISTO_NUM, HISTO_SUM, HISTO_SQUARES, HISTO_LIMITS, HISTO_COUNTS };

static void put_varint(vkm_strbuf *b, uint64_t v) {
    for (; v > 127; v >>= 7) vkm_strbuf_putc(b, (char)(v | 128));
    vkm_strbuf_putc(b, (char)v);
}
static void put_key(vkm_strbuf *b, int field, int wire) {
    put_varint(b, (uint64_t)(field << 3 | wire));
}
static void put_bytes(vkm_strbuf *b, int field, const void *bytes, size_t n) {
    put_key(b, field, BYTES);
    put_varint(b, n);
    vkm_strbuf_add(b, bytes, n);
}
static void put_raw_double(vkm_strbuf *b, double v) {
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = htole64(bits);
    vkm_strbuf_add(b, &bits, sizeof bits);
}
static void put_double(vkm_strbuf *b, int field, double v) {
    put_key(b, field, FIXED64);
    put_raw_double(b, v);
}
static void put_float(vkm_strbuf *b, int field, float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits = htole32(bits);
    put_key(b, field, FIXED32);
    vkm_strbuf_add(b, &bits, sizeof bits);
}
/* A message inside another; frees it. */
static void put_message(vkm_strbuf *b, int field, vkm_strbuf *inner) {
    b->failed |= inner->failed;
    put_bytes(b, field, vkm_strbuf_str(inner), inner->n);
    vkm_strbuf_free(inner);
}

/* ---- records --------------------------------------------------------------------------------- */

static vkm_status append_record(const char *dir, const vkm_strbuf *event, vkm_err *err) {
    char path[VKM_PATH_MAX];
    vkm_strbuf r = {0};
    uint64_t n = htole64((uint64_t)event->n);
    uint32_t crc = htole32(vkm_events_crc(&n, sizeof n));
    vkm_strbuf_add(&r, &n, sizeof n);
    vkm_strbuf_add(&r, &crc, sizeof crc);
    vkm_strbuf_add(&r, vkm_strbuf_str(event), event->n);
    crc = htole32(vkm_events_crc(vkm_strbuf_str(event), event->n));
    vkm_strbuf_add(&r, &crc, sizeof crc);
    vkm_status st = vkm_strbuf_check(event, "an event", err);
    if (!st) st = vkm_strbuf_check(&r, "an event", err);
    if (!st) st = vkm_path_join(path, dir, VKM_EVENTS_FILE, err);
    if (!st) st = vkm_file_append(path, r.data, r.n, err);
    vkm_strbuf_free(&r);
    return st;
}

static void put_wall_time(vkm_strbuf *event) {
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    put_double(event, EVENT_WALL_TIME, (double)t.tv_sec + 1e-9 * (double)t.tv_nsec);
}

static vkm_status begin_file(const char *dir, vkm_err *err) {
    static const char version[] = "brain.Event:2";
    vkm_strbuf event = {0};
    put_wall_time(&event);
    put_bytes(&event, EVENT_VERSION, version, sizeof version - 1);
    vkm_status st = append_record(dir, &event, err);
    vkm_strbuf_free(&event);
    return st;
}

/* ---- cutting --------------------------------------------------------------------------------- */

/* The step of an event as this file writes it (wall_time, then step if there is one): 0 without. */
static uint64_t step_of(const uint8_t *p, size_t n) {
    size_t i = 9;
    uint64_t v = 0;
    if (n <= i || p[i++] != (EVENT_STEP << 3 | VARINT)) return 0;
    for (int shift = 0; i < n && shift < 64; shift += 7) {
        v |= (uint64_t)(p[i] & 127) << shift;
        if (!(p[i++] & 128)) break;
    }
    return v;
}

/* Bytes of the whole records up to last_step. */
static size_t kept_bytes(const uint8_t *p, size_t n, uint64_t last_step) {
    size_t at = 0;
    while (n - at >= HEAD_BYTES + TAIL_BYTES) {
        uint64_t len;
        uint32_t crc;
        memcpy(&len, p + at, sizeof len);
        memcpy(&crc, p + at + sizeof len, sizeof crc);
        if (le32toh(crc) != vkm_events_crc(p + at, sizeof len)) break;
        len = le64toh(len);
        if (len > n - at - HEAD_BYTES - TAIL_BYTES) break;
        if (step_of(p + at + HEAD_BYTES, (size_t)len) > last_step) break;
        at += HEAD_BYTES + TAIL_BYTES + (size_t)len;
    }
    return at;
}

vkm_status vkm_events_open(const char *dir, int64_t resume_step, vkm_err *err) {
    char path[VKM_PATH_MAX], *data = NULL;
    size_t n, keep;
    if (vkm_path_join(path, dir, VKM_EVENTS_FILE, err)) return err->status;
    if (resume_step < 0 || !vkm_file_exists(path)) return begin_file(dir, err);
    if (vkm_file_read(path, MOST_FILE_BYTES, &data, &n, err)) return err->status;
    keep = kept_bytes((const uint8_t *)data, n, (uint64_t)resume_step);
    free(data);
    if (truncate(path, (off_t)keep))
        return vkm_fail(err, VKM_FAILED, "%s: cannot be cut back to step %lld: %s", path,
                        (long long)resume_step, strerror(errno));
    return keep ? VKM_OK : begin_file(dir, err);
}

/* ---- values ---------------------------------------------------------------------------------- */

void vkm_event_scalar(vkm_event *e, const char *tag, double value) {
    vkm_strbuf v = {0};
    if (!isfinite(value)) return;
    put_bytes(&v, VALUE_TAG, tag, strlen(tag));
    put_float(&v, VALUE_SIMPLE, (float)value);
    put_message(&e->summary, SUMMARY_VALUE, &v);
}

void vkm_event_histogram(vkm_event *e, const char *tag, const double *x, size_t n) {
    double low = INFINITY, high = -INFINITY, sum = 0, squares = 0, counts[BINS] = {0};
    vkm_strbuf h = {0}, v = {0}, limits = {0}, bins = {0};
    if (!n) return;
    for (size_t i = 0; i < n; i++) {
        low = fmin(low, x[i]), high = fmax(high, x[i]);
        sum += x[i], squares += x[i] * x[i];
        counts[(int)fmin(fmax(x[i] * BINS, 0), BINS - 1)]++;
    }
    for (int i = 0; i < BINS; i++) {
        put_raw_double(&limits, (double)(i + 1) / BINS);
        put_raw_double(&bins, counts[i]);
    }
    put_double(&h, HISTO_MIN, low);
    put_double(&h, HISTO_MAX, high);
    put_double(&h, HISTO_NUM, (double)n);
    put_double(&h, HISTO_SUM, sum);
    put_double(&h, HISTO_SQUARES, squares);
    put_message(&h, HISTO_LIMITS, &limits);
    put_message(&h, HISTO_COUNTS, &bins);
    put_bytes(&v, VALUE_TAG, tag, strlen(tag));
    put_message(&v, VALUE_HISTOGRAM, &h);
    put_message(&e->summary, SUMMARY_VALUE, &v);
}

vkm_status vkm_event_append(vkm_event *e, const char *dir, vkm_err *err) {
    vkm_strbuf event = {0};
    vkm_status st = VKM_OK;
    if (e->summary.n || e->summary.failed) {
        put_wall_time(&event);
        put_key(&event, EVENT_STEP, VARINT);
        put_varint(&event, e->step);
        put_message(&event, EVENT_SUMMARY, &e->summary);
        st = append_record(dir, &event, err);
        vkm_strbuf_free(&event);
    }
    vkm_strbuf_free(&e->summary);
    return st;
}
