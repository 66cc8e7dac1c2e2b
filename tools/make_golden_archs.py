#!/usr/bin/env python3
"""Random models of every architecture and of odd shapes: the logits of `vkmoe score` beside torch and transformers.

usage: python tools/make_golden_archs.py [--check] [--large] [build/vkmoe]
    (needs: pip install torch==2.13.0 transformers safetensors)

For each model two comparisons over rows of random tokens (of a trained one: rows of its own text):
  rounded  a float64 forward of torch that rounds what enters a matrix product to bf16, where vkmoe does (docs/numerics.md,
           rules 2 and 6): the largest difference is at most 1e-2 of its row's range (sums in fp32 flip roundings), and the
           largest logit is the same wherever the reference's two largest are further apart than twice that difference.
  KL       from transformers in fp32 to vkmoe, at most that to transformers' own bf16; also of sharp models, whose head is
           scaled until the entropy is at most .7 ln V and some of whose channels are 50 times larger.
Without --check writes tests/golden/archs.json: rows, and the log-probabilities of the rounded reference and of transformers,
for the small models. --large adds one of Qwen3-0.6B's widths with 4 layers (2 GB).
"""
import gzip
import json
import math
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "tests" / "golden" / "archs.json"
RANGE = 1e-2
ROWS = [(5, 20), (1, 33), (40, 7), (3, 300)]  # tokens of prompt and completion
# name, options of init-model or a folder of this project, sharp, in the golden file
MODELS = [
    ("qwen3", "--preset tiny", False, True),
    ("qwen3-untied", "--preset tiny-untied --seed 2", False, True),
    ("qwen3-gqa-8", "--preset tiny --heads 8 --kv-heads 1 --head-dim 8", False, True),
    ("qwen3-mha-odd-vocabulary", "--preset tiny --heads 3 --kv-heads 3 --head-dim 40 --vocab 523", False, True),
    ("qwen3-narrow", "--preset tiny-untied --hidden 48 --ffn 100 --layers 3 --head-dim 12 --vocab 1031", False, True),
    ("qwen2", "--preset tiny-qwen2", False, True),
    ("llama3", "--preset tiny-llama", False, True),
    ("mistral", "--preset tiny-mistral", False, True),
    ("mini", "--preset mini", False, False),
    ("qwen3-sharp", "--preset mini --seed 4", True, False),
    ("qwen2-sharp", "--preset tiny-qwen2 --seed 4", True, False),
    ("llama3-sharp", "--preset tiny-llama --seed 4", True, False),
    ("tiny-trained", "data/tiny/warm1", False, False),
]
LARGE = ("qwen3-0.6b-4l", "--preset qwen3-0.6b-4l", False, False)


def bf16(x):
    return x.to(torch.bfloat16).to(torch.float64)


class Rounded:
    """The model in float64; what enters a product is rounded to bf16."""

    def __init__(self, folder):
        self.c = json.loads((folder / "config.json").read_text())
        self.w = {k: v.to(torch.float64) for k, v in load_file(folder / "model.safetensors").items()}
        theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.rotary = theirs.model.rotary_emb

    def norm(self, x, name):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.c["rms_norm_eps"]) * self.w[name]

    def linear(self, x, name):
        y = bf16(x) @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def heads(self, x, layer, which, n, cos, sin):
        x = self.linear(x, f"{layer}self_attn.{which}_proj").view(x.shape[0], n, -1)
        if f"{layer}self_attn.{which}_norm.weight" in self.w:
            x = self.norm(x, f"{layer}self_attn.{which}_norm.weight")
        if which == "v":
            return bf16(x)
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return bf16(x * cos[:, None] + turned * sin[:, None])

    def attention(self, x, layer, cos, sin):
        n, kv = self.c["num_attention_heads"], self.c["num_key_value_heads"]
        q, k, v = (self.heads(x, layer, w, h, cos, sin) for w, h in (("q", n), ("k", kv), ("v", kv)))
        k, v = k.repeat_interleave(n // kv, 1), v.repeat_interleave(n // kv, 1)
        s = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(q.shape[-1])
        s = s.masked_fill(torch.ones(s.shape[1:]).triu(1).bool(), -math.inf)
        p = bf16(torch.exp(s - s.max(-1, keepdim=True).values))
        o = torch.einsum("hij,jhd->ihd", p, v) / p.sum(-1).T[..., None]
        return self.linear(o.reshape(x.shape[0], -1), f"{layer}self_attn.o_proj")

    def logits(self, ids):
        x = self.w["model.embed_tokens.weight"][ids]
        cos, sin = (t[0].double() for t in self.rotary(x.float()[None], torch.arange(len(ids))[None]))
        for i in range(self.c["num_hidden_layers"]):
            layer = f"model.layers.{i}."
            x = x + self.attention(self.norm(x, layer + "input_layernorm.weight"), layer, cos, sin)
            h = self.norm(x, layer + "post_attention_layernorm.weight")
            gate, up = self.linear(h, layer + "mlp.gate_proj"), self.linear(h, layer + "mlp.up_proj")
            x = x + self.linear(gate * torch.sigmoid(gate) * up, layer + "mlp.down_proj")
        head = "model.embed_tokens.weight" if self.c["tie_word_embeddings"] else "lm_head.weight"
        return bf16(self.norm(x, "model.norm.weight")) @ self.w[head].T


def sharpen(folder):
    """Larger gains: some channels 50 times larger, the last norm until the entropy is at most .7 ln V."""
    path = folder / "model.safetensors"
    w = load_file(path)
    for name in w:
        if name.endswith("layernorm.weight"):
            w[name][::17] *= 50
    ids = torch.randint(w["model.embed_tokens.weight"].shape[0], (64,), generator=torch.manual_seed(0))
    while True:
        save_file(w, path, metadata={"format": "pt"})
        m = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            p = torch.log_softmax(m(ids[None]).logits[0].double(), -1)
        entropy = -(p.exp() * p).sum(-1).mean().item()
        if entropy <= 0.7 * math.log(p.shape[-1]):
            return
        w["model.norm.weight"] *= 1.5


def build(vkmoe, source, sharp, folder):
    """The model of a line of MODELS, written into a new folder."""
    if source.startswith("--"):
        subprocess.run([vkmoe, "init-model", *source.split(), "--output", folder], check=True, capture_output=True)
    else:
        shutil.copytree(ROOT / source, folder)
    if sharp:
        sharpen(folder)


def rows_of(vkmoe, source, folder):
    """Random tokens, or what the model was trained on: prompts that are cut somewhere in their row."""
    rng = random.Random(1)
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    if source.startswith("--"):
        rows = [[rng.randrange(vocabulary) for _ in range(a + b)] for a, b in ROWS]
        return [{"prompt_ids": r[:a], "completion_ids": r[a:]} for r, (a, _) in zip(rows, ROWS)]
    with gzip.open(ROOT / "data/tiny/sft.jsonl.gz", "rt") as f:
        texts = [json.loads(next(f)) for _ in range(20)]
    out = subprocess.run([vkmoe, "tokenize", "--model", folder], input="".join(json.dumps(t) + "\n" for t in texts),
                         check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line)["ids"] for line in out.splitlines()]
    return [{"prompt_ids": r[:n], "completion_ids": r[n:]} for r in rows for n in [rng.randrange(1, len(r) // 2)]]


def kl(p, q):
    p, q = torch.log_softmax(p.double(), -1), torch.log_softmax(q.double(), -1)
    return (p.exp() * (p - q)).sum(-1).mean().item()


def chosen(logits, row):
    logp = torch.log_softmax(logits.double(), -1)
    return [round(logp[i, t].item(), 6) for i, t in enumerate(row["completion_ids"])]


def compare(vkmoe, folder, name, source, sharp):
    m = folder / "m"
    build(vkmoe, source, sharp, m)
    rows = rows_of(vkmoe, source, m)
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    subprocess.run([vkmoe, "score", "--backend", "cpu", "--model", m, "--data", folder / "rows.jsonl", "--logits",
                    folder / "logits.safetensors"], check=True, capture_output=True)
    ours = load_file(folder / "logits.safetensors")
    rounded, golden = Rounded(m), {"name": name, "init": source, "rows": rows, "rounded": [], "transformers": []}
    plain, half = (transformers.AutoModelForCausalLM.from_pretrained(m, dtype=t).eval()
                   for t in (torch.float32, torch.bfloat16))
    worst, divergence, same, sure = 0, [0, 0], 0, 0
    for i, row in enumerate(rows):
        ids, z = torch.tensor(row["prompt_ids"] + row["completion_ids"]), ours[f"logits.{i}"].double()
        at = slice(len(row["prompt_ids"]) - 1, len(ids) - 1)
        with torch.no_grad():
            want = rounded.logits(ids)[at]
            theirs, theirs16 = plain(ids[None]).logits[0][at], half(ids[None]).logits[0][at]
        d = (z - want).abs().max(-1).values
        top = want.topk(2, -1).values
        clear = top[:, 0] - top[:, 1] > 2 * d
        worst = max(worst, (d / (want.max(-1).values - want.min(-1).values)).max().item())
        same += (z.argmax(-1) == want.argmax(-1))[clear].sum().item()
        sure += clear.sum().item()
        divergence[0] += kl(theirs, z) / len(rows)
        divergence[1] += kl(theirs, theirs16) / len(rows)
        golden["rounded"].append(chosen(want, row))
        golden["transformers"].append(chosen(theirs, row))
    ok = worst <= RANGE and same == sure and divergence[0] <= divergence[1]
    print(f"{name:26} rounded: {worst:.1e} of the range, largest logit {same} of {sure}; KL {divergence[0]:.1e}, "
          f"transformers' bf16 {divergence[1]:.1e}{'' if ok else '  FAILED'}", flush=True)
    return golden, ok


def main():
    options = [a for a in sys.argv[1:] if a.startswith("--")]
    args = [a for a in sys.argv[1:] if not a.startswith("--")]
    vkmoe = str(pathlib.Path(args[0] if args else ROOT / "build" / "vkmoe").resolve())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    golden, failed = [], 0
    for name, init, sharp, small in MODELS + ([LARGE] if "--large" in options else []):
        with tempfile.TemporaryDirectory() as folder:
            g, ok = compare(vkmoe, pathlib.Path(folder), name, init, sharp)
        failed += not ok
        golden += [g] * small
    if "--check" not in options:
        OUT.write_text(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__,
                                   "models": golden}) + "\n")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
