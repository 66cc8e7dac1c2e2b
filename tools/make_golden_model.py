#!/usr/bin/env python3
"""Makes tests/golden/model_tiny.safetensors: what transformers' Qwen3 and torch's autograd make of the tiny model
with a two-expert adapter, in fp32: log-probabilities, entropies, pooled activations, and the gradient of the policy
loss by the adapter's factors and by the experts' forward weights.

usage: python tools/make_golden_model.py [build/vkmoe]   (needs: pip install torch transformers safetensors numpy)

The model is `vkmoe init-model --preset tiny --seed 5` with the gains of its norms replaced by the file's. Factors are
stored as the program stores them: (experts * rank, d_in) for A, (experts * rank, d_out) for the transpose of B.
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.torch import save_file

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "tests" / "golden" / "model_tiny.safetensors"
EXPERTS, RANK, BETA = 2, 3, 0.25
LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.up_proj", "mlp.down_proj"]
# length, start of the completion, router weight w (f = (1, w), g = (1 - w, w)), advantage, weight of a token
SEQUENCES = [(33, 20, 0.625, 1.25, 0.03125), (50, 31, 0.25, -0.75, 0.0625), (17, 16, 1.0, 1.5, 0.03125),
             (40, 12, 0.0, -1.0, 0.015625)]


class Weigh(torch.autograd.Function):
    """f * branch; backward, the branch gets g * dy and f the whole of <dy, branch>."""

    @staticmethod
    def forward(ctx, branch, f, g):
        ctx.save_for_backward(branch)
        ctx.g = g
        return f * branch

    @staticmethod
    def backward(ctx, dy):
        (branch,) = ctx.saved_tensors
        return ctx.g * dy, (dy * branch).sum(), None


class Adapted(torch.nn.Module):
    """y = W x + sum_e f_e (B0_e u_e + dB_e h_e), u_e = dA_e x, h_e = A0_e x + u_e."""

    def __init__(self, linear, rng):
        super().__init__()
        self.linear = linear
        rows, d_in, d_out = EXPERTS * RANK, linear.in_features, linear.out_features

        def normal(cols, std):
            return torch.from_numpy((rng.standard_normal((rows, cols)) * std).astype(np.float32))

        self.a0, self.b0 = normal(d_in, d_in ** -0.5), normal(d_out, rows ** -0.5)
        self.da, self.db = normal(d_in, 0.03).requires_grad_(), normal(d_out, 0.03).requires_grad_()
        self.f, self.g, self.h = None, None, None

    def forward(self, x):
        y = self.linear(x)
        u = x @ self.da.T
        self.h = x @ self.a0.T + u
        for e in range(EXPERTS):
            part = slice(e * RANK, (e + 1) * RANK)
            branch = u[..., part] @ self.b0[part] + self.h[..., part] @ self.db[part]
            y = y + Weigh.apply(branch, self.f[e], self.g[e])
        return y


def make_model(program):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "init-model", "--preset", "tiny", "--seed", "5", "--force", "--quiet", "--output",
                        folder], check=True, stdout=subprocess.DEVNULL)
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return model.eval().requires_grad_(False)


def adapt(model, rng):
    adapted = {}
    for i, layer in enumerate(model.model.layers):
        for name in LINEARS:
            parent, attr = name.split(".")
            owner = getattr(layer, parent)
            setattr(owner, attr, Adapted(getattr(owner, attr), rng))
            adapted[f"{i}.{name}"] = getattr(owner, attr)
    return adapted


def set_weights(adapted, f, g):
    for module in adapted.values():
        module.f, module.g = f, g


def log_softmax(model, tokens, comp0):
    """(completion tokens, vocabulary): row j is the distribution of token comp0 + j."""
    logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return torch.log_softmax(logits[comp0 - 1:-1], dim=-1)


def read(model, adapted, tokens, comp0, f):
    set_weights(adapted, torch.tensor(f), f)
    with torch.no_grad():
        dist = log_softmax(model, tokens, comp0)
    target = torch.tensor(tokens[comp0:])
    pooled = torch.stack([m.h[0, comp0:, :RANK].mean(0) for m in adapted.values()])
    return dist.gather(1, target[:, None])[:, 0], -(dist.exp() * dist).sum(-1), pooled


def main():
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(20)
    model = make_model(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "vkmoe")
    out = {}
    for name, p in model.named_parameters():
        if "norm" in name:
            sharp = 8 if name == "model.norm.weight" else 1  # logits of about N(0, 1), not all but equal
            p.copy_(sharp * torch.from_numpy((1 + 0.25 * rng.standard_normal(p.shape)).astype(np.float32)))
            out[name] = p.detach().clone()
    adapted = adapt(model, rng)
    per_token = {"logp_base": [], "logp": [], "entropy": [], "logp_ref": []}
    per_seq = {"pooled": [], "df": [], "loss": []}
    tokens = [rng.integers(0, model.config.vocab_size, s[0]).tolist() for s in SEQUENCES]
    for ids, (_, comp0, w, advantage, weight) in zip(tokens, SEQUENCES):
        per_token["logp_base"].append(read(model, adapted, ids, comp0, (0.0, 0.0))[0])
        per_seq["pooled"].append(read(model, adapted, ids, comp0, (1.0, 0.0))[2])
        logp, entropy, _ = read(model, adapted, ids, comp0, (1.0, w))
        ref = logp + torch.from_numpy((0.25 * rng.standard_normal(len(logp))).astype(np.float32))
        f = torch.tensor([1.0, w], requires_grad=True)
        set_weights(adapted, f, (1 - w, w))
        target = torch.tensor(ids[comp0:])
        live = log_softmax(model, ids, comp0).gather(1, target[:, None])[:, 0]
        d = ref - live
        policy = weight * (-(live - live.detach()).exp() * advantage).sum()
        kl = weight * (d.exp() - d - 1).sum()
        (policy + BETA * kl).backward()
        per_seq["df"].append(f.grad)
        per_seq["loss"].append(torch.stack([policy.detach(), kl.detach()]))
        for name, value in (("logp", logp), ("entropy", entropy), ("logp_ref", ref)):
            per_token[name].append(value)
    out["sequences"] = torch.tensor([s[:2] for s in SEQUENCES], dtype=torch.int32)
    out["tokens"] = torch.tensor([t for ids in tokens for t in ids], dtype=torch.int32)
    out["routing"] = torch.tensor([s[2:] for s in SEQUENCES], dtype=torch.float32)
    out |= {name: torch.cat(values) for name, values in per_token.items()}
    out |= {name: torch.stack(values) for name, values in per_seq.items()}
    for name, m in adapted.items():
        for key, value in (("a0", m.a0), ("b0", m.b0), ("da", m.da.detach()), ("db", m.db.detach()),
                           ("da.grad", m.da.grad), ("db.grad", m.db.grad)):
            out[f"{name}.{key}"] = value.contiguous()
    save_file(out, OUT, metadata={"made_by": f"torch {torch.__version__}, transformers {transformers.__version__}"})
    print(OUT, OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
