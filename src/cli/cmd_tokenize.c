/* `vkmoe tokenize`: token ids of a text, or the text of token ids. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include "cli/cli.h"
#include "model/chat.h"
#include "model/tokenizer.h"

enum { TEXT_BYTES_MAX = 1 << 30 };

/* Ids separated by spaces, commas or newlines. */
static vkm_status parse_ids(const char *text, uint32_t n_ids, vkm_ids *out, vkm_err *err) {
    out->id = vkm_calloc(strlen(text) / 2 + 1, sizeof *out->id, "token ids", err);
    if (!out->id) return err->status;
    while (*(text += strspn(text, " ,\t\r\n[]"))) {
        char word[32];
        size_t n = strcspn(text, " ,\t\r\n[]");
        int64_t id = 0;
        snprintf(word, sizeof word, "%.*s", (int)(n < 31 ? n : 31), text);
        if (vkm_text_int("a token id", word, 0, (int64_t)n_ids - 1, &id, err)) return err->status;
        out->id[out->n++] = (uint32_t)id;
        text += n;
    }
    return VKM_OK;
}

static void print_ids(const vkm_tokenizer *t, const vkm_ids *ids, int json) {
    if (!json) {
        for (size_t i = 0; i < ids->n; i++) printf("%s%u", i ? " " : "", ids->id[i]);
        putchar('\n');
        return;
    }
    vkm_strbuf b = {0};
    vkm_jw w = vkm_jw_begin(&b, 0);
    vkm_jw_obj(&w, NULL);
    vkm_jw_arr(&w, "ids");
    for (size_t i = 0; i < ids->n; i++) vkm_jw_u64(&w, NULL, ids->id[i]);
    vkm_jw_end_arr(&w);
    vkm_jw_arr(&w, "tokens");
    for (size_t i = 0; i < ids->n; i++) {
        size_t n;
        const char *bytes = vkm_tokenizer_bytes(t, ids->id[i], &n);
        vkm_jw_strn(&w, NULL, bytes, n);
    }
    vkm_jw_end_arr(&w);
    vkm_jw_end_obj(&w);
    puts(vkm_strbuf_str(&b));
    vkm_strbuf_free(&b);
}

static vkm_status encode(const vkm_tokenizer *t, const char *text, size_t n, int chat, int json,
                         vkm_err *err) {
    vkm_ids ids = {0};
    vkm_strbuf prompt = {0};
    vkm_status st = VKM_OK;
    if (chat && memchr(text, 0, n))
        st = vkm_fail(err, VKM_FAILED, "the message holds a NUL byte; remove it");
    if (chat && !st) {
        vkm_chat_turn turn = {"user", text};
        st = vkm_chat_render(&turn, 1, vkm_chat_style_of(t), true, &prompt, err);
        text = vkm_strbuf_str(&prompt);
        n = prompt.n;
    }
    if (!st) st = vkm_tokenizer_encode(t, text, n, &ids, err);
    if (!st) print_ids(t, &ids, json);
    vkm_strbuf_free(&prompt);
    free(ids.id);
    return st;
}

static vkm_status decode(const vkm_tokenizer *t, const char *text, vkm_err *err) {
    vkm_ids ids = {0};
    vkm_strbuf b = {0};
    vkm_status st = parse_ids(text, vkm_tokenizer_n_ids(t), &ids, err);
    if (!st) {
        vkm_tokenizer_decode(t, ids.id, ids.n, false, &b);
        st = vkm_strbuf_check(&b, "the text", err);
    }
    if (!st) fwrite(vkm_strbuf_str(&b), 1, b.n, stdout);
    vkm_strbuf_free(&b);
    free(ids.id);
    return st;
}

vkm_status vkm_cmd_tokenize(int argc, char **argv, vkm_err *err) {
    const char *folder = "", *given = NULL, *file = "/dev/stdin";
    int json = 0, chat = 0, backwards = 0;
    vkm_opt opts[] = {
        {"MODEL", VKM_OPT_ARG, &folder, .help = "model folder or tokenizer.json"},
        {"text", VKM_OPT_STRING, &given, .help = "the text; else it is read from --file"},
        {"file", VKM_OPT_STRING, &file, .arg = "FILE", .help = "file to read"},
        {"chat", VKM_OPT_FLAG, &chat,
         .help = "wrap the text as a user's turn and begin the answer"},
        {"decode", VKM_OPT_FLAG, &backwards, .help = "the text is ids; print what they stand for"},
        VKM_CLI_JSON(&json),
    };
    vkm_tokenizer *t = NULL;
    char *text = NULL;
    size_t n = 0;
    vkm_status st = vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err);
    if (!st) st = vkm_tokenizer_load(folder, &t, err);
    if (!st && !given) st = vkm_file_read(file, TEXT_BYTES_MAX, &text, &n, err);
    if (!st && given) n = strlen(given);
    if (!st) {
        const char *what = given ? given : text;
        st = backwards ? decode(t, what, err) : encode(t, what, n, chat, json, err);
    }
    free(text);
    vkm_tokenizer_free(t);
    return st;
}
