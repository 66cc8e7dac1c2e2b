/* libFuzzer target: the tokenizer. An input that begins with '{' is a tokenizer.json; another is a
 * text, which must come back from its ids (the golden tokenizer; NFC aside) and never crash. */
#include "base/file.h"
#include "model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void round_trip(const vkm_tokenizer *t, const uint8_t *data, size_t n) {
    vkm_ids ids = {0}, again = {0};
    vkm_strbuf b = {0};
    vkm_err err = {0};
    if (!vkm_tokenizer_encode(t, (const char *)data, n, &ids, &err)) {
        vkm_tokenizer_decode(t, ids.id, ids.n, false, &b);
        /* what was decoded is in NFC: it must come back the same */
        if (vkm_tokenizer_encode(t, vkm_strbuf_str(&b), b.n, &again, &err)) abort();
        size_t was = b.n;
        vkm_tokenizer_decode(t, again.id, again.n, false, &b);
        if (b.n != 2 * was || (was && memcmp(b.data, b.data + was, was) != 0)) abort();
    }
    vkm_strbuf_free(&b);
    free(ids.id);
    free(again.id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static vkm_tokenizer *golden;
    vkm_err err = {0};
    if (!golden && vkm_tokenizer_load(GOLDEN_TOKENIZER, &golden, &err)) abort();
    if (!n || data[0] != '{') {
        round_trip(golden, data, n);
        return 0;
    }
    vkm_tokenizer *t;
    if (vkm_tokenizer_parse((const char *)data, n, "fuzz", &t, &err)) {
        if (!err.msg[0] || strchr(err.msg, '\n')) abort();
        return 0;
    }
    static const char text[] = "def f(x):\n    return  x1 + 'caf\xc3\xa9'<|im_end|>";
    vkm_ids ids = {0};
    vkm_strbuf b = {0};
    if (!vkm_tokenizer_encode(t, text, sizeof text - 1, &ids, &err))
        vkm_tokenizer_decode(t, ids.id, ids.n, true, &b);
    vkm_strbuf_free(&b);
    free(ids.id);
    vkm_tokenizer_free(t);
    return 0;
}
