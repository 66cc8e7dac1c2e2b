#include "model/chat_json.h"

#include <stdlib.h>
#include <string.h>

vkm_status vkm_chat_read_turns(vkm_jv list, vkm_chat_turn *turns, size_t *n, vkm_err *err) {
    for (vkm_jv m = vkm_json_first(list); m.v; m = vkm_json_next(m)) {
        vkm_chat_turn *turn = &turns[(*n)++];
        if (vkm_json_get_str(m, "role", VKM_JSON_REQ, &turn->role, err) ||
            vkm_json_get_str(m, "content", VKM_JSON_REQ, &turn->content, err))
            return err->status;
        if (strcmp(turn->role, "system") != 0 && strcmp(turn->role, "user") != 0 &&
            strcmp(turn->role, "assistant") != 0)
            return vkm_json_fail(vkm_json_find(m, "role"), err,
                                 "'%.32s'; the roles are system, user, assistant", turn->role);
    }
    return VKM_OK;
}

vkm_status vkm_chat_prompt_text(const vkm_tokenizer *t, vkm_jv messages, vkm_strbuf *out,
                                vkm_err *err) {
    size_t n = 0, room = vkm_json_count(messages);
    if (vkm_json_typeof(messages) != VKM_JSON_ARRAY)
        return vkm_json_fail_type(messages, "a list of messages", err);
    if (!room) return vkm_json_fail(messages, err, "no messages");
    vkm_chat_turn *turns = vkm_calloc(room, sizeof *turns, "messages", err);
    if (turns && !vkm_chat_read_turns(messages, turns, &n, err))
        (void)!vkm_chat_render(turns, n, vkm_chat_style_of(t), true, out, err);
    free(turns);
    return err->status;
}

vkm_status vkm_chat_prompt_ids(const vkm_tokenizer *t, vkm_jv what, vkm_ids *out, vkm_err *err) {
    const char *text;
    vkm_strbuf prompt = {0};
    if (vkm_json_typeof(what) == VKM_JSON_STRING) {
        if (!vkm_json_str(what, &text, err))
            (void)!vkm_tokenizer_encode(t, text, strlen(text), out, err);
    } else if (vkm_json_typeof(what) != VKM_JSON_ARRAY) {
        (void)vkm_json_fail_type(what, "a text or a list of messages", err);
    } else if (!vkm_chat_prompt_text(t, what, &prompt, err)) {
        (void)!vkm_tokenizer_encode(t, prompt.data, prompt.n, out, err);
    }
    vkm_strbuf_free(&prompt);
    return err->status;
}

vkm_status vkm_ids_read(vkm_jv array, uint32_t n_vocab, vkm_ids *out, vkm_err *err) {
    size_t n = vkm_json_count(array);
    if (vkm_json_typeof(array) != VKM_JSON_ARRAY)
        return vkm_json_fail_type(array, "an array of token ids", err);
    uint32_t *more = realloc(out->id, (out->n + n + 1) * sizeof *more);
    if (!more) return vkm_fail(err, VKM_FAILED, "out of host memory for %zu token ids", n);
    out->id = more;
    out->cap = out->n + n + 1;
    for (vkm_jv e = vkm_json_first(array); e.v; e = vkm_json_next(e)) {
        int64_t id;
        if (vkm_json_i64(e, 0, (int64_t)n_vocab - 1, &id, err)) return err->status;
        out->id[out->n++] = (uint32_t)id;
    }
    return VKM_OK;
}
