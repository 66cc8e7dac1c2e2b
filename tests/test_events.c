/* Event files and metrics.csv: framing, checksums, values, and what a resume cuts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "report/csv.h"
#include "report/events.h"
#include "tmpdir.h"

/* ---- a reader that shares nothing with the writer ----------------------------------------------
 */

typedef struct bytes {
    const uint8_t *p, *end;
} bytes;

static uint64_t little(bytes *b, int n) {
    uint64_t v = 0;
    assert_true(b->end - b->p >= n);
    for (int i = n - 1; i >= 0; i--) v = v << 8 | b->p[i];
    b->p += n;
    return v;
}
static uint64_t varint(bytes *b) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(b->p < b->end && shift < 64);
        v |= (uint64_t)(*b->p & 127) << shift;
        if (!(*b->p++ & 128)) return v;
    }
}
static double as_double(uint64_t bits) {
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

typedef struct field {
    uint32_t number;
    uint64_t value; /* bits */
    bytes inner;    /* of a length-delimited one */
} field;
static int next_field(bytes *b, field *f) {
    if (b->p == b->end) return 0;
    uint64_t key = varint(b);
    f->number = (uint32_t)(key >> 3);
    switch (key & 7) {
    case 0:
        f->value = varint(b);
        return 1;
    case 1:
        f->value = little(b, 8);
        return 1;
    case 5:
        f->value = little(b, 4);
        return 1;
    case 2:
        f->value = varint(b);
        assert_true(f->value <= (uint64_t)(b->end - b->p));
        f->inner = (bytes){b->p, b->p + f->value};
        b->p += f->value;
        return 1;
    }
    fail_msg("wire type %u", (unsigned)(key & 7));
    return 0;
}

typedef struct point {
    uint64_t step;
    char tag[64];
    float value;
    double histogram_n, first_bin, last_bin, bins;
} point;

static void read_histogram(bytes b, point *out) {
    field f = {0};
    double limit = 0;
    while (next_field(&b, &f)) {
        if (f.number == 3) out->histogram_n = as_double(f.value);
        if (f.number == 6) {
            assert_int_equal((f.inner.end - f.inner.p) % 8, 0);
            while (f.inner.p < f.inner.end) limit = as_double(little(&f.inner, 8));
            assert_true(limit == 1.0);
        }
        if (f.number != 7) continue;
        for (double v; f.inner.p < f.inner.end; out->last_bin = v) {
            v = as_double(little(&f.inner, 8));
            if (!out->bins++) out->first_bin = v;
        }
    }
}

/* All values of the file, in order; the first record must hold the version. */
static size_t read_events(point *out, size_t room) {
    char *data;
    size_t n, count = 0, records = 0;
    vkm_err err = {0};
    assert_int_equal(vkm_file_read(in_dir(VKM_EVENTS_FILE), 1 << 20, &data, &n, &err), VKM_OK);
    bytes b = {(uint8_t *)data, (uint8_t *)data + n};
    for (; b.p < b.end; records++) {
        const uint8_t *head = b.p;
        uint64_t len = little(&b, 8);
        assert_int_equal(little(&b, 4), vkm_events_crc(head, 8));
        assert_true(len + 4 <= (uint64_t)(b.end - b.p));
        bytes event = {b.p, b.p + len};
        b.p += len;
        assert_int_equal(little(&b, 4), vkm_events_crc(event.p, len));
        field f = {0}, v = {0}, s = {0};
        uint64_t step = 0;
        while (next_field(&event, &f)) {
            if (f.number == 1) assert_true(as_double(f.value) > 1.6e9);
            if (f.number == 2) step = f.value;
            if (f.number == 3) {
                assert_int_equal(records, 0);
                assert_memory_equal(f.inner.p, "brain.Event:2", 13);
            }
            while (f.number == 5 && next_field(&f.inner, &v)) {
                assert_int_equal(v.number, 1);
                assert_true(count < room);
                point *q = &out[count++];
                *q = (point){.step = step};
                while (next_field(&v.inner, &s)) {
                    uint32_t bits = (uint32_t)s.value;
                    if (s.number == 1)
                        snprintf(q->tag, sizeof q->tag, "%.*s", (int)s.value, (char *)s.inner.p);
                    if (s.number == 2) memcpy(&q->value, &bits, sizeof bits);
                    if (s.number == 5) read_histogram(s.inner, q);
                }
            }
        }
    }
    free(data);
    return count;
}

static void put_step(uint32_t step, double loss) {
    vkm_err err = {0};
    vkm_event e = {.step = step};
    vkm_event_scalar(&e, "loss", loss);
    vkm_event_scalar(&e, "router/auroc", NAN);
    assert_int_equal(vkm_event_append(&e, tmpdir, &err), VKM_OK);
    vkm_csv_row row = {0};
    vkm_csv_number(&row, "step", step);
    vkm_csv_number(&row, "loss", loss);
    vkm_csv_number(&row, "router/auroc", NAN);
    vkm_csv_text(&row, "weights_hash", "a\"b");
    assert_int_equal(vkm_csv_append(&row, tmpdir, &err), VKM_OK);
}

static void open_files(int64_t resume_step) {
    vkm_err err = {0};
    assert_int_equal(vkm_events_open(tmpdir, resume_step, &err), VKM_OK);
    assert_int_equal(vkm_csv_open(tmpdir, resume_step, &err), VKM_OK);
}

static char *csv_text(void) {
    char *text;
    size_t n;
    vkm_err err = {0};
    assert_int_equal(vkm_file_read(in_dir("metrics.csv"), 1 << 20, &text, &n, &err), VKM_OK);
    return text;
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void test_checksum(void **state) {
    (void)state;
    /* RFC 3720, B.4: 32 zero bytes give 8a9136aa before the mask */
    const uint8_t zeros[32] = {0};
    uint32_t crc = 0x8a9136aau;
    assert_int_equal(vkm_events_crc(zeros, 32), (crc >> 15 | crc << 17) + 0xa282ead8u);
}

static void test_values_read_back(void **state) {
    (void)state;
    point got[16] = {0};
    open_files(-1);
    for (uint32_t s = 1; s <= 300; s += 299) put_step(s, 0.5 * s);
    vkm_event e = {.step = 300};
    vkm_err err = {0};
    vkm_event_histogram(&e, "router/w", (double[]){0, 0.01, 0.5, 1}, 4);
    vkm_event_histogram(&e, "router/none", NULL, 0);
    assert_int_equal(vkm_event_append(&e, tmpdir, &err), VKM_OK);
    assert_int_equal(read_events(got, 16), 3);
    assert_string_equal(got[0].tag, "loss");
    assert_int_equal(got[0].step, 1);
    assert_true(got[0].value == 0.5F && got[1].value == 150.0F);
    assert_int_equal(got[1].step, 300);
    assert_string_equal(got[2].tag, "router/w");
    assert_true(got[2].histogram_n == 4 && got[2].bins == 30);
    assert_true(got[2].first_bin == 2 && got[2].last_bin == 1);
    char *csv = csv_text();
    assert_string_equal(csv, "step,loss,router/auroc,weights_hash\n1,0.5,,\"a\"\"b\"\n"
                             "300,150,,\"a\"\"b\"\n");
    free(csv);
}

/* A run that was cut goes on behind its checkpoint: no step is there twice. */
static void test_resume_cuts(void **state) {
    (void)state;
    point got[16] = {0};
    vkm_err err = {0};
    assert_int_equal(vkm_file_append(in_dir(VKM_EVENTS_FILE), "torn", 4, &err), VKM_OK);
    assert_int_equal(vkm_file_append(in_dir("metrics.csv"), "301,", 4, &err), VKM_OK);
    open_files(1);
    put_step(2, 7);
    assert_int_equal(read_events(got, 16), 2);
    assert_int_equal(got[0].step, 1);
    assert_int_equal(got[1].step, 2);
    char *csv = csv_text();
    assert_string_equal(csv, "step,loss,router/auroc,weights_hash\n1,0.5,,\"a\"\"b\"\n"
                             "2,7,,\"a\"\"b\"\n");
    free(csv);
}

static void test_other_columns(void **state) {
    (void)state;
    vkm_err err = {0};
    vkm_csv_row row = {0};
    vkm_csv_number(&row, "step", 3);
    assert_int_equal(vkm_csv_append(&row, tmpdir, &err), VKM_OK);
    assert_true(vkm_file_exists(in_dir("metrics.csv.old")));
    char *csv = csv_text();
    assert_string_equal(csv, "step\n3\n");
    free(csv);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_values_read_back),
        cmocka_unit_test(test_resume_cuts),
        cmocka_unit_test(test_other_columns),
    };
    return cmocka_run_group_tests(tests, tmpdir_make, tmpdir_remove);
}
