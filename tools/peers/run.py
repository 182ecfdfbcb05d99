"""Compares dsv3 with transformers, live.

  run.py [--dsv3 PATH] [--seed N]     goldens made anew; dsv3 trace on every golden and on a random configuration; a
                                      folder that dsv3 train exported, read by from_pretrained; 20 steps on two
                                      ranks against transformers under FSDP2; two ranks started by torchrun, on one
                                      host and on two (network namespaces);
                                      checkpoints read by Python and of Python (checkpoints.py)
  run.py [--dsv3 PATH] NAME...        dsv3 trace on these goldens alone
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE.parent / "golden"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
import checkpoints
import make
import numpy as np
import torch
from cases import BASE, CASES
from reference import load
from safetensors.torch import load_file
from transformers.utils import logging

LIMIT = {"fp64": 1e-11, "fp32": 1e-5}
BATCH = ("tokens", "mask", "labels", "documents")


def trace(dsv3, folder, out, dtype, flags=()):
    """dsv3 trace --grads of a golden folder's batch, as tensors by name."""
    command = [dsv3, "trace", "--model", folder, "--dtype", dtype, "--grads", "--out", out]
    for name in BATCH:
        if (folder / f"{name}.npy").exists():
            command += [f"--{name}", folder / f"{name}.npy"]
    subprocess.run([*map(str, command), *flags], check=True)
    return load_file(out)


def differences(folder, ours, dtype):
    """What differs from expected.safetensors, one line a tensor; positions that mean nothing are left out."""
    expected = load_file(folder / "expected.safetensors")
    config = json.loads((folder / "config.json").read_text())
    mask = folder / "mask.npy"
    alive = torch.from_numpy(np.load(mask)).bool() if mask.exists() else torch.ones(expected["logits"].shape[:2]).bool()
    alive_at = {f"mtp.{k}.": expected[f"mtp.{k}.alive"].bool() for k in range(1, 4) if f"mtp.{k}.alive" in expected}
    alive_at |= {f"router.{config['num_hidden_layers'] + k}.": a for k, a in enumerate(list(alive_at.values()))}
    total = sum(t.square().sum() for n, t in expected.items() if n.startswith("grad.")) ** 0.5
    for name, right in expected.items():
        if name.endswith(".alive"):
            continue
        if name not in ours:
            yield f"{name}: missing"
            continue
        left = ours[name]
        if left.shape != right.shape:
            yield f"{name}: shape {list(left.shape)}, expected {list(right.shape)}"
            continue
        if right.shape[:2] == alive.shape and not name.startswith("grad."):
            here = next((a for prefix, a in alive_at.items() if name.startswith(prefix)), alive)
            left, right = left[here], right[here]
        if right.dtype == torch.int64:
            if not torch.equal(left, right):
                yield f"{name}: differs"
            continue
        error = ((left.double() - right).norm() / max(right.norm(), 1e-6 * total)).item()
        if not error <= LIMIT[dtype]:
            yield f"{name}: relative error {error:.3g}, expected at most {LIMIT[dtype]}"
    yield from (f"{name}: a gradient that transformers does not have" for name in ours
                if name.startswith("grad.") and name not in expected)


def check(dsv3, folder, name):
    flags = json.loads((folder / "meta.json").read_text())["flags"]
    failed = False
    for dtype in LIMIT:
        with tempfile.TemporaryDirectory() as aside:
            ours = trace(dsv3, folder, Path(aside) / "trace.safetensors", dtype, flags)
            found = list(differences(folder, ours, dtype))
        failed |= bool(found)
        print(f"trace {name} {dtype}: {'equal' if not found else f'{len(found)} tensors differ'}", flush=True)
        print("".join(f"  {line}\n" for line in found[:10]), end="")
    return not failed


def random_case(seed):
    """A configuration of random sizes, in the form of cases.py."""
    pick = np.random.Generator(np.random.PCG64(seed))
    groups = int(pick.choice([1, 2, 4]))
    kept = int(pick.integers(1, groups + 1))
    heads, dense, layers = int(pick.integers(1, 5)), int(pick.integers(0, 3)), int(pick.integers(2, 5))
    depth = int(pick.integers(0, 3))
    config = {
        **BASE, "vocab_size": int(pick.integers(50, 200)), "hidden_size": 8 * int(pick.integers(3, 10)),
        "num_hidden_layers": layers, "first_k_dense_replace": dense, "num_attention_heads": heads,
        "num_key_value_heads": heads, "q_lora_rank": [None, 20][int(pick.integers(2))],
        "kv_lora_rank": int(pick.integers(5, 30)), "qk_nope_head_dim": int(pick.integers(3, 20)),
        "qk_rope_head_dim": 2 * int(pick.integers(1, 8)), "v_head_dim": int(pick.integers(3, 24)),
        "n_group": groups, "topk_group": kept, "n_routed_experts": 8 * groups,
        "num_experts_per_tok": int(pick.integers(1, 6)),
        "moe_intermediate_size": int(pick.integers(3, 20)), "intermediate_size": int(pick.integers(10, 60)),
        "n_shared_experts": int(pick.integers(1, 3)), "num_nextn_predict_layers": depth,
    }
    switches = {"balance": "sequence", "alpha": 0.1, "indicator": str(pick.choice(["unbiased", "selected"]))}
    batch = {"right": [0, 3], "pad": 1}
    return {"about": f"random, seed {seed}", "config": config, "switches": switches, "batch": batch}


def check_export(dsv3, aside):
    """A folder written by dsv3 train loads in transformers without a word and gives dsv3's own logits."""
    run = ROOT / "tests" / "golden" / "trajectory" / "run.toml"
    subprocess.run([dsv3, "train", run, "--train.steps=3", f"--train.out={aside}/run"], check=True)
    folder = aside / "run" / "hf"
    np.save(folder / "tokens.npy", np.arange(32, dtype=np.int64).reshape(2, 16))
    ours = trace(dsv3, folder, aside / "trace.safetensors", "fp32")["logits"]
    with torch.no_grad():
        theirs = load(folder, torch.float32).model(torch.arange(32).reshape(2, 16)).logits
    error = ((ours - theirs).norm() / theirs.norm()).item()
    print(f"export: transformers' logits from RUN/hf: relative error {error:.3g}")
    return error <= LIMIT["fp32"]


def check_fsdp2(dsv3, aside):
    """20 steps of FSDP2 on 2 ranks against dsv3's 2 ranks: same weights, same batches."""
    folder, steps, batch, length = ROOT / "tests" / "golden" / "trajectory", 20, 4, 32
    ids = np.fromfile(folder / "text.bin", dtype=np.uint16).astype(np.int64)
    starts = np.arange(steps * batch) * length
    np.save(aside / "steps.npy", np.stack([ids[s : s + length + 1] for s in starts]).reshape(steps, batch, -1))
    answer = subprocess.run(
        [sys.executable, HERE / "fsdp2.py", "train", "--model", folder, "--tokens", aside / "steps.npy",
         "--steps", str(steps), "--lr", "1e-3"], check=True, capture_output=True, text=True)
    theirs = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    out = aside / "fsdp2"
    subprocess.run(
        [dsv3, "train", folder / "run.toml", "--nproc", "2", f"--train.steps={steps}", f"--train.global_batch={batch}",
         "--train.micro_batch=2", "--train.dtype=fp32", "--model.num_nextn_predict_layers=0", "--balance.loss=none",
         "--balance.gamma=0", "--schedule.gamma=[]", "--schedule.lr=[]", "--schedule.warmup_steps=0", "--optim.lr=1e-3",
         "--optim.clip=0", f"--train.out={out}"], check=True, stdout=subprocess.DEVNULL)
    ours = [json.loads(line) for line in open(out / "metrics.jsonl")]
    relative = [{key: abs(a[key] - b[key]) / b[key] for key in ("loss", "grad_norm")} for a, b in zip(ours, theirs)]
    worst = max(row["loss"] for row in relative)
    first = relative[0]
    print(f"fsdp2: step 1 loss {first['loss']:.2g}, gradient norm {first['grad_norm']:.2g}; "
          f"worst loss of {len(relative)} steps {worst:.2g} (relative)")
    return len(relative) == steps and first["loss"] <= 1e-6 and first["grad_norm"] <= 1e-5 and worst <= 0.02


@contextlib.contextmanager
def two_hosts():
    """Two network namespaces that a veth pair joins: their names, or None where they can't be made."""
    names = [f"dsv3-{os.getpid()}{end}" for end in "ab"]

    def ip(*words):
        return subprocess.run(["ip", *words], stderr=subprocess.DEVNULL).returncode == 0

    made = False
    try:
        made = shutil.which("ip") is not None and all(ip("netns", "add", name) for name in names)
        made = made and ip("link", "add", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns",
                           names[1])
        for at, name in enumerate(names if made else []):
            made &= ip("-n", name, "addr", "add", f"10.88.0.{at + 1}/24", "dev", "veth0")
            made &= all(ip("-n", name, "link", "set", link, "up") for link in ("lo", "veth0"))
        yield names if made else None
    finally:
        for name in names if made else []:
            ip("netns", "del", name)


def check_torchrun(dsv3, aside):
    """torchrun's own agent and store start two ranks, on one host and on two; equal to --nproc 2 to the last digit."""
    flags = ["train", ROOT / "tests" / "golden" / "trajectory" / "run.toml", "--train.steps=3", "--train.global_batch=4",
             "--parallel.ep=2"]
    agent = [sys.executable, "-m", "torch.distributed.run", "--no-python", "--rdzv-backend=c10d"]

    def fields(name, commands, **env):
        """The lines of metrics.jsonl that the commands, running together, write: without times and memory."""
        running = [subprocess.Popen([*map(str, command), f"--train.out={aside}/{name}"], stdout=subprocess.DEVNULL,
                                    env=dict(os.environ, OMP_NUM_THREADS="1", **env)) for command in commands]
        if [process.wait() for process in running] != [0] * len(running):
            return []
        rows = [json.loads(line) for line in open(aside / name / "metrics.jsonl")]
        return [{k: v for k, v in row.items() if not k.endswith("_s") and k != "mem_bytes"} for row in rows]

    expected = fields("nproc", [[dsv3, *flags, "--nproc", "2"]])
    one = fields("one", [[*agent, "--nnodes=1", "--nproc-per-node=2", "--rdzv-endpoint=127.0.0.1:0", dsv3, *flags]])
    good = [len(expected) == 3 and one == expected]
    print(f"torchrun: {'equal to' if good[-1] else 'differs from'} --nproc 2")
    refused = subprocess.run([*map(str, [*agent, "--nnodes=1", "--nproc-per-node=2", "--rdzv-endpoint=127.0.0.1:0", dsv3,
                                         *flags, "--train.global_batch=0"])], capture_output=True, text=True)
    reason = refused.stderr.partition("Root Cause")[2]
    good.append(refused.returncode == 1 and "dsv3: error: --train.global_batch" in reason)
    print(f"torchrun's report {'names' if good[-1] else 'DOES NOT NAME'} the error of a rank")
    with two_hosts() as hosts:
        if hosts is None:
            print("torchrun on two hosts: skipped, network namespaces can't be made here (iproute2, root)")
            return good
        two = fields("two", [["ip", "netns", "exec", host, *agent, "--nnodes=2", "--nproc-per-node=1", "--rdzv-id=two",
                              "--rdzv-endpoint=10.88.0.1:29400", f"--rdzv-conf=is_host={1 - at}",
                              f"--local-addr=10.88.0.{at + 1}", dsv3, *flags]
                             for at, host in enumerate(hosts)], GLOO_SOCKET_IFNAME="veth0")
    good.append(two == expected)
    print(f"torchrun on two hosts: {'equal to' if good[-1] else 'differs from'} --nproc 2")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv3", default=str(ROOT / "build" / "release" / "bin" / "dsv3"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    good = [check(arguments.dsv3, make.GOLDEN / name, name) for name in arguments.names or CASES]
    if not arguments.names:
        for script in ("make.py", "trajectory.py", "fp8.py"):
            good.append(subprocess.run([sys.executable, HERE.parent / "golden" / script, "--check"]).returncode == 0)
        with tempfile.TemporaryDirectory() as aside:
            random = Path(aside) / "random"
            make.make("random", random_case(arguments.seed), random)
            good.append(check(arguments.dsv3, random, f"random configuration {arguments.seed}"))
            good.append(check_export(arguments.dsv3, Path(aside)))
            good.append(check_fsdp2(arguments.dsv3, Path(aside)))
            good += check_torchrun(arguments.dsv3, Path(aside))
        with tempfile.TemporaryDirectory() as aside:
            good += checkpoints.check_all(arguments.dsv3, Path(aside))
    print(f"peers: {sum(good)} of {len(good)} comparisons equal")
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()
