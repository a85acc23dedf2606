"""The step of train/benches/step.rs in PyTorch; step.py starts it, see there.

It gets what to build as JSON in its argument and warms up. Then each line on stdin is one run, and its medians are one
line of JSON on stdout. Masters and tokens are drawn as in the benchmarks in Rust, so that losses can be compared.

The model and the optimizers are those of train/src, with what suits PyTorch: weights are rounded once per step and then
are the leaves of the graph, products take dequantised numbers, in bf16 where that is asked for, and what is between
products is left to the compiler to fuse.
"""

import json
import math
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn.functional as F

MASK_32 = (1 << 32) - 1


def signed(number):
    """The number that 64 bits hold."""
    number &= (1 << 64) - 1
    return number - (1 << 64) if number >> 63 else number


class Rng:
    """nanochat_engine::rng::Rng, many at a time."""

    def __init__(self, seed):
        self.state = seed

    def next_u64(self, n):
        golden = 0x9E3779B97F4A7C15
        z = torch.arange(1, n + 1) * signed(golden) + signed(self.state)
        self.state += n * golden
        for shift, factor in [(30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)]:
            z = (z ^ self.shifted(z, shift)) * signed(factor)
        return z ^ self.shifted(z, 31)

    @staticmethod
    def shifted(z, n):
        return (z >> n) & ((1 << (64 - n)) - 1)  # `>>` alone copies the sign

    def below(self, n, limit):
        z = self.next_u64(n)
        low = ((z & MASK_32) * limit) >> 32
        return (self.shifted(z, 32) * limit + low) >> 32

    def normal(self, rows, cols, deviation):
        uniform = self.shifted(self.next_u64(2 * rows * cols), 40).float() / (1 << 24)
        u, v = 1.0 - uniform[0::2], uniform[1::2]
        return ((-2.0 * u.log()).sqrt() * (math.tau * v).cos() * deviation).view(rows, cols)


def initial(shape):
    """Masters with the rows of their parts, or what else they are, in the order of nanochat_train::model::Params."""
    d, ff, kv_dim = shape["d"], shape["ff"], shape["d"] // shape["h"] * shape["kv"]
    rng = Rng(1)
    masters = [(rng.normal(shape["v"], d, 0.02), "embedding"), (torch.ones(d), "norm")]
    into_residual = 1.0 / math.sqrt(2 * shape["l"])
    hidden = [([d, kv_dim, kv_dim], d, 1.0), ([d], d, into_residual), ([ff, ff], d, 1.0), ([d], ff, into_residual)]
    for _ in range(shape["l"]):
        for part_rows, cols, gain in hidden:
            masters.append((torch.ones(cols), "norm"))
            masters.append((rng.normal(sum(part_rows), cols, gain / math.sqrt(cols)), part_rows))
    return masters


def int8_rows(x):
    """Each row to 8 bits by its largest magnitude, and back."""
    scales = x.abs().amax(-1, keepdim=True).clamp(min=1e-12) / 127.0
    return (x / scales).round() * scales


def ternary(w, part_rows):
    """Each part to −γ, 0, γ with γ = mean|w|."""
    parts = []
    for part in w.split(part_rows):
        gamma = part.abs().mean()
        parts.append((part / gamma).round().clamp(-1.0, 1.0) * gamma)
    return torch.cat(parts)


class Model:
    """Loss of a micro-batch, given the leaves in the order of the masters."""

    def __init__(self, shape, setting):
        self.shape, self.eps = shape, setting["norm_eps"]
        self.head_dim = shape["d"] // shape["h"]
        position = torch.arange(setting["seq"], dtype=torch.float64)
        exponent = -2.0 * torch.arange(self.head_dim // 2, dtype=torch.float64) / self.head_dim
        angle = torch.outer(position, setting["rope_theta"] ** exponent)
        self.cos, self.sin = angle.cos().float(), angle.sin().float()
        self.bf16 = setting["precision"] == "bf16"

    def loss(self, leaves, tokens, targets, weight):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            embed, norm_final, *blocks = leaves
            x = F.embedding(tokens, embed)
            for at in range(0, len(blocks), 8):
                norm, qkv, norm_out, o, norm_mlp, gate_up, norm_down, down = blocks[at : at + 8]
                x = x + self.product(self.attention(self.product(x, norm, qkv)), norm_out, o)
                gate, up = self.product(x, norm_mlp, gate_up).chunk(2, -1)
                x = x + self.product(F.silu(gate) * up, norm_down, down)
            logits = self.product(x, norm_final, embed).flatten(0, 1)
            return F.cross_entropy(logits.float(), targets.flatten(), reduction="sum") * weight

    def product(self, x, gain, weights):
        """Norm, int8 with a straight-through gradient, product."""
        x = x.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * gain
        return F.linear(x + (int8_rows(x) - x).detach(), weights)

    def attention(self, qkv):
        n_heads, n_kv = self.shape["h"], self.shape["kv"]
        n_sequences, n_tokens, _ = qkv.shape
        heads = qkv.view(n_sequences, n_tokens, n_heads + 2 * n_kv, self.head_dim).transpose(1, 2)
        low, high = heads[:, : n_heads + n_kv].chunk(2, -1)
        rotated = torch.cat([low * self.cos - high * self.sin, high * self.cos + low * self.sin], -1).to(qkv.dtype)
        q, k, v = rotated[:, :n_heads], rotated[:, n_heads:], heads[:, n_heads + n_kv :]
        k, v = (each.repeat_interleave(n_heads // n_kv, 1) for each in (k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


def muon(w, m, g, part_rows, numbers, dtype):
    """train/src/optim/muon.rs, with Newton–Schulz in `dtype`."""
    lr, beta, decay = numbers["lr"], numbers["beta"], numbers["weight_decay"]
    for w, m, g in zip(w.split(part_rows), m.split(part_rows), g.split(part_rows)):
        m.mul_(beta).add_(g, alpha=1 - beta)
        u = (1 - beta) * g + beta * m
        rows, cols = u.shape
        x = (u / (torch.linalg.vector_norm(u) + 1e-7)).to(dtype)
        x = x.T if rows > cols else x  # the product X·Xᵀ is smaller on the wide side
        for _ in range(numbers["ns_steps"]):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
        x = x.T if rows > cols else x
        w.mul_(1 - lr * decay).sub_(x, alpha=lr * math.sqrt(max(1.0, rows / cols)))


def lion(w, m, g, lr, betas, decay):
    """train/src/optim/lion.rs."""
    sign = (betas[0] * m + (1 - betas[0]) * g).sign()
    w.mul_(1 - lr * decay).sub_(sign, alpha=lr)
    m.mul_(betas[1]).add_(g, alpha=1 - betas[1])


class Trainer:
    """Runs of whole steps, each from the same masters."""

    def __init__(self, setting):
        self.setting, self.shape = setting, setting["shape"]
        compiled = (lambda f: torch.compile(f, fullgraph=True, dynamic=False)) if setting["compile"] else lambda f: f
        self.loss = compiled(Model(self.shape, setting).loss)
        self.muon, self.lion = compiled(muon), compiled(lion)
        self.ternary, self.int8_rows = compiled(ternary), compiled(int8_rows)
        self.dtype = torch.bfloat16 if setting["precision"] == "bf16" else torch.float32
        rng = Rng(1)
        n_tokens, micro = setting["seq"], setting["micro"]
        # A larger micro-batch holds the tokens of several of ours.
        ours = [
            [rng.below(setting["our_micro"] * n_tokens, self.shape["v"]) for _ in range(2)]
            for _ in range(setting["sequences"] // setting["our_micro"])
        ]
        tokens, targets = (torch.cat(each).view(-1, n_tokens).split(micro) for each in zip(*ours))
        self.batches = list(zip(tokens, targets))

    def leaves(self):
        """The masters as a step reads them; the gradient of what is rounded is taken for that of the master."""
        for w, kind in zip(self.masters, self.kinds):
            if kind == "embedding":
                leaf = self.int8_rows(w)
            elif kind == "norm":
                leaf = w.clone()
            else:
                leaf = self.ternary(w, kind)
            yield leaf.requires_grad_()

    def step(self):
        """One step: its mean loss and the seconds of its parts."""
        begin = time.perf_counter()
        with torch.no_grad():
            leaves = list(self.leaves())
        rounded = time.perf_counter()
        weight = 1.0 / (self.setting["sequences"] * self.setting["seq"])
        total = 0.0
        for tokens, targets in self.batches:
            loss = self.loss(leaves, tokens, targets, weight)
            loss.backward()
            total += loss.item()
        taken = time.perf_counter()
        with torch.no_grad():
            self.update([leaf.grad for leaf in leaves])
        return total, {"round": rounded - begin, "gradients": taken - rounded, "optimizer": time.perf_counter() - taken}

    def update(self, gradients):
        optimizer, rate = self.setting["optimizer"], self.setting["rate"]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients))).item()
        if norm > optimizer["clip_norm"]:
            torch._foreach_mul_(gradients, optimizer["clip_norm"] / norm)
        numbers = {**optimizer["muon"], "lr": optimizer["muon"]["lr"] * rate}
        lions = optimizer["lion"]
        betas = lions["beta1"], lions["beta2"]
        for w, m, g, kind in zip(self.masters, self.momenta, gradients, self.kinds):
            if kind == "embedding":
                self.lion(w, m, g, lions["lr"] * rate, betas, lions["weight_decay"])
            elif kind == "norm":
                self.lion(w, m, g, lions["lr_gains"] * rate, betas, 0.0)
            else:
                self.muon(w, m, g, kind, numbers, self.dtype)

    def run(self):
        """Medians of all steps but the first."""
        self.masters, self.kinds = (list(each) for each in zip(*initial(self.shape)))
        self.momenta = [torch.zeros_like(w) for w in self.masters]
        losses, times, cpu_times, parts = [], [], [], []
        for _ in range(1 + self.setting["steps"]):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            loss, part = self.step()
            times.append(time.perf_counter() - begin)
            cpu_times.append(time.process_time() - cpu_begin)
            losses.append(loss)
            parts.append(part)
        n_tokens = self.setting["sequences"] * self.setting["seq"]
        return {
            "tokens_per_s": n_tokens / statistics.median(times[1:]),
            "tokens_per_cpu_s": n_tokens / statistics.median(cpu_times[1:]),
            "peak_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            "parts_ms": {name: 1e3 * statistics.median(part[name] for part in parts[1:]) for name in parts[0]},
            "losses": losses,
        }


def main():
    # What others print must not meet the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setting = json.loads(sys.argv[1])
    torch.set_num_threads(setting["threads"])
    torch.manual_seed(1)
    trainer = Trainer(setting)
    begin = time.perf_counter()
    trainer.run()
    ready = {
        "torch": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "warm_up_s": time.perf_counter() - begin,
    }
    print(json.dumps(ready), file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps(trainer.run()), file=answers, flush=True)


if __name__ == "__main__":
    main()
