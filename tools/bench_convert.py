#!/usr/bin/env python3
"""Conversion against `cp` and `sync` of the same bytes, alternating in one run.

  tools/bench_convert.py [--layers 8] [--rounds 3] [--dsv3 PATH] [--dir FOLDER] [--check]

Writes a Moonlight-shaped model of random bf16 weights (8 layers: 8.8 GB), converts it to DCP and back, verifies. Each
round also copies the same files with cp and syncs them. Prints medians, their ratios, and the peak memory of dsv3;
1 GB or more of it is a failure. --check, for a machine that does nothing else: so is a conversion below 0.7 of cp + sync,
or a verify below 1 GB/s for each core.
"""

import argparse
import json
import os
import random
import resource
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


def timed(*command):
    """Seconds of a command, with what it wrote on disk."""
    start = time.monotonic()
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    os.sync()
    return time.monotonic() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--dir")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as aside:
        aside = Path(aside)
        total = write_model(aside / "hf", arguments.layers)
        os.sync()
        seconds = {"cp": [], "to DCP": [], "to HF": [], "verify": []}
        for _ in range(arguments.rounds):
            seconds["cp"].append(timed("cp", "-r", aside / "hf", aside / "copy"))
            shutil.rmtree(aside / "copy")
            seconds["to DCP"].append(timed(arguments.dsv3, "convert", aside / "hf", aside / "dcp"))
            seconds["verify"].append(timed(arguments.dsv3, "ckpt", "verify", aside / "dcp"))
            seconds["to HF"].append(timed(arguments.dsv3, "convert", aside / "dcp", aside / "back"))
            for name in ("dcp", "back"):
                shutil.rmtree(aside / name)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    copy = statistics.median(seconds["cp"])
    print(f"{total / 1e9:.2f} GB; cp + sync {total / 1e9 / copy:.2f} GB/s")
    slow = []
    for name in ("to DCP", "to HF", "verify"):
        middle = statistics.median(seconds[name])
        rate, ratio = total / 1e9 / middle, copy / middle
        print(f"{name}: {rate:.2f} GB/s, {ratio:.2f} of cp + sync")
        if rate < len(os.sched_getaffinity(0)) if name == "verify" else ratio < 0.7:
            slow.append(name)
    print(f"peak memory of any of them: {peak / 1e6:.0f} MB")
    if arguments.check and slow:
        print(f"too slow: {', '.join(slow)}")
    sys.exit(1 if peak >= 1e9 or (arguments.check and slow) else 0)


if __name__ == "__main__":
    main()
