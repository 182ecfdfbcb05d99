#!/usr/bin/env python3
"""Kills dsv3 train at each system call that a save consists of, and lets each fail once; the run must go on as if nothing had been.

  tools/check_kills.py [--every N] [--dsv3 PATH]      needs strace; --every N: each N-th place alone

For every call of write, fsync, rename and mkdir of a run that saves each step: the process is killed just there (strace's
inject), the run is resumed, and ends with the metrics and weights of an undisturbed run; no checkpoint that was passed by
was invalid. Then the same calls fail once with EIO or ENOSPC: the run ends well, or says why and can be resumed.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from inject import count_calls, run

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / "tests" / "golden" / "trajectory" / "run.toml"
STEPS = 3
CALLS = ("mkdir", "rename", "fsync", "write")
MEASURED = ("tokens_per_s", "step_s", "data_s", "comm_s", "save_s", "mem_bytes")


def command(dsv3, out):
    return [str(dsv3), "train", str(RUN), f"--train.steps={STEPS}", "--train.dtype=fp32", "--checkpoint.every=1",
            "--checkpoint.keep_last=2", "--checkpoint.resume=auto", "--model.init=", f"--train.out={out}"]


def result(out):
    """What a finished run left: metrics without times, and the exported weights."""
    lines = [json.loads(line) for line in open(out / "metrics.jsonl")]
    return [{k: v for k, v in line.items() if k not in MEASURED} for line in lines], \
        (out / "hf" / "model.safetensors").read_bytes()


def disturb(dsv3, aside, inject, expected):
    """None, or what went wrong."""
    out = aside / "run"
    shutil.rmtree(out, ignore_errors=True)
    first = run(command(dsv3, out), inject, aside / "log")
    if first.returncode == 0 and "error" in inject:
        return None if result(out) == expected else "a run that saw the error ended otherwise"
    if "error" in inject and first.returncode not in (0, 1):
        return f"code {first.returncode}: {first.stderr}"
    again = run(command(dsv3, out))
    if again.returncode != 0:
        return f"cannot be resumed: {again.stderr}"
    if "is not valid" in again.stderr:
        return f"left an invalid checkpoint: {again.stderr}"
    if list((out / "checkpoints").glob("*.tmp")):
        return "left temporary folders"
    return None if result(out) == expected else "ended otherwise"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    if shutil.which("strace") is None:
        print("check_kills: skipped, strace is not installed")
        return 0
    failures = places = 0
    with tempfile.TemporaryDirectory() as aside:
        aside = Path(aside)
        subprocess.run(command(arguments.dsv3, aside / "whole"), check=True, capture_output=True)
        expected = result(aside / "whole")
        for call in CALLS:
            calls = count_calls(command(arguments.dsv3, aside / "counted"), aside / "count", call)
            shutil.rmtree(aside / "counted")
            for number in range(1, calls + 1, arguments.every):
                for what in ("signal=KILL", "error=EIO", "error=ENOSPC"):
                    inject = f"{call}:{what}:when={number}"
                    places += 1
                    wrong = disturb(arguments.dsv3, aside, inject, expected)
                    if wrong:
                        failures += 1
                        print(f"{inject}: {wrong}")
            print(f"{call}: {calls} calls")
    print(f"check_kills: {places} disturbed runs, {failures} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
