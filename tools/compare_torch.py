#!/usr/bin/env python3
"""`vkmoe bench` beside PyTorch and transformers on the CPU: the same model, the same work, by turns.

usage: python tools/compare_torch.py [--rounds N] [--preset NAME] [build/vkmoe]    (needs: pip install torch==2.13.0 transformers)

Rows of `vkmoe bench`, each run in turn with its counterpart in fp32 on as many threads, N times (3); shown are the best of
each and their ratio, above 1 where vkmoe is faster:
  decode   tokens a second of `generate` with a KV cache: 32 rows, prompts of 64 tokens, 32 new ones
  train    tokens a second of forward and backward with LoRA of rank 32 on every Linear (vkmoe: two experts of 2 x 8), no
           gradient of the frozen weights, logits of completion tokens only: 8 rows of 64 + 64 tokens
and a GRPO step of the tiny testbed:
  step     seconds of a step: 8 prompts x 8 rollouts of up to 44 tokens, a forward for activations, one over as many rows as
           the pairs' sides, one for the reference, one for the policy and its backward, AdamW: the same work as `train tiny
           --arm moe`. PyTorch's rewards are random numbers; vkmoe's step is timed with its verdicts read from a file
           (--grade_cache), and once more with every rollout graded in its sandbox, beside which PyTorch does nothing
"""
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
import transformers

ROOT = pathlib.Path(__file__).parent.parent
PROMPT, NEW = 64, {"decode": 32, "train": 64}
ROWS = {"decode": 32, "train": 8}


class Lora(torch.nn.Module):
    def __init__(self, linear, rank):
        super().__init__()
        self.linear = linear
        self.a = torch.nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.b = torch.nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x):
        return self.linear(x) + x @ self.a.T @ self.b.T


def with_lora(model, rank):
    for p in model.parameters():
        p.requires_grad_(False)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and name != "lm_head":
                setattr(module, name, Lora(child, rank))
    return model


def decode(model):
    ids = (torch.arange(PROMPT) * 7 % 250)[None].repeat(ROWS["decode"], 1)
    with torch.no_grad():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW["decode"],
                             min_new_tokens=NEW["decode"], do_sample=True, top_k=0, top_p=1.0, temperature=1.0, pad_token_id=0)
    return out.numel() - ids.numel()


def train(model):
    n, rows = PROMPT + NEW["train"], ROWS["train"]
    ids = (torch.arange(n) * 7 % 250)[None].repeat(rows, 1)
    logits = model(ids, logits_to_keep=NEW["train"] + 1).logits[:, :-1].float()
    logp = torch.log_softmax(logits, -1).gather(-1, ids[:, PROMPT:, None])
    (-logp.mean()).backward()
    return n * rows


def logp_of(model, ids, mask, start):
    logits = model(ids, attention_mask=mask, logits_to_keep=ids.shape[1] - start + 1).logits[:, :-1]
    return torch.log_softmax(logits, -1).gather(-1, ids[:, start:, None]).squeeze(-1)


def padded(rows):
    n = max(map(len, rows))
    return (torch.tensor([[0] * (n - len(r)) + r for r in rows]), torch.tensor([[0] * (n - len(r)) + [1] * len(r) for r in rows]))


def grpo_step(model, optimizer, prompts, pairs):
    """Prompts of token ids, 8 rollouts each, and whole sequences to read; random rewards. Returns the rollouts' tokens."""
    ids, mask = (t.repeat_interleave(8, 0) for t in padded(prompts))
    n = ids.shape[1]
    with torch.no_grad():
        ids = model.generate(ids, attention_mask=mask, max_new_tokens=44, do_sample=True, top_k=0, top_p=1.0, temperature=1.0)
        new = ids[:, n:]
        ends = torch.isin(new, torch.tensor(model.generation_config.eos_token_id)).int()
        live = ends.cumsum(1) - ends == 0
        mask = torch.cat([mask, live.long()], 1)
        old, reference = logp_of(model, ids, mask, n), logp_of(model, ids, mask, n)
        pair_ids, pair_mask = padded(pairs)
        model.model(pair_ids, attention_mask=pair_mask)
    reward = torch.rand(len(ids))
    advantage = reward - reward.view(-1, 8).mean(1).repeat_interleave(8)
    logp = logp_of(model, ids, mask, n)
    kl = torch.exp(reference - logp) - (reference - logp) - 1
    loss = -(torch.exp(logp - old) * advantage[:, None] - 0.03 * kl)[live].sum() / (64 * 44)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return int(live.sum())


def rows_of_tiny(vkmoe):
    """8 prompts, and 2 x 45 rows with completions: as many as data/tiny/pairs.md has."""
    with gzip.open(ROOT / "data/tiny/sft.jsonl.gz", "rt") as f:
        messages = [json.loads(next(f))["messages"] for _ in range(90)]
    lines = [{"messages": m[:-1]} for m in messages[:8]] + [{"messages": m} for m in messages]
    out = subprocess.run([vkmoe, "tokenize", "--model", ROOT / "data/tiny/warm1"], check=True, capture_output=True, text=True,
                         input="".join(json.dumps(line) + "\n" for line in lines)).stdout
    ids = [json.loads(line)["ids"] for line in out.splitlines()]
    return ids[:8], ids[8:]


def compare_steps(vkmoe, rounds):
    model = with_lora(transformers.AutoModelForCausalLM.from_pretrained(ROOT / "data/tiny/warm1", dtype=torch.float32), 16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    (prompts, pairs), theirs = rows_of_tiny(vkmoe), []
    mine = {"step/tiny": [], "step/tiny, graded": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(rounds + 1):  # the first warms up, and fills the file of verdicts
            start = time.perf_counter()
            grpo_step(model, optimizer, prompts, pairs)
            theirs.append(time.perf_counter() - start)
            for name, times in mine.items():
                run = pathlib.Path(folder) / f"{i}{len(times)}{len(name)}"
                known = [] if "graded" in name else ["--grade_cache", f"{folder}/verdicts"]
                subprocess.run([vkmoe, "train", "tiny", "--arm", "moe", "--model", ROOT / "data/tiny/warm1", "--max_steps",
                                "3", "--eval_every", "0", "--eval_data=", "--eval_problems", "0", "--output_dir", run,
                                "--backend", "cpu", "--threads", str(torch.get_num_threads()), *known],
                               check=True, capture_output=True)
                times.append(min(json.loads(line)["step_time"] for line in list(open(run / "steps.jsonl"))[1:]))
    for name, times in mine.items():
        a, b = min(times[1:]), min(theirs[1:])
        print(f"{name}: vkmoe {a:.2f} s, torch {b:.2f} s, ratio {b / a:.2f} ({torch.get_num_threads()} threads)", flush=True)


def ours(vkmoe, row, threads):
    out = subprocess.run([vkmoe, "bench", row, "--backend", "cpu", "--threads", str(threads), "--repeat", "1", "--json",
                          "--quiet"], check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1])["tokens_per_s"]


def main():
    args = sys.argv[1:]
    option = lambda name, default: args.pop(args.index(name) + 1) if name in args else default
    rounds, preset = int(option("--rounds", 3)), option("--preset", "qwen3-0.6b-4l")
    args = [a for a in args if not a.startswith("--")]
    vkmoe = str(pathlib.Path(args[0] if args else ROOT / "build" / "vkmoe").resolve())
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    compare_steps(vkmoe, rounds)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([vkmoe, "init-model", "--preset", preset, "--output", f"{folder}/m", "--quiet"], check=True,
                       capture_output=True)
        model = with_lora(transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/m", dtype=torch.float32), 32)
    for name, work in (("decode", decode), ("train", train)):
        theirs, mine = [], []
        for i in range(rounds + 1):  # the first warms up
            model.zero_grad()
            start = time.perf_counter()
            tokens = work(model)
            theirs.append(tokens / (time.perf_counter() - start))
            mine.append(ours(vkmoe, f"{name}/{preset}", torch.get_num_threads()))
        a, b = max(mine[1:]), max(theirs[1:])
        print(f"{name}/{preset}: vkmoe {a:.1f} tokens/s, torch {b:.1f}, ratio {a / b:.2f} "
              f"({torch.get_num_threads()} threads)", flush=True)


if __name__ == "__main__":
    main()
