#!/usr/bin/env python3
"""What a training step moves between ranks, from config.json and the layout alone, held against what a run counted.

  bytes.py RUN [WORLD]      RUN/run.toml, RUN/hf/config.json and the "comm" of every step of RUN/metrics.jsonl;
                            WORLD: number of ranks, needed when parallel.shard is 0

Shares no code with dsv3. Bytes are payload summed over all ranks (the whole buffer of a call on each of them), calls are
one rank's. Exit 1 when a step differs. Assumes that every rank has train.micro_batch sequences in every micro-batch,
unless the batch is smaller.
"""

import json
import sys
import tomllib
from pathlib import Path

ALIGN = 32  # elements between parameters of a flat buffer; a buffer is a multiple of ALIGN x ranks
WIDE = {"bf16": 4, "fp32": 4, "fp64": 8}
NARROW = {"bf16": 2, "fp32": 4, "fp64": 8}


def block(c, layer):
    """(numbers of elements of the dense parameters, of the routed experts' parameters)."""
    h, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, v, kv, q = (c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"], c["kv_lora_rank"],
                            c.get("q_lora_rank"))
    bias = c.get("attention_bias", False)
    dense = [h, h]  # the two norms
    dense += [q * h, q, heads * (nope + rope) * q] + [q] * bias if q else [heads * (nope + rope) * h]
    dense += [(kv + rope) * h, kv, heads * (nope + v) * kv, h * heads * v] + [kv + rope, h] * bias
    mtp = layer >= c["num_hidden_layers"]
    moe = mtp or (layer >= c["first_k_dense_replace"] and layer % c.get("moe_layer_freq", 1) == 0)
    experts = []
    if moe:
        e, i = c["n_routed_experts"], c["moe_intermediate_size"]
        dense += [e * h] + [h * i * c["n_shared_experts"]] * 3
        experts = [e * 2 * i * h, e * h * i]
    else:
        dense += [h * c["intermediate_size"]] * 3
    if mtp:
        dense += [h, h, h, 2 * h * h]  # enorm, hnorm, shared_head.norm, eh_proj
    return dense, experts, moe


def buffer(sizes, parts, ranks):
    """Elements of the flat buffer of parameters of which a rank holds 1 / parts, sharded over ranks."""
    total = 0
    for size in sizes:
        total += -(-(size // parts) // ALIGN) * ALIGN
    return -(-total // (ALIGN * ranks)) * ALIGN * ranks


class Count:
    def __init__(self):
        self.calls = {}
        self.bytes = {}

    def add(self, group, ranks, calls, payload, times=1):
        """ranks: of the group; payload: of one call, of all ranks of the world together."""
        if ranks > 1:
            self.calls[group] = self.calls.get(group, 0) + calls * times
            self.bytes[group] = self.bytes.get(group, 0) + payload * times


def step(run, c, world):
    parallel, train = run["parallel"], run["train"]
    replicate, ep = parallel["replicate"], parallel["ep"]
    shard = world // replicate
    wide, narrow = WIDE[train["dtype"]], NARROW[train["dtype"]]
    depth = c.get("num_nextn_predict_layers", 0)
    layers = c["num_hidden_layers"] + depth
    batch = train["global_batch"]
    micros = -(-(-(-batch // world)) // train["micro_batch"])
    positions = batch * run["data"]["seq_len"]  # of all ranks and micro-batches
    count = Count()

    moe_layers = 0
    units = [([c["vocab_size"] * c["hidden_size"]], [], False)]
    units += [(*block(c, layer)[:2], True) for layer in range(layers)]
    head = [c["hidden_size"]] + ([] if c.get("tie_word_embeddings") else [c["vocab_size"] * c["hidden_size"]])
    units.append((head, [], False))
    for dense, experts, is_block in units:
        for group, ranks, sizes, parts in (("data", shard, dense, 1), ("expert_data", shard // ep, experts, ep)):
            if not sizes:
                continue
            size = buffer(sizes, parts, ranks)
            gathers = micros
            if is_block:
                gathers = {"after_forward": 2 * micros, "after_backward": micros, "never": 1}[parallel["reshard"]]
            reduces = micros if parallel["accumulate"] == "sharded" else 1
            count.add(group, ranks, 1, size * narrow * world, gathers)
            count.add(group, ranks, 1, size * wide * world, reduces)
            count.add("replicate", replicate, 1, size // ranks * wide * world)

    for layer in range(layers):
        if not block(c, layer)[2]:
            continue
        moe_layers += 1
        rows = positions * c["num_experts_per_tok"]
        row, weight = rows * c["hidden_size"] * narrow, rows * wide
        recompute = parallel["recompute"]
        again = recompute in ("block", "moe") or (
            recompute.startswith("every:") and layer % int(recompute.split(":")[1]) == 0)
        count.add("expert", ep, 1, c["n_routed_experts"] * 8 * world, micros)  # counts
        passes = 3 if again else 2  # forward, backward, and forward again: rows there, their weights, rows back
        count.add("expert", ep, 3 * micros, 2 * row + weight, passes)
    count.add("world", world, 1, 8 * (world + 1) * world)  # whether every rank has its batch
    count.add("world", world, 1, 8 * (4 + depth) * world)  # counts of tokens and the hash of the order
    count.add("world", world, 1, 8 * 4 * world)  # losses
    count.add("world", world, 1, 8 * world)  # whether to skip
    if moe_layers:
        count.add("world", world, 1, 8 * moe_layers * c["n_routed_experts"] * world)
    count.add("data", shard, 1, 8 * world)  # the gradient norm
    return {group: {"calls": count.calls[group], "bytes": count.bytes[group]} for group in count.bytes}


def main():
    folder = Path(sys.argv[1])
    run = tomllib.loads((folder / "run.toml").read_text())
    config = json.loads((folder / "hf" / "config.json").read_text())
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    steps = [line for line in lines if "comm" in line]
    world = int(sys.argv[2]) if len(sys.argv) > 2 else run["parallel"]["replicate"] * run["parallel"]["shard"]
    expected = step(run, config, world)
    wrong = [line for line in steps if line["comm"] != expected]
    for group, numbers in expected.items():
        print(f"{group:12} {numbers['calls']:6} calls {numbers['bytes']:14} bytes a step")
    for line in wrong[:3]:
        print(f"step {line['step']}: {line['comm']}")
    print(f"bytes: {len(steps) - len(wrong)} of {len(steps)} steps as the formula says")
    return 1 if wrong or not steps else 0


if __name__ == "__main__":
    sys.exit(main())
