"""Time a decoder's ranking of a query's titles: the query computed once, whole pairs, and peers, in turns.

python -m benchmarks.decoders [--titles 100] [--tokens 64] [--threads 1] [--peer_python PYTHON]
python -m benchmarks.decoders --systems exported_bf16,transformers_bf16,openvino_bf16 --peer_python PYTHON

The folder has the sizes of Qwen3-Reranker-0.6B and random weights in bfloat16. Every system runs in a separate process,
in float32 unless its name ends with `_bf16`. All systems score the same pairs, which are encoded beforehand; the logits
are compared first. `benchmarks/peers/decoder_worker.py` describes the systems. With a single thread, times are
processor times, which other processes change less than clock times. The ratios are geometric means over rounds, with
95% t intervals. Memory is the largest resident size of a process, its libraries included. All systems are in memory at
once, and the peers convert their models there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.harness.report import Goal, format_table, ratio
from benchmarks.harness.workers import Worker, Workers, missing_packages, process_environment
from benchmarks.inputs import ROOT
from paddle_ranker.options import Options, main_of, option

AHEAD, MEMORY = 1.3, 1.3  # of the fastest peer; times the weights in float32
OURS, PEERS = ("shared", "whole", "exported"), ("transformers", "onnxruntime", "openvino")
_TOLERANCE, _HALF_TOLERANCE = 1e-3, 0.1  # of logits, in float32 and in bfloat16
_WORDS = 150_000
_HEAD = 128


@dataclass(frozen=True)
class DecodersOptions(Options):
    titles: int = option(100, help="titles of the query", minimum=2)
    tokens: int = option(64, help="tokens of a title", minimum=1)
    query_tokens: int = option(12, help="tokens of the query", minimum=1)
    layers: int = option(28, help="layers", minimum=1)
    width: int = option(1024, help="width of the states, a multiple of 64", minimum=64)
    threads: int = option(1, help="threads of each system", minimum=1)
    rounds: int = option(3, help="rounds", minimum=2)
    systems: str = option(",".join((*OURS, *PEERS)), help="systems, separated by commas; the first is the reference")
    peer_python: str = option(sys.executable, help="Python interpreter of an environment with the peers")


def run(options: DecodersOptions) -> None:
    names = options.systems.split(",")
    peers = [name for name in names if name.partition("_")[0] in PEERS]
    needed = {"torch", "transformers", *(name.partition("_")[0] for name in peers)}
    lacking = missing_packages(options.peer_python, sorted(needed)) if peers else set()
    if lacking:
        print(f"not installed, so left out: {', '.join(peers)} (without {', '.join(sorted(lacking))})")
    systems = [name for name in names if not lacking or name not in peers]
    with tempfile.TemporaryDirectory() as temporary, Workers() as workers:
        folder = Path(temporary)
        megabytes = write_folder(folder, options) / 2**20
        draw = np.random.default_rng(2)
        query, *titles = (
            " ".join(f"w{number}" for number in draw.integers(0, _WORDS, count).tolist())
            for count in (options.query_tokens, *[options.tokens] * options.titles)
        )
        (folder / "pairs.json").write_text(json.dumps([query, titles]), encoding="utf-8")
        speeds: dict[str, list[float]] = {}
        logits, memory = {}, {}
        program = str(ROOT / "benchmarks/peers/decoder_worker.py")
        if any(system.startswith("exported") for system in systems):
            subprocess.run(
                [sys.executable, program, "export", str(folder)], check=True, env=process_environment(options.threads)
            )
        for system in systems:
            python = options.peer_python if system in peers else sys.executable
            command = [python, program, system, str(folder)]
            worker = Worker(system, command, options.threads, folder / f"{system}.log", hint="look into its log")
            logits[system] = workers.add(worker)["ready"]
            tolerance = _HALF_TOLERANCE if "bf16" in options.systems else _TOLERANCE
            np.testing.assert_allclose(logits[system], logits[systems[0]], atol=tolerance, err_msg=system)
        for _ in range(options.rounds):
            for system, answer in workers.take_turns(lambda _: "1"):
                seconds = answer["cpu_seconds" if options.threads == 1 else "seconds"]
                speeds.setdefault(system, []).append(1 / seconds)
                memory[system] = answer["megabytes"]
    rows = []
    for system in systems:
        times = ratio(speeds[system], speeds[systems[0]])
        milliseconds = 1000 / statistics.median(speeds[system])
        rows.append([system, f"{milliseconds:,.0f}", f"{times:.2f}", f"{memory[system]:,.0f}"])
    shown = f"{options.titles} titles of {options.tokens} tokens, {options.threads} threads"
    print(f"{shown}; weights {megabytes:,.0f} MiB")
    print(format_table(["system", "ms", f"times as fast as {systems[0]}", "MiB"], rows))
    if "shared" in systems:
        print(Goal("memory, times the weights", memory["shared"] / megabytes, MEMORY, at_most=True))
    measured_peers = [system for system in systems if system in peers]
    if measured_peers:
        fastest = max(measured_peers, key=lambda system: statistics.median(speeds[system]))
        for system in systems:
            if system not in peers:
                times = ratio(speeds[system], speeds[fastest])
                shown = f"{system}, times as fast as {fastest} [{times.low:.2f}, {times.high:.2f}]"
                print(Goal(shown, times.estimate, AHEAD))


def write_folder(folder: Path, options: DecodersOptions) -> int:
    """Write a folder of transformers with random weights in bfloat16; return the bytes of the weights in float32."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    words = [*special, "yes", "no", *(f"w{number}" for number in range(_WORDS))]
    library = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="no"))
    library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    library.add_special_tokens([AddedToken(token, special=True) for token in special])
    library.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": special[0], "eos_token": special[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    width, heads = options.width, options.width // 64
    shared, inner, rows = max(1, heads // 2), 3 * width, len(words)
    config = {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": rows, "hidden_size": width,
        "num_hidden_layers": options.layers, "num_attention_heads": heads, "num_key_value_heads": shared,
        "head_dim": _HEAD, "intermediate_size": inner, "max_position_embeddings": 40960, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000, "tie_word_embeddings": True, "torch_dtype": "bfloat16", "pad_token_id": 0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shapes = {"embed_tokens": [rows, width], "norm": [width]}
    for number in range(options.layers):
        for name, shape in (
            ("input_layernorm", [width]), ("post_attention_layernorm", [width]), ("self_attn.q_norm", [_HEAD]),
            ("self_attn.k_norm", [_HEAD]), ("self_attn.q_proj", [heads * _HEAD, width]),
            ("self_attn.k_proj", [shared * _HEAD, width]), ("self_attn.v_proj", [shared * _HEAD, width]),
            ("self_attn.o_proj", [width, heads * _HEAD]), ("mlp.gate_proj", [inner, width]),
            ("mlp.up_proj", [inner, width]), ("mlp.down_proj", [width, inner]),
        ):  # fmt: skip
            shapes[f"layers.{number}.{name}"] = shape
    header, place = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[f"model.{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text, draw = json.dumps(header).encode("utf-8"), np.random.default_rng(1)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for shape in shapes.values():
            values = draw.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
            values = values + 1 if len(shape) == 1 else values
            stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return 2 * place


main = main_of(run, DecodersOptions, (__doc__ or "").split("\n")[0], prog="benchmarks.decoders")


if __name__ == "__main__":
    raise SystemExit(main())
