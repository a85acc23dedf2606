#!/usr/bin/env python3
"""Decoding beside llama.cpp: the same shapes with random weights, in TQ2_0, interleaved with our own.

    python3 -m venv peers && peers/bin/pip install llama-cpp-python gguf
    peers/bin/python engine/benches/peers/decode.py target/release/cargo-nanochat [--threads 2] [--rounds 5] [SHAPE...]

Each round times llama.cpp and then `cargo nanochat bench`, so a busy machine slows both. Medians are compared. The ternary
matrices are TQ2_0; the tied embedding is Q8_0, eight bits as ours, or Q4_0. llama.cpp also runs on one thread, which on a
small model is often faster than two; the fastest of its runs is the one compared.
Prints one JSON object per shape. llama.cpp has no norm before the attention output and the down projection, which ours has.
"""

import argparse
import ctypes
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

CONTEXT = 512
N_DECODED = 64
SHAPES = ["d512l6h8kv2ff1536v12288n1", "d768l16h12kv3ff2048v16384n1"]


def write_gguf(path, shape, head):
    """A llama-architecture model of this shape with random weights."""
    d, layers, heads, kv, ff, vocab = (shape[key] for key in ("d", "l", "h", "kv", "ff", "v"))
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(2048)
    writer.add_embedding_length(d)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_rope_dimension_count(d // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("none")

    def add(name, rows, cols, kind):
        weights = random.standard_normal((rows, cols), dtype=np.float32) / np.sqrt(cols)
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)

    def norm(name, width):
        writer.add_tensor(name, np.ones(width, dtype=np.float32))

    ternary = gguf.GGMLQuantizationType.TQ2_0
    add("token_embd.weight", vocab, d, gguf.GGMLQuantizationType[head])
    norm("output_norm.weight", d)
    for layer in range(layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight", d)
        add(block + "attn_q.weight", d, d, ternary)
        add(block + "attn_k.weight", d // heads * kv, d, ternary)
        add(block + "attn_v.weight", d // heads * kv, d, ternary)
        add(block + "attn_output.weight", d, d, ternary)
        norm(block + "ffn_norm.weight", d)
        add(block + "ffn_gate.weight", ff, d, ternary)
        add(block + "ffn_up.weight", ff, d, ternary)
        add(block + "ffn_down.weight", d, ff, ternary)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """One loaded model and its context."""

    def __init__(self, path, threads):
        params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = 2048, CONTEXT, CONTEXT
        params.n_threads = params.n_threads_batch = threads
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            sys.exit("llama.cpp cannot load the model")

    def eval(self, tokens):
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        batch = llama_cpp.llama_batch_get_one(array, len(tokens))
        if llama_cpp.llama_decode(self.context, batch):
            sys.exit("llama.cpp cannot decode")
        llama_cpp.llama_synchronize(self.context)

    def measure(self):
        """Prompt and decode tokens/s after 512 tokens, ms of 16 more tokens + 24 decoded, and of all 528 + 24."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        start = time.perf_counter()
        self.eval([300 + i for i in range(CONTEXT)])
        prompt = time.perf_counter() - start
        start = time.perf_counter()
        self.eval([1000 + i for i in range(16)])
        for i in range(24):
            self.eval([2000 + i])
        cached = time.perf_counter() - start
        start = time.perf_counter()
        for i in range(N_DECODED):
            self.eval([3000 + i])
        decode = time.perf_counter() - start
        return {
            "prompt_tokens_per_s": CONTEXT / prompt,
            "decode_tokens_per_s": N_DECODED / decode,
            "completion_ms_cached": cached * 1e3,
            "completion_ms_cold": (prompt + cached) * 1e3,
        }


def ours(binary, shape, threads):
    command = [binary, "bench", "--shape", shape, "--threads", str(threads), "--message-format", "json", "--quiet"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="a release build of cargo-nanochat")
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    print(llama_cpp.llama_print_system_info().decode(), file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.shapes:
            shape = {key: int(value) for key, value in re.findall(r"([a-z]+)(\d+)", name)}
            peers = {}
            for head in ("Q8_0", "Q4_0"):
                path = Path(folder) / f"{name}-{head}.gguf"
                write_gguf(path, shape, head)
                for threads in sorted({1, args.threads}):
                    peer = peers[f"{head}, {threads} threads"] = LlamaCpp(path, threads)
                    peer.measure()
            runs = {"ours": [], **{peer: [] for peer in peers}}
            for _ in range(args.rounds):
                for label, peer in peers.items():
                    runs[label].append(peer.measure())
                runs["ours"].append(ours(args.binary, name, args.threads))
            theirs = {label: medians(runs[label]) for label in peers}
            figures = list(next(iter(theirs.values())))
            mine = medians([{figure: run[figure] for figure in figures} for run in runs["ours"]])
            best = {
                figure: (max if figure.endswith("per_s") else min)(run[figure] for run in theirs.values())
                for figure in figures
            }
            # Above 1: ours is so many times faster.
            ratios = {
                figure: mine[figure] / best[figure] if figure.endswith("per_s") else best[figure] / mine[figure]
                for figure in figures
            }
            report = {"shape": name, "threads": args.threads, "nanochat": mine, "llama_cpp": theirs, "ratio": ratios}
            rounded = json.loads(json.dumps(report), parse_float=lambda number: round(float(number), 3))
            print(json.dumps(rounded), flush=True)


if __name__ == "__main__":
    main()
