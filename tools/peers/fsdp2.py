"""transformers under FSDP2 (fully_shard, Gloo), one process a rank: the peer of `dsv3 train --nproc N`.

  fsdp2.py bench --ranks 2 --dtype fp32|bf16              a step of bench-108m per line "go", as bench_peer.py
  fsdp2.py train --ranks 2 --model DIR --tokens F --steps N --lr X     losses and gradient norms as JSON lines

train: tokens [steps, sequences, S + 1] int64; each step's sequences are split evenly, AdamW (0.9, 0.95, decay 0.1 on
matrices), no clipping. bf16 is mixed precision: bf16 parameters in compute, fp32 masters and gradient sums.
"""

import argparse
import os
import sys
import tempfile

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from bench_peer import BATCH, CONFIG, LENGTH, memory_bytes, say, timed_step
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM


def shard(model, dtype, ranks):
    mesh = init_device_mesh("cpu", (ranks,))
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if dtype == "bf16" else None, reduce_dtype=torch.float32
    )
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    return model


def adamw(model, lr):
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
              {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)


def bench(rank, arguments):
    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**CONFIG, experts_implementation=arguments.experts)).train()
    shard(model, arguments.dtype, arguments.ranks)
    optimizer = adamw(model, 3e-4)
    if rank == 0:
        say(ready=True, threads=torch.get_num_threads(), tokens_per_step=BATCH * LENGTH)
    go = torch.ones(1)
    while True:
        if rank == 0:
            go.fill_(1 if sys.stdin.readline() else 0)
        dist.broadcast(go, 0)
        if not go.item():
            break
        tokens = torch.randint(CONFIG["vocab_size"], (BATCH // arguments.ranks, LENGTH))
        seconds, loss = timed_step(model, optimizer, tokens)
        if rank == 0:
            say(seconds=seconds, loss=loss)
    memory = torch.tensor([memory_bytes("VmRSS"), memory_bytes("VmHWM")])
    dist.all_reduce(memory)  # of all ranks together
    if rank == 0:
        say(rss_bytes=memory[0].item(), peak_bytes=memory[1].item())


def train(rank, arguments):
    model = DeepseekV3ForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    ).train()
    shard(model, "fp32", arguments.ranks)
    optimizer = adamw(model, arguments.lr)
    steps = torch.from_numpy(np.load(arguments.tokens))
    for ids in steps[: arguments.steps]:
        part = ids.chunk(arguments.ranks)[rank]
        logits = model(part[:, :-1], use_cache=False).logits
        # FSDP averages gradients over the ranks; all have as many targets, so the mean is the global mean.
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), part[:, 1:].flatten())
        loss.backward()
        total = loss.detach().clone()
        dist.all_reduce(total)
        squares = torch.zeros((), dtype=torch.float64)
        for parameter in model.parameters():
            squares += parameter.grad.to_local().double().square().sum()
        dist.all_reduce(squares)
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0:
            say(loss=total.item() / arguments.ranks, grad_norm=squares.sqrt().item())


def run(rank, arguments, store, stdin):
    if rank == 0:
        sys.stdin = os.fdopen(stdin)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=arguments.ranks)
    {"bench": bench, "train": train}[arguments.mode](rank, arguments)
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["bench", "train"])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--experts", choices=["eager", "grouped_mm"], default="grouped_mm")
    parser.add_argument("--model")
    parser.add_argument("--tokens")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-3)
    arguments = parser.parse_args()
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory() as folder:
        stdin = os.dup(0)
        mp.start_processes(run, (arguments, f"{folder}/store", stdin), nprocs=arguments.ranks, start_method="fork")


if __name__ == "__main__":
    main()
