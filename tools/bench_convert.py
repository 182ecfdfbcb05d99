#!/usr/bin/env python3
"""Conversion against `cp` and `sync` of the same bytes, and against Python's dcp.save, alternating in one run.

  tools/bench_convert.py [--layers 8] [--rounds 3] [--dsv3 PATH] [--dir FOLDER] [--peer PYTHON] [--check]

Writes a Moonlight-shaped model of random bf16 weights (8 layers: 9.7 GB), converts it to DCP and back, verifies. Each
round also copies the same files with cp and syncs them. With --peer (.deps/peers/bin/python, of tools/setup peers) the same
tensors are read and saved by torch.distributed.checkpoint.save(no_dist=True), which wants them all in memory. Every time ends
with a sync. Prints medians, their ratios, peak memory (at least this script's own, which a child has until its exec); 1 GB
or more of dsv3's is a failure. --check, for a machine that does nothing else: so is a conversion below 0.7 of cp + sync, or a
verify below 1 GB/s for each core.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
H, HEADS, LORA, NOPE, ROPE, V, FFN, MOE, EXPERTS, VOCAB = 2048, 16, 512, 128, 64, 128, 11264, 1408, 64, 163840
CONFIG = {
    "model_type": "deepseek_v3", "vocab_size": VOCAB, "hidden_size": H, "intermediate_size": FFN,
    "moe_intermediate_size": MOE, "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "n_shared_experts": 2,
    "n_routed_experts": EXPERTS, "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "q_lora_rank": None,
    "kv_lora_rank": LORA, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": V,
    "first_k_dense_replace": 1, "routed_scaling_factor": 2.446, "rms_norm_eps": 1e-5, "rope_theta": 50000.0,
    "num_nextn_predict_layers": 0, "tie_word_embeddings": False,
}


def tensors(layers):
    """{name: shape} of every tensor on disk."""
    out = {"model.embed_tokens.weight": [VOCAB, H]}

    def mlp(prefix, width):
        out.update({f"{prefix}.gate_proj.weight": [width, H], f"{prefix}.up_proj.weight": [width, H],
                    f"{prefix}.down_proj.weight": [H, width]})

    for n in range(layers):
        layer = f"model.layers.{n}"
        out |= {f"{layer}.input_layernorm.weight": [H], f"{layer}.post_attention_layernorm.weight": [H],
                f"{layer}.self_attn.q_proj.weight": [HEADS * (NOPE + ROPE), H],
                f"{layer}.self_attn.kv_a_proj_with_mqa.weight": [LORA + ROPE, H],
                f"{layer}.self_attn.kv_a_layernorm.weight": [LORA],
                f"{layer}.self_attn.kv_b_proj.weight": [HEADS * (NOPE + V), LORA],
                f"{layer}.self_attn.o_proj.weight": [H, HEADS * V]}
        if n == 0:
            mlp(f"{layer}.mlp", FFN)
            continue
        out[f"{layer}.mlp.gate.weight"] = [EXPERTS, H]
        out[f"{layer}.mlp.gate.e_score_correction_bias"] = [EXPERTS]
        mlp(f"{layer}.mlp.shared_experts", 2 * MOE)
        for expert in range(EXPERTS):
            mlp(f"{layer}.mlp.experts.{expert}", MOE)
    return out | {"model.norm.weight": [H], "lm_head.weight": [VOCAB, H]}


def size_of(name, shape):
    count = 1
    for dim in shape:
        count *= dim
    return count * (4 if name.endswith("correction_bias") else 2)


def write_model(folder, layers):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_hidden_layers": layers}))
    noise = random.Random(0).randbytes(64 << 20)
    shards, size = [[]], 0
    for name, shape in tensors(layers).items():
        if size > 4 << 30:
            shards.append([])
            size = 0
        shards[-1].append((name, shape))
        size += size_of(name, shape)
    weight_map, total = {}, 0
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        shard.sort(key=lambda item: not item[0].endswith("correction_bias"))  # fp32 first: aligned
        header, at = {}, 0
        for name, shape in shard:
            dtype = "F32" if name.endswith("correction_bias") else "BF16"
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size_of(name, shape)]}
            at += size_of(name, shape)
            weight_map[name] = file
        total += at
        text = json.dumps(header).encode()
        with open(folder / file, "wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for begin in range(0, at, len(noise)):
                out.write(noise[: min(len(noise), at - begin)])
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return total


# Prints the seconds of reading and saving, and of the save alone: all tensors are in memory before it begins.
DCP_SAVE = """
import json, os, pathlib, struct, sys, time
import torch
import torch.distributed.checkpoint as dcp
begin, tensors = time.monotonic(), {}
for path in pathlib.Path(sys.argv[1]).glob("*.safetensors"):
    with open(path, "rb") as file:
        size, = struct.unpack("<Q", file.read(8))
        for name, info in json.loads(file.read(size)).items():
            tensors[name] = torch.empty(info["shape"], dtype={"BF16": torch.bfloat16, "F32": torch.float32}[info["dtype"]])
            file.seek(8 + size + info["data_offsets"][0])
            file.readinto(tensors[name].flatten().view(torch.uint8).numpy())
start = time.monotonic()
dcp.save(tensors, checkpoint_id=sys.argv[2], no_dist=True)
os.sync()
print(time.monotonic() - begin, time.monotonic() - start)
"""


class Bench:
    """Runs commands, keeps their seconds and peak memory by name."""

    def __init__(self):
        self.seconds, self.peak = {}, {}

    def run(self, name, *command):
        """What the command said. With what it wrote on disk."""
        start = time.monotonic()
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, text=True)
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{name}: code {process.returncode}")
        os.sync()
        self.keep(name, time.monotonic() - start, usage.ru_maxrss * 1024)
        return said

    def keep(self, name, seconds, peak):
        self.seconds.setdefault(name, []).append(seconds)
        self.peak[name] = max(self.peak.get(name, 0), peak)

    def median(self, name):
        return statistics.median(self.seconds[name])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--dir")
    parser.add_argument("--peer")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    dsv3, bench = arguments.dsv3, Bench()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as aside:
        aside = Path(aside)
        total = write_model(aside / "hf", arguments.layers)
        os.sync()

        def alone_in_memory(source):
            """Everybody begins with their source in the page cache and nothing else of ours."""
            for path in (path for path in aside.rglob("*") if path.is_file()):
                with open(path, "rb") as file:
                    if path.is_relative_to(source):
                        while file.read(1 << 17):
                            pass
                    else:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

        def timed(name, source, target, *command):
            alone_in_memory(source)
            said = bench.run(name, *command, source, target)
            shutil.rmtree(target)
            return said

        def copy():
            timed("cp + sync", aside / "hf", aside / "copy", "cp", "-r")

        def ours():
            timed("to DCP", aside / "hf", aside / "dcp", dsv3, "convert")

        def copy_back():
            timed("cp + sync of DCP", aside / "dcp", aside / "copy", "cp", "-r")

        def ours_back():
            alone_in_memory(aside / "dcp")
            bench.run("verify", dsv3, "ckpt", "verify", aside / "dcp")
            timed("to HF", aside / "dcp", aside / "back", dsv3, "convert")

        def peer():
            said = timed("Python", aside / "hf", aside / "dcp", arguments.peer, "-W", "ignore", "-c", DCP_SAVE)
            for name, seconds in zip(("read and dcp.save", "dcp.save alone"), said.split()):
                bench.keep(name, float(seconds), bench.peak["Python"])

        # Each comes first in turn: what the one before left in memory is the next one's luck.
        def alternate(turns):
            for turn in range(arguments.rounds):
                for run in turns[turn % len(turns):] + turns[:turn % len(turns)]:
                    run()

        alternate([copy, ours] + ([peer] if arguments.peer else []))
        subprocess.run([dsv3, "convert", aside / "hf", aside / "dcp"], check=True, stdout=subprocess.DEVNULL)
        alternate([copy_back, ours_back])
    print(f"{total / 1e9:.2f} GB")
    copies = {"to HF": "cp + sync of DCP"}  # of the bytes that are read; "cp + sync" else
    ratio = {name: bench.median(copies.get(name, "cp + sync")) / bench.median(name) for name in bench.seconds}
    for name in bench.seconds:
        print(f"{name}: {total / 1e9 / bench.median(name):.2f} GB/s, {ratio[name]:.2f} of {copies.get(name, 'cp + sync')}, "
              f"peak memory {bench.peak[name] / 1e6:.0f} MB")
    ours = ("to DCP", "to HF", "verify")
    slow = [name for name in ours[:2] if ratio[name] < 0.7]
    slow += ["verify"] * (total / 1e9 / bench.median("verify") < len(os.sched_getaffinity(0)))
    if arguments.check and slow:
        print(f"too slow: {', '.join(slow)}")
    sys.exit(1 if max(bench.peak[name] for name in ours) >= 1e9 or (arguments.check and slow) else 0)


if __name__ == "__main__":
    main()
