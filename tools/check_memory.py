#!/usr/bin/env python3
"""No rank holds the model, and a rank holds what a formula says.

  check_memory.py [--steps N]

Limit: 4 ranks of a bench-108m of 16 layers (ep 2), each in a memory cgroup of half the model's fp32 training state,
train, save, export, resume from the checkpoint, load the export, evaluate and generate. Needs root and the memory controller of cgroups;
says so where either is missing.

Formula: the peak of resident memory of rank 0 (VmHWM) in several layouts is within 10% of state + buffers + what a
process takes with a model of nearly nothing. Sequences are short: activations, which the formula leaves out, weigh
nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from bytes import NARROW, WIDE, block, buffer

ROOT = Path(__file__).resolve().parents[1]
DSV3 = ROOT / "build" / "release" / "bin" / "dsv3"
RANKS = 4
REDUCING = 4  # flat units whose reduction may be under way behind backward (parallel/step.cpp)
NEARLY_NOTHING = ["--model.hidden_size=64", "--model.vocab_size=512", "--model.num_hidden_layers=2",
                  "--model.intermediate_size=64", "--model.moe_intermediate_size=32"]
LAYOUTS = [  # ranks, ep, dtype, flags
    (1, 1, "fp32", []), (2, 1, "fp32", []), (2, 2, "fp32", []), (4, 1, "fp32", []), (4, 2, "fp32", []),
    (2, 2, "bf16", []), (4, 2, "fp32", ["--model.num_hidden_layers=16"]),
    (4, 2, "fp32", ["--parallel.replicate=2", "--parallel.shard=2", "--model.num_nextn_predict_layers=2"]),
    (2, 1, "fp32", ["--model.n_routed_experts=64", "--model.moe_intermediate_size=512", "--model.num_hidden_layers=4"])]


def controller():
    """The folder of the memory controller and the name of its limit, or None."""
    for folder, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        probe = Path(folder) / f"dsv3-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError:
            continue
        there = (probe / limit).exists()
        probe.rmdir()
        if there:
            return Path(folder), limit
    return None


def run(groups, port, arguments):
    """The ranks of one job of dsv3, each in its group."""
    ranks = []
    for rank, group in enumerate(groups):
        environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS),
                       "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                       "OMP_NUM_THREADS": "1"}
        enter = f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"'
        command = ["sh", "-c", enter, str(DSV3), *map(str, arguments)]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      text=True))
    errors = [rank.communicate()[1].strip() for rank in ranks]
    for rank, process in enumerate(ranks):
        if process.returncode != 0:
            raise SystemExit(f"check_memory: {' '.join(map(str, arguments))}: rank {rank} ended with code {process.returncode} "
                             f"(-9: over its limit): {errors[rank]}")


def run_file(layers, world, ep, dtype):
    return (f'[model]\npreset = "bench-108m"\nnum_hidden_layers = {layers}\nnum_nextn_predict_layers = 0\n'
            f'[data]\ntrain = "{ROOT}/tests/golden/trajectory/text"\nseq_len = 32\n'
            f'[train]\nglobal_batch = {world}\nmicro_batch = 1\ndtype = "{dtype}"\n'
            f'[parallel]\nshard = {world}\nep = {ep}\nreshard = "after_forward"\n')


def limit(steps):
    found = controller() if os.geteuid() == 0 else None
    if not found:
        print("limit: skipped, no memory cgroup can be made here")
        return
    parent, limit_file = found
    folder = Path(tempfile.mkdtemp(prefix="dsv3-memory-"))
    groups = [parent / f"dsv3-{os.getpid()}-{rank}" for rank in range(RANKS)]
    try:
        (folder / "run.toml").write_text(run_file(16, RANKS, 2, "fp32") + f'[checkpoint]\nevery = {steps}\n')
        checked = subprocess.run([DSV3, "config", "check", folder / "run.toml", "--train.steps=1", "--json"],
                                 check=True, capture_output=True, text=True)
        # Master, gradient and two moments of every parameter.
        state = 16 * json.loads(checked.stdout)["parameters"]
        for group in groups:
            group.mkdir()
            (group / limit_file).write_text(str(state // 2))
        print(f"training state {state / 1e9:.3f} GB, a rank's limit {state / 2e9:.3f} GB, its share "
              f"{state / RANKS / 1e9:.3f} GB", flush=True)
        first, loaded = folder / "first", folder / "loaded"
        jobs = {"train, save, export": (first, steps, []),
                "resume": (first, 2 * steps, ["--checkpoint.resume=auto"]),
                "load": (loaded, steps, [f"--model.init={first}/hf"])}
        for number, (name, (out, until, flags)) in enumerate(jobs.items()):
            run(groups, 29611 + number,
                ["train", folder / "run.toml", f"--train.out={out}", f"--train.steps={until}", *flags])
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            peak = lines[-1]["mem_bytes"]
            print(f"{name}: {RANKS} ranks, {len(lines)} lines of metrics, rank 0 peaked at "
                  f"{peak / 1e9:.3f} GB resident", flush=True)
            # What metrics say of memory has to agree with what the kernel allowed and with what has to be there.
            if not state / RANKS < peak < state // 2:
                raise SystemExit(f"check_memory: {name}: mem_bytes of metrics is {peak}, a rank's share is "
                                 f"{state // RANKS}, its limit {state // 2}")
        # Without gradients and moments: less than the weights alone.
        for group in groups:
            (group / limit_file).write_text(str(state // 5))
        data = f"{ROOT}/tests/golden/trajectory/text"
        run(groups, 29620, ["eval", "--model", first, "--data", data, "--seq-len", "32", "--batches", "2",
                            "--parallel.ep=2"])
        run(groups, 29621, ["generate", "--model", first, "--prompt", "In the", "--max-new-tokens", "4",
                            "--parallel.ep=2"])
        print(f"eval, generate: {RANKS} ranks of {state / 5e9:.3f} GB, the weights are {state / 4e9:.3f} GB", flush=True)
    finally:
        for group in groups:
            if group.exists():
                group.rmdir()
        shutil.rmtree(folder)


def expected(run, config, world):
    """(bytes of the state of a rank, bytes of the buffers at their peak)"""
    shard, ep = world // run["parallel"]["replicate"], run["parallel"]["ep"]
    wide, narrow = WIDE[run["train"]["dtype"]], NARROW[run["train"]["dtype"]]
    state = 0

    def unit(sizes, parts, ranks):
        """(bytes unsharded, bytes of its whole gradient) of a flat unit; adds its shard to the state."""
        nonlocal state
        elements = buffer(sizes, parts, ranks)
        state += elements // ranks * 4 * wide  # master, gradient, two moments
        return (elements * narrow if ranks > 1 or narrow != wide else 0, elements * wide if ranks > 1 else 0)

    table = config["vocab_size"] * config["hidden_size"]
    tied = config.get("tie_word_embeddings")
    shared = [unit([table], 1, shard), unit([config["hidden_size"]] + ([] if tied else [table]), 1, shard)]
    blocks = []
    for layer in range(config["num_hidden_layers"] + config.get("num_nextn_predict_layers", 0)):
        dense, experts, _ = block(config, layer)
        blocks.append([unit(dense, 1, shard)] + ([unit(experts, ep, shard // ep)] if experts else []))

    def weights(units):
        return sum(unit[0] for unit in units)

    def grads(units):
        return sum(unit[1] for unit in units)

    # Reductions hold a gradient and as much again for what is received; an all-gather its copies, kept for the next.
    peak = weights(shared) + 2 * grads(shared)
    for layer, units in enumerate(blocks):
        behind = [unit for later in blocks[layer + 1:] for unit in later][:REDUCING]
        peak = max(peak, weights(shared) + grads(shared) + weights(units) + grads(units) + 2 * grads(behind)
                   + 2 * (weights(blocks[layer - 1]) if layer > 0 else 0))
    copies = max(unit[0] for units in [shared, *blocks] for unit in units) if shard > 1 else 0
    return state, peak + copies


def formula(steps):
    """Number of layouts whose peak is not what the formula says."""
    def measure(world, ep, dtype, flags):
        """(peak bytes, the run, config.json)"""
        with tempfile.TemporaryDirectory(prefix="dsv3-memory-") as folder:
            folder = Path(folder)
            (folder / "run.toml").write_text(run_file(10, world, ep, dtype))
            subprocess.run([DSV3, "train", folder / "run.toml", "--nproc", str(world), f"--train.steps={steps}",
                            f"--train.out={folder}/out", *flags], check=True, capture_output=True,
                           env={**os.environ, "OMP_NUM_THREADS": "1"})
            lines = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
            return (lines[-1]["mem_bytes"], tomllib.loads((folder / "out" / "run.toml").read_text()),
                    json.loads((folder / "out" / "hf" / "config.json").read_text()))

    wrong = 0
    for world, ep, dtype, flags in LAYOUTS:
        process = measure(world, ep, dtype, NEARLY_NOTHING)[0]
        peak, run_values, config = measure(world, ep, dtype, flags)
        state, buffers = expected(run_values, config, world)
        ratio = peak / (process + state + buffers)
        wrong += not 0.9 <= ratio <= 1.1
        print(f"formula: {world} ranks, ep {ep}, {dtype} {' '.join(flags)}: process {process / 1e9:.3f} + state "
              f"{state / 1e9:.3f} + buffers {buffers / 1e9:.3f} GB, measured {peak / 1e9:.3f}: {ratio:.3f}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each job")
    steps = parser.parse_args().steps
    limit(steps)
    wrong = formula(steps)
    print(f"check_memory: {wrong} of {len(LAYOUTS)} layouts more than 10% away from the formula")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
