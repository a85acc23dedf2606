#!/usr/bin/env python3
"""Asks a real llama.cpp server on the same holes: a tiny model with random weights, served by llama-cpp-python.

Shows that `--system` and a server of others understand each other; the answers are noise. Run by hand:

    python3 eval/peers/llama_cpp.py [path/to/cargo-nanochat] [-- flags of eval]

The first run installs llama-cpp-python (which builds llama.cpp), gguf and numpy into a virtual environment in
target/peers; PEERS_PYTHON names a Python that has them already. Everything else is in a temporary folder.
"""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["llama-cpp-python[server]", "gguf", "numpy"]
# Qwen2.5-Coder's, so that --fim is told by the model's name.
SPECIALS = ["<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>"]


def python_with_packages() -> str:
    given = os.environ.get("PEERS_PYTHON")
    if given:
        return given
    folder = REPOSITORY / "target" / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return str(python)


def byte_letters() -> list[str]:
    """GPT-2's letter for each byte: printable ones stand for themselves, the others for what follows U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, n_others = {}, 0
    for byte in range(256):
        if byte in plain:
            letters[byte] = chr(byte)
        else:
            letters[byte] = chr(0x100 + n_others)
            n_others += 1
    return [letters[byte] for byte in range(256)]


def write_model(path: str, with_specials: bool) -> None:
    """A llama of two layers over bytes. Seeded: the same file each time."""
    import gguf
    import numpy

    d, n_layers, n_heads, d_ff, context = 64, 2, 4, 128, 2048
    letters = byte_letters()
    specials = SPECIALS if with_specials else SPECIALS[:1]
    tokens = letters + specials
    draw = numpy.random.default_rng(20261123)
    normal = lambda *shape: draw.normal(0, 0.05, shape).astype(numpy.float32)

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Qwen2.5-Coder-random")
    writer.add_context_length(context)
    writer.add_embedding_length(d)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(d_ff)
    writer.add_head_count(n_heads)
    writer.add_head_count_kv(n_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(d // n_heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.NORMAL] * len(letters) + [gguf.TokenType.CONTROL] * len(specials)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{letters[0x20]} {letters[0x20]}"])  # llama.cpp wants at least one
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(256)
    writer.add_add_bos_token(False)

    writer.add_tensor("token_embd.weight", normal(len(tokens), d))
    for i in range(n_layers):
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"]:
            writer.add_tensor(f"blk.{i}.{name}.weight", normal(d, d))
        writer.add_tensor(f"blk.{i}.ffn_gate.weight", normal(d_ff, d))
        writer.add_tensor(f"blk.{i}.ffn_up.weight", normal(d_ff, d))
        writer.add_tensor(f"blk.{i}.ffn_down.weight", normal(d, d_ff))
        for name in ["attn_norm", "ffn_norm"]:
            writer.add_tensor(f"blk.{i}.{name}.weight", numpy.ones(d, numpy.float32))
    writer.add_tensor("output_norm.weight", numpy.ones(d, numpy.float32))
    writer.add_tensor("output.weight", normal(len(tokens), d))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(python: str, model: str, folder: str) -> tuple[subprocess.Popen, str]:
    port = free_port()
    log = open(os.path.join(folder, "server.log"), "w")
    flags = ["--model", model, "--n_ctx", "2048", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen([python, "-m", "llama_cpp.server", *flags], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    for _ in range(120):
        if server.poll() is not None:
            sys.exit(f"the server ended: {open(log.name).read()[-2000:]}")
        try:
            urllib.request.urlopen(f"{url}/v1/models", timeout=2).read()
            return server, url
        except OSError:
            time.sleep(0.5)
    server.kill()
    sys.exit("the server does not answer")


def main() -> None:
    own, flags = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, flags = own[:at], own[at + 1 :]
    if own[:1] == ["--write-model"]:
        write_model(own[1], own[2] == "fim")
        return
    binary = own[0] if own else str(REPOSITORY / "target" / "release" / "cargo-nanochat")
    python = python_with_packages()
    flags = flags or ["--suite", "develop", "--crate", "humantime", "--holes", "12", "--without-model"]
    with tempfile.TemporaryDirectory() as folder:
        for kind, expected in [("fim", 0), ("plain", 3)]:
            model = os.path.join(folder, f"qwen2.5-coder-random-{kind}.gguf")
            subprocess.run([python, __file__, "--write-model", model, kind], check=True)
            server, url = serve(python, model, folder)
            try:
                command = [binary, "eval", *flags, "--system", url]
                print("$", " ".join(command), flush=True)
                code = subprocess.run(command).returncode
            finally:
                server.terminate()
                server.wait()
            if code != expected:
                sys.exit(f"exit code {code}, not {expected}")
    print("the server's answers were judged, and a model without the special tokens was refused")


if __name__ == "__main__":
    main()
