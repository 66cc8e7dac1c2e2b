#!/usr/bin/env python3
"""What PEFT and transformers make of the folders that `vkmoe export` writes, beside what `vkmoe score` says of the run.

usage: python tools/make_golden_export.py [--check] [build/vkmoe]
    (needs: pip install torch==2.13.0 transformers peft safetensors)

Writes tests/golden/export.json: rows of token ids and, for both states of the adapter, the log-probabilities by
transformers in fp32 over the exported PEFT adapter and over the exported merged fp32 model. tests/test_inference.c
makes the same run again (all bits follow from its seeds) and compares. --check writes nothing and fails where `vkmoe
score` differs by more than 2e-2 nats, or 2e-3 in the mean: its GEMM operands are bf16, transformers' are fp32.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

import torch
import transformers
from peft import PeftModel

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "tests" / "golden" / "export.json"
STATES = ["full", "ablated"]
MOST, MEAN = 2e-2, 2e-3


def make_run(vkmoe, folder):
    """The random model and the run of tests/test_inference.c."""
    def call(*args):
        subprocess.run([vkmoe, *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    rows = [{"prompt": "one two", "completion": " three four"}, {"prompt": "a b c", "completion": " d e f g"}]
    (folder / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    call("init-model", "--preset", "tiny", "--seed", "5", "--output", f"{folder}/model")
    call("sft", "--backend", "cpu", "--model", f"{folder}/model", "--data", f"{folder}/rows.jsonl", "--output_dir",
         f"{folder}/run", "--sft_train", "both", "--lora_rank", "3", "--max_steps", "4", "--warmup_steps", "0",
         "--learning_rate", "0.02", "--per_device_train_batch_size", "2")
    for state in STATES:
        call("export", "--run", f"{folder}/run", "--state", state, "--output", f"{folder}/adapter-{state}")
        call("export", "--run", f"{folder}/run", "--state", state, "--to", "model", "--dtype", "fp32", "--output",
             f"{folder}/merged-{state}")


def log_probabilities(model, row):
    ids = torch.tensor([row["prompt_ids"] + row["completion_ids"]])
    with torch.no_grad():
        logp = torch.log_softmax(model(ids).logits[0].double(), -1)
    at = range(len(row["prompt_ids"]), ids.shape[1])
    return [logp[i - 1, ids[0, i]].item() for i in at]


def by_vkmoe(vkmoe, folder, state):
    lines = subprocess.run([vkmoe, "score", "--backend", "cpu", "--run", f"{folder}/run", "--state", state, "--data",
                            f"{folder}/ids.jsonl", "--quiet"], check=True, capture_output=True, text=True).stdout
    return [json.loads(line)["logprobs"] for line in lines.splitlines()]


def compare(name, ours, theirs):
    d = [abs(a - b) for x, y in zip(ours, theirs) for a, b in zip(x, y)]
    ok = max(d) <= MOST and sum(d) / len(d) <= MEAN
    print(f"{name}: {len(d)} tokens, largest difference {max(d):.2e} nats, mean {sum(d) / len(d):.2e}"
          f"{'' if ok else '  TOO LARGE'}")
    return ok


def main():
    check = "--check" in sys.argv
    args = [a for a in sys.argv[1:] if a != "--check"]
    vkmoe = str(pathlib.Path(args[0] if args else ROOT / "build" / "vkmoe").resolve())
    rng = random.Random(1)
    rows = [{"prompt_ids": [rng.randrange(512) for _ in range(rng.randrange(1, 30))],
             "completion_ids": [rng.randrange(512) for _ in range(rng.randrange(1, 30))]} for _ in range(8)]
    golden = {"torch": torch.__version__, "transformers": transformers.__version__, "rows": rows}
    ok = True
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_run(vkmoe, folder)
        (folder / "ids.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        for state in STATES:
            ours = by_vkmoe(vkmoe, folder, state)
            base = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32)
            adapted = PeftModel.from_pretrained(base, f"{folder}/adapter-{state}").eval()
            merged = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/merged-{state}",
                                                                       dtype=torch.float32).eval()
            for kind, model in (("adapter", adapted), ("merged", merged)):
                theirs = [log_probabilities(model, r) for r in rows]
                ok &= compare(f"{state}, {kind}", ours, theirs)
                golden[f"{kind}-{state}"] = [[round(x, 6) for x in r] for r in theirs]
    if not check:
        OUT.write_text(json.dumps(golden) + "\n")
        print(OUT)
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
