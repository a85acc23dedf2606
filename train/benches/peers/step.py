#!/usr/bin/env python3
"""A training step compared with PyTorch's and candle's, interleaved in one run on the same cores.

    python3 train/benches/peers/step.py [SHAPE ...] [--threads 2] [--peers torch,candle] [--eager] [--fp32] [--micro 2,8]

The architecture, masters, tokens, optimizers and tokens per step of train/benches/step.rs, in PyTorch compiled under bf16
autocast (torch_step.py says how) and, if asked for, eager, in f32, and with larger micro-batches; and in candle as it is
(train/benches/candle.rs). After a warm-up, each round makes one run of ours and one of each peer, each a median of whole
steps; a busy machine slows all. Medians of the rounds are compared. A peer whose loss goes another way than ours is
refused.

bf16 is not the faster everywhere: compared with f32, Zen 4's product makes twice as much in it, that of an Intel Xeon with
avx512_bf16 and without AMX half as much. So the fastest peer may need --fp32 to be found.

The first run installs PyPI's torch, which brings some gigabytes of CUDA, into a virtual environment in target/peers;
PEERS_PYTHON names a Python that has it already. Compiling needs g++. Linux keeps the processes on their cores; Python 3.11.
Prints one JSON object per shape.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tomllib

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
SHAPES = ["d256 l5 h4 kv1 ff768 v8192 n1", "d384 l9 h6 kv2 ff1152 v8192 n1"]
RATE = 0.1  # as in train/benches/common
# In nats, of the first and the last step's loss. bf16 and f32 were seen 2e-4 apart where three steps had won 0.12.
TOLERANCE = 0.005


def python_with_torch():
    given = os.environ.get("PEERS_PYTHON")
    if given:
        return given
    folder = REPOSITORY / "target" / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", "torch"], check=True)
    return str(python)


def build(names):
    """Paths of our benchmarks."""
    command = ["cargo", "bench", "-p", "nanochat-train", "--no-run", "--message-format=json-render-diagnostics"]
    for name in names:
        command += ["--bench", name]
    built = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
    found = {
        message["target"]["name"]: message["executable"]
        for message in messages
        if message["reason"] == "compiler-artifact" and "bench" in message["target"]["kind"]
    }
    return {name: found[name] for name in names}


class Bench:
    """A benchmark in Rust: a process for each run."""

    def __init__(self, binary, shape, args):
        flags = {"threads": args.threads, "seq": args.seq, "sequences": args.sequences, "steps": args.steps}
        flags["micro"] = args.micro[0]
        self.command = [binary, "--bench", shape, "--json"]
        for name, value in flags.items():
            self.command += [f"--{name}", str(value)]

    def run(self):
        return json.loads(subprocess.run(self.command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    def end(self):
        pass


class Torch:
    """A warm process that makes a run when it is told to."""

    def __init__(self, python, setting):
        threads = str(setting["threads"])
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
            # glibc keeps its pages: faster, and what our own allocator does.
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
        }
        worker = pathlib.Path(__file__).with_name("torch_step.py")
        self.process = subprocess.Popen(
            [python, str(worker), json.dumps(setting)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"PyTorch's process ended with {self.process.wait()}")
        return json.loads(line)

    def run(self):
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def torch_settings(shape, args):
    """What PyTorch is run with, by what it is called in the report."""
    recipe = tomllib.loads((REPOSITORY / "train" / "recipes" / "adapt.toml").read_text())
    for compiled in [True, False] if args.eager else [True]:
        for precision in ["bf16", "fp32"] if args.fp32 or not compiled else ["bf16"]:
            for micro in args.micro:
                label = f"torch {'compiled' if compiled else 'eager'} {precision}, micro-batches of {micro}"
                yield label, {
                    "shape": {key: int(value) for key, value in re.findall(r"([a-z]+)(\d+)", shape)},
                    "compile": compiled,
                    "precision": precision,
                    "micro": micro,
                    "our_micro": args.micro[0],
                    "threads": args.threads,
                    "seq": args.seq,
                    "sequences": args.sequences,
                    "steps": args.steps,
                    "rate": RATE,
                    "norm_eps": recipe["model"]["norm_eps"],
                    "rope_theta": recipe["model"]["rope_theta"],
                    "optimizer": recipe["optimizer"],
                }


def medians(runs):
    """Of each figure, together with the tokens/s of every run."""
    figures = ["tokens_per_s", "tokens_per_cpu_s", "peak_kib"]
    report = {figure: round(statistics.median(run[figure] for run in runs), 1) for figure in figures}
    report["parts_ms"] = {
        name: round(statistics.median(run["parts_ms"][name] for run in runs), 1) for name in runs[0]["parts_ms"]
    }
    report["rounds"] = [round(run["tokens_per_s"], 1) for run in runs]
    report["loss"] = [round(runs[0]["losses"][at], 5) for at in (0, -1)]
    return report


def measure(shape, args, benches, python):
    contestants = {"nanochat": Bench(benches["step"], shape, args)} if "step" in benches else {}
    if "candle" in benches:
        contestants["candle"] = Bench(benches["candle"], shape, args)
    versions = {}
    try:
        if python:
            for label, setting in torch_settings(shape, args):
                print(f"{shape}: {label}: warming up", file=sys.stderr)
                contestants[label] = Torch(python, setting)
                versions = {key: contestants[label].ready[key] for key in ("torch", "cpu_capability")}
        runs = {label: [] for label in contestants}
        for round_idx in range(args.rounds):
            for label, contestant in contestants.items():
                runs[label].append(contestant.run())
                rate = runs[label][-1]["tokens_per_s"]
                print(f"{shape}: round {round_idx + 1}: {label}: {rate:.0f} tokens/s", file=sys.stderr)
    finally:
        for contestant in contestants.values():
            contestant.end()
    report = {
        "shape": shape,
        "threads": args.threads,
        "tokens_per_step": args.sequences * args.seq,
        **versions,
        **{label: medians(of_label) for label, of_label in runs.items()},
    }
    if "nanochat" in report:
        expected = report["nanochat"]["loss"]
        for label in runs:
            found = report[label]["loss"]
            if any(abs(a - b) > TOLERANCE for a, b in zip(found, expected)):
                sys.exit(f"{label} has the losses {found} where ours are {expected}: not the same model")
        # Above 1: ours makes so many times the tokens.
        rates = {label: report[label]["tokens_per_s"] for label in runs}
        ours = rates.pop("nanochat")
        report["ratio"] = {label: round(ours / theirs, 3) for label, theirs in rates.items()}
    print(json.dumps(report), flush=True)


def listed(kind):
    return lambda text: [kind(item) for item in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    parser.add_argument("--peers", type=listed(str), default=["torch"], help="torch, candle, or both with a comma")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="timed steps of a run")
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--sequences", type=int, default=16, help="of a step")
    parser.add_argument("--micro", type=listed(int), default=[2], help="sequences taken together; PyTorch tries each")
    parser.add_argument("--eager", action="store_true", help="also PyTorch as it is without compiling, bf16 and f32")
    parser.add_argument("--fp32", action="store_true", help="also PyTorch compiled in f32")
    parser.add_argument("--alone", action="store_true", help="only PyTorch: nothing is built or run in Rust")
    args = parser.parse_args()
    if unknown := set(args.peers) - {"torch", "candle"}:
        parser.error(f"unknown peer: {', '.join(unknown)}")
    if any(args.sequences % micro for micro in args.micro):
        parser.error("--micro divides --sequences")
    python = python_with_torch() if "torch" in args.peers else None
    benches = {} if args.alone else build(["step", *(["candle"] if "candle" in args.peers else [])])
    # All that is started from here on shares these cores. The first one serves most interrupts.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])
    for shape in args.shapes:
        measure(shape, args, benches, python)


if __name__ == "__main__":
    main()
