#!/usr/bin/env python3
"""No rank holds the model: 4 ranks of a bench-108m of 16 layers (ep 2), each in a memory cgroup of half the model's
fp32 training state, train, save, export, resume from the checkpoint and load the export.

  check_memory.py [--steps N]

Prints their peak of resident memory. Needs root and the memory controller of cgroups; says so and ends well where
either is missing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DSV3 = ROOT / "build" / "release" / "bin" / "dsv3"
RANKS = 4


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


def run(groups, folder, port, flags):
    """The ranks of one job, each in its group; their peak bytes by rank 0's metrics are in the run folder."""
    ranks = []
    for rank, group in enumerate(groups):
        environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(RANKS),
                       "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                       "OMP_NUM_THREADS": "1"}
        enter = f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"'
        command = ["sh", "-c", enter, str(DSV3), "train", str(folder / "run.toml"), *flags]
        ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      text=True))
    errors = [rank.communicate()[1].strip() for rank in ranks]
    for rank, process in enumerate(ranks):
        if process.returncode != 0:
            raise SystemExit(f"check_memory: {' '.join(flags)}: rank {rank} ended with code {process.returncode} "
                             f"(-9: over its limit): {errors[rank]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each of the three jobs")
    steps = parser.parse_args().steps
    found = controller() if os.geteuid() == 0 else None
    if not found:
        print("check_memory: skipped, no memory cgroup can be made here")
        return
    parent, limit_file = found
    folder = Path(tempfile.mkdtemp(prefix="dsv3-memory-"))
    groups = [parent / f"dsv3-{os.getpid()}-{rank}" for rank in range(RANKS)]
    try:
        (folder / "run.toml").write_text(
            f'[model]\npreset = "bench-108m"\nnum_hidden_layers = 16\nnum_nextn_predict_layers = 0\n'
            f'[data]\ntrain = "{ROOT}/tests/golden/trajectory/text"\nseq_len = 32\n'
            f'[train]\nglobal_batch = 4\nmicro_batch = 1\n'
            f'[parallel]\nshard = {RANKS}\nep = 2\nreshard = "after_forward"\n'
            f'[checkpoint]\nevery = {steps}\n')
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
            run(groups, folder, 29611 + number, [f"--train.out={out}", f"--train.steps={until}", *flags])
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
            print(f"{name}: {RANKS} ranks, {len(lines)} lines of metrics, rank 0 peaked at "
                  f"{lines[-1]['mem_bytes'] / 1e9:.3f} GB resident", flush=True)
    finally:
        for group in groups:
            if group.exists():
                group.rmdir()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
