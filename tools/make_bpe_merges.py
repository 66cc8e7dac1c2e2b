#!/usr/bin/env python3
"""Makes src/model/bpe_merges.def: the merges of init-model's own tokenizer, learned from modules of
Python's standard library, so that short Python programs take few tokens.

usage: python3.11 tools/make_bpe_merges.py > src/model/bpe_merges.def   (needs: pip install tokenizers)
"""
import importlib.util
import pathlib
import sys

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

N_MERGES = 253  # with 256 bytes and three special tokens: 512
MODULES = ["bisect", "heapq", "collections", "fractions", "functools", "random", "statistics", "string",
           "textwrap", "graphlib", "queue", "calendar", "difflib", "operator", "unittest.case"]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def main():
    texts = [pathlib.Path(importlib.util.find_spec(m).origin).read_text(encoding="utf-8") for m in MODULES]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=256 + N_MERGES, initial_alphabet=alphabet, show_progress=False))
    import json
    merges = json.loads(tok.to_str())["model"]["merges"]
    assert len(merges) == N_MERGES, len(merges)
    back = {}
    n = 0
    for b in range(256):  # the ByteLevel alphabet
        if 33 <= b <= 126 or (b >= 161 and b != 173):
            back[chr(b)] = b
        else:
            back[chr(256 + n)] = b
            n += 1
    print("/* Made by tools/make_bpe_merges.py with Python %d.%d: MERGE(left, right), lowest rank first, as"
          % sys.version_info[:2])
    print(" * bytes. One a line is for diffs; do not edit. */")
    for left, right in (m if isinstance(m, list) else m.split(" ") for m in merges):
        def c(text):
            raw = bytes(back[ch] for ch in text)
            esc = {10: "\\n", 9: "\\t", 13: "\\r", 34: '\\"', 92: "\\\\"}
            assert all(b in esc or 32 <= b < 127 for b in raw), raw
            return '"' + "".join(esc.get(b, chr(b)) for b in raw) + '"'
        print("MERGE(%s, %s)" % (c(left), c(right)))


if __name__ == "__main__":
    main()
