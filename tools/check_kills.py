#!/usr/bin/env python3
"""Kills dsv3 train at each system call by which it changes the disk, and lets each fail once; what it leaves must be whole or absent.

  tools/check_kills.py [--every N] [--dsv3 PATH]      needs strace; --every N: each N-th place alone

A small run saves each step: first in its own thread, where strace meets each call of every save, then with checkpoint.async,
where the calls of the writing threads are disturbed, in all saves alike. At each place:
  - it is killed just there, and resumed: it ends with the metrics, weights and checkpoints of an undisturbed run;
  - the call fails once with EIO or ENOSPC: the run ends well, having warned of a checkpoint that it could not save; or it ends
    with 1 and one line that says why, and is resumed like a killed one. Nothing half-written is left either way.
No checkpoint that is left differs by a byte from an undisturbed run's. Then every second write, and every second fsync, is
interrupted, and training, resuming and verifying run on files whose transfers are cut short at every turn (tools/short_io.c).
Undisturbed, on one rank and on two, all that a checkpoint holds is synced before it gets its name, and that before it is said.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from faults import FAULTS, ROOT, ShortTransfers, places, require_strace, run, unsynced

RUN = ROOT / "tests" / "golden" / "trajectory" / "run.toml"
TOKENIZER = ROOT / "tests" / "data" / "tokenizers" / "llama3"
# One layer of experts, few tensors with moments: a save of 150 writes, not of 800.
SMALL = ["--model.num_hidden_layers=1", "--model.first_k_dense_replace=0", "--model.num_nextn_predict_layers=0",
         '--optim.freeze=["*proj*", "*layernorm*", "lm_head*", "*embed*"]']
MEASURED = ("tokens_per_s", "step_s", "data_s", "comm_s", "save_s", "mem_bytes")


def owner(path):
    """What a file belongs to."""
    return "saves" if path.startswith("checkpoints") else path.split("/")[0].split(".tmp")[0] or "the folder"


class Training:
    def __init__(self, dsv3, aside, asynchronous):
        self.aside, self.out, self.asynchronous = aside, aside / "run", asynchronous
        # The same folder each time: a checkpoint holds its name.
        self.command = [str(dsv3), "train", str(RUN), "--train.steps=2", "--train.dtype=fp32", "--checkpoint.every=1",
                        "--checkpoint.keep_last=1", "--checkpoint.resume=auto", "--model.init=", *SMALL,
                        f"--checkpoint.async={json.dumps(asynchronous)}", f"--train.out={self.out}"]
        self.clear()
        self.first, self.others = places(self.command, aside / "log", self.out)
        self.expected = self.content()
        # The first checkpoint, which the second removes: of a run that is killed before it does.
        self.clear()
        removal = next(place for place in self.first if place.call == "rename" and place.path.endswith(".old.tmp"))
        run(self.command, f"rename:signal=KILL:when={removal.number}", aside / "log")
        self.checkpoints = {path: bytes for path, bytes in self.content().items() if path.startswith("checkpoints/")}
        assert {path.split("/")[1] for path in self.checkpoints} == {"step-1", "step-2"}
        assert all(self.checkpoints[path] == self.expected[path] for path in self.checkpoints if path in self.expected)

    def clear(self):
        shutil.rmtree(self.out, ignore_errors=True)

    def content(self):
        """Bytes by path; of the metrics what is not measured."""
        found = {str(path.relative_to(self.out)): path.read_bytes() for path in self.out.rglob("*") if path.is_file()}
        found.pop("log.txt", None)
        if "metrics.jsonl" in found:
            lines = [json.loads(line) for line in found["metrics.jsonl"].decode().splitlines()]
            found["metrics.jsonl"] = [{k: v for k, v in line.items() if k not in MEASURED} for line in lines]
        return found

    def ended_well(self, may_lack):
        """None, or how the folder differs from an undisturbed run's; may_lack: checkpoints that could not be saved."""
        left = self.content()
        for path, bytes in left.items():
            if bytes != (self.checkpoints if path.startswith("checkpoints/") else self.expected).get(path):
                return f"{path} is {'another' if path in self.expected else 'left over'}"
        steps = {path.split("/")[1] for path in left if path.startswith("checkpoints/")}
        for path in self.checkpoints if steps else ():
            if path.split("/")[1] in steps and path not in left:
                return f"{path} is missing"
        missing = [path for path in self.expected if path not in left and not (may_lack and path.startswith("checkpoints/"))]
        return f"{missing} are missing" if missing else None

    def disturb(self, place, fault):
        """None, or what went wrong."""
        self.clear()
        first = run(self.command, f"{place.call}:{fault}:when={place.number}", self.aside / "log")
        if "error" in fault:
            if first.returncode not in (0, 1) or "internal error" in first.stderr:
                return f"code {first.returncode}: {first.stderr}"
            lines = [line for line in first.stderr.splitlines() if not line.startswith("dsv3: warning: ")]
            # The fault of a writing thread may also meet the main thread, in just this line, or in its output.
            if self.asynchronous:
                lines = [line for line in lines if not line.startswith("dsv3: error: standard output: ")]
            fewest = 0 if self.asynchronous else first.returncode
            if not fewest <= len(lines) <= first.returncode or not all(line.startswith("dsv3: error: ") for line in lines):
                return f"code {first.returncode} and these lines: {first.stderr}"
            left = [path.name for path in self.out.rglob("*.tmp*")]
            if left and "could not be removed" not in first.stderr:
                return f"left {left}, saying: {first.stderr}"
            if first.stderr.count("could not be saved") > 1 and not self.asynchronous:
                return f"one fault made two failures: {first.stderr}"
            if first.returncode == 0:
                return None if left else self.ended_well(may_lack="could not be saved" in first.stderr)
        again = run(self.command)
        if again.returncode != 0:
            return f"cannot be resumed: {again.stderr}"
        if "is not valid" in again.stderr:
            return f"left an invalid checkpoint: {again.stderr}"
        said = self.ended_well(may_lack=False)
        return f"resumed: {said}" if said else None

    def check(self, every):
        """(disturbed runs, wrong ones)"""
        name = "asynchronous" if self.asynchronous else "synchronous"
        # The first opens of the main thread, of the same numbers, are the program's libraries.
        met = [place for place in self.others if place.call != "openat"] if self.asynchronous else self.first
        if not any(owner(place.path) == "saves" for place in met):
            print(f"{name}: no call of a save was met", flush=True)
            return 0, 1
        for call in dict.fromkeys(place.call for place in met):
            of = Counter(owner(place.path) for place in met if place.call == call)
            print(f"{name}: {call}: " + ", ".join(f"{count} of {what}" for what, count in of.items()), flush=True)
        runs = wrong = 0
        for place in met[::every]:
            for fault in FAULTS:
                said = self.disturb(place, fault)
                runs += 1
                if said:
                    wrong += 1
                    print(f"{name}: {place.call}:{fault}:when={place.number} ({place.path}): {said}", flush=True)
        return runs, wrong

    def check_order(self):
        """(disturbed runs, wrong ones): none, and what is not synced in time, alone and by two ranks that copy a tokenizer."""
        wrong = 0
        for more in ([], ["--nproc=2", f"--data.tokenizer={TOKENIZER}"]):
            self.clear()
            places([*self.command, *more], self.aside / "log", self.out)
            for line in unsynced(self.aside / "log", self.out):
                wrong += 1
                print(line, flush=True)
        return 0, wrong

    def check_transfers(self):
        """(disturbed runs, wrong ones): interrupted and short ones."""
        said = []
        for call in ("write", "fsync"):
            self.clear()
            done = run(self.command, f"{call}:error=EINTR:when=1+2", self.aside / "log")
            # Code 1: standard output isn't a file, and its lines are not written again.
            said.append(f"{call} interrupted: {done.stderr}" if done.returncode not in (0, 1) else self.ended_well(False))
        short = ShortTransfers(self.aside)
        self.clear()
        said += [short.run(self.command), self.ended_well(False)]
        # Resumed from the first checkpoint, to the same end.
        shutil.rmtree(self.out / "checkpoints")
        shutil.rmtree(self.out / "hf")
        for path, bytes in self.checkpoints.items():
            if path.startswith("checkpoints/step-1/"):
                (self.out / path).parent.mkdir(parents=True, exist_ok=True)
                (self.out / path).write_bytes(bytes)
        said += [short.run(self.command), self.ended_well(False)]
        said.append(short.run([self.command[0], "ckpt", "verify", str(self.out)]))
        wrong = [line for line in said if line]
        for line in wrong:
            print(line, flush=True)
        return 5, len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dsv3", default=ROOT / "build" / "release" / "bin" / "dsv3")
    parser.add_argument("--every", type=int, default=1)
    arguments = parser.parse_args()
    require_strace()
    os.environ["OMP_NUM_THREADS"] = "1"  # small: a second thread costs more than it gives
    runs = wrong = 0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as aside:
        for asynchronous in (False, True):
            training = Training(arguments.dsv3, Path(aside), asynchronous)
            for more, bad in (training.check_order(), training.check_transfers(), training.check(arguments.every)):
                runs, wrong = runs + more, wrong + bad
    print(f"check_kills: {runs} disturbed runs, {wrong} wrong, {time.monotonic() - begin:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
