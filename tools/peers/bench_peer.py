"""Trains bench-108m with transformers, one step per line "go" on stdin, so that a driver can alternate programs.

  bench_peer.py --dtype fp32|bf16 --experts eager|grouped_mm [--steps N]

Prints a JSON line when ready, one a step (seconds, loss), and at the end (N steps, or end of input) one with
rss_bytes (resident after the last step) and peak_bytes (VmHWM). bf16: parameters, gradients and moments in bf16.
"""

import argparse
import json
import sys
import time

import torch
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

CONFIG = {
    "vocab_size": 8192, "hidden_size": 512, "num_hidden_layers": 8, "first_k_dense_replace": 1,
    "intermediate_size": 1536, "moe_intermediate_size": 256, "num_attention_heads": 8, "num_key_value_heads": 8,
    "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "q_lora_rank": 256, "kv_lora_rank": 128,
    "n_routed_experts": 32, "num_experts_per_tok": 4, "n_shared_experts": 1, "n_group": 8, "topk_group": 4,
    "num_mtp_layers": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
}
BATCH, LENGTH, PARAMETERS = 4, 1024, 108_129_792


def memory_bytes(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))


def timed_step(model, optimizer, tokens):
    """(seconds, loss) of one optimizer step on tokens [B, S]."""
    start = time.perf_counter()
    loss = model(tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    value = loss.item()
    return time.perf_counter() - start, value


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=["fp32", "bf16"], required=True)
    parser.add_argument("--experts", choices=["eager", "grouped_mm"], required=True)
    parser.add_argument("--steps", type=int, default=0, help="0: until the input ends")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = DeepseekV3ForCausalLM(DeepseekV3Config(**CONFIG, experts_implementation=arguments.experts)).train()
    assert model.config._experts_implementation == arguments.experts
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    if arguments.dtype == "bf16":
        model.to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)

    say(ready=True, threads=torch.get_num_threads(), tokens_per_step=BATCH * LENGTH)
    for step, _ in enumerate(sys.stdin, 1):
        seconds, loss = timed_step(model, optimizer, torch.randint(CONFIG["vocab_size"], (BATCH, LENGTH)))
        say(step=step, seconds=seconds, loss=loss)
        if step == arguments.steps:
            break
    say(rss_bytes=memory_bytes("VmRSS"), peak_bytes=memory_bytes("VmHWM"))


if __name__ == "__main__":
    main()
