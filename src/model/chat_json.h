/* Prompts of JSON: texts, lists of chat messages, lists of token ids. */
#ifndef VKM_CHAT_JSON_H
#define VKM_CHAT_JSON_H

#include "base/json.h"
#include "model/chat.h"

/* Appends the messages [{"role", "content"}, ...] to turns, which has room for them; *n counts on.
 * Other members are ignored. The strings live as long as the document. */
vkm_status vkm_chat_read_turns(vkm_jv list, vkm_chat_turn *turns, size_t *n,
                               vkm_err *err) VKM_MUST_CHECK;

/* Appends a list of messages as text, rendered in the tokenizer's style (vkm_chat_style_of), behind
 * which the assistant's turn begins. */
vkm_status vkm_chat_prompt_text(const vkm_tokenizer *t, vkm_jv messages, vkm_strbuf *out,
                                vkm_err *err) VKM_MUST_CHECK;

/* Appends the ids of a prompt: of a text as it is, or of messages as above. */
vkm_status vkm_chat_prompt_ids(const vkm_tokenizer *t, vkm_jv text_or_messages, vkm_ids *out,
                               vkm_err *err) VKM_MUST_CHECK;

/* Appends an array of token ids, each below n_vocab. */
vkm_status vkm_ids_read(vkm_jv array, uint32_t n_vocab, vkm_ids *out, vkm_err *err) VKM_MUST_CHECK;

#endif
