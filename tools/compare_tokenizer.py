#!/usr/bin/env python3
"""`vkmoe tokenize` beside the `tokenizers` library on random and adversarial texts, and their speed on a long one.

usage: python tools/compare_tokenizer.py TOKENIZER [N] [build/vkmoe]     (needs: pip install tokenizers)

TOKENIZER is a model folder or a tokenizer.json, N the number of texts (200000). Ids must be equal for every text, and so
must the text of the ids, with and without special tokens. Exit 1 at the first differences.
"""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
from tokenizers import Tokenizer  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>", "<|im_", "im_end|>", "<|", "|>", "<tool_call>"]
MARKS = [chr(c) for c in list(range(0x300, 0x370)) + [0x5B0, 0x64B, 0x93C, 0x1AB0, 0x20D0, 0x3099, 0xFE20, 0x1D165]]
SPACES = list(" \t\n\r\v\f") + [chr(c) for c in (0x85, 0xA0, 0x1680, 0x180E, 0x2000, 0x2028, 0x2029, 0x202F, 0x3000, 0x200B, 0xFEFF)]
WORDS = "def return self don't I'LL we've CAFÉ naïve straße ﬁn ǅ İi ŉ the of and 12345 3.14 == -> ## // ... !?".split()


def any_character(rng):
    while True:
        c = rng.choice([rng.randrange(1, 0x80), rng.randrange(0x80, 0x800), rng.randrange(0x800, 0x10000),
                        rng.randrange(0x10000, 0x20000), rng.randrange(0x20000, 0x110000)])
        if not 0xD800 <= c < 0xE000:
            return chr(c)


def piece(rng):
    kind = rng.randrange(10)
    if kind == 0:
        return any_character(rng)
    if kind == 1:
        return rng.choice(SPACES) * rng.choice([1, 1, 1, 2, 3, rng.randrange(1, 80)])
    if kind == 2:
        return rng.choice(MARKS) * rng.choice([1, 1, 2, rng.randrange(1, 40)])
    if kind == 3:
        return rng.choice(SPECIAL)
    if kind == 4:
        return "".join(rng.choices("0123456789٠١२½Ⅷ①", k=rng.randrange(1, 12)))
    if kind == 5:
        return "".join(chr(rng.randrange(0xAC00, 0xD7A4)) for _ in range(rng.randrange(1, 5)))
    if kind == 6:
        return "".join(chr(rng.randrange(0x1100, 0x1200)) for _ in range(rng.randrange(1, 5)))
    if kind == 7:
        return "".join(rng.choices("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", k=rng.randrange(1, 8)))
    return rng.choice(["", " "]) + rng.choice(WORDS)


def texts(n):
    rng = random.Random(7)
    for c in ["a", " ", "\n", "\t", "e\u0301", "é", "1", "!", "中", "\u0301", "<|im_end|>", "'s", " \n", "가"]:
        yield c * ((1 << 20) // len(c.encode())) if n >= 1000 else c * 1000
    for code in range(1, 0x3000):  # every character of the first planks alone and between letters
        if not 0xD800 <= code < 0xE000:
            yield f"{chr(code)} a{chr(code)}b{chr(code)}"
    for _ in range(n):
        yield "".join(piece(rng) for _ in range(rng.randrange(1, 14)))


def run(vkmoe, model, lines, *options):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        f.flush()
        out = subprocess.run([vkmoe, "tokenize", "--model", model, "--data", f.name, *options], check=True,
                             capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.split("\n") if line]


def main():
    model, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200000
    vkmoe = sys.argv[3] if len(sys.argv) > 3 else ROOT / "build" / "vkmoe"
    path = pathlib.Path(model)
    theirs = Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
    all_texts = list(texts(n))
    ours = run(vkmoe, model, [{"text": t} for t in all_texts])
    ids = [theirs.encode(t, add_special_tokens=False).ids for t in all_texts]
    bad = [i for i, line in enumerate(ours) if line["ids"] != ids[i]]
    for skip in (False, True):
        decoded = run(vkmoe, model, [{"ids": i} for i in ids], "--decode", *["--skip-special"] * skip)
        bad += [i for i, line in enumerate(decoded) if line["text"] != theirs.decode(ids[i], skip_special_tokens=skip)]
    print(f"{len(all_texts)} texts, {sum(map(len, ids))} ids: {len(bad)} differences")
    for i in bad[:5]:
        print(ascii(all_texts[i][:200]), ours[i]["ids"][:20], ids[i][:20])
    sources = [f.read_text() for folder in ("src", "docs") for f in sorted((ROOT / folder).rglob("*.[cm]*"))]
    long_text = "\n".join(sources * 20)[:20_000_000]
    with tempfile.NamedTemporaryFile("w") as f:
        json.dump({"text": long_text}, f)
        f.flush()
        times = [[], []]
        for _ in range(3):  # turn about; what loading costs is taken off
            for i, data in enumerate([f.name, "/dev/null"]):
                start = time.perf_counter()
                subprocess.run([vkmoe, "tokenize", "--model", model, "--data", data], check=True, capture_output=True)
                times[0].append((time.perf_counter() - start) * (-1 if i else 1))
            start = time.perf_counter()
            theirs.encode(long_text, add_special_tokens=False)
            times[1].append(time.perf_counter() - start)
    own = min(a + b for a, b in zip(times[0][::2], times[0][1::2]))
    mb = len(long_text.encode()) / 1e6
    print(f"{mb:.1f} MB: vkmoe {mb / own:.1f} MB/s with JSON in and out, tokenizers {mb / min(times[1]):.1f} MB/s")
    return len(bad) > 0


if __name__ == "__main__":
    sys.exit(main())
