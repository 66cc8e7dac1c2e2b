/* Owns the chat format. The rules are those of the template in Qwen3's tokenizer_config.json. */
#include "model/chat.h"

#include <string.h>

const char vkm_chat_plain_template[] =
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";

typedef struct span {
    const char *at;
    size_t n;
} span;

static span skip_newlines(span s) {
    while (s.n && *s.at == '\n') s.at++, s.n--;
    return s;
}

static span drop_newlines(span s) {
    while (s.n && s.at[s.n - 1] == '\n') s.n--;
    return s;
}

static const char *find_last(const char *text, const char *part) {
    const char *last = NULL;
    for (const char *p = text; (p = strstr(p, part)); p++) last = p;
    return last;
}

/* An answer's own think block, without its newlines, and what follows it. */
static void cut_thoughts(const char *content, span *thoughts, span *answer) {
    static const char open[] = "<think>", close[] = "</think>";
    const char *first = strstr(content, close), *last = find_last(content, close);
    *thoughts = (span){content, 0};
    *answer = (span){content, strlen(content)};
    if (!first) return;
    *answer = (span){last + sizeof close - 1, strlen(last + sizeof close - 1)};
    *answer = skip_newlines(*answer);
    *thoughts = drop_newlines((span){content, (size_t)(first - content)});
    for (size_t i = 0; i + sizeof open - 1 <= thoughts->n;) {
        if (!memcmp(thoughts->at + i, open, sizeof open - 1)) {
            thoughts->at += i + sizeof open - 1;
            thoughts->n -= i + sizeof open - 1;
            i = 0;
        } else {
            i++;
        }
    }
    *thoughts = drop_newlines(skip_newlines(*thoughts));
}

static void add_answer(const vkm_chat_turn *turn, vkm_chat_style style, bool after_last_user,
                       bool is_last, vkm_strbuf *out) {
    span thoughts, answer;
    if (style != VKM_CHAT_NO_THINK && style != VKM_CHAT_THINK) {
        vkm_strbuf_puts(out, turn->content);
        return;
    }
    cut_thoughts(turn->content, &thoughts, &answer);
    if (after_last_user && (is_last || thoughts.n)) {
        vkm_strbuf_puts(out, "<think>\n");
        vkm_strbuf_add(out, thoughts.at, thoughts.n);
        vkm_strbuf_puts(out, "\n</think>\n\n");
        answer = skip_newlines(answer);
    }
    vkm_strbuf_add(out, answer.at, answer.n);
}

static const char answer_begins[] = "<|im_start|>assistant\n";

void vkm_chat_begin_answer(vkm_chat_style style, vkm_strbuf *out) {
    vkm_strbuf_puts(out, answer_begins);
    if (style == VKM_CHAT_NO_THINK) vkm_strbuf_puts(out, "<think>\n\n</think>\n\n");
}

void vkm_chat_restyle(const char *prompt, vkm_chat_style style, vkm_strbuf *out) {
    size_t n = strlen(prompt), last = sizeof answer_begins - 1;
    if (n < last || strcmp(prompt + n - last, answer_begins) != 0) {
        vkm_strbuf_puts(out, prompt);
        return;
    }
    vkm_strbuf_add(out, prompt, n - last);
    vkm_chat_begin_answer(style, out);
}

vkm_status vkm_chat_render(const vkm_chat_turn *turns, size_t n, vkm_chat_style style,
                           bool generation_prompt, vkm_strbuf *out, vkm_err *err) {
    static const char *const own_system[] = {
        [VKM_CHAT_QWEN2] = "You are a helpful assistant.",
        [VKM_CHAT_QWEN2_5] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
        [VKM_CHAT_UNKNOWN] = NULL,
    };
    size_t last_user = n ? n - 1 : 0;
    if (style == VKM_CHAT_UNKNOWN)
        return vkm_fail(err, VKM_FAILED,
                        "the model's chat template is not known (known: ChatML, Qwen2's, Qwen2.5's "
                        "and Qwen3's), or its tokenizer has no <|im_start|> and <|im_end|>; give "
                        "prompts as texts or token ids, or choose another model");
    if (own_system[style] && n && strcmp(turns[0].role, "system") != 0)
        vkm_strbuf_printf(out, "<|im_start|>system\n%s<|im_end|>\n", own_system[style]);
    for (size_t i = n; i-- > 0;)
        if (!strcmp(turns[i].role, "user")) {
            last_user = i;
            break;
        }
    for (size_t i = 0; i < n; i++) {
        bool answer = !strcmp(turns[i].role, "assistant");
        if (!answer && strcmp(turns[i].role, "system") != 0 && strcmp(turns[i].role, "user") != 0)
            return vkm_fail(err, VKM_FAILED,
                            "turn %zu has the role '%.40s'; the roles are system, user, assistant",
                            i, turns[i].role);
        vkm_strbuf_printf(out, "<|im_start|>%s\n", turns[i].role);
        if (answer)
            add_answer(&turns[i], style, i > last_user, i + 1 == n, out);
        else
            vkm_strbuf_puts(out, turns[i].content);
        vkm_strbuf_puts(out, "<|im_end|>\n");
    }
    if (generation_prompt) vkm_chat_begin_answer(style, out);
    return vkm_strbuf_check(out, "a chat prompt", err);
}
