/* `vkmoe tokenize`: texts and chat messages as token ids, and back; JSON lines in and out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "cli/cli.h"
#include "model/chat_json.h"

typedef struct tokenizing {
    vkm_tokenizer *t;
    int decode, skip_special;
    vkm_ids ids;
    vkm_strbuf text, line;
} tokenizing;

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

/* --text: ids on one line, or the text that ids stand for. */
static vkm_status one_text(tokenizing *z, const char *text, vkm_err *err) {
    vkm_ids ids = {0};
    if (z->decode) {
        if (!parse_ids(text, vkm_tokenizer_n_ids(z->t), &ids, err)) {
            vkm_tokenizer_decode(z->t, ids.id, ids.n, z->skip_special, &z->text);
            if (!vkm_strbuf_check(&z->text, "the text", err))
                fwrite(vkm_strbuf_str(&z->text), 1, z->text.n, stdout);
        }
    } else if (!vkm_tokenizer_encode(z->t, text, strlen(text), &ids, err)) {
        for (size_t i = 0; i < ids.n; i++) printf("%s%u", i ? " " : "", ids.id[i]);
        putchar('\n');
    }
    free(ids.id);
    return err->status;
}

/* {"ids"} of {"text"} or {"messages"}, these with the text that they are rendered to; {"text"} of
 * {"ids"}. */
static vkm_status one_line(vkm_jv line, void *ctx, vkm_err *err) {
    tokenizing *z = ctx;
    vkm_jv text = vkm_json_find(line, "text"), messages = vkm_json_find(line, "messages");
    vkm_jv ids = vkm_json_find(line, "ids");
    z->ids.n = 0;
    vkm_strbuf_clear(&z->text);
    vkm_strbuf_clear(&z->line);
    vkm_jw w = vkm_jw_begin(&z->line, 0);
    vkm_jw_obj(&w, NULL);
    if (z->decode) {
        if (!ids.v) return vkm_json_fail(line, err, "'ids' is missing");
        if (vkm_ids_read(ids, vkm_tokenizer_n_ids(z->t), &z->ids, err)) return err->status;
        vkm_tokenizer_decode(z->t, z->ids.id, z->ids.n, z->skip_special, &z->text);
    } else {
        if (!text.v == !messages.v)
            return vkm_json_fail(line, err, "one of 'text' and 'messages' is needed");
        const char *s;
        if (text.v ? vkm_json_str(text, &s, err)
                   : vkm_chat_prompt_text(z->t, messages, &z->text, err))
            return err->status;
        if (messages.v) s = vkm_strbuf_str(&z->text);
        if (vkm_tokenizer_encode(z->t, s, strlen(s), &z->ids, err)) return err->status;
        vkm_jw_arr(&w, "ids");
        for (size_t i = 0; i < z->ids.n; i++) vkm_jw_u64(&w, NULL, z->ids.id[i]);
        vkm_jw_end_arr(&w);
    }
    if (z->decode || messages.v) vkm_jw_strn(&w, "text", vkm_strbuf_str(&z->text), z->text.n);
    vkm_jw_end_obj(&w);
    if (!vkm_strbuf_check(&z->text, "the text", err) && !vkm_strbuf_check(&z->line, "a line", err))
        puts(z->line.data);
    return err->status;
}

vkm_status vkm_cmd_tokenize(int argc, char **argv, vkm_err *err) {
    const char *model = "", *text = NULL, *data = "/dev/stdin";
    tokenizing z = {0};
    vkm_opt opts[] = {
        {"model", VKM_OPT_STRING, &model, .arg = "DIR", .help = "model folder or tokenizer.json"},
        {"text", VKM_OPT_STRING, &text, .help = "a text, in place of JSON lines"},
        {"data", VKM_OPT_STRING, &data, .arg = "FILE",
         .help = "JSON lines of text, or of messages, which are rendered for an answer"},
        {"decode", VKM_OPT_FLAG, &z.decode, .help = "from ids to text"},
        {"skip-special", VKM_OPT_FLAG, &z.skip_special, .help = "decode: leave special tokens out"},
    };
    if (vkm_cli_parse(opts, VKM_COUNTOF(opts), argc, argv, err)) return err->status;
    if (!model[0]) return vkm_fail(err, VKM_USAGE, "--model is missing");
    if (!vkm_tokenizer_load(model, &z.t, err))
        (void)!(text ? one_text(&z, text, err) : vkm_jsonl_each(data, NULL, one_line, &z, err));
    vkm_strbuf_free(&z.text), vkm_strbuf_free(&z.line);
    free(z.ids.id);
    if (z.t) vkm_tokenizer_free(z.t);
    return err->status;
}
