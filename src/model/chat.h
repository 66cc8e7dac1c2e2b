/* Chat turns as text: ChatML and the templates of Qwen2, Qwen2.5 and Qwen3. */
#ifndef VKM_CHAT_H
#define VKM_CHAT_H

#include "model/tokenizer.h"

typedef struct vkm_chat_turn {
    const char *role, *content; /* role: system, user or assistant */
} vkm_chat_turn;

/* Appends the turns; generation_prompt adds the beginning of the assistant's turn. A final answer
 * after the last user turn gets a think block (its own or an empty one), earlier answers lose
 * theirs, as Qwen3's template does it. Errors: an unknown role, an unknown style. */
vkm_status vkm_chat_render(const vkm_chat_turn *turns, size_t n, vkm_chat_style style,
                           bool generation_prompt, vkm_strbuf *out, vkm_err *err) VKM_MUST_CHECK;

/* Appends the beginning of the assistant's turn, where an answer is sampled from. */
void vkm_chat_begin_answer(vkm_chat_style style, vkm_strbuf *out);

/* Appends a rendered prompt so that it ends as the style's do: an assistant turn that has just
 * begun ("<|im_start|>assistant" and a line end) gets the style's empty think block. Another text
 * is appended as it is. */
void vkm_chat_restyle(const char *prompt, vkm_chat_style style, vkm_strbuf *out);

/* The Jinja text of the plain style, for tokenizer_config.json. */
extern const char vkm_chat_plain_template[];

#endif
