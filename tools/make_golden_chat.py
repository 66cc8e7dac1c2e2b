#!/usr/bin/env python3
"""Makes tests/golden/chat.json: conversations as transformers renders them by chat templates of each style.

usage: python tools/make_golden_chat.py     (needs: pip install transformers jinja2)

The templates are written here, by what the models' documentation says of their format; the real ones are found by their
parts (src/model/chat_style.c).
"""
import json
import pathlib
import tempfile

import transformers

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "tests" / "golden" / "chat.json"
TURN = "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}"
BEGIN = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
PLAIN = "{% for m in messages %}" + TURN + "{% endfor %}" + BEGIN


def with_system(text):
    return ("{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\n" + text + "<|im_end|>\\n' }}{% endif %}" + PLAIN)


# an answer behind the last user's turn keeps its thoughts, or gets an empty block if it is the last turn
QWEN3 = (
    "{% set ns = namespace(last=messages|length - 1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role != 'assistant' %}" + TURN + "{% else %}"
    "{% set ns.thought = '' %}{% set ns.said = m.content %}"
    "{% if '</think>' in m.content %}"
    "{% set ns.thought = m.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}"
    "{% set ns.said = m.content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "{{ '<|im_start|>assistant\\n' }}"
    "{% if loop.index0 > ns.last and (loop.last or ns.thought) %}"
    "{{ '<think>\\n' + ns.thought.strip('\\n') + '\\n</think>\\n\\n' + ns.said.lstrip('\\n') }}"
    "{% else %}{{ ns.said }}{% endif %}{{ '<|im_end|>\\n' }}{% endif %}{% endfor %}" + BEGIN[:-len("{% endif %}")] +
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}")
TEMPLATES = {"plain": PLAIN, "qwen2": with_system("You are a helpful assistant."),
             "qwen2.5": with_system("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), "qwen3": QWEN3}
U, A, S = ({"role": r} for r in ("user", "assistant", "system"))
CONVERSATIONS = [
    [U | {"content": "hello"}],
    [S | {"content": "Be brief."}, U | {"content": "hello"}],
    [U | {"content": "one\n\ntwo "}, A | {"content": "ok"}, U | {"content": "three"}],
    [S | {"content": ""}, U | {"content": ""}, A | {"content": ""}, U | {"content": "x"}],
    [U | {"content": "q"}, A | {"content": "<think>\nhm\n</think>\n\nanswer"}, U | {"content": "again"}],
    [U | {"content": "q"}, A | {"content": "<think>hm</think>answer"}],
    [U | {"content": "q"}, A | {"content": "answer"}],
    [U | {"content": "q"}, A | {"content": "<think>\n\n</think>\n\nanswer"}, A | {"content": "more"}],
    [S | {"content": "s"}, U | {"content": "café 你好 😀 {{ x }}"}, A | {"content": "\n\nlead and trail \n"}, U | {"content": "end"}],
    [U | {"content": "a"}, U | {"content": "b"}, A | {"content": "c"}, A | {"content": "d"}, U | {"content": "e"}],
]


def main():
    out = []
    with tempfile.TemporaryDirectory() as folder:
        source = json.loads((ROOT / "tests" / "golden" / "tokenizer" / "tokenizer.json").read_text())
        pathlib.Path(folder, "tokenizer.json").write_text(json.dumps(source))
        t = transformers.PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json")
    for style, template in TEMPLATES.items():
        for messages in CONVERSATIONS:
            text = t.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True,
                                         enable_thinking=False)
            out.append({"style": style, "messages": messages, "text": text})
    OUT.write_text(json.dumps({"templates": TEMPLATES, "cases": out}, indent=0, ensure_ascii=False) + "\n")
    print(f"{OUT}: {len(out)} renderings")


if __name__ == "__main__":
    main()
