/* Which chat format a folder has: by its template's parts, else by its tokens. */
#include "base/file.h"
#include "base/json.h"
#include "model/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

static bool has_token(const vkm_tokenizer *t, const char *name) {
    return vkm_tok_find(t, name, strlen(name)) != VKM_NO_ID;
}

static vkm_chat_style style_of_tokens(const vkm_tokenizer *t) {
    if (!has_token(t, "<|im_start|>") || !has_token(t, "<|im_end|>")) return VKM_CHAT_UNKNOWN;
    return has_token(t, "<think>") ? VKM_CHAT_NO_THINK : VKM_CHAT_PLAIN;
}

/* What a Jinja template that is known by its parts renders; rows in order. */
static vkm_chat_style style_of_template(const char *text) {
    static const struct {
        const char *part;
        int there; /* else: where it is missing */
        vkm_chat_style style;
    } rows[] = {
        {"<|im_start|>", 0, VKM_CHAT_UNKNOWN},
        {"enable_thinking", 1, VKM_CHAT_NO_THINK},
        {"assistant\\n<think>", 1, VKM_CHAT_UNKNOWN}, /* thinks always */
        {"<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
         "assistant.",
         1, VKM_CHAT_QWEN2_5},
        {"<|im_start|>system\\nYou are a helpful assistant.", 1, VKM_CHAT_QWEN2},
        {"", 1, VKM_CHAT_PLAIN},
    };
    size_t i = 0;
    while ((strstr(text, rows[i].part) != NULL) != rows[i].there) i++;
    return rows[i].style;
}

/* tokenizer_config.json's chat_template: a text, or a list of {name, template} with "default". */
static vkm_status read_template(vkm_jv v, const char **text, vkm_err *err) {
    *text = NULL;
    if (vkm_json_typeof(v) != VKM_JSON_ARRAY)
        return vkm_json_typeof(v) <= VKM_JSON_NULL ? VKM_OK : vkm_json_str(v, text, err);
    for (vkm_jv e = vkm_json_first(v); e.v; e = vkm_json_next(e)) {
        const char *name;
        if (vkm_json_get_str(e, "name", VKM_JSON_REQ, &name, err)) return err->status;
        if (!strcmp(name, "default"))
            return vkm_json_get_str(e, "template", VKM_JSON_REQ, text, err);
    }
    return VKM_OK;
}

vkm_status vkm_tok_find_style(vkm_tokenizer *t, const char *folder, vkm_err *err) {
    char path[VKM_PATH_MAX], *jinja = NULL;
    const char *text = NULL;
    vkm_json *doc = NULL;
    size_t n;
    t->chat = style_of_tokens(t);
    if (!folder || t->chat == VKM_CHAT_UNKNOWN ||
        vkm_path_join(path, folder, "chat_template.jinja", err))
        return err->status;
    if (vkm_file_exists(path)) {
        if (!vkm_file_read(path, 1 << 20, &jinja, &n, err)) text = jinja;
    } else if (!vkm_path_join(path, folder, "tokenizer_config.json", err) &&
               vkm_file_exists(path) && !vkm_json_load(path, NULL, &doc, err)) {
        (void)!read_template(vkm_json_find(vkm_json_root(doc), "chat_template"), &text, err);
    }
    if (!err->status && text) t->chat = style_of_template(text);
    free(jinja);
    vkm_json_free(doc);
    return err->status;
}

vkm_chat_style vkm_chat_style_of(const vkm_tokenizer *t) {
    return t->chat;
}
