#!/usr/bin/env python3
"""Makes tests/golden/tokenizer: a small byte-level BPE with Qwen3's normalizer, pattern and ChatML
tokens, and cases of what the `tokenizers` library makes of many texts.

usage: python tools/make_golden_tokenizer.py   (needs: pip install tokenizers)
"""
import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

OUT = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "tokenizer"
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CORPUS = """def solve(nums: list[int], k: int) -> int:
    # return the number of pairs that sum to k
    seen = {}
    total = 0
    for i, x in enumerate(nums):
        total += seen.get(k - x, 0)
        seen[x] = seen.get(x, 0) + 1
    return total

class Solution:
    def run_tests(self):
        assert self.solve([1, 2, 3], 4) == 1
        print("It's what they'll do; we're sure that I'd say caf\u00e9 and na\u00efve.")
""" * 3
HAND = [
    "", " ", "  ", "   x", "\n", "\n\n  \n", " \r\n\t", "a", "hello world", "I'LL we'Re DON'T 'S", "12345 67",
    "caf\u00e9 cafe\u0301 A\u030a \u212b \u1e9b\u0323", "\u00a0x \u2003y\u3000z", "a\u0085b\u2028c\u2029d",
    "\u180e\u180ex \u180e", "\u017fx'\u017f '\u017fa", "<|im_start|>user\nhi<|im_end|>\n", "<|im_end|><|im_end|>",
    "<|im_end", "x<think>y</think>z", "<|im_start|><|im_startx|>", "\U0001f600\U0001f468\u200d\U0001f469",
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u4e2d\u6587\u5b57\u7b26 \ud55c\uae00 \u1112\u1161\u11ab",
    "\u0661\u0662 \u00bd \u2167 \u2460", "tab\tand  spaces   \n  end  ", "...!!!???\n\n", "a" * 300, "ab" * 200,
    "return total" * 20, "e\u0301" * 40, "\u0fb2\u0f71\u0f80 q\u0323\u0307 q\u0307\u0323", "x\u0000y".replace("\u0000", ""),
    "merged token<|im_end|>", "cafe\u0301<|im_end|>\u0301 lone mark", "#tag # tag  #tag\r\n#",
]


def random_text(rng):
    pools = ["abcdeXYZ", "0123456789", " \t\n\r", " '", ".,:;!?()[]{}<>|_=+-*/#\"", "\u00e9\u00fc\u00df\u017f\u0301\u0308",
             "\u4e2d\u6587\u0391\u03b2\u0436", "\u00a0\u2003\u200b\u3000\u0085\u180e\ufeff", "\U0001f600\U0001d54f\u00bd\u0664"]
    words = ["def ", "return", "self", "'ll", "'S", "    ", "\n\n", "<|im_end|>", "<think>", "total", "seen"]
    parts = []
    for _ in range(rng.randint(1, 12)):
        if rng.random() < 0.4:
            parts.append(rng.choice(words))
        else:
            pool = rng.choice(pools)
            parts.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 6))))
    return "".join(parts)


def main():
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(CORPUS.splitlines(keepends=True), trainers.BpeTrainer(
        vocab_size=400, min_frequency=2, initial_alphabet=alphabet, show_progress=False))
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False)
                            for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tok.add_tokens([AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")])
    tok.add_tokens([AddedToken("caf\u00e9<", special=False, normalized=True)])
    OUT.mkdir(parents=True, exist_ok=True)
    text = json.dumps(json.loads(tok.to_str()), ensure_ascii=False, separators=(",", ":"))
    (OUT / "tokenizer.json").write_text(text, encoding="utf-8")

    rng = random.Random(1)
    n_ids = tok.get_vocab_size()
    rows = []
    for text in HAND + [random_text(rng) for _ in range(200)]:
        rows.append((text, tok.encode(text, add_special_tokens=False).ids))
    for _ in range(60):  # random ids: bytes that are not UTF-8
        rows.append((None, [rng.randrange(n_ids) for _ in range(rng.randint(1, 12))]))
    with open(OUT / "cases.jsonl", "w", encoding="utf-8") as f:
        for text, ids in rows:
            row = {"ids": ids, "decoded": tok.decode(ids, skip_special_tokens=False),
                   "decoded_plain": tok.decode(ids, skip_special_tokens=True)}
            if "\0" in row["decoded"]:
                continue  # our JSON reader takes no NUL
            if text is not None:
                row["text"] = text
            f.write(json.dumps(row) + "\n")


def flags():
    """flags.jsonl: tokens with every flag, added to the same tokenizer, and texts around them."""
    path = OUT / "tokenizer.json"
    tok = Tokenizer.from_file(str(path))
    before = tok.get_vocab_size()
    kinds = {"<L>": {"lstrip": True}, "<R>": {"rstrip": True}, "<LR>": {"lstrip": True, "rstrip": True},
             "word": {"single_word": True}, "<WLR>": {"single_word": True, "lstrip": True, "rstrip": True},
             "\u00e9nd": {"normalized": True, "rstrip": True}, "<S>": {"special": True, "lstrip": True}}
    tok.add_tokens([AddedToken(t, **{"normalized": False, "special": False} | f) for t, f in kinds.items()])
    added = [t for t in json.loads(tok.to_str())["added_tokens"] if t["id"] >= before]
    rng = random.Random(3)
    parts = list(kinds) * 2 + [" ", "  ", "\t\n", "\u00a0", "\u3000", "\u200b", "a", "_", "9", "\u0661", "\u2167", "\u24b6",
                               "-", "\u4e2d", "\u0301", "e\u0301nd", "<|im_end|>", "words", "sword", "\U0001f600", "\u203f"]
    with open(OUT / "flags.jsonl", "w", encoding="utf-8") as f:
        f.write(json.dumps({"added": added}) + "\n")
        for _ in range(300):
            text = "".join(rng.choice(parts) for _ in range(rng.randint(1, 9)))
            f.write(json.dumps({"text": text, "ids": tok.encode(text, add_special_tokens=False).ids}) + "\n")


if __name__ == "__main__":
    main()
    flags()
