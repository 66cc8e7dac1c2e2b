#!/usr/bin/env python3
"""`vkmoe score` beside transformers on a model folder of your own.

usage: python tools/check_real_model.py DIR [build/vkmoe] [options of vkmoe, such as --device 0]
    (needs: pip install torch transformers safetensors)

Some texts are scored by vkmoe, by transformers in fp32 and by transformers in bf16. vkmoe rounds the operands of products
to bf16 and sums in fp32, so its log-probabilities should lie nearer to fp32 than transformers' bf16 does. Exit 1 if not.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
import transformers

ROOT = pathlib.Path(__file__).parent.parent
TEXTS = [
    ("The three states of water are", " solid, liquid and gas. Ice melts at zero degrees and water boils at one hundred."),
    ("def add(a, b):\n    \"\"\"Adds two numbers.\"\"\"\n", "    return a + b\n\n\nprint(add(1, 2))\n"),
    ("Translate to German: good morning, my friend.\n", "Guten Morgen, mein Freund."),
    ("1, 1, 2, 3, 5, 8, 13,", " 21, 34, 55, 89, 144, 233"),
]


def log_probabilities(model, rows):
    out = []
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
        with torch.no_grad():
            logp = torch.log_softmax(model(ids).logits[0].float(), -1)
        first = len(row["prompt_ids"])
        out += [logp[i - 1, ids[0, i]].item() for i in range(first, ids.shape[1])]
    return torch.tensor(out)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, rest = sys.argv[1], sys.argv[2:]
    vkmoe = rest.pop(0) if rest and not rest[0].startswith("-") else str(ROOT / "build" / "vkmoe")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    rows = [{"prompt_ids": encode(p), "completion_ids": encode(c)} for p, c in TEXTS]
    for (prompt, completion), row in zip(TEXTS, rows):
        for text, ids in ((prompt, row["prompt_ids"]), (completion, row["completion_ids"])):
            ours = subprocess.run([vkmoe, "tokenize", "--model", folder, "--text", text], check=True, capture_output=True,
                                  text=True).stdout.split()
            if list(map(int, ours)) != ids:
                sys.exit(f"the tokenizers differ on {text!r}: {ours} and {ids}")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as f:
        f.writelines(json.dumps(r) + "\n" for r in rows)
        f.flush()
        lines = subprocess.run([vkmoe, "score", "--model", folder, "--data", f.name, *rest], check=True,
                               capture_output=True, text=True).stdout.splitlines()
    ours = torch.tensor([x for line in lines for x in json.loads(line)["logprobs"]])
    theirs = {}
    for dtype in (torch.float32, torch.bfloat16):
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        theirs[dtype] = log_probabilities(model, rows)
        del model
    reference = theirs[torch.float32]
    difference = {"vkmoe": (ours - reference).abs(), "transformers in bf16": (theirs[torch.bfloat16] - reference).abs()}
    print(f"{len(reference)} tokens, mean log-probability {reference.mean():.3f}")
    for name, d in difference.items():
        print(f"{name:22} from fp32: mean {d.mean():.2e} nats, largest {d.max():.2e}")
    return not difference["vkmoe"].mean() <= difference["transformers in bf16"].mean()


if __name__ == "__main__":
    sys.exit(main())
